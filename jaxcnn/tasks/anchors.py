"""Anchors of a two-stage detector, how boxes are encoded relative to them, and which anchors learn which box.

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
LARGEST = math.log(1000 / 16)  # largest logarithm of the ratio of a box's side to that of its anchor
FIRST_STRIDE = 4  # pixels between the places of the first map; each following map has twice as many
PADDED = 32  # torchvision pads the sides of an image to a multiple of this
IN_CROWD = 0.7  # share of a box that lies in a crowd, from which the box is not learnt as background

Boxes = Float[Array, "a 4"]
Weights = tuple[float, float, float, float]


def stride_of(level: int) -> int:
    """The pixels between the places of a level's map, for images of any size: each map is half of the one before."""
    return FIRST_STRIDE * 2**level


def anchors(
    sides: tuple[int, int], maps: Sequence[tuple[int, int]], sizes: Sequence[float]
) -> list[Float[np.ndarray, "a 4"]]:
    """The anchors of each level: place by place, row by row, with one anchor for each of `RATIOS` at every place.

    They are as far apart as the places of the map (`stride_of`); on a level whose stride does not divide the padded
    image, a little closer, as in torchvision.

    Args:
      sides: height and width of the images.
      maps: height and width of the map of each level.
      sizes: side in pixels of the square that has the same area as the anchors of a level, for each level.
    """
    levels = []
    roots = np.sqrt(np.array(RATIOS, np.float32))
    for level, ((height, width), size) in enumerate(zip(maps, sizes, strict=True)):
        across, along = np.float32(size) / roots, np.float32(size) * roots
        base = np.round(np.stack([-across, -along, across, along], axis=1) / 2)
        y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
        shift = np.stack([x, y, x, y], axis=1) * np.tile([_step(side, level) for side in sides[::-1]], 2)
        levels.append((shift[:, None] + base[None]).reshape(-1, 4).astype(np.float32))
    return levels


def _step(side: int, level: int) -> int:
    """The pixels between anchors: of a padded side, by the places of its map."""
    padded = -(-side // PADDED) * PADDED
    return padded // -(-padded // stride_of(level))


def encoded(boxes: Boxes, by: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Boxes relative to others, weighted: centre offsets in sides of the others, and logarithms of the side ratios."""
    sides, of_other = (jnp.maximum(each[:, 2:] - each[:, :2], 1e-3) for each in (boxes, by))
    centre, of_others = boxes[:, :2] + 0.5 * sides, by[:, :2] + 0.5 * of_other
    told = jnp.concatenate([(centre - of_others) / of_other, jnp.log(sides / of_other)], axis=1)
    return told * jnp.asarray(weights, told.dtype)


def decoded(
    told: Float[Array, "a ... 4"], by: Boxes, weights: Weights = (1.0, 1.0, 1.0, 1.0)
) -> Float[Array, "a ... 4"]:
    """The boxes that `encoded` has encoded; at most e ** `LARGEST` times as large as the others."""
    told = told / jnp.asarray(weights, told.dtype)
    by = by.reshape(by.shape[0], *(1,) * (told.ndim - 2), 4)
    of_other = by[..., 2:] - by[..., :2]
    centre = told[..., :2] * of_other + by[..., :2] + 0.5 * of_other
    half = 0.5 * jnp.exp(jnp.minimum(told[..., 2:], LARGEST)) * of_other
    return jnp.concatenate([centre - half, centre + half], axis=-1)


class Matched(NamedTuple):
    """The true box that each of a boxes learns.

    Attributes:
      box: number of the true box; meaningless where `positive` is False.
      positive: whether the box learns a true one.
      negative: whether the box learns that nothing is there. Neither is True for boxes without a loss.
    """

    box: Int[Array, " a"]
    positive: Bool[Array, " a"]
    negative: Bool[Array, " a"]


def matched(boxes: Boxes, target: Any, *, least: float, most_of_background: float, best_of_each: bool) -> Matched:
    """Match boxes to the true boxes that they overlap most; ties go to the first.

    Args:
      boxes: anchors or proposals.
      target: the columns of `box_records` of the image.
      least: IoU from which a box learns a true one.
      most_of_background: IoU below which a box is background.
      best_of_each: a box with the largest IoU of all with some true box also learns its own best, however small.
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
    """Match the anchors of an image to its true boxes; `target` has the columns of `box_records`."""
    return matched(by, target, least=0.7, most_of_background=0.3, best_of_each=True)


def match_proposals(boxes: Boxes, usable: Bool[Array, " a"], target: Any) -> Matched:
    """Match the proposals of an image to its true boxes; proposals that are not usable learn nothing."""
    found = matched(boxes, target, least=0.5, most_of_background=0.5, best_of_each=False)
    return found._replace(positive=found.positive & usable, negative=found.negative & usable)


class Chosen(NamedTuple):
    """The boxes sampled from a boxes, in a fixed number of places.

    Attributes:
      place: numbers of the boxes; those that learn a true box come first.
      used: whether a place holds a box.
    """

    place: Int[Array, " s"]
    used: Bool[Array, " s"]


def chosen(found: Matched, order: Float[Array, " a"], number: int, share: float) -> Chosen:
    """A random sample of boxes: at most a share of them learns a true box, and background fills the other places.

    Args:
      found: from `matched`.
      order: random numbers; the boxes of each kind with the smallest numbers are taken.
      number: places in the sample.
      share: largest share of boxes that learn a true one.
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
    """A random number for each of the boxes of each image; each image has its own key."""
    return jax.vmap(lambda key: jax.random.uniform(key, (number,)))(keys)
