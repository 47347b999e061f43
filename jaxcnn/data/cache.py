"""Results kept between starts in the user's cache folder: indexes of record files and decoded pixels.

The cache is never required and never trusted: a key covers everything from which its file was made, files are complete
(written under a temporary name, then renamed), a damaged one counts as absent, and a read-only folder only costs time.
`jaxcnn.data.cache_limit` limits its size: files are touched when used, and locked while they are written or, for
pixels, memory-mapped.
"""

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from jaxtyping import Shaped

from jaxcnn.data import cache_limit
from jaxcnn.machine import locks, npz_arrays

MOST_BYTES = 2**36  # largest size of an index of a set
Images = Shaped[np.ndarray, "n h w c"]
Chunk = Shaped[np.ndarray, "m h w c"]


def fingerprint(parts: Iterable[object]) -> str:
    """A name of 32 hex digits for a sequence of plain values; different values give different names."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file among the processes of this machine; it is released when the holder dies.

    Waits while another process holds it. Where files cannot be created or locked, nothing is locked: work done under
    the lock is also correct, only wasteful, when done twice. The last holder removes the file.
    """
    handle = None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        while handle is None or not _is_at(handle, path):  # the previous holder has removed the file
            if handle:
                handle.close()
                handle = None
            handle = open(path, "ab")  # noqa: SIM115 (closed below, whatever happens)
            locks.take(handle, wait=True)
    try:
        yield
    finally:
        if handle:
            with contextlib.suppress(OSError):
                if _is_at(handle, path):
                    path.unlink()
            handle.close()


def _is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    return False


def touch(path: Path) -> None:
    """Record that a file is in use now; recently used files are kept longest."""
    with contextlib.suppress(OSError):  # the folder may belong to another user
        os.utime(path)


def cached_arrays(
    path: Path, build: Callable[[], dict[str, np.ndarray]], keep: Callable[[], bool] = lambda: True
) -> dict[str, np.ndarray]:
    """The arrays of the `.npz` file at `path`; built if it is absent or damaged, and saved there if `keep()`."""
    if (arrays := _load_arrays(path)) is not None:
        return arrays
    with lock(path.with_suffix(".lock")):
        if (arrays := _load_arrays(path)) is None:
            arrays = build()
            if keep():
                with contextlib.suppress(OSError):
                    write_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return arrays


def cached_images(
    path: Path, shape: tuple[int, ...], decode: Callable[[], Iterable[Chunk]], dtype: str = "uint8"
) -> tuple[Images | None, str]:
    """Images of `shape` and `dtype` as a read-only memory map of `path`; decoded and saved there if absent or damaged.

    Args:
      path: path of the `.npy` file; the CRC-32 of the pixels follows them.
      shape: (n, h, w, c).
      decode: yields the images in order, in chunks. Its errors are passed on, and nothing is saved.

    Returns:
      The images and "", or None and the reason why they could not be saved.
    """
    if (images := _load_images(path, shape, np.dtype(dtype))) is not None:
        return images, ""
    with lock(path.with_suffix(".lock")):
        if (images := _load_images(path, shape, np.dtype(dtype))) is not None:
            return images, ""
        reading: list[Exception] = []

        def chunks() -> Iterator[Chunk]:
            try:
                yield from decode()
            except Exception as error:
                reading.append(error)
                raise

        try:
            write_whole(path, lambda file: _write_images(file, shape, np.dtype(dtype), chunks()))
        except OSError as error:
            if error in reading:
                raise
            return None, f"cannot keep decoded images in {path.parent}: {error.strerror or error}"
    images = _load_images(path, shape, np.dtype(dtype))
    cache_limit.keep(path.parent)
    return images, f"decoded images kept in {path.parent} cannot be read back"


def _write_images(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, chunks: Iterable[Chunk]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    checksum = 0
    for chunk in chunks:
        chunk = np.ascontiguousarray(chunk)
        checksum = zlib.crc32(chunk.data, checksum)
        file.write(chunk.data)
    file.write(checksum.to_bytes(4, "little"))


def _load_images(path: Path, shape: tuple[int, ...], wanted: np.dtype) -> Images | None:
    try:
        with open(path, "rb") as file:
            with contextlib.suppress(OSError):
                locks.take(file, wait=True, shared=True)  # held while the map exists, which keeps the file open
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            kept_shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if kept_shape != shape or dtype != wanted:
                return None
            images: np.ndarray = np.memmap(file, dtype, "r", file.tell(), shape)
            file.seek(-4, os.SEEK_END)
            if file.tell() != images.offset + images.nbytes:  # type: ignore[attr-defined]
                return None
            if zlib.crc32(images.data) != int.from_bytes(file.read(), "little"):
                return None
    except (OSError, ValueError, EOFError, AttributeError):
        return None
    touch(path)
    return images


def _load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    try:
        arrays = npz_arrays.read(path, MOST_BYTES)
        touch(path)
        return arrays
    except (OSError, ValueError):
        return None


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file completely or not at all. Raises OSError, and what `write` raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with open(handle, "wb") as file:
            with contextlib.suppress(OSError):
                locks.take(file, wait=True)  # held until the file is closed: it is in use
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
