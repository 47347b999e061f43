"""Targets that are places in an image and so move with it."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Shaped, UInt8

COORDINATE_BITS = 16  # fraction bits of an image coordinate, as in Pillow

Pair = Float32[Array, "2"]
Matrix = Int32[Array, "2 3"]


def product(one: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
    """A product, separated from a following sum: a bound that is never reached prevents a fused multiply-add.

    Compilers fuse them in one program and not in another, and then the results differ in the last bit.
    """
    return jnp.clip(one * other, -1e30, 1e30)


class Move(NamedTuple):
    """How an image moves: a place p = (x, y) in pixels from the upper left corner goes to scale * p + shift.

    Attributes:
      scale: factors of x and y; negative where the image is mirrored.
      shift: added to x and y, in pixels.
      matrix: the inverse map, by which pixels are sampled (`nearest`).
      across: if the image rotates, the factors of y added to x and of x added to y; else None.
    """

    scale: Pair
    shift: Pair
    matrix: Matrix
    across: Pair | None = None

    @staticmethod
    def of_matrix(matrix: Matrix) -> "Move":
        """The move of an image that `nearest` samples by a matrix without rotation."""
        unit = 2.0**COORDINATE_BITS
        scale = unit / jnp.stack([matrix[0, 0], matrix[1, 1]]).astype(jnp.float32)
        return Move(scale, -(matrix[:, 2].astype(jnp.float32) / unit) * scale, matrix)

    @staticmethod
    def of_rotation(matrix: Matrix) -> "Move":
        """The move of an image that `nearest` samples by a matrix that only rotates and shifts."""
        share = matrix.astype(jnp.float32) / 2.0**COORDINATE_BITS
        # The inverse of a rotation is its transposed matrix.
        parts = product(share[:, :2], share[:, 2:])
        scale = jnp.stack([share[0, 0], share[1, 1]])
        return Move(scale, -(parts[0] + parts[1]), matrix, jnp.stack([share[1, 0], share[0, 1]]))

    @staticmethod
    def of_size(side: int, before: int) -> "Move":
        """The move of a square image that is resized from `before` to `side` pixels."""
        back = (before << COORDINATE_BITS) // side
        scale = jnp.full(2, side / before, jnp.float32)
        return Move(scale, jnp.zeros(2, jnp.float32), jnp.array([[back, 0, 0], [0, back, 0]], jnp.int32))


@runtime_checkable
class Movable(Protocol):
    """Targets that are places and so follow their image; targets without `moved` stay as they are."""

    def moved(self, target: Any, move: Move, sides: tuple[int, int]) -> Any:
        """The target of one image that has moved.

        Args:
          target: target of one example.
          move: how its image has moved.
          sides: height and width of the image, after it has moved.
        """
        ...

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], target: Any) -> UInt8[np.ndarray, "h w 3"]:
        """The image with its own target, made of NumPy arrays, drawn into it."""
        ...


@runtime_checkable
class Composable(Movable, Protocol):
    """Targets that can be combined for an image that is made of several images."""

    def composed(self, parts: Any, seen: Bool[Array, "n h w"]) -> Any:
        """The target of an image that is made of n images.

        Args:
          parts: the targets of the n images, each as it lies in the new one, stacked.
          seen: whether each pixel comes from each image; in a mean of images it comes from all.
        """
        ...


@runtime_checkable
class Pastable(Composable, Protocol):
    """Targets of objects that can be pasted into another image, pixel by pixel."""

    @property
    def most(self) -> int:
        """The number of places for objects in a target."""
        ...

    def pasted(
        self, target: Any, other: Any, wanted: Bool[Array, " g"], sides: tuple[int, int]
    ) -> tuple[Any, Bool[Array, "h w"]]:
        """The target of an image into which some objects of another one are pasted, and the pixels that they cover.

        Args:
          target: target of the image.
          other: target of the other image.
          wanted: which objects of the other image are pasted if possible.
          sides: height and width of both images.
        """
        ...


def nearest(image: Shaped[Array, "h w ..."], matrix: Matrix, outside: int) -> Shaped[Array, "h w ..."]:
    """Transform an image affinely with nearest-pixel sampling, in integers.

    Args:
      image: sides below 2^15.
      matrix: in units of 2^-COORDINATE_BITS; maps (x, y, 1) in the output to (x, y) in the input, in
        pixels from the top left corner, so the centre of the first pixel is (1/2, 1/2).
      outside: the value beyond the image.
    """
    height, width = image.shape[:2]
    start = matrix[:, 2] + ((matrix[:, 0] + matrix[:, 1]) >> 1)  # input place of the first pixel's centre
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    column = (start[0] + matrix[0, 0] * x + matrix[0, 1] * y) >> COORDINATE_BITS
    row = (start[1] + matrix[1, 0] * x + matrix[1, 1] * y) >> COORDINATE_BITS
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    sampled = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside.reshape(inside.shape + (1,) * (image.ndim - 2)), sampled, jnp.array(outside, image.dtype))
