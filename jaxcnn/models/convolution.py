"""The convolution of all networks, by the fastest method of the platform for its shape.

On GPU and TPU, this is `lax.conv_general_dilated`. XLA's CPU convolutions are slow for small images and for kernel
gradients, and inside loops their gradients are another twenty times slower; matrix products are fast everywhere. So on
CPU, every pass is computed by matrix products: by Winograd's method where it saves most work, else over image patches.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.models import patches, winograd

# Below these, the transforms of tiles and kernel cost more than the saved multiplications. Larger tiles save more, but
# their kernels grow more: to 36/9 of their size, against 16/9. Measured with 128 to 512 channels on two cores.
WINOGRAD_CHANNELS = 16
WINOGRAD_PIXELS = {2: 128, 4: 2048}  # pixels of a batch, keyed by tile


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, strides: int, padding: int) -> jax.Array:
    """Cross-correlate images with a kernel, as usual in neural networks.

    Differentiable once, in reverse mode. The platform is chosen when the program is lowered, so a program exported for
    several platforms is right on each.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, O], with the dtype of `x`.
      strides: pixels between outputs.
      padding: zeros added on each side, pixels; less than k.

    Returns:
      [B, H', W', O] in the dtype of `x`, H' = (H + 2 padding - k) // strides + 1.
    """
    on_cpu = functools.partial(_on_cpu, strides=strides, padding=padding)
    by_lax = functools.partial(_by_lax, strides=strides, padding=padding)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=by_lax)


def winograd_tile(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: int, padding: int) -> int:
    """The best tile of Winograd's method for a convolution on CPU: 2 or 4; 0 if the product over patches is best."""
    batch, height, width, _ = image_shape
    size, _, channels, features = kernel_shape
    if (size, strides) != (winograd.KERNEL_SIZE, 1):
        return 0
    height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
    pixels = batch * height * width
    if min(channels, features) < WINOGRAD_CHANNELS or pixels < WINOGRAD_PIXELS[2]:
        return 0
    return 2 if pixels < WINOGRAD_PIXELS[4] or max(height, width) <= 2 else 4


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
    """`x` as at least float32: CPUs gain nothing from less, and the transforms would lose digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
