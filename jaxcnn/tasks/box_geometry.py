"""Overlaps of boxes (left, top, right, bottom), and the points of an image that answer for boxes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

STRIDES = (8, 16, 32)  # pixels between the points of each level of a detector

Boxes = Float[Array, "... 4"]
Overlaps = Float[Array, "..."]


def points(height: int, width: int) -> Float32[np.ndarray, "a 3"]:
    """The x, y and stride of each point of an image, in pixels: level by level, row by row."""
    levels = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        centres = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32) + np.float32(0.5)
        levels.append(np.concatenate([centres * stride, np.full((len(centres), 1), stride, np.float32)], axis=1))
    return np.concatenate(levels)


def area(boxes: Boxes) -> Overlaps:
    """The areas of boxes; 0 for boxes whose right or bottom comes before their left or top."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def overlap(one: Boxes, other: Boxes) -> Overlaps:
    """Intersection over union of boxes, whose shapes broadcast; 0 if both are empty."""
    common, union = _common_and_union(one, other)
    return common / jnp.maximum(union, 1e-9)


def generalized_overlap(one: Boxes, other: Boxes) -> Overlaps:
    """The generalised IoU of boxes, in (-1, 1]: IoU less the share of the enclosing box that neither box fills.

    Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1.
    """
    common, union = _common_and_union(one, other)
    around = jnp.concatenate(
        [jnp.minimum(one[..., :2], other[..., :2]), jnp.maximum(one[..., 2:], other[..., 2:])], axis=-1
    )
    whole = jnp.maximum(area(around), 1e-9)
    return common / jnp.maximum(union, 1e-9) - (whole - union) / whole


def _common_and_union(one: Boxes, other: Boxes) -> tuple[Overlaps, Overlaps]:
    corners = jnp.concatenate(
        [jnp.maximum(one[..., :2], other[..., :2]), jnp.minimum(one[..., 2:], other[..., 2:])], axis=-1
    )
    common = area(corners)
    return common, area(one) + area(other) - common
