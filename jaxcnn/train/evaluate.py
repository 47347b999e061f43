"""Evaluation of a split: every example counted once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.data.batch import Batch, Normalization, Split
from jaxcnn.learn import programs
from jaxcnn.train.loaders import Loader

# For the examples of a batch: predicted class, int64 [n]; its probability, float64 [n]; label, int32 [n].
Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
MOST_AT_ONCE = 2**22  # float64 probabilities computed at once: examples times classes


def evaluate(
    loader: Loader,
    split: Split,
    variables: Any,
    normalization: Normalization,
    batch_size: int,
    between_batches: Callable[[], None],
    tta: str = "none",
    outputs: list[Outputs] | None = None,
) -> dict[str, float]:
    """Mean loss and accuracies over a split, as fractions in [0, 1].

    With test-time augmentation (`tta` as in `config.run`), the figures of the averaged logits are included, named
    tta_…. `between_batches` is called before each batch starts; its exceptions end the evaluation. If `outputs` is
    given, the `Outputs` of each batch, without test-time augmentation, are appended to it.
    """
    totals: Any = 0.0
    waiting: Any = None  # read one batch late, so that the devices never wait for the host
    variables = programs.as_evaluated(loader.spec, loader.mesh, variables)

    def read(sums: list[Any], logits: jax.Array, batch: Batch) -> np.ndarray:
        if outputs is not None:
            outputs.append(_outputs(logits, batch))
        return _read(sums)

    step = programs.tta_eval_step(loader.spec, loader.mesh, batch_size, tta)
    with loader.eval_batches(split, batch_size) as batches:
        for batch in batches:
            between_batches()
            results = step(variables, batch, normalization)
            if waiting is not None:
                totals += read(*waiting)
            waiting = [sums for sums, _ in results], results[0][1], batch
    totals += read(*waiting)
    values: dict[str, float] = {}
    for prefix, (loss, top1, top5, count) in zip(("", "tta_"), totals.tolist(), strict=False):
        if count != len(split):
            raise AssertionError(f"{count} examples counted of {len(split)} in {split.description}")
        means = {"loss": loss / count, "top1_accuracy": top1 / count, "top5_accuracy": top5 / count}
        values |= {f"{prefix}{name}": mean for name, mean in means.items()}
    return values | {"examples": len(split)}


def _outputs(logits: jax.Array, batch: Batch) -> Outputs:
    mask = _on_host(batch.mask)
    return *judge(_on_host(logits)[mask]), _on_host(batch.label)[mask]


def judge(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class predicted by logits float32 [n, K], int64 [n], and its probability, float64 [n]."""
    from scipy.special import softmax

    rows = max(1, MOST_AT_ONCE // logits.shape[-1])
    confidences = [np.empty(0)]
    for first in range(0, len(logits), rows):
        confidences.append(softmax(logits[first : first + rows].astype(np.float64), axis=-1).max(axis=-1))
    return logits.argmax(-1), np.concatenate(confidences)


def _on_host(array: jax.Array) -> np.ndarray:
    """The whole array, even if its parts lie on several hosts; then every host has to call this."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _read(sums: list[Any]) -> np.ndarray:
    """The sums of one batch, float64 [kinds, 4]: loss, top-1, top-5, count."""
    return np.array([[one.loss, one.top1, one.top5, one.count] for one in jax.device_get(sums)], np.float64)
