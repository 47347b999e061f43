"""ArrayRecord files, the other format that TensorFlow Datasets writes, read by the number of the record."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data.tfrecord import Damaged, find_features


def index_array_record(path: Path, image_key: str, label_key: str) -> np.ndarray:
    """As `index_shard`, for an ArrayRecord file: int64 [records, 3] of record number, length of the image, label."""
    rows = []
    reader = _reader(path)
    try:
        for number in range(reader.num_records()):
            (record,) = reader.read([number])
            _, length, label = _features(record, image_key, label_key)
            rows.append((number, length, label))
    finally:
        reader.close()
    return np.array(rows, np.int64).reshape(-1, 3)


class ArrayRecordFiles:
    """The counterpart of `ShardFiles` for ArrayRecord files, which read a record by its number."""

    def __init__(self, paths: list[Path], image_key: str, label_key: str):
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._paths, self._keys = paths, (image_key, label_key)

    def read(self, shard: int, number: int, _length: int) -> bytes:
        """The encoded image of one record. Raises OSError."""
        with self._lock:
            if shard not in self._readers:
                self._readers[shard] = _reader(self._paths[shard])
            (record,) = self._readers[shard].read([number])
        try:
            start, length, _ = _features(record, *self._keys)
        except Damaged as error:
            raise OSError(f"the record {error}") from None
        return record[start : start + length]


def _reader(path: Path) -> Any:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise UserError(f"{path} needs the package array_record to be read; pip install array_record") from None
    try:
        return ArrayRecordReader(str(path))
    except Exception as error:
        raise OSError(str(error).partition("\n")[0]) from None


def _features(record: bytes, image_key: str, label_key: str) -> tuple[int, int, int]:
    return find_features(lambda at, length: record[at : at + length], 0, len(record), image_key, label_key)
