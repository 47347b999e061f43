"""Chooses the training examples that are held out for validation, and those that are repeated to balance classes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64, Shaped

from jaxcnn.data.examples import Indices, Labels

MOST_REPEATED = 10  # factor by which balanced sampling enlarges a training split at most


def choose(labels: Labels, count: int, seed: int, stratify: bool) -> tuple[Indices, Indices]:
    """Indices of `count` randomly chosen examples and of the rest, both ascending.

    Args:
      labels: class number of each of the n examples.
      count: number of examples to hold out, below n.
      seed: seed of the choice.
      stratify: whether to hold out the same share of every class, to the nearest example. A class of two or more
        examples gives at least one if `count` allows, and keeps at least one.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels))
    if stratify:
        shuffled = labels[order]
        counts = np.bincount(labels)
        within = np.empty(len(labels), np.int64)  # number of earlier examples of the same class in that order
        within[np.argsort(shuffled, kind="stable")] = np.arange(len(labels)) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        held = within < quotas(counts, count)[shuffled]
        return np.sort(order[held]), np.sort(order[~held])
    return np.sort(order[:count]), np.sort(order[count:])


def fold(groups: Int[np.ndarray, " n"], folds: int, number: int, seed: int, stratify: bool) -> tuple[Indices, Indices]:
    """Indices of the examples in one of `folds` parts of about equal size, and of the rest, both ascending.

    Every example is in exactly one part. With `stratify`, the examples of each group are spread evenly over the parts.

    Args:
      groups: the group (class) of each of the n examples.
      folds: number of parts, at most n.
      number: the part, from 0.
      seed: seed of the division.
      stratify: whether to spread the groups evenly.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))
    if stratify:
        order = order[np.argsort(groups[order], kind="stable")]
    chosen = np.arange(len(groups)) % folds == number
    return np.sort(order[chosen]), np.sort(order[~chosen])


def choose_groups(names: Shaped[np.ndarray, " n"], count: int, seed: int) -> tuple[Indices, Indices]:
    """Indices of the examples of some whole groups, and of the rest, both ascending.

    The number of examples is the closest to `count` that whole groups allow (of two such, the smaller), but neither 0
    nor all. Groups are tried in a random order, until the first few of them have that number; in groups of one example
    each, this is a random choice of `count` groups.

    Args:
      names: the group of each of the n examples, at least two different ones.
      count: the wanted number of examples to hold out, at least 1 and below n.
      seed: seed of the choice.
    """
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    most = min(max(2 * count, int(sizes.min())), len(names) - 1)  # no larger number can be the closest
    # The group that first made each number of examples possible: before it, no choice of groups had that number.
    last = np.full(most + 1, -1, np.int64)
    possible = np.zeros(most + 1, bool)
    possible[0] = True
    for number in shuffled:
        size = int(sizes[number])
        new = possible[: max(most + 1 - size, 0)] & ~possible[size:]
        last[size:][new] = number
        possible[size:] |= new
        if possible[count]:
            break
    numbers = np.flatnonzero(possible)[1:]
    left = int(numbers[np.argmin(np.abs(numbers - count))])
    held = np.zeros(len(sizes), bool)
    while left:
        held[last[left]] = True
        left -= int(sizes[last[left]])
    return np.flatnonzero(held[group]), np.flatnonzero(~held[group])


def fold_of_groups(names: Shaped[np.ndarray, " n"], folds: int, number: int, seed: int) -> tuple[Indices, Indices]:
    """Like `fold`, but with whole groups: the largest first, each into the part that has the fewest examples so far.

    Args:
      names: the group of each of the n examples, at least `folds` different ones.
      folds: number of parts.
      number: the part, from 0.
      seed: seed of the order of groups of the same size.
    """
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    filled = np.zeros(folds, np.int64)
    part = np.empty(len(sizes), np.int64)
    for which in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part[which] = int(filled.argmin())
        filled[part[which]] += sizes[which]
    chosen = part[group] == number
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def stratified_groups(
    names: Shaped[np.ndarray, " n"], classes: Int[np.ndarray, " n"], shares: Sequence[float], seed: int
) -> Int64[np.ndarray, " n"]:
    """The part of each example, from 0: whole groups, divided so that each part has about its share of every class.

    Groups are placed one after another, starting with those with the most examples of one class, each in the part that
    lacks its classes the most. No part is empty if there are as many groups as parts. Whole groups seldom allow exact
    shares.

    Args:
      names: the group of each of the n examples, at least as many different ones as parts.
      classes: the class number of each example.
      shares: the wanted share of each part; their sum is 1.
      seed: seed of the order of groups that are alike.
    """
    _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
    totals = np.bincount(classes).astype(np.float64)
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(sizes))
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    held = [np.unique(classes[of], return_counts=True) for of in members]
    largest = np.array([counts.max() for _, counts in held])
    wanted = np.asarray(shares)[:, None] * totals
    filled, number = np.zeros_like(wanted), np.zeros(len(shares), np.int64)
    part = np.empty(len(sizes), np.int64)
    order = shuffled[np.argsort(-largest[shuffled], kind="stable")]
    for place, which in enumerate(order):
        of, counts = held[which]
        # The increase of a sum of squared errors, of the shares of each class, without what is equal for all parts.
        growth = (counts * (filled[:, of] - wanted[:, of]) / totals[of] ** 2).sum(axis=1)
        if np.count_nonzero(number == 0) >= len(order) - place:  # just enough groups are left for the empty parts
            growth[number > 0] = np.inf
        part[which] = chosen = int(growth.argmin())
        filled[chosen, of] += counts
        number[chosen] += 1
    return part[group]


def quotas(counts: Int[np.ndarray, " k"], held: int) -> Int64[np.ndarray, " k"]:
    """The number of held-out examples of each class, from the class sizes `counts`; the sum is `held`."""
    exact = counts.astype(np.int64) * held
    share, remainder = exact // counts.sum(), exact % counts.sum()
    most = np.maximum(counts - 1, 0)
    share = np.minimum(share, most)
    while (missing := held - int(share.sum())) > 0:
        room = np.flatnonzero(share < most)
        if not len(room):  # `held` is so large that some class must be held out completely
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


def balanced(groups: Int[np.ndarray, " n"], seed: int) -> Indices:
    """Indices of all examples, those of smaller groups repeated until all groups have equally many; ascending.

    If that would be more than `MOST_REPEATED` times as many examples, smaller groups get fewer, all equally many.
    Each example of a group is repeated equally often, up to a difference of 1; `seed` chooses those repeated once more.
    The order of training then shows each of these as it shows any other example.

    Args:
      groups: the group (class) of each of the n examples.
      seed: seed of the choice.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))
    _, group, counts = np.unique(groups[order], return_inverse=True, return_counts=True)
    wanted = min(int(counts.max()), MOST_REPEATED * len(groups) // len(counts))
    repeated = [np.resize(order[group == number], max(wanted, counts[number])) for number in range(len(counts))]
    return np.sort(np.concatenate(repeated))


def remark(groups: Int[np.ndarray, " n"]) -> list[str]:
    """A line if balanced examples of these groups (classes) are not equally many, because they would be too many."""
    counts = np.unique(groups, return_counts=True)[1]
    if counts.min() == counts.max():
        return []
    return [
        f"data.sampling='balanced' makes a split about {MOST_REPEATED} times as large at most, so the classes get "
        f"{counts.min()} to {counts.max()} examples, not equally many"
    ]
