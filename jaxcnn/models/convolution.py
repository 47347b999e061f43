"""The convolution of all networks, by the fastest method of the platform for its shape.

On GPU and TPU, this is `lax.conv_general_dilated`. XLA's CPU convolutions are slow for small images and for kernel
gradients, and inside loops their gradients are another twenty times slower; matrix products are fast everywhere. So on
CPU, every pass is computed by matrix products: by Winograd's method where it saves most work, else over image patches.
Depthwise convolutions are sums of shifted images there.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.models import context, patches, winograd
from jaxcnn.models.patches import Inputs, Kernel, Outputs

# Below these, the transforms of tiles and kernel cost more than the saved multiplications. Larger tiles save more, but
# their kernels grow more: to 36/9 of their size, against 16/9. Measured with 128 to 512 channels on two cores.
WINOGRAD_CHANNELS = 16
WINOGRAD_PIXELS = {2: 128, 4: 2048}  # fewest pixels of a batch, keyed by tile


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How a kernel moves over an image: strides, padding and dilation in pixels, and the groups of channels."""

    strides: int
    padding: int
    groups: int
    dilation: int


def convolve(x: Inputs, kernel: Kernel, strides: int, padding: int, groups: int = 1, dilation: int = 1) -> Outputs:
    """Cross-correlate images with a kernel, as usual in neural networks.

    Differentiable once, in reverse mode. The platform is chosen when the program is lowered, so a program exported for
    several platforms is right on each.

    Args:
      x: the images.
      kernel: a square kernel, of the dtype of `x`.
      strides: pixels between outputs.
      padding: zeros added on each side, pixels; less than the extent of the kernel, dilation (kh - 1) + 1.
      groups: number of equal parts of inputs and outputs, each convolved by itself; c: depthwise.
      dilation: pixels between the taps of the kernel.

    Returns:
      An array of the dtype of `x`, with oh = (h + 2 padding - dilation (kh - 1) - 1) // strides + 1.

    Raises:
      ValueError: the kernel is not square, or the groups do not divide its channels or fit the images.
    """
    channels, (height, width, inputs, outputs) = x.shape[-1], kernel.shape
    if height != width or inputs * groups != channels or outputs % groups:
        raise ValueError(f"a kernel of shape {kernel.shape} does not fit {channels} channels in {groups} groups")
    return _convolve(x, kernel, Geometry(strides, padding, groups, dilation))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Inputs, kernel: Kernel, geometry: Geometry) -> Outputs:
    if context.is_portable():
        return _by_lax(x, kernel, geometry)
    on_cpu = functools.partial(_on_cpu, geometry=geometry)
    by_lax = functools.partial(_by_lax, geometry=geometry)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=by_lax)


def winograd_tile(image_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: int, padding: int) -> int:
    """The best tile of Winograd's method for a convolution on CPU: 2 or 4; 0 if the product over patches is faster."""
    batch, height, width, _ = image_shape
    size, _, channels, features = kernel_shape
    if (size, strides) != (winograd.KERNEL_SIZE, 1):
        return 0
    height, width = height + 2 * (padding - 1), width + 2 * (padding - 1)
    pixels = batch * height * width
    if min(channels, features) < WINOGRAD_CHANNELS or pixels < WINOGRAD_PIXELS[2]:
        return 0
    return 2 if pixels < WINOGRAD_PIXELS[4] or max(height, width) <= 2 else 4


def _forward(x: Inputs, kernel: Kernel, geometry: Geometry) -> tuple[Outputs, tuple[Inputs, Kernel]]:
    return _convolve(x, kernel, geometry), (x, kernel)


def _backward(geometry: Geometry, residuals: tuple[Inputs, Kernel], dy: Outputs) -> tuple[Inputs, Kernel]:
    x, kernel = residuals

    def on_cpu(x, kernel, dy):
        return _gradients_on_cpu(x, kernel, dy, geometry)

    def by_lax(x, kernel, dy):
        return jax.vjp(lambda x, kernel: _by_lax(x, kernel, geometry), x, kernel)[1](dy)

    return lax.platform_dependent(x, kernel, dy, cpu=on_cpu, default=by_lax)


_convolve.defvjp(_forward, _backward)


def _by_lax(x: Inputs, kernel: Kernel, geometry: Geometry) -> Outputs:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(geometry.strides, geometry.strides),
        padding=[(geometry.padding, geometry.padding)] * 2,
        rhs_dilation=(geometry.dilation, geometry.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _on_cpu(x: Inputs, kernel: Kernel, geometry: Geometry) -> Outputs:
    dtype = x.dtype
    x, kernel = _wide(x), _wide(kernel)
    if tile := _tile(x, kernel, geometry):
        y = winograd.forward(x, kernel, tile=tile, padding=geometry.padding)
    else:
        y = patches.forward(x, kernel, **dataclasses.asdict(geometry))
    return y.astype(dtype)


def _gradients_on_cpu(x: Inputs, kernel: Kernel, dy: Outputs, geometry: Geometry) -> tuple[Inputs, Kernel]:
    dtypes = x.dtype, kernel.dtype
    x, kernel, dy = _wide(x), _wide(kernel), _wide(dy)
    if tile := _tile(x, kernel, geometry):
        dx = winograd.input_gradient(dy, kernel, tile=tile, padding=geometry.padding)
        dkernel = winograd.kernel_gradient(x, dy, tile=tile, padding=geometry.padding)
    else:
        size, image_size = kernel.shape[0], (x.shape[1], x.shape[2])
        options = dataclasses.asdict(geometry)
        if geometry.strides > 1 and geometry.dilation > 1:
            dx = jax.vjp(lambda x: _by_lax(x, kernel, geometry), x)[1](dy)[0]
        else:
            shared = context.is_explaining()
            dx = patches.input_gradient(dy, kernel, image_size=image_size, shared=shared, **options)
        dkernel = patches.kernel_gradient(x, dy, kernel_size=size, **options)
    return dx.astype(dtypes[0]), dkernel.astype(dtypes[1])


def _tile(x: Inputs, kernel: Kernel, geometry: Geometry) -> int:
    if geometry.groups > 1 or geometry.dilation > 1:
        return 0
    return winograd_tile(x.shape, kernel.shape, geometry.strides, geometry.padding)


def _wide(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` as at least float32: CPUs gain nothing from narrower types, and the transforms would lose digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
