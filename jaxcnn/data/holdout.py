"""Which examples of the training split are held out for validation."""

import numpy as np


def choose(labels: np.ndarray, count: int, seed: int, stratify: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` examples and of the rest, both rising, chosen by the seed.

    Args:
      labels: int32 [N].
      count: below N.
      seed: of the choice.
      stratify: as large a share of every class as of the whole, to the nearest example; of a class with two examples
        or more at least one where there is room, and one is left.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels))
    if stratify:
        shuffled = labels[order]
        counts = np.bincount(labels)
        within = np.empty(len(labels), np.int64)  # how many of its class come before, in that order
        within[np.argsort(shuffled, kind="stable")] = np.arange(len(labels)) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        held = within < quotas(counts, count)[shuffled]
        return np.sort(order[held]), np.sort(order[~held])
    return np.sort(order[:count]), np.sort(order[count:])


def quotas(counts: np.ndarray, held: int) -> np.ndarray:
    """How many examples of each class are held out, of int [K] that there are; the sum is `held`."""
    exact = counts.astype(np.int64) * held
    share, remainder = exact // counts.sum(), exact % counts.sum()
    most = np.maximum(counts - 1, 0)
    share = np.minimum(share, most)
    while (missing := held - int(share.sum())) > 0:
        room = np.flatnonzero(share < most)
        if not len(room):  # so many are held out that a class must go whole
            most = counts
            continue
        share[room[np.argsort(-remainder[room], kind="stable")][:missing]] += 1
    for rare in np.flatnonzero((share == 0) & (most > 0)):
        richest = int(share.argmax())
        if share[richest] < 2:
            break
        share[richest] -= 1
        share[rare] += 1
    return share
