"""Assigns boxes to the points of an image: the dynamic assignment of RTMDet, Lyu et al. 2022, arXiv:2212.07784, 2.3.

Each box gets the points at which predicting it costs least. Their number is the sum of the largest IoUs of the box,
as in SimOTA (Ge et al. 2021, arXiv:2107.08430, section 2.1). A point that several boxes want takes the cheapest one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from jaxcnn.tasks.box_geometry import overlap

CANDIDATES = 13  # points of each box whose IoUs are added up
OVERLAP_WEIGHT = 3.0  # weight of the IoU cost, relative to the costs of class and distance
FREE_DISTANCE = 3.0  # distance from the centre of a box, in strides, at which its cost is 1
_IMPOSSIBLE = 1e9


class Assigned(NamedTuple):
    """What each point of an image should predict.

    Attributes:
      box: number of its true box; meaningless where `positive` is False.
      positive: whether the point has a true box.
      quality: the IoU of its predicted box with the true box; 0 where it has none.
      ignored: whether it lies in a crowd and has no true box, so that it has no loss.
    """

    box: Int32[Array, " a"]
    positive: Bool[Array, " a"]
    quality: Float32[Array, " a"]
    ignored: Bool[Array, " a"]


def assign(
    answered: Float32[Array, "a 4"],
    logits: Float32[Array, "a k"],
    points: Float32[Array, "a 3"],
    boxes: Float32[Array, "g 4"],
    labels: Int32[Array, " g"],
    valid: Bool[Array, " g"],
    crowd: Bool[Array, " g"],
) -> Assigned:
    """Assign the boxes of one image to its points; no gradient flows through the assignment.

    A point may get a box in which it lies or, where the box is smaller than the point's stride, one whose centre is at
    most half a stride away in both directions; so every box has a candidate on every level. Points of equal cost are
    taken together.

    Args:
      answered: the box that each point predicts.
      logits: the class logits of each point.
      points: from `box_geometry.points`.
      boxes, labels, valid, crowd: the padded boxes of the image.
    """
    answered, logits = jax.lax.stop_gradient((answered, logits))
    real = valid & ~crowd
    place, stride = points[:, :2], points[:, 2]
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    away = jnp.abs(place[None] - centre[:, None])  # [g, a, 2]
    reach = jnp.maximum(half[:, None], stride[None, :, None] / 2)
    inside = (away <= reach).all(axis=-1)
    possible = inside & real[:, None]
    overlaps = jnp.where(possible, overlap(answered[None], boxes[:, None]), 0.0)
    of_class = logits[:, labels].T  # [g, a]
    wrong = jnp.square(overlaps - jax.nn.sigmoid(of_class)) * binary_cross_entropy(of_class, overlaps)
    distance = jnp.sqrt(jnp.square(place[None] - centre[:, None]).sum(-1)) / stride[None]
    far = 10.0 ** jnp.minimum(distance - FREE_DISTANCE, 6.0)
    cost = wrong - OVERLAP_WEIGHT * jnp.log(overlaps + 1e-7) + far
    cost = jnp.where(possible, cost, _IMPOSSIBLE)
    most = min(CANDIDATES, points.shape[0])
    best = jax.lax.top_k(overlaps, most)[0].sum(axis=-1)
    wanted = jnp.clip(best.astype(jnp.int32), 1, most)
    cheapest = -jax.lax.top_k(-cost, most)[0]  # [g, most], rising
    limit = jnp.take_along_axis(cheapest, wanted[:, None] - 1, axis=1)
    taken = possible & (cost <= limit)
    price = jnp.where(taken, cost, 2 * _IMPOSSIBLE)
    box = price.argmin(axis=0).astype(jnp.int32)
    positive = taken.any(axis=0)
    quality = jnp.where(positive, jnp.take_along_axis(overlaps, box[None], axis=0)[0], 0.0)
    in_crowd = ((away <= half[:, None]).all(axis=-1) & (valid & crowd)[:, None]).any(axis=0)
    return Assigned(box, positive, quality, in_crowd & ~positive)


def binary_cross_entropy(logits: Float[Array, "..."], shares: Array) -> Float[Array, "..."]:
    """The binary cross-entropy of each logit, in nats; `shares` are the targets, from 0 to 1."""
    return jnp.maximum(logits, 0) - logits * shares + jnp.log1p(jnp.exp(-jnp.abs(logits)))
