"""Weight sharing: the weights of a layer become few values, found by k-means.

Han, Mao & Dally 2016, "Deep Compression", arXiv 1510.00149, section 3: the first centroids lie at equal distances
between the smallest and the largest weight, as the few large weights matter most. Weights that are zero stay zero.
"""

import numpy as np
from jaxtyping import Float, Float64, Int

from jaxcnn.weights.shared import Shared

MOST_ROUNDS = 200


def share(weights: Float[np.ndarray, "..."], bits: int) -> Shared:
    """Weights with at most 2^bits values besides zero; weights with no more values than that keep them, to the bit."""
    live = weights[weights != 0]
    values = np.unique(live)
    if len(values) > 2**bits:
        values = np.unique(centroids(live, 2**bits).astype(np.float32))
        values = values[values != 0]
    codes = np.where(weights != 0, nearest(weights, values) + 1, 0)
    used = np.unique(codes[codes > 0])  # a centroid without weights costs four bytes for nothing
    numbers = np.zeros(len(values) + 1, np.int64)
    numbers[used] = np.arange(1, len(used) + 1)
    return Shared(values[used - 1].astype(np.float32), numbers[codes])


def centroids(weights: Float[np.ndarray, " n"], count: int) -> Float64[np.ndarray, " count"]:
    """The centroids of Lloyd's k-means on numbers, in ascending order, after linear initialisation.

    In one dimension each cluster is an interval, so a round needs only the sorted numbers, their running sums, and one
    for each border. It ends when no weight changes its cluster.
    """
    ordered = np.sort(weights.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    found = np.linspace(ordered[0], ordered[-1], count)
    before = np.zeros(0, np.int64)
    for _ in range(MOST_ROUNDS):
        borders = np.concatenate([[0], np.searchsorted(ordered, _between(found)), [len(ordered)]])
        if np.array_equal(borders, before):
            break
        sizes, before = np.diff(borders), borders
        found = np.where(sizes > 0, np.diff(sums[borders]) / np.maximum(sizes, 1), found)
    return found


def nearest(weights: Float[np.ndarray, "..."], values: Float[np.ndarray, " values"]) -> Int[np.ndarray, "..."]:
    """The number of the value nearest to each weight; the values are in ascending order."""
    return np.searchsorted(_between(values.astype(np.float64)), weights)


def _between(values: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " borders"]:
    return (values[1:] + values[:-1]) / 2
