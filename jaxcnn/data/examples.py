"""Sources and their base splits, readable at any index, and parallel reading of many examples."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped, UInt64

from jaxcnn.machine import cores

# The dimensions of arrays are named in `jaxcnn.data.batch`.
Indices = Int[np.ndarray, " m"]
Labels = Int32[np.ndarray, " n"]
Pixels = Shaped[np.ndarray, "m h w c"]  # uint8, uint16 or float32
Hashes = UInt64[np.ndarray, " n"]
Groups = Shaped[np.ndarray, " n"]  # text: the name of each example's group
Read = Callable[[Indices], Pixels]
Fill = Callable[[Indices, Pixels], None]

WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}  # the pixel value that counts as 1, by type
_CHUNK_BYTES = 2**23  # pixels per read: enough to hide the cost of a call, little compared with any memory
_UINT8 = np.dtype("uint8")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Content:
    """Checksums of the images of a base split, in order (`jaxcnn.data.content`).

    Attributes:
      fingerprint: 32 hex digits; they differ for other images or another order.
      images: one checksum per image, equal for equal images; None if not every image was read.
      sizes: bytes of each image; None if all have the same, or if it is not known.
      look: returns the checksums of the images at these indices, which it reads; None if it cannot.
    """

    fingerprint: str
    images: Hashes | None
    sizes: Int[np.ndarray, " n"] | None = dataclasses.field(default=None, compare=False)
    look: Callable[[Indices], Hashes] | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Examples:
    """One base split of a source, before it is sliced and before examples are held out.

    Attributes:
      labels: class numbers [n], columns of numbers [n, k], or records of boxes (`jaxcnn.data.boxes`) [n]; not yet
        checked (`jaxcnn.tasks.task.Targets.read`).
      image_shape: (H, W, C) of every image.
      read: returns the images at these indices; safe to call from several threads.
      content: returns the checksums of the images, computed at the first call; safe to call from several threads.
      notes: remarks for the user, one line each.
      hashes: returns an evenly distributed hash of each example's path in the set; None if examples have no path.
      weights: weight of each example; None if they have none.
      groups: the name of each example's group; None unless `config.data.group` says what names it.
      dtype: type of the pixels.
      fill: writes the images at these indices into a contiguous array, without a copy between; usually for images
        that need no decoding; safe to call from several threads; None: use `read`.
      name: returns the file or record of an example, by its index, for messages; None if there is only the index.
      sizes: height and width of each image as it is stored, if known.
      unreadable: images left out because they cannot be read, each with the reason.
      problems: annotations left out because they are wrong, each with the reason.
    """

    labels: Shaped[np.ndarray, "n ..."]
    image_shape: tuple[int, int, int]
    read: Read
    content: Callable[[], Content]
    notes: tuple[str, ...] = ()
    hashes: Callable[[], Hashes] | None = None
    weights: Float32[np.ndarray, " n"] | None = None
    dtype: np.dtype = _UINT8
    fill: Fill | None = None
    name: Callable[[int], str] | None = None
    sizes: Int[np.ndarray, "n 2"] | None = None
    unreadable: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    groups: Groups | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of images with its base splits, each of which is opened only when a slice asks for it.

    Attributes:
      title: name in messages and records, such as "tfds:cifar10:3.0.2".
      class_names: one per class; empty: numbers, from `labels`.
      splits: names of the base splits.
      open: returns the examples of a base split.
      notes: remarks for the user about the whole set, one line each.
      labels: the labels of all base splits, if no names are known.
      undivided: whether nothing divides the images, which then have paths (`Examples.hashes`), into splits.
    """

    title: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    open: Callable[[str], Examples]
    notes: tuple[str, ...] = ()
    labels: tuple[np.ndarray, ...] = ()
    undivided: bool = False


def filling_from(images: Shaped[np.ndarray, "n h w c"]) -> Fill:
    """An `Examples.fill` that copies from images in memory or in a memory map."""

    def fill(indices: Indices, out: Pixels) -> None:
        np.take(images, indices, axis=0, out=out, mode="clip")  # any other mode would make a copy between

    return fill


def worker_count(workers: int = 0) -> int:
    """`workers`; for 0, one per core that this process may use."""
    if workers:
        return workers
    return len(cores.usable())


def map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int = 0) -> Iterator[_Result]:
    """`map(function, items)` in threads, in order, a few items ahead; leaving early cancels calls not yet started."""
    workers = worker_count(workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxcnn-read")
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def index_chunks(count: int, image_shape: tuple[int, ...]) -> list[Indices]:
    """The indices 0 .. count - 1 in order, in chunks of about 8 MiB of pixels each."""
    length = max(1, min(1024, _CHUNK_BYTES // max(1, int(np.prod(image_shape)))))
    return [np.arange(start, min(start + length, count)) for start in range(0, count, length)]


def read_in_order(read: Read, count: int, image_shape: tuple[int, ...], workers: int = 0) -> Iterator[Pixels]:
    """Yields all images of a split in order, in chunks, read by several threads."""
    return map_in_threads(read, index_chunks(count, image_shape), workers)
