"""Anchors of a two-stage detector, how boxes are told relative to them, and which of them learn which box.

Ren et al. 2015, "Faster R-CNN", arXiv:1506.01497; the details, such as rounding, are those of torchvision.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxcnn.tasks import box_geometry

RATIOS = (0.5, 1.0, 2.0)  # height over width
LARGEST = math.log(1000 / 16)  # of the logarithm of how much larger a box is than its anchor
IN_CROWD = 0.7  # share of a box within a crowd from which it is not learnt as background

Boxes = Float[Array, "a 4"]
Weights = tuple[float, float, float, float]


def anchors(
    sides: tuple[int, int], maps: Sequence[tuple[int, int]], sizes: Sequence[float]
) -> list[Float[np.ndarray, "a 4"]]:
    """The anchors of each level: place by place, row by row, one of each of `RATIOS` at a place.

    Args:
      sides: height and width of the images.
      maps: height and width of the map of each level.
      sizes: of each level, the side of the square whose area its anchors have, pixels.
    """
    levels = []
    roots = np.sqrt(np.array(RATIOS, np.float32))
    for (height, width), size in zip(maps, sizes, strict=True):
        across, along = np.float32(size) / roots, np.float32(size) * roots
        base = np.round(np.stack([-across, -along, across, along], axis=1) / 2)
        y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
        shift = np.stack([x, y, x, y], axis=1) * np.tile([sides[1] // width, sides[0] // height], 2)
        levels.append((shift[:, None] + base[None]).reshape(-1, 4).astype(np.float32))
    return levels


def encoded(boxes: Boxes, by: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Boxes relative to others: offsets of the centre in sides of the other, and logarithms of the sides, weighted."""
    sides, of_other = (jnp.maximum(each[:, 2:] - each[:, :2], 1e-3) for each in (boxes, by))
    centre, of_others = boxes[:, :2] + 0.5 * sides, by[:, :2] + 0.5 * of_other
    told = jnp.concatenate([(centre - of_others) / of_other, jnp.log(sides / of_other)], axis=1)
    return told * jnp.asarray(weights, told.dtype)


def decoded(
    told: Float[Array, "a ... 4"], by: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Array, "a ... 4"]:
    """The boxes that `encoded` told; at most e ** `LARGEST` times as large as the others."""
    told = told / jnp.asarray(weights, told.dtype)
    by = by.reshape(by.shape[0], *(1,) * (told.ndim - 2), 4)
    of_other = by[..., 2:] - by[..., :2]
    centre = told[..., :2] * of_other + by[..., :2] + 0.5 * of_other
    half = 0.5 * jnp.exp(jnp.minimum(told[..., 2:], LARGEST)) * of_other
    return jnp.concatenate([centre - half, centre + half], axis=-1)


class Matched(NamedTuple):
    """Which true box each of a boxes learns.

    Attributes:
      box: its number; meaningless where `positive` is False.
      positive: whether it learns one.
      negative: whether it learns that nothing is there. Neither holds for boxes that are not judged.
    """

    box: Int[Array, " a"]
    positive: Bool[Array, " a"]
    negative: Bool[Array, " a"]


def matched(boxes: Boxes, target: Any, *, least: float, most_of_background: float, best_of_each: bool) -> Matched:
    """Match boxes to the true boxes that they overlap most; ties go to the first.

    Args:
      boxes: anchors or proposals.
      target: the columns of `box_records` of the image.
      least: overlap from which a box learns a true one.
      most_of_background: overlap below which it is background.
      best_of_each: those that overlap a true box as much as any do learn their own best, too, however little it is.
    """
    true, valid, crowd = target["boxes"].astype(boxes.dtype), target["valid"], target["crowd"]
    real = valid & ~crowd
    overlaps = jnp.where(real[:, None], box_geometry.overlap(true[:, None], boxes[None]), -1.0)  # [g, a]
    box, best = overlaps.argmax(axis=0), overlaps.max(axis=0)
    positive = best >= least
    if best_of_each:
        highest = overlaps.max(axis=1, keepdims=True)
        positive |= ((overlaps == highest) & (highest > 0)).any(axis=0)
    corners = jnp.concatenate(
        [jnp.maximum(true[:, None, :2], boxes[None, :, :2]), jnp.minimum(true[:, None, 2:], boxes[None, :, 2:])],
        axis=-1,
    )
    within = box_geometry.area(corners) > IN_CROWD * box_geometry.area(boxes)[None]
    hidden = (within & (valid & crowd)[:, None]).any(axis=0)
    return Matched(box, positive, (best < most_of_background) & ~positive & ~hidden)


def match_anchors(by: Boxes, target: Any) -> Matched:
    """What the anchors of an image learn: the columns of `box_records` are the target."""
    return matched(by, target, least=0.7, most_of_background=0.3, best_of_each=True)


def match_proposals(boxes: Boxes, usable: Bool[Array, " a"], target: Any) -> Matched:
    """What the proposals of an image learn; those that are not usable learn nothing."""
    found = matched(boxes, target, least=0.5, most_of_background=0.5, best_of_each=False)
    return found._replace(positive=found.positive & usable, negative=found.negative & usable)


class Chosen(NamedTuple):
    """Some of a boxes, in a fixed number of places.

    Attributes:
      place: their numbers, those that learn a box first.
      used: whether a place is taken.
    """

    place: Int[Array, " s"]
    used: Bool[Array, " s"]


def chosen(found: Matched, order: Float[Array, " a"], number: int, share: float) -> Chosen:
    """A random choice of boxes, of which at most a share learns a true one; background fills it up.

    Args:
      found: from `matched`.
      order: random numbers; of each kind, those with the smallest are taken.
      number: of places.
      share: of those that learn a true box.
    """
    most = min(number, found.box.shape[0])
    positives = jnp.minimum(found.positive.sum(), int(number * share))
    negatives = jnp.minimum(found.negative.sum(), number - positives)

    def first(kind: Bool[Array, " a"]) -> Int[Array, " a"]:
        return jnp.argsort(jnp.where(kind, order, jnp.inf))[:most]

    place = jnp.arange(most)
    of_negatives = first(found.negative)[jnp.clip(place - positives, 0, most - 1)]
    together = jnp.where(place < positives, first(found.positive), of_negatives)
    return Chosen(together, place < positives + negatives)


def random_order(keys: Key[Array, " b"], number: int) -> Float[Array, "b a"]:
    """A random number for each of the boxes of each image, by a key of its own."""
    return jax.vmap(lambda key: jax.random.uniform(key, (number,)))(keys)
