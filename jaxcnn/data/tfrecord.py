"""Random access to TFRecord files without TensorFlow: the place of each record's image, and its label.

A TFRecord file is a sequence of (length uint64, CRC of the length uint32, data, CRC of the data uint32). Here, the data
are `tf.train.Example` messages in protocol-buffer wire format. Only two features are parsed and all others are skipped,
so building an index reads a few hundred bytes of each record and not its image.
"""

import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, Int64

Found = TypeVar("Found")
Get = Callable[[int, int], bytes]  # the bytes at an offset: (offset, number of bytes)

_WINDOW = 4096  # bytes per read: usually the header and all small features of a record
_CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C, reflected


class Damaged(Exception):
    """Raised for a file that has the wrong format or is damaged; `str` says what is wrong."""


class ShardFiles:
    """Files read at any offset by several threads; they stay open within the limit on open files."""

    def __init__(self, paths: list[Path], keep_open: int = 256):
        self._paths = paths
        self._keep_open = keep_open
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """`length` bytes of a file from `offset`. Raises OSError, also if the file ends earlier."""
        descriptor = self._open.get(shard)
        if descriptor is None:
            with self._lock:
                if shard not in self._open and len(self._open) < self._keep_open:
                    self._open[shard] = os.open(self._paths[shard], os.O_RDONLY)
                descriptor = self._open.get(shard)
        if descriptor is not None:
            data = os.pread(descriptor, length, offset)
        else:
            with open(self._paths[shard], "rb", buffering=0) as file:
                data = os.pread(file.fileno(), length, offset)
        if len(data) != length:
            raise OSError(f"{self._paths[shard].name} ends at {offset + len(data)}, inside a record")
        return data


def _close_all(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def index_shard(path: Path, image_key: str, label_key: str) -> Int64[np.ndarray, "n 3"]:
    """The places of the images in a TFRecord file, and their labels.

    Returns:
      For each record: offset of the encoded image in the file, its length (both in bytes), the label.

    Raises:
      Damaged: not a TFRecord file, a truncated file, or a record without the two features.
      OSError: the file cannot be read.
    """
    rows = of_records(path, lambda get, start, end: find_features(get, start, end, image_key, label_key))
    return np.array(rows, np.int64).reshape(-1, 3)


def of_records(path: Path, look: Callable[[Get, int, int], Found]) -> list[Found]:
    """What `look` returns for each record of a TFRecord file, given a reader of bytes and the ends of the record.

    Raises:
      Damaged, OSError: as `index_shard`; `look` may raise Damaged, too.
    """
    rows: list[Found] = []
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        window = _Window(lambda offset, length: os.pread(file.fileno(), length, offset))
        position = 0
        while position < size:
            header = window.get(position, 12)
            if len(header) < 12:
                raise Damaged(f"it ends inside record {len(rows)}")
            length, checksum = struct.unpack("<QI", header)
            if _masked_crc(header[:8]) != checksum:
                raise Damaged(f"record {len(rows)} has a damaged header")
            start = position + 12
            position = start + length + 4
            if position > size:
                raise Damaged(f"it ends inside record {len(rows)}")
            try:
                rows.append(look(window.get, start, start + length))
            except Damaged as error:
                raise Damaged(f"record {len(rows)} {error}") from None
    return rows


def find_features(get: Get, start: int, end: int, image_key: str, label_key: str) -> tuple[int, int, int]:
    """(offset of the image, its length, the label) of the `tf.train.Example` in bytes [start, end), read by `get`.

    Without a `label_key` the label is 0.

    Raises:
      Damaged: no such message, or one of the two features is missing.
    """
    image: tuple[int, int] | None = None
    label: int | None = None
    for key, ends in _features(get, start, end):
        if key == image_key:
            image = _first_bytes(get, *ends)
        elif key == label_key:
            label = _first_integer(get, *ends)
    if not label_key:
        label = 0
    if image is None or label is None:
        raise Damaged(f"has no feature {image_key if image is None else label_key!r} of the right type")
    return image[0], image[1] - image[0], label


def find_numbers(get: Get, start: int, end: int, keys: Sequence[str]) -> list[Float64[np.ndarray, " k"]]:
    """The numbers of the features `keys` of a `tf.train.Example`, float or integer; none where a feature is missing."""
    found = {key: _numbers(get, *ends) for key, ends in _features(get, start, end) if key in keys}
    return [found.get(key, np.empty(0)) for key in keys]


def _features(get: Get, start: int, end: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """The name of each feature of a `tf.train.Example`, and the start and the end of its value."""
    for _, features_start, features_end in _fields(get, start, end, 1):  # Example.features
        for _, entry_start, entry_end in _fields(get, features_start, features_end, 1):  # Features.feature
            entry = {number: (a, b) for number, a, b in _fields(get, entry_start, entry_end)}
            if 1 in entry and 2 in entry:
                yield get(entry[1][0], entry[1][1] - entry[1][0]).decode("utf-8", "replace"), entry[2]


def _numbers(get: Get, start: int, end: int) -> Float64[np.ndarray, " k"]:
    values: list[float] = []
    for number, list_start, list_end in _fields(get, start, end):
        for _, at, stop in _fields(get, list_start, list_end, 1):  # all numbers together, or each alone
            if number == 2:  # Feature.float_list
                if (stop - at) % 4:
                    raise Damaged("has a list of floats that ends inside a number")
                values += np.frombuffer(get(at, stop - at), "<f4").tolist()
            while number == 3 and at < stop:  # Feature.int64_list
                value, at = _varint(get, at, stop)
                values.append(value - 2**64 if value >= 2**63 else value)
    return np.array(values, np.float64)


def _first_bytes(get: Get, start: int, end: int) -> tuple[int, int] | None:
    for _, list_start, list_end in _fields(get, start, end, 1):  # Feature.bytes_list
        for _, value_start, value_end in _fields(get, list_start, list_end, 1):
            return value_start, value_end
    return None


def _first_integer(get: Get, start: int, end: int) -> int | None:
    for _, list_start, list_end in _fields(get, start, end, 3):  # Feature.int64_list; starts with a varint in any case
        for _, value_start, value_end in _fields(get, list_start, list_end, 1):
            value, _ = _varint(get, value_start, value_end)
            return value - 2**64 if value >= 2**63 else value
    return None


def _fields(get: Get, start: int, end: int, only: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end of the value) of each field of a message; with `only`, of fields of that number."""
    position = start
    while position < end:
        tag, position = _varint(get, position, end)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            length, position = _varint(get, position, end)
            stop = position + length
        elif wire == 0:
            _, stop = _varint(get, position, end)
        elif wire in (1, 5):
            stop = position + (8 if wire == 1 else 4)
        else:
            raise Damaged("is not a tf.train.Example")
        if stop > end:
            raise Damaged("is not a tf.train.Example")
        if only is None or number == only:
            yield number, position, stop
        position = stop


def _varint(get: Get, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for byte in get(position, min(10, end - position)):
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise Damaged("is not a tf.train.Example")


class _Window:
    """Serves small reads of a file from one larger read."""

    def __init__(self, read: Callable[[int, int], bytes]):
        self._read = read
        self._start = 0
        self._bytes = b""

    def get(self, offset: int, length: int) -> bytes:
        inside = offset - self._start
        if inside < 0 or inside + length > len(self._bytes):
            self._start, self._bytes = offset, self._read(offset, max(length, _WINDOW))
            inside = 0
        return self._bytes[inside : inside + length]


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord files store it: rotated by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
