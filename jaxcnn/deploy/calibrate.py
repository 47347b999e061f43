"""The ranges of the tensors of a graph, from images of training or validation, never of the test.

minmax: the smallest and the largest value seen. percentile: what all but 0.01 % of the values lie between. mse: the
range, of those that are the largest one made smaller, whose int8 has the smallest squared error (Krishnamoorthi 2018,
arXiv 1806.08342; Wu et al. 2020, arXiv 2004.09602).
"""

from collections.abc import Callable, Collection, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.deploy import predictor
from jaxcnn.graphs import in_jax
from jaxcnn.graphs.graph import Graph
from jaxcnn.graphs.quantize import LEVELS, Range

METHODS = ("minmax", "percentile", "mse")
BINS = 2048
OUTSIDE = 1e-4  # percentile: the share of the values that the range leaves out
_FACTORS = np.arange(0.3, 1.001, 0.02)  # mse: of the whole range
_BATCH = 64


def ranges(graph: Graph, names: Collection[str], split: Split, images: int, method: str) -> dict[str, Range]:
    """The range of each tensor.

    Args:
      graph: the graph in float32.
      names: names of the tensors.
      split: training or validation.
      images: how many, at equal distances in the split; all if it has fewer.
      method: one of `METHODS`.

    Raises:
      UserError: the split is the test split, or a tensor is not finite.
    """
    if split.name == "test":
        raise UserError("ranges are not taken from the test split, which must stay unseen; use train or val")
    run = in_jax.function(graph, predictor.INPUT, sorted(names))
    ends: dict[str, np.ndarray] = {}
    extremes = _on_each(
        split, images, jax.jit(lambda batch: _each(run(batch), lambda x: jnp.stack([x.min(), x.max()])))
    )
    for found in extremes:
        for name, pair in found.items():
            before = ends.setdefault(name, pair)
            ends[name] = np.array([min(before[0], pair[0]), max(before[1], pair[1])])
    if not all(np.isfinite(pair).all() for pair in ends.values()):
        raise UserError("this network has values that are not finite on the images of calibration")
    if method == "minmax":
        return {name: Range(*map(float, pair)) for name, pair in ends.items()}
    counts = {name: np.zeros(BINS) for name in ends}
    binned = jax.jit(lambda batch, ends: {name: _histogram(x, ends[name]) for name, x in run(batch).items()})
    for found in _on_each(split, images, lambda batch: binned(batch, ends)):
        for name, seen in found.items():
            counts[name] += seen
    choose = _percentile if method == "percentile" else _least_error
    return {name: choose(counts[name], *map(float, pair)) for name, pair in ends.items()}


def _each(values: dict[str, Array], what: Callable[[Array], Array]) -> dict[str, Array]:
    return {name: what(value) for name, value in values.items()}


def _on_each(
    split: Split, images: int, call: Callable[[np.ndarray], dict[str, Array]]
) -> Iterator[dict[str, np.ndarray]]:
    """The results of a function of batches; the last one may be smaller, so that no image counts twice."""
    for batch in batches(split, images):
        yield jax.device_get(call(batch))


def batches(split: Split, images: int) -> Iterator[np.ndarray]:
    """So many images of a split, at equal distances in it, in batches; all of them if it has fewer."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(images, len(split))).astype(np.int64))
    for start in range(0, len(chosen), _BATCH):
        yield np.asarray(split.read(chosen[start : start + _BATCH]))


def _histogram(x: Float[Array, "..."], ends: Float[Array, "2"]) -> Float[Array, " bins"]:
    width = jnp.maximum(ends[1] - ends[0], 1e-30)
    places = jnp.clip(((x - ends[0]) / width * BINS).astype(jnp.int32), 0, BINS - 1).reshape(-1)
    return jnp.zeros(BINS, jnp.float32).at[places].add(1.0)


def _percentile(counts: Float[np.ndarray, " bins"], low: float, high: float) -> Range:
    """Half of what lies outside is on each side; a side that is 0, as after a ReLU, stays."""
    edges, below = np.linspace(low, high, BINS + 1), np.cumsum(counts) / counts.sum()
    share = OUTSIDE / 2 if low < 0 < high else OUTSIDE
    first = edges[np.searchsorted(below, share, side="right")] if low < 0 else low
    last = edges[np.searchsorted(below, 1 - share) + 1] if high > 0 else high
    return Range(float(first), float(last))


def _least_error(counts: Float[np.ndarray, " bins"], low: float, high: float) -> Range:
    edges = np.linspace(low, high, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2

    def error(within: Range) -> float:
        codes = np.clip(np.rint(middles / within.scale) + within.zero, 0, LEVELS)
        return float(counts @ np.square((codes - within.zero) * within.scale - middles))

    return min((Range(low * factor, high * factor) for factor in _FACTORS[::-1]), key=error)
