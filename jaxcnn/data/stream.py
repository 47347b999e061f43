"""The stream loader: a tf.data pipeline reads and decodes batches during training, for sets larger than memory.

TensorFlow only does the scheduling: it calls `split.read` on pieces of a batch in several threads, keeps their order
and runs a few batches ahead. `index_of_batch(step)` gives the examples of a batch, so a stream opened at any step
continues exactly as one opened at 0, and pixels are those of `split.read`, bit for bit. Images that need no decoding
come by `jaxcnn.data.direct` instead, with the same bits.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Int, Int32, Shaped

from jaxcnn.data.batch import Split
from jaxcnn.data.direct import DirectStream, indices_of
from jaxcnn.data.examples import Fill, worker_count
from jaxcnn.data.tensorflow import import_tensorflow

_Item = TypeVar("_Item")
_Put = TypeVar("_Put")
_Integers = Int32[np.ndarray, " b"]
_Host = tuple[Shaped[np.ndarray, "b h w c"], Any, _Integers]  # images, targets, indices
_IndexOfBatch = Callable[[int], Int[np.ndarray, " b"]]


def stream(
    split: Split,
    index_of_batch: _IndexOfBatch,
    first_step: int,
    last_step: int,
    workers: int = 0,
    prefetch: int = 4,
) -> "Stream | DirectStream":
    """The batches of steps `first_step` to `last_step - 1`, in order, as an iterator that should be closed.

    Args:
      split: the split to read.
      index_of_batch: returns the indices of a step's batch (this process's part), equally many for every step.
        Called from another thread, once per step and in order.
      first_step: the first step.
      last_step: the last step plus one.
      workers: decoding threads; 0 for one per core.
      prefetch: batches kept ready on the host.

    Returns:
      An iterator of (images, targets, indices), read-only arrays. It is also a context manager; `close` stops its
      threads. For the batch concerned, `next` raises the original exception of `split.read` or `index_of_batch`.
    """
    workers = worker_count(workers)
    if (fill := filling(split)) is not None:
        return DirectStream(split, fill, index_of_batch, first_step, last_step, workers, prefetch)
    return Stream(split, index_of_batch, first_step, last_step, workers, prefetch)


def filling(split: Split) -> Fill | None:
    """The `Examples.fill` of a split; None if its images have to be decoded, for which TensorFlow is needed."""
    return getattr(split, "fill", None)


class Stream(Iterator[_Host]):
    """A running tf.data pipeline; see `stream`."""

    def __init__(
        self,
        split: Split,
        index_of_batch: _IndexOfBatch,
        first_step: int,
        last_step: int,
        workers: int,
        prefetch: int,
    ):
        self._failures: list[Exception] = []
        self._structure = jax.tree.structure(split.targets)
        iterators: list[Any] = []
        # TensorFlow's threads must not outlive the interpreter, which would wait for them for ever: an open stream is
        # closed at exit. The finalizer refers only to the list, so the stream itself can be collected before.
        self._close = weakref.finalize(self, iterators.clear)
        self._iterators = iterators
        if first_step < last_step:
            batch = len(index_of_batch(first_step))
            pipeline = _pipeline(
                split, index_of_batch, range(first_step, last_step), batch, workers, prefetch, self._failures
            )
            iterators.append(pipeline.as_numpy_iterator())

    def __next__(self) -> _Host:
        if not self._iterators:
            raise StopIteration
        try:
            images, indices, failure, *targets = next(self._iterators[0])
        except StopIteration:
            self.close()
            raise
        if failure.any():
            self.close()
            raise self._failures[failure[failure > 0][0] - 1]
        return images, jax.tree.unflatten(self._structure, targets), indices

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the pipeline and its threads once the reads in progress end. May be called more than once."""
        self._close()


def _pipeline(
    split: Split,
    index_of_batch: _IndexOfBatch,
    steps: range,
    batch: int,
    workers: int,
    prefetch: int,
    failures: list[Exception],
) -> Any:
    """The tf.data.Dataset of (images, indices, numbers of failures, target arrays); numbers count in `failures` from 1.

    Exceptions are passed as numbers beside the examples: raised through TensorFlow, they would lose their type and
    come with a page of its messages.
    """
    tf = import_tensorflow()
    targets_of = jax.tree.leaves(split.targets)

    def failed(error: Exception) -> int:
        failures.append(error)
        return len(failures)

    def indices_at(step: Int[np.ndarray, ""]) -> tuple[_Integers, _Integers]:
        try:
            return indices_of(index_of_batch, int(step), batch), np.zeros(batch, np.int32)
        except Exception as error:
            return np.zeros(batch, np.int32), np.full(batch, failed(error), np.int32)

    def read(indices: _Integers, failure: _Integers) -> tuple[np.ndarray, ...]:
        try:
            if not failure.any():
                images = np.ascontiguousarray(split.read(indices), split.dtype)
                return images, indices, failure, *(rows[indices] for rows in targets_of)
        except Exception as error:
            failure = np.full(len(indices), failed(error), np.int32)
        nothing = np.zeros((len(indices), *split.image_shape), split.dtype)
        return (
            nothing,
            indices,
            failure,
            *(np.zeros((len(indices), *rows.shape[1:]), rows.dtype) for rows in targets_of),
        )

    def index_op(step):
        indices, failure = tf.numpy_function(indices_at, [step], (tf.int32, tf.int32))
        return tf.ensure_shape(indices, (batch,)), tf.ensure_shape(failure, (batch,))

    def read_op(indices, failure):
        types = (tf.as_dtype(split.dtype), tf.int32, tf.int32, *(tf.as_dtype(rows.dtype) for rows in targets_of))
        shapes = (split.image_shape, (), (), *(rows.shape[1:] for rows in targets_of))
        made = tf.numpy_function(read, [indices, failure], types)
        return tuple(tf.ensure_shape(each, (None, *shape)) for each, shape in zip(made, shapes, strict=True))

    # A batch is cut into several pieces per worker, so that all workers work on the batch that is needed next.
    piece = max(1, -(-batch // (2 * workers)))
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.threading.private_threadpool_size = workers + 1  # one more thread computes the indices
    return (
        tf.data.Dataset.range(steps.start, steps.stop)
        .map(index_op)
        .rebatch(piece)
        .map(read_op, num_parallel_calls=workers, deterministic=True)
        .rebatch(batch)
        .prefetch(prefetch)
        .with_options(options)
    )


def device_prefetch(batches: Iterable[_Item], put: Callable[[_Item], _Put], depth: int = 2) -> Iterator[_Put]:
    """Yields `put(batch)` for each batch, `depth` of them ahead, so that copies overlap computation on the devices.

    `put` should only start the copy, as `jax.device_put` does. An error of `batches` is raised after the preceding
    batches have been yielded. Closing this iterator closes `batches`.
    """
    ahead: deque[_Put] = deque()
    failure: Exception | None = None
    source = iter(batches)
    try:
        while True:
            try:
                ahead.append(put(next(source)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            if len(ahead) > depth:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
        if failure is not None:
            raise failure
    finally:
        if close := getattr(source, "close", None):
            close()
