"""Decoded images of a base split in one file on a disk, for sets larger than memory (`config.data.cache`).

The file fills while images are read: the thread, process or host that first needs an image decodes it, uses it and
writes it to its place. Two that do so at once write the same bytes. So nothing is decoded in
advance, a killed run loses nothing, and hosts that share the folder share the work.

    4096 bytes      a description of the file: `_header`
    8 bytes x n     little-endian: 2^32 + CRC-32 of the image, or 0 for a missing image; padded to 4096 bytes
    pixels          of image 0, 1, …, as they are in memory; holes where an image is missing

An image is checked against its CRC when this process first reads it. If the check fails, it is decoded and written
again, so that neither a damaged disk nor a power failure can change a batch. Positional reads into the batch's array
are as quick as a memory map (docs/decisions.md), and a failing disk or a file cut short cannot end the process.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import shutil
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped, UInt8

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import cache, cache_limit
from jaxcnn.data.examples import Indices, Pixels
from jaxcnn.machine import locks
from jaxcnn.machine.paths import cache_folder, expand

AUTO = "auto"  # config.data.cache: the user's cache folder
PREFIX = "decoded-"
_PAGE = 4096
_THERE = 2**32
_GIB = 2**30
_Row = UInt8[np.ndarray, " bytes"]
_log = logging.getLogger("jaxcnn")


def open_kept(
    data: config.Data,
    title: str,
    key: str,
    shape: tuple[int, int, int, int],
    decode: Callable[[int], Shaped[np.ndarray, "h w c"]],
) -> tuple["DecodedImages | None", str]:
    """The kept images of a base split as `data.cache` says, and a note for the user.

    Args:
      data: the config of the run.
      title: name of the base split in messages.
      key: name that covers everything on which the pixels depend; the middle of the file name.
      shape: (n, h, w, c).
      decode: returns image i; its errors are passed on.

    Returns:
      The images, or None if they cannot be kept in the user's cache folder; the note then has the reason.

    Raises:
      UserError: the images cannot be kept in the folder that `data.cache` names.
    """
    auto = data.cache == AUTO
    folder = cache_folder() if auto else expand(data.cache, "config.data.cache=")
    path = folder / f"{PREFIX}{key}.bin"
    what = f"decoded images of {title}"
    try:
        images = DecodedImages(path, shape, np.dtype(data.dtype), decode, cache_limit.limit_bytes() if auto else None)
    except OSError as error:
        reason = f"cannot keep the {what} in {folder}: {error.strerror or error}"
        if auto:
            return None, f"{reason}; they are decoded in every epoch"
        raise UserError(
            f"config.data.cache={data.cache!r}: {reason}; name another folder, or set config.data.cache=''"
        ) from None
    if auto:
        cache_limit.keep(folder)
    there, size = images.there(), math.prod(shape) * images.dtype.itemsize / _GIB
    filled = "all" if there == shape[0] else f"{there:,} of {shape[0]:,} so far"
    return images, f"the {what} are kept in {path}: {size:.2f} GiB ({filled})"


class DecodedImages:
    """The images in one file, which is created if it is absent or does not hold these images.

    Args:
      path: the file.
      shape: (n, h, w, c).
      dtype: type of the pixels.
      decode: returns image i.
      limit: most bytes that the file may have; None: no limit.

    Raises:
      OSError: the file cannot be read, created or written, or is too large for the limit or the disk.
    """

    def __init__(
        self,
        path: pathlib.Path,
        shape: tuple[int, int, int, int],
        dtype: np.dtype,
        decode: Callable[[int], Shaped[np.ndarray, "h w c"]],
        limit: float | None = None,
    ):
        self.path, self.shape, self.dtype, self._decode = path, shape, dtype, decode
        self._bytes = math.prod(shape[1:]) * dtype.itemsize  # size of an image
        self._first = _PAGE + _padded(8 * shape[0])  # byte of the file at which pixels begin
        if limit is not None and self._size > limit:
            raise OSError(
                f"they take {self._size / _GIB:.2f} GiB, and the folder's limit is {limit / _GIB:g} "
                f"({cache_limit.SWITCH}); raise it, or name a folder of your own"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.lock(path.with_suffix(".lock")):
            descriptor = self._open()
        self._file = os.fdopen(descriptor, "rb", buffering=0)  # closed with the last reference
        with contextlib.suppress(OSError):
            locks.take(self._file, wait=True, shared=True)  # the file is in use (`cache_limit`)
        cache.touch(path)
        self._marks = self._read_marks()
        self._checked = np.zeros(shape[0], bool)  # images whose CRC this process has checked
        self._told: set[str] = set()

    @property
    def _size(self) -> int:
        """The size of the whole file in bytes."""
        return self._first + self.shape[0] * self._bytes

    def there(self) -> int:
        """The number of images that the file already had when it was opened."""
        return int((self._marks >= _THERE).sum())

    def read(self, indices: Indices) -> Pixels:
        """The images at these indices. Safe to call from several threads."""
        images = np.empty((len(indices), *self.shape[1:]), self.dtype)
        self.read_into(indices, images)
        return images

    def read_into(self, indices: Indices, out: Pixels) -> None:
        """Write the images at these indices into a contiguous array. Safe to call from several threads."""
        rows = out.reshape(len(indices), math.prod(self.shape[1:])).view(np.uint8)
        for place, index in enumerate(np.asarray(indices).tolist()):
            row = rows[place]
            if self._checked[index] and self._load(index, row):
                continue
            if not self._load_checked(index, row):
                out[place] = self._decode(index)
                self._keep(index, row)

    def _open(self) -> int:
        """A descriptor of the file, whose header and length are first made right if it can be written."""
        header = _header(self.path.stem, self.shape, self.dtype)
        self._writable = True
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self._writable = False
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                raise error from None  # it cannot be created
        found = os.pread(descriptor, _PAGE, 0)
        if found != header and not self._writable:
            os.close(descriptor)
            raise OSError(f"{self.path.name} holds something else, and cannot be written")
        if found and found != header:
            _log.warning("%s is damaged; its images are decoded again", self.path)
            os.close(descriptor)
            self.path.unlink()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._make_room(descriptor, header)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _make_room(self, descriptor: int, header: bytes) -> None:
        marks = np.frombuffer(os.pread(descriptor, 8 * self.shape[0], _PAGE), np.uint8)
        there = int((marks[: len(marks) // 8 * 8].view("<u8") >= _THERE).sum())
        missing = (self.shape[0] - there) * self._bytes
        if not self._writable:
            if missing:
                raise OSError(f"{self.path.name} lacks {self.shape[0] - there:,} images, and cannot be written")
            return
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            if not there:
                self.path.unlink()
            raise OSError(f"they take {missing / _GIB:.2f} GiB more, and the disk has {free / _GIB:.2f} GiB free")
        if not os.pread(descriptor, 1, 0):
            os.pwrite(descriptor, header, 0)
        if os.fstat(descriptor).st_size < self._size:
            os.truncate(descriptor, self._size)

    def _read_marks(self) -> np.ndarray:
        marks = np.zeros(self.shape[0], "<u8")
        os.preadv(self._file.fileno(), [marks.view(np.uint8).data], _PAGE)
        return marks

    def _load(self, index: int, row: _Row) -> bool:
        """Read an image; return whether the file had all of it."""
        try:
            return os.preadv(self._file.fileno(), [row.data], self._first + index * self._bytes) == self._bytes
        except OSError:  # the disk fails
            return False

    def _load_checked(self, index: int, row: _Row) -> bool:
        """Read an image and compare its CRC; return whether it is there and correct."""
        mark = int(self._marks[index])
        if mark < _THERE:  # another process may have written it meanwhile
            with contextlib.suppress(OSError):
                mark = int.from_bytes(os.pread(self._file.fileno(), 8, _PAGE + 8 * index), "little")
            if mark < _THERE:
                return False
        if not self._load(index, row) or mark != _THERE + zlib.crc32(row.data):
            self._tell("image %d in %s is damaged; it is decoded again, as are others like it", index, self.path)
            self._checked[index] = False
            return False
        self._marks[index], self._checked[index] = mark, True
        return True

    def _keep(self, index: int, row: _Row) -> None:
        """Write a decoded image to its place, then its mark."""
        if not self._writable:
            return
        mark = _THERE + zlib.crc32(row.data)
        try:
            _write(self._file.fileno(), row.data, self._first + index * self._bytes)
            _write(self._file.fileno(), memoryview(mark.to_bytes(8, "little")), _PAGE + 8 * index)
        except OSError as error:
            self._tell(
                "cannot keep decoded images in %s: %s; those that are not there are decoded in every epoch",
                self.path, error.strerror or error,
            )  # fmt: skip
            return
        self._marks[index], self._checked[index] = mark, True

    def _tell(self, line: str, *values: object) -> None:
        """Log a warning unless one of this kind was logged before."""
        if line not in self._told:
            self._told.add(line)
            _log.warning(line, *values)


def _header(name: str, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    facts = json.dumps({"name": name, "shape": shape, "dtype": dtype.str})
    return f"jaxcnn decoded images, version 1\n{facts}\n".encode().ljust(_PAGE, b"\0")


def _padded(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    """Write all bytes of `view`.

    Raises:
      OSError: the disk fails or is full.
    """
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
