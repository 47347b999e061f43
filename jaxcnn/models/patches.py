"""Convolution of any kernel size and stride as one matrix product with the image's patches ("im2col").

A 1x1 convolution is this product without any copying. Chellapilla et al. 2006, "High performance convolutional neural
networks for document processing".
"""

import functools
import itertools

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames=("strides", "padding"))
def forward(x: jax.Array, kernel: jax.Array, *, strides: int, padding: int) -> jax.Array:
    """Convolve `x` [B, H, W, C] with `kernel` [k, k, C, O].

    Returns `[B, H', W', O]`, H' = (H + 2 padding - k) // strides + 1.
    """
    columns = _slide(_pad(x, padding), kernel.shape[0], kernel.shape[1], strides)
    return columns @ kernel.reshape(-1, kernel.shape[-1])


@functools.partial(jax.jit, static_argnames=("image_size", "strides", "padding"))
def input_gradient(
    dy: jax.Array, kernel: jax.Array, *, image_size: tuple[int, int], strides: int, padding: int
) -> jax.Array:
    """Gradient of `forward` with respect to `x` [B, *image_size, C], from `dy` [B, H', W', O].

    The pixels of `x` at one offset modulo the stride meet the same taps of the kernel, so for each offset the gradient
    is a convolution of `dy`, of stride 1, with these taps rotated by 180 degrees.
    """
    reach = -(-kernel.shape[0] // strides)
    rows, columns = (length + reach - 1 for length in dy.shape[1:3])
    phases = []
    for i, j in itertools.product(range(strides), repeat=2):
        taps = kernel[i::strides, j::strides][::-1, ::-1].swapaxes(2, 3)  # [at most reach, same, O, C]
        if 0 in taps.shape:
            phases.append(jnp.zeros((dy.shape[0], rows, columns, kernel.shape[2]), dy.dtype))
            continue
        # Pixels of the offset extend `reach - 1` places before and after the outputs; with fewer taps, these are zero.
        before = (taps.shape[0] - 1, taps.shape[1] - 1)
        after = (reach - 1, reach - 1)
        padded = jnp.pad(dy, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
        phases.append(_slide(padded, taps.shape[0], taps.shape[1], 1) @ taps.reshape(-1, taps.shape[-1]))
    if strides == 1:
        whole = phases[0]
    else:
        grid = jnp.stack(phases, axis=-2).reshape(dy.shape[0], rows, columns, strides, strides, -1)
        whole = grid.swapaxes(2, 3).reshape(dy.shape[0], rows * strides, columns * strides, -1)
    height, width = image_size
    # If the stride does not divide the size, no window covers the last pixels.
    short = [max(0, padding + wanted - have) for wanted, have in zip(image_size, whole.shape[1:3], strict=True)]
    whole = jnp.pad(whole, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    return whole[:, padding : padding + height, padding : padding + width]


@functools.partial(jax.jit, static_argnames=("kernel_size", "strides", "padding"))
def kernel_gradient(x: jax.Array, dy: jax.Array, *, kernel_size: int, strides: int, padding: int) -> jax.Array:
    """Gradient of `forward` with respect to `kernel`, [k, k, C, O].

    Computed for one row of taps at a time: with all patches at once, XLA would keep those of the forward pass.
    """
    x, dy = _pad(x, padding), dy.reshape(-1, dy.shape[-1])
    last = x.shape[1] - kernel_size
    products = []
    for i in range(kernel_size):
        columns = _slide(x[:, i : i + last + 1], 1, kernel_size, strides)
        products.append(columns.reshape(-1, columns.shape[-1]).T @ dy)
    return jnp.stack(products).reshape(kernel_size, kernel_size, x.shape[-1], dy.shape[-1])


def _pad(x: jax.Array, padding: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _slide(x: jax.Array, height: int, width: int, strides: int) -> jax.Array:
    """The patch of each window: [B, H', W', height * width * C], in the order of the kernel's axes."""
    down = (x.shape[1] - height) // strides + 1
    right = (x.shape[2] - width) // strides + 1
    shifted = [
        x[:, i : i + strides * (down - 1) + 1 : strides, j : j + strides * (right - 1) + 1 : strides]
        for i, j in itertools.product(range(height), range(width))
    ]
    return shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted, axis=-1)
