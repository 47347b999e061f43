"""What a source gives: base splits that are read at any index, and the reading of many examples in parallel."""

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

_CHUNK_BYTES = 2**23  # of pixels read at a time: large enough to hide the cost of a call, small beside any memory
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Content:
    """The images of a base split, in order, as their checksums tell them (`jaxcnn.data.content`).

    Attributes:
      fingerprint: 32 hex digits that any other images, or another order, would change.
      images: checksums uint64 [N] that equal images have alike; None where not every image was read.
    """

    fingerprint: str
    images: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Examples:
    """One base split of a source, before slicing and holding out.

    Attributes:
      labels: int32 [N], not yet checked against the classes.
      image_shape: (H, W, C) of every image.
      read: images uint8 [n, H, W, C] at int indices [n]; safe to call from several threads.
      content: checksums of the images; computed when first called, and safe to call from several threads.
      notes: remarks for the user, one line each.
      hashes: uint64 [N] of each example's path in the set, evenly spread; None where examples have no path.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    content: Callable[[], Content]
    notes: tuple[str, ...] = ()
    hashes: Callable[[], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A set of images with its base splits, each opened only when a slice asks for it.

    Attributes:
      title: for messages and records, such as "tfds:cifar10:3.0.2".
      class_names: one per class.
      splits: names of the base splits.
      open: the examples of a base split.
      notes: remarks for the user on the set as a whole, one line each.
    """

    title: str
    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    open: Callable[[str], Examples]
    notes: tuple[str, ...] = ()


def worker_count(workers: int = 0) -> int:
    """`workers`, or one per core this process may use for 0."""
    if workers:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int = 0) -> Iterator[_Result]:
    """`map(function, items)` in threads, in order, a few items ahead; leaving early cancels what has not begun."""
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


def index_chunks(count: int, image_shape: tuple[int, ...]) -> list[np.ndarray]:
    """The indices 0 .. count - 1 in order, in chunks of some 8 MiB of pixels each."""
    length = max(1, min(1024, _CHUNK_BYTES // max(1, int(np.prod(image_shape)))))
    return [np.arange(start, min(start + length, count)) for start in range(0, count, length)]


def read_in_order(
    read: Callable[[np.ndarray], np.ndarray], count: int, image_shape: tuple[int, ...], workers: int = 0
) -> Iterator[np.ndarray]:
    """All images of a split in order, in chunks uint8 [n, H, W, C], read by several threads."""
    return map_in_threads(read, index_chunks(count, image_shape), workers)
