"""Rotation of an image about its centre, in integers as in `jaxcnn.data.image_ops`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key, Shaped

from jaxcnn.tasks.moving import COORDINATE_BITS, Matrix, product

Image = Shaped[Array, "h w c"]

ANGLES = 4097  # equally likely angles, so that a draw is one integer; both ends and 0 are among them
WEIGHT_BITS = {1: 11, 2: 7, 4: 11}  # fraction bits of a neighbour's weight, by the bytes of a pixel: products fit int32


def rotation_matrix(key: Key[Array, ""], degrees: float, sides: tuple[int, int]) -> Int32[Array, "2 3"]:
    """The matrix of `linear` and `moving.nearest` for an angle drawn from [-degrees, degrees].

    `sides` are height and width of the image.
    """
    # The remainder of 32 bits is uniform to a millionth.
    return jnp.asarray(rotations(degrees, sides))[jax.random.bits(key, (), jnp.uint32) % ANGLES]


@functools.lru_cache(maxsize=16)
def rotations(degrees: float, sides: tuple[int, int]) -> Int32[np.ndarray, "angles 2 3"]:
    """The matrices of all angles, from the lowest to the highest; counter-clockwise if above 0."""
    angle = np.deg2rad(np.linspace(-degrees, degrees, ANGLES))
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], axis=-1), np.stack([sine, cosine], axis=-1)], axis=-2)
    centre = np.array(sides[::-1], np.float64) / 2
    matrices = np.concatenate([turn, (centre - turn @ centre)[..., None]], axis=-1)
    return np.round(matrices * (1 << COORDINATE_BITS)).astype(np.int32)


def linear(image: Image, matrix: Matrix) -> Image:
    """Affine transform with bilinear sampling, and 0 outside the image.

    Args:
      image: image of any type; sides below 2^14.
      matrix: as in `moving.nearest`.
    """
    height, width, _ = image.shape
    bits = WEIGHT_BITS[image.dtype.itemsize]
    start = matrix[:, 2] + ((matrix[:, 0] + matrix[:, 1]) >> 1) - (1 << COORDINATE_BITS - 1)
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    column = start[0] + matrix[0, 0] * x + matrix[0, 1] * y
    row = start[1] + matrix[1, 0] * x + matrix[1, 1] * y
    parts = [
        _weighted(image, (row >> COORDINATE_BITS) + down, (column >> COORDINATE_BITS) + right, of_row * of_column)
        for down, of_row in enumerate(_weights(row, bits))
        for right, of_column in enumerate(_weights(column, bits))
    ]
    total = (parts[0] + parts[1]) + (parts[2] + parts[3])
    if jnp.issubdtype(image.dtype, jnp.floating):
        return total / (1 << 2 * bits)
    return ((total + (1 << 2 * bits - 1)) >> 2 * bits).astype(image.dtype)


def _weights(place: Int32[Array, "h w"], bits: int) -> tuple[Int32[Array, "h w"], Int32[Array, "h w"]]:
    """The weights of the pixels before and after a place that lies between the centres of pixels."""
    after = (place >> COORDINATE_BITS - bits) & ((1 << bits) - 1)
    return (1 << bits) - after, after


def _weighted(
    image: Image, row: Int32[Array, "h w"], column: Int32[Array, "h w"], weight: Int32[Array, "h w"]
) -> Shaped[Array, "h w c"]:
    """The products of pixels and weights, as int32 or float32."""
    height, width, _ = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    pixel = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    weight = jnp.where(inside, weight, 0)[..., None]
    if jnp.issubdtype(image.dtype, jnp.floating):
        return product(pixel, weight.astype(pixel.dtype))
    return pixel.astype(jnp.int32) * weight
