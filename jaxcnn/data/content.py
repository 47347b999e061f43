"""Checksums of the images of a base split, to detect changed data and duplicate images.

A checksum is the first 8 bytes of BLAKE2b of an image as stored: its pixels in an array, or the bytes of its file or
record. If a base split has more than `LIMIT` bytes of images, only every n-th image is read, with the smallest n that
suffices; for the others only the size counts.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from jaxcnn.data import cache
from jaxcnn.data.examples import Content, Hashes, Indices, index_chunks, map_in_threads
from jaxcnn.machine.paths import cache_folder

LIMIT = 4 * 2**30  # most bytes of images that are read for the checksums of a base split
_CHUNK = 256
logger = logging.getLogger(__name__)


def of_array(images: UInt8[np.ndarray, "n h w c"]) -> Content:
    """The content of images in memory."""
    step = _step(images.nbytes)

    def look(indices: Indices) -> list[int]:
        rows = np.ascontiguousarray(images[indices]).reshape(len(indices), -1)
        return [_checksum(row) for row in rows]

    chosen = np.arange(0, len(images), step)
    chunks = [chosen[places] for places in index_chunks(len(chosen), images.shape[1:])]
    sums = np.array([each for found in map_in_threads(look, chunks) for each in found], np.uint64)
    return _content(len(images), step, sums, whole=step == 1)


def of_arguments(text: str) -> Content:
    """The content of images that are computed from the arguments in `text`."""
    return Content(cache.fingerprint((text,)), None)


def of_files(
    title: str, sizes: Int64[np.ndarray, " n"], load: Callable[[int], bytes], key: str, kept: Indices, workers: int
) -> Content:
    """The content of encoded images; checksums are computed once and kept in the cache folder.

    Args:
      title: name of the set in messages.
      sizes: bytes of each image.
      load: returns the bytes of image i; if it raises OSError, the image counts as empty.
      key: changes whenever an image may have changed.
      kept: indices of the images that are used.
      workers: number of threads; 0 for one per core.
    """
    step = _step(int(np.maximum(sizes, 0).sum()))
    chosen = np.arange(0, len(sizes), step)
    trouble = []  # failures of the storage, which may be temporary

    def look(indices: Indices) -> list[int]:
        found = []
        for index in indices:
            try:
                found.append(_checksum(load(int(index))))
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    trouble.append(error)
                found.append(0)
        return found

    def look_at_all() -> dict[str, np.ndarray]:
        logger.info("reading the %d images of %s once, for their checksums", len(chosen), title)
        chunks = [chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK)]
        found = [each for part in map_in_threads(look, chunks, workers) for each in part]
        return {"checksums": np.array(found, np.uint64)}

    path = cache_folder() / f"content-{cache.fingerprint((key, step))}.npz"
    sums = cache.cached_arrays(path, look_at_all, keep=lambda: not trouble)["checksums"]
    values = np.maximum(sizes, 0).astype(np.uint64)
    values[chosen] = sums
    return _content(len(kept), step, values[kept], whole=step == 1)


def in_both(one: Hashes | None, other: Hashes | None) -> int:
    """The number of checksums in `other` that also occur in `one`; 0 if either one is unknown."""
    return 0 if one is None or other is None else int(np.isin(other, one).sum())


def _step(total: int) -> int:
    return max(1, -(-total // LIMIT))


def _checksum(image: Any) -> int:
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little")


def _content(count: int, step: int, values: Hashes, whole: bool) -> Content:
    digest = hashlib.blake2b(f"{count} {step} ".encode(), digest_size=16)
    digest.update(values.astype("<u8").tobytes())
    return Content(digest.hexdigest(), values if whole else None)
