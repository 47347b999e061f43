"""Of boxes that overlap, the one of the highest score: non-maximum suppression with fixed shapes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from jaxcnn.tasks.box_geometry import overlap

CANDIDATES = 1000  # of the highest scores of an image, over all classes; the others are never found
LEAST_SCORE = 0.001  # scores below it are never found, as is usual for COCO's figures

Found = Float32[Array, "... found 6"]  # left, top, right, bottom, score, class; score 0 for padding


def survivors(boxes: Float32[Array, "n 4"], most_overlap: float) -> Bool[Array, " n"]:
    """Which boxes, in the order of falling scores, overlap no better survivor by more than `most_overlap`.

    A round decides each box by those before it that still stand. After round r the first r boxes are right and stay so,
    hence the fixed point, often reached in a few rounds, is the result of going through the boxes one by one.
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


def found_in(
    boxes: Float32[Array, "a 4"], logits: Float32[Array, "a k"], sides: tuple[int, int], most: int, most_overlap: float
) -> Float32[Array, "most 6"]:
    """The objects of one image, the best first; boxes of different classes never suppress each other.

    Args:
      boxes: the answers of its points.
      logits: their logits of the classes.
      sides: height and width of the image, at whose border boxes are cut off.
      most: rows of the result.
      most_overlap: above which the lower score is suppressed.
    """
    classes = logits.shape[1]
    height, width = sides
    scores = jax.nn.sigmoid(logits).reshape(-1)
    best, place = jax.lax.top_k(scores, min(CANDIDATES, scores.shape[0]))
    label = (place % classes).astype(jnp.float32)
    cut = jnp.clip(boxes[place // classes], 0.0, jnp.array([width, height, width, height], jnp.float32))
    apart = cut + (label * (2.0 * max(sides)))[:, None]  # classes do not touch
    good = survivors(apart, most_overlap) & (best >= LEAST_SCORE)
    kept, rows = jax.lax.top_k(jnp.where(good, best, 0.0), min(most, best.shape[0]))
    result = jnp.concatenate([cut[rows], kept[:, None], label[rows, None]], axis=1)
    return jnp.pad(jnp.where(kept[:, None] > 0, result, 0.0), ((0, most - result.shape[0]), (0, 0)))
