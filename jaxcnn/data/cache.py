"""What is worth keeping between starts: indexes of record files and decoded pixels, in the user's cache folder.

A cache is never needed and never trusted: its key names everything that made it, files appear whole (written aside,
then renamed), a damaged one counts as absent, and a folder that cannot be written only costs time. How much of it stays
is the business of `jaxcnn.data.cache_limit`: files are touched when they are used, and pixels are locked while they are
mapped, as what is still written is.
"""

import contextlib
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from jaxcnn.data import cache_limit
from jaxcnn.machine import locks


def fingerprint(parts: Iterable[object]) -> str:
    """A name of 32 hex digits for a sequence of plain values; any difference gives another name."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file among the processes of this machine; freed when the holder dies.

    Waits for as long as another process holds it. Where files cannot be made or locked, there is no lock: all that
    happens under one is also sound, only wasteful, when done twice. The file is removed by its last holder.
    """
    handle = None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        while handle is None or not _is_at(handle, path):  # one that was waited for is gone with its holder
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
    """Whether an open file is the one of this name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    return False


def touch(path: Path) -> None:
    """Note that a file is used; those used last stay longest."""
    with contextlib.suppress(OSError):  # the folder may be somebody else's
        os.utime(path)


def cached_arrays(
    path: Path, build: Callable[[], dict[str, np.ndarray]], keep: Callable[[], bool] = lambda: True
) -> dict[str, np.ndarray]:
    """The arrays of the `.npz` file at `path`, built when it is absent or damaged, and kept there if `keep()`."""
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
    path: Path, shape: tuple[int, ...], decode: Callable[[], Iterable[np.ndarray]]
) -> tuple[np.ndarray | None, str]:
    """Images uint8 of `shape` as a read-only memory map of `path`, decoded and kept there when absent or damaged.

    Args:
      path: of the `.npy` file; the CRC-32 of its pixels follows them.
      shape: (N, H, W, C).
      decode: gives the images in order, in chunks [n, H, W, C]. Its errors pass through, and nothing is kept.

    Returns:
      The images and "", or None and why they could not be kept.
    """
    if (images := _load_images(path, shape)) is not None:
        return images, ""
    with lock(path.with_suffix(".lock")):
        if (images := _load_images(path, shape)) is not None:
            return images, ""
        reading: list[Exception] = []

        def chunks() -> Iterator[np.ndarray]:
            try:
                yield from decode()
            except Exception as error:
                reading.append(error)
                raise

        try:
            write_whole(path, lambda file: _write_images(file, shape, chunks()))
        except OSError as error:
            if error in reading:
                raise
            return None, f"cannot keep decoded images in {path.parent}: {error.strerror or error}"
    images = _load_images(path, shape)
    cache_limit.keep(path.parent)
    return images, f"decoded images kept in {path.parent} cannot be read back"


def _write_images(file: BinaryIO, shape: tuple[int, ...], chunks: Iterable[np.ndarray]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    checksum = 0
    for chunk in chunks:
        chunk = np.ascontiguousarray(chunk)
        checksum = zlib.crc32(chunk.data, checksum)
        file.write(chunk.data)
    file.write(checksum.to_bytes(4, "little"))


def _load_images(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        with open(path, "rb") as file:
            with contextlib.suppress(OSError):
                locks.take(file, wait=True, shared=True)  # while the map lives, which has the file open
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            kept_shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if kept_shape != shape or dtype != np.uint8:
                return None
            images: np.ndarray = np.memmap(file, np.uint8, "r", file.tell(), shape)
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
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        touch(path)
        return arrays
    except (OSError, ValueError, EOFError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all. Raises OSError, and whatever `write` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with open(handle, "wb") as file:
            with contextlib.suppress(OSError):
                locks.take(file, wait=True)  # until it is closed: somebody is at it
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
