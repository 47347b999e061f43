"""Weights that share a value keep sharing it while a network trains, by the sum of their gradients.

Han, Mao & Dally 2016, "Deep Compression", arXiv 1510.00149, section 3.3: the gradient of a centroid is the
sum of the gradients of its weights. Equal weights of a kernel share one value; so the state needs no cluster numbers
besides its weights, and a checkpoint resumes with them. Weights that are zero stay zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Collection
from jax import lax
from jaxtyping import Array, Float, Int32

from jaxcnn.config import ConfigError
from jaxcnn.learn import rates

Weights = Float[Array, "..."]

_HALF = 2**16  # patterns of half the bits of a float32
_ROOM, _MOST_ROOM = 64, 2**25  # entries of a table: for each weight, and in total


def summed(values: int, grads: Collection, params: Collection) -> Collection:
    """The gradients of kernels: for each weight the sum over all weights equal to it; 0 for weights of 0.

    Args:
      values: the largest number of values in a kernel, besides 0.
      grads: gradients of the loss; None where `params` is not trained.
      params: the parameters.
    """

    def one(grad: Weights, weights: Weights) -> Weights:
        numbers, _ = _clusters(weights, values)
        sums = jax.ops.segment_sum(grad.reshape(-1), numbers, num_segments=min(values + 1, weights.size))
        return jnp.where(weights != 0, sums[numbers].reshape(weights.shape), 0)

    return _on_kernels(one, grads, params)


def kept(values: int, tree: Collection, params: Collection) -> Collection:
    """The tree with equal weights in kernels where those of `params` are equal, and 0 where those are 0.

    After an update, equal weights are equal only up to rounding; all take the value of the first one.
    """

    def one(leaf: Weights, weights: Weights) -> Weights:
        numbers, firsts = _clusters(weights, values)
        return jnp.where(weights != 0, leaf.reshape(-1)[firsts][numbers].reshape(weights.shape), 0)

    return _on_kernels(one, tree, params)


def _on_kernels(one: Callable[[Weights, Weights], Weights], tree: Collection, params: Collection) -> Collection:
    def each(leaf: Weights | None, weights: Weights) -> Weights | None:
        return leaf if leaf is None or leaf.ndim < 2 else one(leaf, weights)

    return jax.tree.map(each, tree, params, is_leaf=lambda leaf: leaf is None)


def _clusters(weights: Weights, values: int) -> tuple[Int32[Array, " n"], Int32[Array, " clusters"]]:
    """The number of each weight's value, and for each value the index of its first weight."""
    flat = weights.reshape(-1)
    most = min(values + 1, flat.size)
    if (values + 1) * _HALF <= min(_MOST_ROOM, _ROOM * flat.size):
        numbers = _numbers(jnp.where(flat == 0, 0, flat), most)
    else:
        numbers = _numbers_by_order(flat)
    places = jnp.arange(flat.size, dtype=jnp.int32)
    return numbers, jnp.full(most, flat.size - 1, jnp.int32).at[numbers].min(places)


def _numbers(flat: Float[Array, " n"], most: int) -> Int32[Array, " n"]:
    """The number of each weight's value, found with marks in a table: ten times as fast on a CPU as sorting.

    A table for all 32 bits would be too large; so the upper 16 bits are numbered first, then the pairs of
    such a number and the lower 16 bits.
    """
    bits = lax.bitcast_convert_type(flat, jnp.uint32)
    upper, lower = ((half % _HALF).astype(jnp.int32) for half in (bits // _HALF, bits))
    pairs = _ranks(upper, _HALF) * _HALF + lower
    return _ranks(pairs, most * _HALF)


def _ranks(keys: Int32[Array, " n"], size: int) -> Int32[Array, " n"]:
    """The rank of each key among the keys that occur; keys are below `size`."""
    return (jnp.cumsum(jnp.zeros(size, jnp.int32).at[keys].set(1)) - 1)[keys]


def _numbers_by_order(flat: Float[Array, " n"]) -> Int32[Array, " n"]:
    order = jnp.argsort(flat)
    ordered = flat[order]
    begins = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    numbers = jnp.cumsum(begins, dtype=jnp.int32) - 1
    return jnp.zeros(flat.size, jnp.int32).at[order].set(numbers, unique_indices=True)


def check(values: int, params: Collection) -> None:
    """Refuse kernels with more than `values` different values.

    Args:
      values: `config.optim.shared_values`.
      params: the parameters that a run begins with, with None in place of those that are not trained.

    Raises:
      ConfigError: a kernel has more.
    """
    for keys, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if leaf.ndim > 1 and (found := np.count_nonzero(np.unique(np.asarray(leaf)))) > values:
            raise ConfigError(
                f"config.optim.shared_values={values}, but {rates.path_of(keys)} has {found:,} values; start from "
                "weights that share them (python -m jaxcnn.compress --method=share)"
            )
