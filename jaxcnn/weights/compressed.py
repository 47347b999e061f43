"""A file of compressed weights (.jxc): shared values, relative indices, Huffman words, and the facts of the network.

It is read without running anything in it. Layout: 8 bytes that name the format; the SHA-256 of all bytes behind it; the
length of the deflated part (uint32, little-endian); this part: the length of the header (the same), the header (JSON),
and the short arrays: codebooks, lengths of words and of blocks, biases; then the Huffman words. Arrays lie in the order
of the header. A file that was cut, or of which a bit changed, is refused.
"""

import hashlib
import json
import math
import pathlib
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.machine import json_text, whole_files
from jaxcnn.text import shown
from jaxcnn.weights import huffman
from jaxcnn.weights.shared import Shared, Streams, restored

MAGIC = b"jaxcnn1\n"
SUFFIX = ".jxc"
DIGEST = hashlib.sha256().digest_size
MOST_INFLATED = 2**30  # largest size of the deflated part, bytes
MOST_WEIGHTS = 2**31  # most values of all arrays: more is no network of ours, and would only exhaust the memory
# A header of some bytes can claim any number of zeros. Networks that were measured have up to 20 weights in a byte.
ANY_WEIGHTS, WEIGHTS_IN_BYTE = 2**22, 2048
Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")
FLOAT, SHARED = "float32", "shared"
_TYPES: dict[str, np.dtype[Any]] = {
    "lengths": np.dtype("u1"),
    "blocks": np.dtype("<u2"),
    "values": np.dtype("<f4"),
}


def packed(arrays: Mapping[str, Shared | np.ndarray], facts: Mapping[str, str]) -> bytes:
    """The bytes of a file with arrays, by name, and facts; equal arrays and facts give equal bytes."""
    entries: list[dict[str, Any]] = []
    short: list[bytes] = []
    words: list[bytes] = []
    for name in sorted(arrays):
        entries.append({"name": name} | _entry(arrays[name], short, words))
    header = json.dumps({"arrays": entries, "facts": dict(sorted(facts.items()))}, separators=(",", ":")).encode()
    deflated = zlib.compress(b"".join([struct.pack("<I", len(header)), header, *short]), 9)
    body = b"".join([struct.pack("<I", len(deflated)), deflated, *words])
    return MAGIC + hashlib.sha256(body).digest() + body


def write(path: pathlib.Path, arrays: Mapping[str, Shared | np.ndarray], facts: Mapping[str, str]) -> int:
    """Write a file; return its size in bytes.

    Raises:
      UserError: it cannot be written.
    """
    content = packed(arrays, facts)
    try:
        whole_files.write(path, content)
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    return len(content)


def read(path: pathlib.Path, wanted: Shapes | None = None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file as float32, by name, and its facts.

    Args:
      path: the file.
      wanted: the shapes that its arrays must have, by name; they are compared before memory is allocated.

    Raises:
      UserError: the file cannot be read, is damaged, or has another format or the arrays of another network.
    """
    return _of_body(path, lambda body: _unpacked(body, wanted))


def facts(path: pathlib.Path) -> dict[str, str]:
    """The facts of a file, without decoding its arrays. Raises UserError as `read` does."""
    return _of_body(path, lambda body: dict(_opened(body)[0]["facts"]))


def _of_body(path: pathlib.Path, take: Callable[[bytes], T]) -> T:
    """Check the checksum of a file, and return `take` of the bytes after it.

    Raises:
      UserError: as `read`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be read: {error.strerror}") from error
    if not content.startswith(MAGIC):
        raise UserError(
            f"{shown(str(path))} is no file of compressed weights; {SUFFIX} files are made by jaxcnn.compress"
        )
    body = content[len(MAGIC) + DIGEST :]
    if hashlib.sha256(body).digest() != content[len(MAGIC) : len(MAGIC) + DIGEST]:
        raise UserError(f"{shown(str(path))} is damaged (its checksum is another); get it again, or make it again")
    try:
        return take(body)
    except OtherNetwork:
        raise
    except UserError as error:
        raise UserError(f"{shown(str(path))} is damaged ({error}); make it again") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, zlib.error) as error:
        raise UserError(f"{shown(str(path))} is no file that jaxcnn.compress writes; make it again") from error


