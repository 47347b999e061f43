"""Evaluation of a split, in which every example counts once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.data.batch import Batch, Constants, Split
from jaxcnn.data.selection import Part, whole_targets
from jaxcnn.learn import metrics, programs
from jaxcnn.learn import tta as views
from jaxcnn.tasks.task import Collector
from jaxcnn.train.loaders import Loader


def evaluate(
    loader: Loader,
    split: Split,
    variables: Any,
    constants: Constants,
    batch_size: int,
    between_batches: Callable[[], None],
    tta: str = "none",
    collector: Collector | None = None,
    tta_share: float = 1.0,
) -> dict[str, float]:
    """Mean loss and metrics over a split, by name.

    With test-time augmentation (`tta` and `tta_share` as in `config.run`), the figures of the averaged outputs are
    included, named tta_…; with a share below 1, the least sure images have averaged outputs, and all others plain ones.
    `between_batches` is called before each batch starts; its exceptions end the evaluation. If a `collector` is given,
    the outputs of each batch, without test-time augmentation, are added to it.
    """
    variables = programs.as_evaluated(loader.spec, loader.mesh, variables)
    selects = tta != "none" and tta_share < 1
    sure: list[np.ndarray] = []

    def see(outputs: jax.Array, batch: Batch) -> None:
        mask = _on_host(batch.mask)
        seen = _on_host(outputs)[mask]
        if selects:
            sure.append(confidence(seen))
        if collector is not None:
            index, target = jax.tree.map(lambda of_each: _on_host(of_each)[mask], (batch.index, batch.target))
            collector.add(seen, whole_targets(split, target, index))

    def totals(of_split: Split, kind: str, see: Callable[[jax.Array, Batch], None] | None) -> list[dict[str, float]]:
        return _totals(loader, of_split, variables, constants, batch_size, between_batches, kind, see)

    whole = totals(split, "none" if selects else tta, see if selects or collector is not None else None)
    if selects:
        least = least_sure(np.concatenate(sure), tta_share)
        plain, averaged = totals(Part(split, least), tta, None)
        whole.append({name: total - plain[name] + averaged[name] for name, total in whole[0].items()})
    values: dict[str, float] = {}
    for prefix, sums in zip(("", "tta_"), whole, strict=False):
        if sums[metrics.COUNT] != len(split):
            raise AssertionError(f"{sums[metrics.COUNT]} examples counted of {len(split)} in {split.description}")
        values |= {f"{prefix}{name}": mean for name, mean in metrics.means_of(sums).items()}
    return values | {"examples": len(split)}


def _totals(
    loader: Loader,
    split: Split,
    variables: Any,
    constants: Constants,
    batch_size: int,
    between_batches: Callable[[], None],
    tta: str,
    see: Callable[[jax.Array, Batch], None] | None,
) -> list[dict[str, float]]:
    """The sums over a split, plain and with test-time augmentation if there is one; `see` gets each plain output."""
    totals: list[dict[str, float]] = []
    waiting: Any = None  # metrics read one batch late, so that the devices never wait for the host

    def read(sums: list[metrics.Sums], outputs: jax.Array, batch: Batch) -> None:
        if see is not None:
            see(outputs, batch)
        for kind, one in enumerate(jax.device_get(sums)):
            if kind == len(totals):
                totals.append(dict.fromkeys(one, 0.0))
            totals[kind] = {name: total + float(one[name]) for name, total in totals[kind].items()}

    step = programs.tta_eval_step(loader.spec, loader.mesh, batch_size, tta)
    with loader.eval_batches(split, batch_size) as batches:
        for batch in batches:
            between_batches()
            results = step(variables, batch, constants)
            if waiting is not None:
                read(*waiting)
            waiting = [sums for sums, _ in results], results[0][1], batch
    read(*waiting)
    return totals


def confidence(logits: np.ndarray) -> np.ndarray:
    """The probability of the most probable class, float32 [N], from logits [N, K]."""
    return 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)


def least_sure(confidences: np.ndarray, share: float) -> np.ndarray:
    """The indices of the least confident share of images, rounded up, in rising order; the first of equal ones."""
    return np.sort(np.argsort(confidences, kind="stable")[: views.chosen(len(confidences), share)])


def _on_host(array: jax.Array) -> np.ndarray:
    """The whole array, even if its parts lie on several hosts; in that case every host must call this."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
