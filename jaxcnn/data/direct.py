"""The stream of images that need no decoding (`Examples.fill`): threads copy them directly into the batch's array.

It has the interface, order and bits of `jaxcnn.data.stream`, without TensorFlow and the copies between its stages.
Images kept by `jaxcnn.data.decoded` also come this way, even when they are first read and decoded.
"""

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Int32, Shaped

from jaxcnn.data.batch import Split
from jaxcnn.data.examples import Fill

_Indices = Int32[np.ndarray, " b"]
_Host = tuple[Shaped[np.ndarray, "b h w c"], Any, _Indices]  # images, targets, indices
_PIECE_BYTES = 2**20  # least pixels of a piece: enough to hide the cost of starting it


def indices_of(index_of_batch: Callable[[int], Int[np.ndarray, " b"]], step: int, batch: int | None) -> _Indices:
    """The indices of the examples of a step.

    Raises:
      ValueError: they are not `batch` many, the number in the first step.
    """
    indices = np.asarray(index_of_batch(step), np.int32)
    if indices.shape != (len(indices) if batch is None else batch,):
        raise ValueError(f"index_of_batch({step}) has shape {indices.shape}, but that of the first step had ({batch},)")
    return indices


class DirectStream(Iterator[_Host]):
    """Batches of consecutive steps, read in advance; see `jaxcnn.data.stream.stream`."""

    def __init__(
        self,
        split: Split,
        fill: Fill,
        index_of_batch: Callable[[int], Int[np.ndarray, " b"]],
        first_step: int,
        last_step: int,
        workers: int,
        prefetch: int,
    ):
        self._split, self._fill, self._index_of_batch = split, fill, index_of_batch
        self._steps, self._ahead, self._workers = iter(range(first_step, last_step)), prefetch, workers
        self._batch: int | None = None
        self._waiting: deque[tuple[_Host | Exception, list[Future[None]]]] = deque()  # with the reads that fill each
        self._arrays = _Arrays(2 * prefetch + 4)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="jaxcnn-read")
        # A stream that is dropped stops reading; so does one that is still open when the program ends.
        self._drop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._advance()

    def __next__(self) -> _Host:
        if not self._waiting:
            self.close()
            raise StopIteration
        batch, pieces = self._waiting.popleft()
        try:
            for piece in pieces:
                piece.result()
            if isinstance(batch, Exception):
                raise batch
        except BaseException:
            self.close()
            raise
        self._advance()
        return batch

    def __enter__(self) -> "DirectStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads once the reads in progress end. May be called more than once."""
        self._waiting.clear()
        self._drop.detach()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _advance(self) -> None:
        """Start the batches that are due, unless one of them cannot start."""
        while len(self._waiting) <= self._ahead:
            if self._waiting and isinstance(self._waiting[-1][0], Exception):
                return
            step = next(self._steps, None)
            if step is None:
                return
            pieces: list[Future[None]] = []
            batch: _Host | Exception
            try:
                batch = self._begin(step, pieces)
            except Exception as error:  # raised when its turn comes
                batch = error
            self._waiting.append((batch, pieces))

    def _begin(self, step: int, pieces: list[Future[None]]) -> _Host:
        indices = indices_of(self._index_of_batch, step, self._batch)
        self._batch = len(indices)
        images = self._arrays.take((self._batch, *self._split.image_shape), self._split.dtype)
        # A batch is cut into several pieces per worker, so that all workers work on the batch that is needed next.
        least = -(-_PIECE_BYTES * self._batch // max(images.nbytes, 1))
        length = max(1, least, -(-self._batch // (2 * self._workers)))
        for start in range(0, self._batch, length):
            end = start + length
            pieces.append(self._pool.submit(_fill_piece, self._fill, indices[start:end], images[start:end]))
        targets = jax.tree.map(lambda rows: rows[indices], self._split.targets)
        given = images.view()
        given.flags.writeable = False
        return given, targets, indices


def _fill_piece(fill: Fill, indices: _Indices, out: Shaped[np.ndarray, "m h w c"]) -> None:
    if threading.main_thread().is_alive():  # Python waits for these threads when the program ends
        fill(indices, out)


class _Arrays:
    """Arrays of one shape that are reused when nobody holds them any more.

    Fresh memory costs as much as the copy into it, since the kernel clears every page. JAX holds a reference to an
    array for as long as it reads from it, which on CPU may be as long as the device's array lives.
    """

    def __init__(self, most: int) -> None:
        self._arrays: list[np.ndarray] = []
        self._most = most  # largest number of arrays remembered

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        for array in self._arrays:
            if sys.getrefcount(array) == _UNHELD:
                return array
        self._arrays = [*self._arrays[-self._most :], np.empty(shape, dtype)]
        return self._arrays[-1]


def _references_of_unheld() -> int:
    """The value of `sys.getrefcount`, in the loop of `_Arrays.take`, for an array that only the list holds."""
    for array in [np.empty(0)]:
        return sys.getrefcount(array)
    raise AssertionError


_UNHELD = _references_of_unheld()
