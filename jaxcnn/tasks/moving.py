"""Targets that are places in an image, and so move with it."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

Pair = Float32[Array, "2"]


class Move(NamedTuple):
    """How an image moves: a place p = (x, y) in it, in pixels from its upper left corner, goes to scale * p + shift.

    Attributes:
      scale: of x and y; negative where the image is mirrored.
      shift: in pixels.
    """

    scale: Pair
    shift: Pair

    @staticmethod
    def of_matrix(matrix: Int32[Array, "2 3"], bits: int) -> "Move":
        """The move of an image that is sampled by a matrix without rotation, in units of 2^-bits.

        The matrix maps a place in the moved image to one in the image (`jaxcnn.data.image_ops.affine_nearest`).
        """
        scale = 2.0**bits / jnp.stack([matrix[0, 0], matrix[1, 1]]).astype(jnp.float32)
        return Move(scale, -(matrix[:, 2].astype(jnp.float32) / 2.0**bits) * scale)

    def then(self, other: "Move") -> "Move":
        """This move, and then another one."""
        return Move(self.scale * other.scale, self.shift * other.scale + other.shift)


@runtime_checkable
class Movable(Protocol):
    """Targets that follow their image; those without `moved` stay as they are."""

    def moved(self, target: Any, move: Move, sides: tuple[int, int]) -> Any:
        """The target of one image that has moved.

        Args:
          target: of one example.
          move: how its image has moved.
          sides: height and width of the image, which keep.
        """
        ...
