"""Batches of wide or tall images without the bars that made squares of them (`augment.shapes`).

The bars are known from the `frame` of each record (`jaxcnn.tasks.box_records`), so they need no table of their own.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32

from jaxcnn.data.batch import Batch
from jaxcnn.tasks.moving import COORDINATE_BITS, Movable, Move

Shape = tuple[int, ...]  # height and width


def fitting(frame: Float32[Any, "n 4"], shapes: tuple[Shape, ...], side: int) -> Bool[Any, "n s1"]:
    """Whether the content of each image (without its bars) fits into each centred shape; the last is the whole square.

    Args:
      frame: scale_x, scale_y, left, top of each image, a NumPy or a JAX array.
      shapes: each with an even difference to `side`.
      side: side of the square, pixels.
    """
    xp: Any = jnp if isinstance(frame, jax.Array) else np
    least = np.array([[(side - width) // 2, (side - height) // 2] for height, width in (*shapes, (side, side))])
    return (frame[:, None, 2:] >= xp.asarray(least, np.float32)).all(axis=-1)


def kinds(frame: Float32[Any, "n 4"], shapes: tuple[Shape, ...], side: int) -> Int32[Any, " n"]:
    """The number of the first shape into which each image fits."""
    return fitting(frame, shapes, side).argmax(axis=1).astype(np.int32)


def kind_of_batch(batch: Batch, shapes: tuple[Shape, ...], axis_name: str | None) -> Any:
    """The number of the first shape into which all images of the global batch fit, on all devices the same."""
    all_fit = fitting(batch.target["frame"], shapes, batch.image.shape[1]).all(axis=0).astype(jnp.int32)
    return (all_fit if axis_name is None else jax.lax.pmin(all_fit, axis_name)).argmax()


def cropped(targets: Movable, batch: Batch, shape: Shape) -> Batch:
    """The middle part of each image of a batch, with its targets."""
    height, width = shape
    top, left = (batch.image.shape[1] - height) // 2, (batch.image.shape[2] - width) // 2
    one = 1 << COORDINATE_BITS
    matrix = jnp.array([[one, 0, left * one], [0, one, top * one]], jnp.int32)
    move = Move(jnp.ones(2, jnp.float32), jnp.array([-left, -top], jnp.float32), matrix)
    target = jax.vmap(targets.moved, in_axes=(0, None, None))(batch.target, move, (height, width))
    return dataclasses.replace(batch, image=batch.image[:, top : top + height, left : left + width], target=target)
