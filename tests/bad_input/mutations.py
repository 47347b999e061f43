"""Seeded mutations of the bytes of a file."""

import random

HOW = ("cut", "flipped", "emptied", "doubled", "a huge number", "zeros", "swapped", "random", "text")


def mutated(content: bytes, how: str, generator: random.Random) -> bytes:
    """The content, damaged in one of the ways `HOW`."""
    size = len(content)
    changed = bytearray(content)
    place = generator.randrange(max(1, min(size, 400) if generator.random() < 0.5 else size))
    if how == "cut":
        return content[: generator.randrange(max(1, size))]
    if how == "flipped":
        for _ in range(generator.choice((1, 1, 3, 30)) if size else 0):
            changed[generator.randrange(min(size, generator.choice((64, 1024, size))))] ^= 1 << generator.randrange(8)
    elif how == "emptied":
        return b""
    elif how == "doubled":
        return content[:place] + content[place:] * 2
    elif how == "a huge number":
        changed[place : place + 4] = generator.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x01\x7f"))
    elif how == "zeros":
        changed[place : place + 16] = bytes(16)
    elif how == "swapped":
        other = generator.randrange(max(1, size))
        changed[place : place + 8], changed[other : other + 8] = changed[other : other + 8], changed[place : place + 8]
    elif how == "random":
        changed[place : place + 32] = generator.randbytes(32)
    elif how == "text":
        return _text(content, generator)
    return bytes(changed)


def _text(content: bytes, generator: random.Random) -> bytes:
    """A number or word of a text replaced: JSON, CSV, XML and YAML stay well-formed, but say something else."""
    words = content.split(b'"') if b'"' in content else content.split(b" ")
    numbers = [k for k, word in enumerate(words) if any(digit in word for digit in b"0123456789")]
    for_which = numbers if numbers and generator.random() < 0.7 else list(range(len(words)))
    new = generator.choice(
        (b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"99999999999999999999", b"../../x", b"\x00")
    )
    word = generator.choice(for_which)
    digits = b"0123456789"
    if word in numbers:
        start = next(k for k, byte in enumerate(words[word]) if byte in digits)
        end = next((k for k in range(start, len(words[word])) if words[word][k] not in digits), len(words[word]))
        words[word] = words[word][:start] + new + words[word][end:]
    else:
        words[word] = new
    return (b'"' if b'"' in content else b" ").join(words)
