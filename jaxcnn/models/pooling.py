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
    return _max_of_windows(x, window, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_of_windows(x: jax.Array, window: int, strides: int) -> jax.Array:
    # A maximum of slices is one pass over the image; XLA:CPU walks the windows of `reduce_window` one value at a time.
    return functools.reduce(jnp.maximum, _taps(x, window, strides))


def _max_forward(x: jax.Array, window: int, strides: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max_of_windows(x, window, strides)
    return y, (x, y)


def _max_backward(window: int, strides: int, residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, y = residuals
    taken = jnp.zeros(y.shape, bool)
    shares = []
    for tap in _taps(x, window, strides):
        wins = (tap == y) & ~taken
        taken |= wins
        shares.append(jnp.where(wins, dy, 0))
    if window == strides:
        return (_interleave(shares, x.shape, window),)
    zero = jnp.zeros((), dy.dtype)
    total = jnp.zeros(x.shape, dy.dtype)
    for (i, j), share in zip(itertools.product(range(window), repeat=2), shares, strict=True):
        edges = [
            (start, length - start - strides * (count - 1) - 1, strides - 1)
            for start, length, count in zip((i, j), x.shape[1:3], y.shape[1:3], strict=True)
        ]
        total += lax.pad(share, zero, ((0, 0, 0), *edges, (0, 0, 0)))
    return (total,)


_max_of_windows.defvjp(_max_forward, _max_backward)


def _taps(x: jax.Array, window: int, strides: int) -> list[jax.Array]:
    """For each place of the window, the values that the windows have there: window * window of [B, H', W', C]."""
    ends = [strides * ((length - window) // strides) + 1 for length in x.shape[1:3]]
    return [
        x[:, i : i + ends[0] : strides, j : j + ends[1] : strides]
        for i, j in itertools.product(range(window), repeat=2)
    ]


def _interleave(shares: list[jax.Array], shape: tuple[int, ...], window: int) -> jax.Array:
    """Put the values of each place of the windows, which do not overlap, back where they came from; 0 elsewhere."""
    batch, down, right, channels = shares[0].shape
    grid = jnp.stack(shares, axis=3).reshape(batch, down, right, window, window, channels)
    whole = grid.swapaxes(2, 3).reshape(batch, down * window, right * window, channels)
    rest = [length - covered for length, covered in zip(shape[1:3], whole.shape[1:3], strict=True)]
    return jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))


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