def _entry(array: Shared | np.ndarray, short: list[bytes], words: list[bytes]) -> dict[str, Any]:
    """The header's entry for an array; the parts of the array are added to `short` and `words`."""
    if not isinstance(array, Shared):
        short.append(_bytes("values", array))
        return {"shape": list(array.shape), "kind": FLOAT}
    streams = array.shortest
    encoded = [huffman.encode(streams.codes, array.alphabet)]
    if streams.index_bits:
        encoded.append(huffman.encode(streams.distances, 2**streams.index_bits))
    short.append(_bytes("values", array.codebook))
    for each in encoded:
        short += [_bytes("lengths", each.lengths), _bytes("blocks", each.blocks)]
        words.append(each.bits.tobytes())
    return {
        "shape": list(array.codes.shape),
        "kind": SHARED,
        "values": len(array.codebook),
        "index_bits": streams.index_bits,
        "symbols": len(streams.codes),
        "bytes": [len(each.bits) for each in encoded],
    }


def _bytes(kind: str, array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, _TYPES[kind]).tobytes()


class OtherNetwork(UserError):
    """Raised if arrays have other names or shapes than those of a network."""

    def __init__(self) -> None:
        super().__init__(
            "the file has the weights of another network than the run; give the workdir from which it was made"
        )


class _Reader:
    """Reads arrays from bytes, one after another."""

    def __init__(self, body: bytes) -> None:
        self._body, self._place = body, 0

    def take(self, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """The next `count` numbers of type `dtype`.

        Raises:
          ValueError: fewer numbers are left.
        """
        if not 0 <= count * dtype.itemsize <= len(self._body) - self._place:
            raise ValueError("a part beyond the end")
        array = np.frombuffer(self._body, dtype, count, self._place)
        self._place += count * dtype.itemsize
        return array

    def at_end(self) -> bool:
        return self._place == len(self._body)


def _opened(body: bytes) -> tuple[Any, bytes, bytes]:
    """The header of a body, the bytes of its short arrays, and those of its words."""
    (size,) = struct.unpack_from("<I", body)
    inflate = zlib.decompressobj()
    inflated = inflate.decompress(body[4 : 4 + size], MOST_INFLATED)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("not a whole header")
    (length,) = struct.unpack_from("<I", inflated)
    return json_text.parse(inflated[4 : 4 + length]), inflated[4 + length :], body[4 + size :]


def _unpacked(body: bytes, wanted: Shapes | None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    header, inflated, behind = _opened(body)
    short, words = _Reader(inflated), _Reader(behind)
    shapes = {str(entry["name"]): _shape(entry) for entry in header["arrays"]}
    weights = sum(map(math.prod, shapes.values()))
    if weights > min(MOST_WEIGHTS, ANY_WEIGHTS + WEIGHTS_IN_BYTE * len(body)):
        raise UserError(f"it claims {weights:,} weights in {len(body):,} bytes, which is no trained network")
    if wanted is not None and shapes != dict(wanted):
        raise OtherNetwork
    arrays = {str(entry["name"]): _array(entry, short, words) for entry in header["arrays"]}
    facts = header["facts"]
    if not short.at_end() or not words.at_end() or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError("more bytes than arrays")
    return arrays, dict(facts)


def _stream(count: int, alphabet: int, size: int, short: _Reader, words: _Reader) -> np.ndarray:
    lengths = short.take(_TYPES["lengths"], alphabet)
    blocks = short.take(_TYPES["blocks"], -(-count // huffman.BLOCK))
    return huffman.decode(huffman.Encoded(count, lengths, blocks, words.take(np.dtype("u1"), size)))


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("no shape")
    return shape


def _array(entry: dict[str, Any], short: _Reader, words: _Reader) -> np.ndarray:
    shape = _shape(entry)
    if entry["kind"] == FLOAT:
        return short.take(_TYPES["values"], math.prod(shape)).astype(np.float32).reshape(shape)
    count, index_bits, sizes = entry["symbols"], entry["index_bits"], entry["bytes"]
    if entry["kind"] != SHARED or index_bits not in range(9) or not 0 <= count <= math.prod(shape):
        raise ValueError("an unknown kind of array")
    codebook = short.take(_TYPES["values"], entry["values"]).astype(np.float32)
    codes = _stream(count, len(codebook) + 1, sizes[0], short, words)
    distances = np.zeros(0, np.int64)
    if index_bits:
        distances = _stream(count, 2**index_bits, sizes[1], short, words)
    return Shared(codebook, restored(Streams(index_bits, codes, distances), shape)).decoded()
