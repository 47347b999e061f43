"""The boxes that the first stage of a two-stage detector proposes, and the boxes that the second stage finds.

Ren et al. 2015, arXiv:1506.01497; Lin et al. 2017, arXiv:1612.03144; the constants are those of torchvision.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxcnn.tasks import suppression
from jaxcnn.tasks.anchors import Weights, decoded
from jaxcnn.tasks.suppression import Rule, standing

SMALLEST = 1e-3  # smallest side of a proposal, pixels
MOST_OVERLAP = 0.7  # largest IoU of two proposals of a level
LEAST_SCORE, SMALLEST_FOUND = 0.05, 1e-2  # of a found box: lowest score, and smallest side in pixels
BOX_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)  # of box offsets from the second stage
CANDIDATES = 1000  # pairs of a box and a class that suppression considers


class Proposals(NamedTuple):
    """Padded boxes of one image, by falling score; `valid` is False for padding."""

    boxes: Float[Array, "p 4"]
    valid: Bool[Array, " p"]


def within(boxes: Float[Array, "... 4"], sides: tuple[int, int]) -> Float[Array, "... 4"]:
    """Boxes clipped at the border of an image of this height and width."""
    return jnp.clip(boxes, 0.0, jnp.array([sides[1], sides[0]] * 2, boxes.dtype))


def _has_sides(boxes: Float[Array, "n 4"], least: float) -> Bool[Array, " n"]:
    return (boxes[:, 2:] - boxes[:, :2] >= least).all(axis=1)


def proposed(
    logits: Sequence[Float[Array, " a"]],
    told: Sequence[Float[Array, "a 4"]],
    anchors: Sequence[Float[Any, "a 4"]],
    sides: tuple[int, int],
    before: int,
    after: int,
) -> Proposals:
    """The proposals of one image; no gradient flows through them.

    Args:
      logits: logit of each anchor that it has an object, by level.
      told: encoded box of each anchor (`anchors.encoded`), by level.
      anchors: anchors of each level.
      sides: height and width of the image.
      before: number of the best boxes of each level, which then go through suppression level by level.
      after: number of the best boxes of all levels that are proposed.
    """
    boxes, scores = [], []
    for of_level, raw, by in zip(logits, told, anchors, strict=True):
        best, place = jax.lax.top_k(jax.lax.stop_gradient(of_level), min(before, of_level.shape[0]))
        found = within(decoded(jax.lax.stop_gradient(raw)[place], jnp.asarray(by, raw.dtype)[place]), sides)
        good = _has_sides(found, SMALLEST)
        # Boxes that are too small must not suppress others: they are moved out of their way.
        apart = jnp.where(good[:, None], found, -1.0)
        good &= standing(apart, best, MOST_OVERLAP, -jnp.inf)
        boxes.append(found)
        scores.append(jnp.where(good, jax.nn.sigmoid(best), -1.0))
    together = jnp.concatenate(scores)
    best, place = jax.lax.top_k(together, min(after, together.shape[0]))
    padding = after - best.shape[0]
    valid = jnp.pad(best >= 0, (0, padding))
    kept = jnp.pad(jnp.concatenate(boxes)[place], ((0, padding), (0, 0)))
    return Proposals(jnp.where(valid[:, None], kept, 0.0), valid)


class FoundBoxes(NamedTuple):
    """Padded boxes found in one image, by falling score.

    Attributes:
      boxes: left, top, right, bottom in pixels.
      scores: 0 for padding.
      label: class numbers.
    """

    boxes: Float[Array, "f 4"]
    scores: Float[Array, " f"]
    label: Int[Array, " f"]


def found(
    given: Proposals,
    logits: Float[Array, "p k1"],
    told: Float[Array, "p kinds 4"],
    sides: tuple[int, int],
    most: int,
    rule: Rule,
) -> FoundBoxes:
    """The boxes that the second stage finds in one image.

    Args:
      given: proposals of the first stage.
      logits: class logits of each proposal; the first class is the background.
      told: encoded boxes, with `BOX_WEIGHTS`; "kinds" is k1 for a box of each class, or 1 for one of all.
      sides: height and width of the image.
      most: number of places in the result.
      rule: which boxes survive suppression.
    """
    classes = logits.shape[1] - 1
    of_classes = within(decoded(told, given.boxes, BOX_WEIGHTS), sides)
    of_classes = of_classes[:, 1:] if told.shape[1] > 1 else of_classes.repeat(classes, axis=1)
    boxes = of_classes.reshape(-1, 4)
    scores = jnp.where(given.valid[:, None], jax.nn.softmax(logits)[:, 1:], 0.0).reshape(-1)
    scores = jnp.where((scores > LEAST_SCORE) & _has_sides(boxes, SMALLEST_FOUND), scores, 0.0)
    best, place = jax.lax.top_k(scores, min(CANDIDATES, scores.shape[0]))
    label = place % classes
    kept, rows = suppression.best(boxes[place], best, label, sides, most, rule, LEAST_SCORE)
    padding = most - kept.shape[0]
    chosen = jnp.where(kept[:, None] > 0, boxes[place[rows]], 0.0)
    return FoundBoxes(
        jnp.pad(chosen, ((0, padding), (0, 0))),
        jnp.pad(kept, (0, padding)),
        jnp.pad(jnp.where(kept > 0, label[rows], 0), (0, padding)),
    )
