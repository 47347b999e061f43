"""Gradients of a batch, computed part by part, so that only one part needs memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Collection


def accumulated(
    gradient: Callable[..., Any], params: Collection, examples: Any, microbatches: int, unroll: bool, largest: bool
) -> Any:
    """The sum of `gradient(params, microbatch)` over the microbatches of a local batch.

    Args:
      gradient: maps parameters and examples to ((loss, (sums of metrics, statistics)), gradients).
      params: first argument of `gradient`.
      examples: the local batch, a tree of arrays [b, ...].
      microbatches: number of microbatches, which divides b.
      unroll: whether to unroll the microbatches one after another instead of looping over them.
      largest: whether to take the largest statistics, not their sum.
    """
    if microbatches == 1:
        return gradient(params, examples)
    parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), examples)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        new = gradient(params, part)
        summed = jax.tree.map(jnp.add, total, new)
        if largest:
            ((_, (_, before)), _), ((_, (_, here)), _) = total, new
            (loss, (sums, _)), grads = summed
            summed = (loss, (sums, jax.tree.map(jnp.maximum, before, here))), grads
        return summed, None

    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, params, first))
    return jax.lax.scan(add, zero, parts, unroll=unroll)[0]
