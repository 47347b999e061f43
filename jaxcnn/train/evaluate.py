"""Evaluation of a split, in which every example counts once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.data.batch import Batch, Constants, Split
from jaxcnn.learn import metrics, programs
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
) -> dict[str, float]:
    """Mean loss and metrics over a split, by name.

    With test-time augmentation (`tta` as in `config.run`), the figures of the averaged outputs are included, named
    tta_…. `between_batches` is called before each batch starts; its exceptions end the evaluation. If a `collector` is
    given, the outputs of each batch, without test-time augmentation, are added to it.
    """
    totals: list[dict[str, float]] = []
    waiting: Any = None  # metrics read one batch late, so that the devices never wait for the host
    variables = programs.as_evaluated(loader.spec, loader.mesh, variables)

    def read(sums: list[metrics.Sums], outputs: jax.Array, batch: Batch) -> None:
        if collector is not None:
            mask = _on_host(batch.mask)
            collector.add(_on_host(outputs)[mask], jax.tree.map(lambda of_each: _on_host(of_each)[mask], batch.target))
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
    values: dict[str, float] = {}
    for prefix, sums in zip(("", "tta_"), totals, strict=False):
        if sums[metrics.COUNT] != len(split):
            raise AssertionError(f"{sums[metrics.COUNT]} examples counted of {len(split)} in {split.description}")
        values |= {f"{prefix}{name}": mean for name, mean in metrics.means_of(sums).items()}
    return values | {"examples": len(split)}


def _on_host(array: jax.Array) -> np.ndarray:
    """The whole array, even if its parts lie on several hosts; in that case every host must call this."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
