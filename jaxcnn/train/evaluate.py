"""Evaluation of a split: every example counted once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.data.batch import Split
from jaxcnn.learn import sharded
from jaxcnn.learn.step import Normalization
from jaxcnn.train.feed import Feed


def evaluate(
    feed: Feed,
    split: Split,
    variables: Any,
    normalization: Normalization,
    batch_size: int,
    between_batches: Callable[[], None],
) -> dict[str, float]:
    """Mean loss and accuracies over a split, as fractions in [0, 1].

    `between_batches` is called before each batch is started; what it raises ends the evaluation.
    """
    totals = np.zeros(4, np.float64)
    waiting: Any = None  # read one batch late, so that the devices never wait for the host
    step = sharded.compiled_eval_step(feed.program, feed.mesh, batch_size)
    with feed.eval_batches(split, batch_size) as batches:
        for batch in batches:
            between_batches()
            sums, _ = step(variables, batch, normalization)
            if waiting is not None:
                totals += _read(waiting)
            waiting = sums
    totals += _read(waiting)
    loss, top1, top5, count = totals.tolist()
    if count != len(split):
        raise AssertionError(f"{count} examples counted of {len(split)} in {split.description}")
    return {"loss": loss / count, "top1_accuracy": top1 / count, "top5_accuracy": top5 / count, "examples": int(count)}


def _read(sums: Any) -> np.ndarray:
    sums = jax.device_get(sums)
    return np.array([sums.loss, sums.top1, sums.top5, sums.count], np.float64)
