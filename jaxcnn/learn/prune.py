"""Pruning by magnitude: the smallest weights become zero while the network trains, and stay zero.

Zhu & Gupta 2017, "To prune, or not to prune", arXiv 1710.01878: the sparsity rises by a cubic curve, and each pruning
takes the weights of the smallest magnitude. A pruned weight gets no gradient and no update.

Every weight that is zero counts as pruned, so the state needs no masks: a checkpoint resumes with its zeros, and
a run that starts from the weights of a pruned one (`config.init`) keeps its zeros. In a layer whose weights are
all zero, the zeros are not kept, since a kernel that starts at zero could never train.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Collection
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from jaxcnn.config import ConfigError, Prune
from jaxcnn.config.layers import check_patterns, number_of
from jaxcnn.learn import rates

Weights = Float[Array, "..."]
Step = Int32[Array, ""]
INFINITY_BITS = 0x7F800000  # bits of infinity as float32; positive numbers are in the order of their bits
ROUNDS = 31  # halvings that reduce the range from 0 to INFINITY_BITS + 1 to one number
POOLED = ""  # name of the group of layers that are pruned together


def sparsities(prune: Prune, params: Collection) -> dict[str, float]:
    """The final sparsity of each array that is pruned, by path; arrays with fewer than two dimensions are never pruned.

    Args:
      prune: the options.
      params: parameters, with None in place of those that are not trained; shapes are enough.
    """
    leaves = ((rates.path_of(keys), leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0])
    wanted = {path: number_of(path, prune.layers, prune.sparsity) for path, leaf in leaves if len(leaf.shape) > 1}
    return {path: share for path, share in wanted.items() if share > 0}


def prunings(prune: Prune, total_steps: int) -> tuple[int, int]:
    """The numbers of steps done at the first and at the last pruning; `prune.every` steps lie between two prunings."""
    end = max(1, round(prune.end * total_steps))
    begin = max(1, round(prune.begin * total_steps))
    return end - max(0, end - begin) // prune.every * prune.every, end


def share_at(prune: Prune, done: Step, total_steps: int) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The sparsity after `done` steps as a share of the final one, and whether weights are pruned at that step.

    Equation 1 of Zhu & Gupta with an initial sparsity of 0: 1 - (1 - (t - t0) / (n dt))^3. With a single pruning the
    share is 1.
    """
    first, last = prunings(prune, total_steps)
    passed = (done - first) / max(last - first, 1)
    share = jnp.float32(1.0) if first == last else 1.0 - (1.0 - passed) ** 3
    return share, (done >= first) & (done <= last) & ((done - first) % prune.every == 0)


def masked(prune: Prune, tree: Collection, params: Collection, step: Step, total_steps: int) -> Collection:
    """The tree with zeros where pruned layers of `params` have zeros, once pruning has begun.

    Args:
      prune: the options.
      tree: a tree like the parameters, such as gradients; None where `params` is not trained.
      params: the parameters.
      step: steps done before this one.
      total_steps: steps of the whole run.
    """
    chosen = sparsities(prune, tree)
    begun = step >= round(prune.begin * total_steps)

    def one(keys: Sequence[Any], leaf: Weights | None, weights: Weights) -> Weights | None:
        if leaf is None or rates.path_of(keys) not in chosen:
            return leaf
        live = weights != 0
        return jnp.where(live | ~begun | ~jnp.any(live), leaf, jnp.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(one, tree, params, is_leaf=lambda leaf: leaf is None)


def pruned(prune: Prune, part: Collection, before: Collection, step: Step, total_steps: int) -> Collection:
    """The trained parameters after a step, with zeros where they were zero before it and where they are pruned now.

    Args:
      prune: the options.
      part: the parameters after the update, with None in place of those that are not trained.
      before: the parameters before the update.
      step: steps done before this one.
      total_steps: steps of the whole run.
    """
    part = masked(prune, part, before, step, total_steps)
    chosen = sparsities(prune, part)
    leaves = {rates.path_of(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(part)[0]}
    groups: dict[str, list[str]] = {}
    for path in chosen:
        own = prune.scope == "layer" or number_of(path, prune.layers, -1.0) >= 0
        groups.setdefault(path if own else POOLED, []).append(path)
    share, due = share_at(prune, step + 1, total_steps)
    limits: dict[str, Step] = {}
    for paths in groups.values():
        weights = [leaves[path] for path in paths]
        at_the_end = chosen[paths[0]] * sum(each.size for each in weights)
        count = jnp.round(share * at_the_end).astype(jnp.int32)
        limits |= dict.fromkeys(paths, _limit(weights, count, due))

    def one(keys: Sequence[Any], leaf: Weights) -> Weights:
        limit = limits.get(rates.path_of(keys))
        return leaf if limit is None else jnp.where(_bits(leaf) < limit, jnp.zeros_like(leaf), leaf)

    return jax.tree_util.tree_map_with_path(one, part)


def _bits(weights: Weights) -> Int32[Array, "..."]:
    return lax.bitcast_convert_type(jnp.abs(weights), jnp.int32)


def _limit(weights: list[Weights], count: Step, due: Bool[Array, ""]) -> Step:
    """The smallest limit below which at least `count` magnitudes lie, as the bits of a float32; 0 if none is `due`.

    Found by halving the range of the bits, with an exact count of integers in each round: no array is sorted, and
    neither the sharding nor the number of devices changes the limit.
    """

    def halve(_: Step, ends: tuple[Step, Step]) -> tuple[Step, Step]:
        low, high = ends
        middle = low + (high - low) // 2
        below = sum((jnp.sum(_bits(each) < middle, dtype=jnp.int32) for each in weights), jnp.int32(0))
        enough = below >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    ends = jnp.int32(0), jnp.int32(INFINITY_BITS + 1)
    return lax.fori_loop(0, jnp.where(due, ROUNDS, 0), halve, ends)[0]


def check(prune: Prune, params: Collection) -> None:
    """Refuse patterns that match no trained kernel.

    Raises:
      ConfigError: a pattern matches none or is no regular expression, or nothing is left to prune.
    """
    paths = [
        rates.path_of(keys) for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0] if len(leaf.shape) > 1
    ]
    what = f"kernel that is trained; a pattern must match one of {', '.join(paths)}"
    check_patterns("config.prune.layers", (pattern for pattern, _ in prune.layers), paths, what)
    if not sparsities(prune, params):
        raise ConfigError("config.prune: config.prune.layers leaves no kernel to prune")


def counts(params: Collection) -> dict[str, tuple[int, int]]:
    """The numbers of zeros and of all weights in each array of two or more dimensions, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {
        rates.path_of(keys): (int(leaf.size - jnp.count_nonzero(leaf)), leaf.size)
        for keys, leaf in leaves
        if leaf.ndim > 1
    }
