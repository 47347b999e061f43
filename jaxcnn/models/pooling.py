"""Pooling: images `[B, H, W, C]` to smaller ones."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.models.geometry import check_covers


def max_pool(x: jax.Array, window: int, strides: int, padding: int = 0) -> jax.Array:
    """Largest value of each window: `[B, H, W, C]` -> `[B, H', W', C]`, H' = (H + 2 padding - window) // strides + 1.

    Padding never wins. The gradient goes to the first of equal values, row by row, as PyTorch has it. Raises UserError
    where the image is smaller than the window.
    """
    check_covers(x, window, padding)
    if padding:
        x = lax.pad(
            x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0))
        )
    return _max_of_windows(x, window, strides, (x.shape[1], x.shape[2]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_of_windows(x: jax.Array, window: int, strides: int, size: tuple[int, int]) -> jax.Array:
    # A maximum of slices is one pass over the image; XLA:CPU walks the windows of `reduce_window` one value at a time.
    return functools.reduce(jnp.maximum, _taps(x, window, strides))


def _max_forward(x: jax.Array, window: int, strides: int, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    first, *others = _taps(x, window, strides)
    largest, place = first, jnp.zeros(first.shape, _place_dtype(window))
    for number, tap in enumerate(others, start=1):
        place = jnp.where(tap > largest, place.dtype.type(number), place)
        largest = jnp.maximum(largest, tap)
    return largest, place


def _max_backward(
    window: int, strides: int, size: tuple[int, int], place: jax.Array, dy: jax.Array
) -> tuple[jax.Array]:
    if window == strides:
        return (_spread(place, dy, window, size),)
    zero = jnp.zeros((), dy.dtype)
    total = jnp.zeros((dy.shape[0], *size, dy.shape[3]), dy.dtype)
    for number, (i, j) in enumerate(itertools.product(range(window), repeat=2)):
        edges = [
            (start, length - start - strides * (count - 1) - 1, strides - 1)
            for start, length, count in zip((i, j), size, dy.shape[1:3], strict=True)
        ]
        share = jnp.where(place == number, dy, zero)
        total += lax.pad(share, zero, ((0, 0, 0), *edges, (0, 0, 0)))
    return (total,)


_max_of_windows.defvjp(_max_forward, _max_backward)


def _spread(place: jax.Array, dy: jax.Array, window: int, size: tuple[int, int]) -> jax.Array:
    """Put the value of each window, none of which overlap, at its place in the image of `size`; 0 elsewhere.

    In one pass over the image: rows and columns that no window covers get a window of their own, which has no place.
    """
    rest = [(0, -(-length // window) - count) for length, count in zip(size, dy.shape[1:3], strict=True)]
    edges = [(0, 0), *rest, (0, 0)]
    place, dy = jnp.pad(place, edges, constant_values=window**2), jnp.pad(dy, edges)
    batch, down, right, channels = dy.shape
    numbers = jnp.arange(window**2, dtype=place.dtype).reshape(1, 1, window, 1, window, 1)
    grid = jnp.where(place[:, :, None, :, None] == numbers, dy[:, :, None, :, None], 0)
    return grid.reshape(batch, down * window, right * window, channels)[:, : size[0], : size[1]]


def _place_dtype(window: int) -> np.dtype:
    """The smallest unsigned integer for the places of a window, and one more."""
    return np.min_scalar_type(window**2)


def _taps(x: jax.Array, window: int, strides: int) -> list[jax.Array]:
    """For each place of the window, the values that the windows have there: window * window of [B, H', W', C]."""
    ends = [strides * ((length - window) // strides) + 1 for length in x.shape[1:3]]
    return [
        x[:, i : i + ends[0] : strides, j : j + ends[1] : strides]
        for i, j in itertools.product(range(window), repeat=2)
    ]


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over all pixels: `[B, H, W, C]` -> `[B, C]`."""
    return x.mean(axis=(1, 2))


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Mean over size x size windows that cover the image: `[B, H, W, C]` -> `[B, size, size, C]`.

    Window i reaches from floor(i H / size) to ceil((i + 1) H / size), as PyTorch's AdaptiveAvgPool2d has it, so
    windows may overlap, and an image may also be smaller than `size`.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        weights = np.zeros((size, length))
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            weights[i, start:stop] = 1 / (stop - start)
        pooled = jnp.tensordot(x, jnp.asarray(weights, x.dtype), axes=(axis, 1), precision=lax.Precision.HIGHEST)
        x = jnp.moveaxis(pooled, -1, axis)
    return x
