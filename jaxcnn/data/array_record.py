"""ArrayRecord files, the second format that TensorFlow Datasets writes; records are read by number."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxcnn.config import UserError
from jaxcnn.data.tfrecord import Damaged, Found, Get, find_features


def index_array_record(path: Path, image_key: str, label_key: str) -> Int64[np.ndarray, "n 3"]:
    """`index_shard` for an ArrayRecord file: record number, image length in bytes, label."""
    found = of_array_records(path, lambda get, start, end: find_features(get, start, end, image_key, label_key))
    rows = [(number, length, label) for number, (_, length, label) in enumerate(found)]
    return np.array(rows, np.int64).reshape(-1, 3)


def of_array_records(path: Path, look: Callable[[Get, int, int], Found]) -> list[Found]:
    """`of_records` for an ArrayRecord file."""
    reader = _reader(path)
    try:
        records = (_record(reader, number) for number in range(reader.num_records()))
        return [look(_within(record), 0, len(record)) for record in records]
    finally:
        _close(reader)


class ArrayRecordFiles:
    """The counterpart of `ShardFiles` for ArrayRecord files, whose records are read by number.

    Only opening a file takes the lock. Several threads may share one reader for reads by number, as array_record's own
    data source does; only sequential reading has state.
    """

    def __init__(self, paths: list[Path], image_key: str, label_key: str):
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._paths, self._keys = paths, (image_key, label_key)

    def read(self, shard: int, number: int, _length: int) -> bytes:
        """The encoded image of one record. Safe to call from several threads. Raises OSError."""
        reader = self._readers.get(shard)
        if reader is None:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = _reader(self._paths[shard])
                reader = self._readers[shard]
        record = _record(reader, number)
        try:
            start, length, _ = _features(record, *self._keys)
        except Damaged as error:
            raise OSError(f"the record {error}") from None
        return record[start : start + length]


def _reader(path: Path) -> Any:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise UserError(f"reading {path} needs the package array_record: pip install array_record") from None
    try:
        return ArrayRecordReader(str(path))
    except Exception as error:
        raise OSError(str(error).partition("\n")[0]) from None


def _close(reader: Any) -> None:
    """Close a file. Raises OSError for damage of the file as a whole, which the package reports only here."""
    try:
        reader.close()
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from None


def _record(reader: Any, number: int) -> bytes:
    try:
        (record,) = reader.read([number])
    except RuntimeError as error:  # the package raises this for damage and for a failing disk
        raise OSError(str(error).partition("\n")[0]) from None
    return record


def _features(record: bytes, image_key: str, label_key: str) -> tuple[int, int, int]:
    return find_features(_within(record), 0, len(record), image_key, label_key)


def _within(record: bytes) -> Get:
    return lambda at, length: record[at : at + length]
