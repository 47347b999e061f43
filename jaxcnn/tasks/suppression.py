"""Non-maximum suppression with fixed shapes: among boxes that overlap, only the one with the highest score stays."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jaxcnn.tasks.box_geometry import overlap

CANDIDATES = 1000  # boxes with the highest scores of an image, over all classes; other boxes are never found
LEAST_SCORE = 0.001  # scores below it are never found, as is usual for COCO's figures

Found = Float32[Array, "... found 6"]  # columns: left, top, right, bottom, score, class; a score of 0 is padding


@dataclasses.dataclass(frozen=True)
class Rule:
    """Decides which boxes survive suppression.

    Attributes:
      most_overlap: largest IoU with a surviving box of a higher score; 0 < most_overlap <= 1.
      softness: if above 0, `most_overlap` does not count, and scores fall with overlap as in `softened`.
      across: whether boxes of different classes suppress each other, too.
    """

    most_overlap: float
    softness: float = 0.0
    across: bool = False


def survivors(boxes: Float32[Array, "n 4"], most_overlap: float) -> Bool[Array, " n"]:
    """Whether each box, by falling score, overlaps no surviving box of a higher score by more than `most_overlap`.

    Each round decides every box by the earlier boxes that still survive. After round r the first r boxes are final, so
    the fixed point, often reached in a few rounds, is the result of going through the boxes one by one.
    """
    count = boxes.shape[0]
    before = jnp.tril(jnp.ones((count, count), bool), -1)
    hides = (overlap(boxes[:, None], boxes[None]) > most_overlap) & before  # [n, n]: row is hidden by column

    def again(carry: tuple[Array, Array]) -> Array:
        return carry[1]

    def judge(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        stand, _ = carry
        now = ~(hides & stand[None]).any(axis=1)
        return now, (now != stand).any()

    return jax.lax.while_loop(again, judge, (jnp.ones(count, bool), jnp.asarray(True)))[0]


@jax.jit
def standing(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], most_overlap: float, least: float
) -> Bool[Array, " n"]:
    """The `survivors` with a score of at least `least`.

    A traced program calls this by its name, in whose place exported files have an operator of their own
    (`jaxcnn.graphs.of_objects`).

    Args:
      boxes: boxes by falling scores.
      scores: scores of any range.
      most_overlap: as for `survivors`.
      least: score below which no box stands; it then hides no other.
    """
    return survivors(boxes, most_overlap) & (scores >= least)


def softened(
    boxes: Float[Array, "n 4"], scores: Float[Array, " n"], softness: float, most: int
) -> tuple[Float[Array, " m"], Int[Array, " m"]]:
    """The scores of the first m = min(most, n) boxes of soft suppression, and their numbers; a score of 0 is padding.

    Bodla et al. 2017, "Soft-NMS", arXiv:1704.04503, figure 2 with equation 2: the best of the remaining boxes is taken
    again and again, and the scores of those that remain are multiplied by exp(-overlap ** 2 / softness).

    Args:
      boxes: in any order.
      scores: at least 0.
      softness: sigma of the paper.
      most: largest number of boxes taken.
    """

    def take(left: Float[Array, " n"], _: None) -> tuple[Array, tuple[Array, Array]]:
        place = left.argmax()
        fall = jnp.exp(-jnp.square(overlap(boxes[place], boxes)) / softness)
        return (left * fall).at[place].set(-1.0), (jnp.maximum(left[place], 0.0), place)

    return jax.lax.scan(take, scores, length=min(most, boxes.shape[0]))[1]


def best(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    label: Float[Array, " n"] | Int[Array, " n"],
    sides: tuple[int, int],
    most: int,
    rule: Rule,
    least: float,
) -> tuple[Float[Array, " m"], Int[Array, " m"]]:
    """The scores of the best m = min(most, n) surviving boxes, falling, and their numbers; a score of 0 is padding.

    Args:
      boxes: within the image, by falling score.
      scores: at least 0.
      label: numbers of classes.
      sides: height and width of the image.
      most: how many boxes are wanted.
      rule: which boxes survive.
      least: boxes with a lower score never survive.
    """
    # Shifted by more than the image for each class, so that boxes of different classes do not touch.
    apart = boxes if rule.across else boxes + (label * (2.0 * max(sides))).astype(boxes.dtype)[:, None]
    if rule.softness:
        kept, rows = softened(apart, scores, rule.softness, most)
        return jnp.where(kept >= least, kept, 0.0), rows
    good = standing(apart, scores, rule.most_overlap, least)
    return jax.lax.top_k(jnp.where(good, scores, 0.0), min(most, scores.shape[0]))


def found_in(
    boxes: Float32[Array, "a 4"], logits: Float32[Array, "a k"], sides: tuple[int, int], most: int, rule: Rule
) -> Float32[Array, "most 6"]:
    """The objects found in one image, by falling score.

    Args:
      boxes: the box that each point predicts.
      logits: the class logits of each point.
      sides: height and width of the image, at whose border boxes are cut off.
      most: number of rows in the result.
      rule: which boxes survive suppression.
    """
    classes = logits.shape[1]
    height, width = sides
    scores = jax.nn.sigmoid(logits).reshape(-1)
    highest, place = jax.lax.top_k(scores, min(CANDIDATES, scores.shape[0]))
    label = (place % classes).astype(jnp.float32)
    cut = jnp.clip(boxes[place // classes], 0.0, jnp.array([width, height, width, height], jnp.float32))
    kept, rows = best(cut, highest, label, sides, most, rule, LEAST_SCORE)
    result = jnp.concatenate([cut[rows], kept[:, None], label[rows, None]], axis=1)
    return jnp.pad(jnp.where(kept[:, None] > 0, result, 0.0), ((0, most - result.shape[0]), (0, 0)))
