"""Seeded mutations of the bytes of a file."""

import json
import random
from collections.abc import Iterator
from typing import Any

HOW = ("cut", "flipped", "emptied", "doubled", "a huge number", "zeros", "swapped", "random", "text", "structure")
STRUCTURE = ("structure",)  # for JSON that only reaches its reader whole
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 2**31, 2**63, 10**400, 0.5, -0.5, float("nan"), float("inf"), 1e300, "", "x", "\x00",
    "\ud800", "../../x", "/etc/passwd", "a:b", "5", [], [1], [[1]], ["a"], [None], [float("nan")],
    {}, {"a": 1}, "x" * 3000,
)  # fmt: skip


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
    elif how == "structure":
        return _structure(content, generator)
    return bytes(changed)


def _structure(content: bytes, generator: random.Random) -> bytes:
    """JSON, or a line of JSON lines, with one or two values replaced, left out, told twice or renamed."""
    try:
        tree = json.loads(content)
    except ValueError:
        lines = content.splitlines(keepends=True)
        if len(lines) < 2:
            return _text(content, generator)
        line = generator.randrange(len(lines))
        lines[line] = _structure(lines[line].strip(), generator) + b"\n"
        return b"".join(lines)
    for _ in range(generator.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            return json.dumps(generator.choice(VALUES)).encode()
        group, key = generator.choice(places)
        what = generator.random()
        if what < 0.7:
            group[key] = generator.choice(VALUES)
        elif what < 0.85:
            del group[key]
        elif isinstance(group, list):
            group.insert(key, group[key])
        else:
            group[f"{key}2"] = group.pop(key)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a tree, as the list or dictionary that holds it, and its place there."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


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
