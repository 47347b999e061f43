"""Sums of per-example values over a batch, from which all reported means are computed."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

LOSS = "loss"
COUNT = "count"

Scalar = Float32[Array, ""]
# Sums over examples by name, which add up over microbatches, devices, batches and hosts; `COUNT` is their number.
Sums = dict[str, Scalar]


def summed(values: Mapping[str, Float32[Array, " b"]], mask: Bool[Array, " b"]) -> Sums:
    """Sum the values of each example, by name, over the examples whose mask is True, and count these."""
    sums = {name: jnp.sum(jnp.where(mask, of_each, 0.0)) for name, of_each in values.items()}
    return sums | {COUNT: jnp.sum(mask.astype(jnp.float32))}


def means_of(sums: Mapping[str, float]) -> dict[str, float]:
    """The mean of each value, by name."""
    return {name: total / sums[COUNT] for name, total in sums.items() if name != COUNT}
