"""The convolution under every network, by the fastest way that the platform has for its shape.

On GPU and TPU that is `lax.conv_general_dilated`. XLA's convolutions on CPU are weak for small images and for kernel
gradients, and inside loops their gradients are twenty times slower still; products of matrices are fast everywhere. So
on CPU every pass is one, by Winograd's forms where these save the most work, else over the image's patches.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.models import patches, winograd

# Below these, transforming tiles and kernel costs more than the multiplications that it saves.
WINOGRAD_CHANNELS = 16
WINOGRAD_PIXELS = 256


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """Cross-correlate images with a kernel, as neural networks do.

    Differentiable once, in reverse mode. The platform is chosen when the program is lowered, so one that is exported
    for several platforms is right on each.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, O], of the dtype of `x`.
      strides: pixels between outputs.
      padding: zeros added on each side, pixels; less than k.

    Returns:
      [B, H', W', O] in the dtype of `x`, H' = (H + 2 padding - k) // strides + 1.
    """
    on_cpu = functools.partial(_on_cpu, strides=strides, padding=padding)
    by_lax = functools.partial(_by_lax, strides=strides, padding=padding)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=by_lax)


def winograd_tile(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: int, padding: int) -> int:
    """The tile of Winograd's form that suits a convolution on CPU: 2 or 4; 0 where the product over patches does."""
    batch, height, width, _ = image_shape
    size, _, channels, features = kernel_shape
    if (size, strides) != (winograd.KERNEL_SIZE, 1):
        return 0
    height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
    if min(channels, features) < WINOGRAD_CHANNELS or batch * height * width < WINOGRAD_PIXELS:
        return 0
    return 2 if max(height, width) <= 2 else 4


def _forward(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> tuple[jax.Array, tuple]:
    return convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides: int, padding: int, residuals: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals

    def on_cpu(x, kernel, dy):
        return _gradients_on_cpu(x, kernel, dy, strides, padding)

    def by_lax(x, kernel, dy):
        return jax.vjp(lambda x, kernel: _by_lax(x, kernel, strides, padding), x, kernel)[1](dy)

    return lax.platform_dependent(x, kernel, dy, cpu=on_cpu, default=by_lax)


convolve.defvjp(_forward, _backward)


def _by_lax(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _on_cpu(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    dtype = x.dtype
    x, kernel = _wide(x), _wide(kernel)
    if tile := winograd_tile(x.shape, kernel.shape, strides, padding):
        y = winograd.forward(x, kernel, tile=tile, padding=padding)
    else:
        y = patches.forward(x, kernel, strides=strides, padding=padding)
    return y.astype(dtype)


def _gradients_on_cpu(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    dtypes = x.dtype, kernel.dtype
    x, kernel, dy = _wide(x), _wide(kernel), _wide(dy)
    if tile := winograd_tile(x.shape, kernel.shape, strides, padding):
        dx = winograd.input_gradient(dy, kernel, tile=tile, padding=padding)
        dkernel = winograd.kernel_gradient(x, dy, tile=tile, padding=padding)
    else:
        size, image_size = kernel.shape[0], (x.shape[1], x.shape[2])
        dx = patches.input_gradient(dy, kernel, image_size=image_size, strides=strides, padding=padding)
        dkernel = patches.kernel_gradient(x, dy, kernel_size=size, strides=strides, padding=padding)
    return dx.astype(dtypes[0]), dkernel.astype(dtypes[1])


def _wide(x: jax.Array) -> jax.Array:
    """At least float32: CPUs gain nothing from less, and the transforms would lose digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
