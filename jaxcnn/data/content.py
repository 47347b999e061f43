"""Checksums of the images of a base split, to detect changed data and duplicate images.

A checksum is the first 8 bytes of BLAKE2b of an image as stored: its pixels in an array, or the bytes of its file or
record. If a base split has more than `LIMIT` bytes of images, only every n-th image is read, with the smallest n that
suffices; for the others only the size counts.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from jaxcnn.data import cache
from jaxcnn.data.examples import Content, Hashes, Indices, index_chunks, map_in_threads
from jaxcnn.data.selection import Selection
from jaxcnn.machine.paths import cache_folder

LIMIT = 4 * 2**30  # most bytes of images that are read for the checksums of a base split
_CHUNK = 256
_ANY_SIZE = -2  # bytes of an image whose size is not known
logger = logging.getLogger(__name__)


def of_array(images: UInt8[np.ndarray, "n h w c"]) -> Content:
    """The content of images in memory."""
    step = _step(images.nbytes)

    def look(indices: Indices) -> list[int]:
        rows = np.ascontiguousarray(images[indices]).reshape(len(indices), -1)
        return [_checksum(row) for row in rows]

    def look_at(indices: Indices) -> Hashes:
        return _looked(look, 0, [indices[places] for places in index_chunks(len(indices), images.shape[1:])])

    sums = look_at(np.arange(0, len(images), step))
    found = _content(len(images), step, sums, whole=step == 1)
    return dataclasses.replace(found, look=look_at)


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
        return {"checksums": _looked(look, workers, _chunks(chosen))}

    path = cache_folder() / f"content-{cache.fingerprint((key, step))}.npz"
    sums = cache.cached_arrays(path, look_at_all, keep=lambda: not trouble)["checksums"]
    values = np.maximum(sizes, 0).astype(np.uint64)
    values[chosen] = sums
    found = _content(len(kept), step, values[kept], whole=step == 1)
    return dataclasses.replace(
        found, sizes=sizes[kept], look=lambda indices: _looked(look, workers, _chunks(kept[np.asarray(indices)]))
    )


def of_all(splits: Sequence[Selection]) -> list[Hashes | None]:
    """Checksums of all images of some splits, equal for equal images; None for a split whose images have none.

    There is no limit of bytes: images of sets that are larger than `LIMIT` are read in parts, and only those whose size
    in bytes another image has, too; the others are equal to none, and get numbers that none has.
    """
    sizes = [_sizes(split) for split in splits]
    known, counts = np.unique(np.concatenate(sizes), return_counts=True) if sizes else (np.empty(0), np.empty(0))
    twice = np.append(known[counts > 1], _ANY_SIZE)
    found: list[Hashes | None] = []
    for number, (split, of_split) in enumerate(zip(splits, sizes, strict=True)):
        sums = _checksum_free(number, len(split))
        for part, examples in enumerate(split.parts):
            content, here = examples.content(), split.part == part
            if content.images is not None:
                sums[here] = content.images[split.place[here]]
            elif content.look is not None:
                chosen = here & np.isin(of_split, twice)
                sums[chosen] = content.look(split.place[chosen])
            else:
                found.append(None)
                break
        else:
            found.append(sums)
    return found


def _sizes(split: Selection) -> Int64[np.ndarray, " n"]:
    """The bytes of each image of a split; `_ANY_SIZE` if not known."""
    sizes = np.full(len(split), _ANY_SIZE, np.int64)
    for part, examples in enumerate(split.parts):
        if (known := examples.content().sizes) is not None:
            here = split.part == part
            sizes[here] = known[split.place[here]]
    return sizes


def _checksum_free(number: int, count: int) -> Hashes:
    """Numbers that are not those of any image, except by a chance as small as for two checksums."""
    salt = _checksum(f"split {number}".encode()) >> 1
    return np.uint64(salt) + np.arange(count, dtype=np.uint64)


def _chunks(indices: Indices) -> list[Indices]:
    """Indices of files, which are read one by one, in parts for threads."""
    return [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]


def _looked(look: Callable[[Indices], list[int]], workers: int, chunks: Sequence[Indices]) -> Hashes:
    """The checksums of the images at these indices, read in parts by several threads."""
    return np.array([each for part in map_in_threads(look, chunks, workers) for each in part], np.uint64)


def in_both(one: Hashes | None, other: Hashes | None) -> int:
    """The number of checksums in `other` that also occur in `one`; 0 if either one is unknown."""
    return 0 if one is None or other is None else int(np.isin(other, one).sum())


def shared(one: Selection, other: Selection) -> str:
    """A remark if two splits have equal images, or are too large to be compared at each start; else empty."""
    sums = one.checksums(), other.checksums()
    if count := in_both(*sums):
        return f"{count} of the {len(other)} images of {other.name} are also in {one.name}, byte for byte"
    parts = (*one.parts, *other.parts)
    if all(each is not None for each in sums) or any(part.content().look is None for part in parts):
        return ""
    return (
        f"{other.name} was not searched for images of {one.name}, as there are more than {LIMIT / 2**30:g} GiB; "
        "python -m jaxcnn.doctor --data does it"
    )


def _step(total: int) -> int:
    return max(1, -(-total // LIMIT))


def _checksum(image: Any) -> int:
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little")


def _content(count: int, step: int, values: Hashes, whole: bool) -> Content:
    digest = hashlib.blake2b(f"{count} {step} ".encode(), digest_size=16)
    digest.update(values.astype("<u8").tobytes())
    return Content(digest.hexdigest(), values if whole else None)
