"""Boxes whose four distances from a point are distributions over bins, and the loss that trains them.

Li et al. 2020, "Generalized focal loss", arXiv:2006.04388, equations 3 to 6. Bin n is a distance of n strides.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

WEIGHT = 0.25  # of the loss of the distributions, relative to the class loss (Li et al. 2020, section 4)

Bins = Float[Array, "... a 4b"]  # logits: of the left side first, then of top, right and bottom


def in_pixels(logits: Bins, points: Float32[Array, "a 3"]) -> Float[Array, "... a 4"]:
    """Boxes in pixels: the mean distance of each side from the point, in strides."""
    share = jax.nn.softmax(_by_side(logits), axis=-1)
    away = (share * jnp.arange(share.shape[-1], dtype=share.dtype)).sum(axis=-1) * points[:, 2:]
    return jnp.concatenate([points[:, :2] - away[..., :2], points[:, :2] + away[..., 2:]], axis=-1)


def focal(logits: Bins, points: Float32[Array, "a 3"], boxes: Float[Array, "a 4"]) -> Float[Array, "... a"]:
    """The distribution focal loss of each point (equation 6), the mean of the four sides, in nats.

    A distance between two bins is learnt as their shares in proportion to how near it is. Distances below 0 count as 0,
    and those beyond the last bin as the last bin.

    Args:
      logits: what each point answers.
      points: from `box_geometry.points`.
      boxes: the true box of each point.
    """
    likely = jax.nn.log_softmax(_by_side(logits), axis=-1)
    last = likely.shape[-1] - 1
    place, stride = points[:, :2], points[:, 2:]
    away = jnp.concatenate([place - boxes[..., :2], boxes[..., 2:] - place], axis=-1) / stride
    share = jnp.maximum(1 - jnp.abs(jnp.clip(away, 0, last)[..., None] - jnp.arange(last + 1)), 0)
    return -(share * likely).sum(axis=-1).mean(axis=-1)


def _by_side(logits: Bins) -> Float[Array, "... a 4 b"]:
    return logits.reshape(*logits.shape[:-1], 4, -1)
