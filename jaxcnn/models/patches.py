"""Convolution of any kernel size, stride, dilation and groups by products with the image's patches ("im2col").

With one group it is one product of matrices; a 1x1 convolution is that product without any copying. Chellapilla et al.
2006, "High performance convolutional neural networks for document processing". With as many groups as channels
(depthwise) it is a sum of shifted images, each times one number per channel; XLA computes it in one pass over memory.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Inputs = Float[Array, "b h w c"]
Outputs = Float[Array, "b oh ow o"]
Kernel = Float[Array, "kh kw i o"]
View = Float[Array, "b oh ow c"]  # the pixels that one tap of a kernel sees
Taps = Float[Array, "taps i o"]
FEW = 4  # channels that count as few, such as those of a picture
MOSTLY_EDGE = 1.5  # an image is small if the taps of a kernel see this many times its pixels


@functools.partial(jax.jit, static_argnames=("strides", "padding", "groups", "dilation"))
def forward(x: Inputs, kernel: Kernel, *, strides: int, padding: int, groups: int = 1, dilation: int = 1) -> Outputs:
    """Convolve `x` with `kernel`; oh = (h + 2 padding - dilation (kh - 1) - 1) // strides + 1."""
    views = _views(_pad(x, padding), kernel.shape[0], kernel.shape[1], strides, dilation)
    return _product(views, kernel.reshape(-1, *kernel.shape[2:]), groups)


@functools.partial(jax.jit, static_argnames=("image_size", "strides", "padding", "groups", "dilation", "shared"))
def input_gradient(
    dy: Outputs,
    kernel: Kernel,
    *,
    image_size: tuple[int, int],
    strides: int,
    padding: int,
    groups: int = 1,
    dilation: int = 1,
    shared: bool = False,
) -> Inputs:
    """The gradient of `forward` with respect to `x`, with (h, w) = `image_size`.

    The pixels of `x` at one offset modulo the stride meet the same taps of the kernel, so for each offset it is a
    convolution of `dy`, of stride 1, with these taps turned. `strides` or `dilation` must be 1.

    With `shared`, for few channels and for small images, it is the sum of the gradients that all taps give (`_shares`).
    """
    reach = -(-(dilation * (kernel.shape[0] - 1) + 1) // strides)
    rows, columns = (length + reach - 1 for length in dy.shape[1:3])
    channels = kernel.shape[2] * groups
    small = rows * columns > MOSTLY_EDGE * dy.shape[1] * dy.shape[2] and channels <= kernel.shape[3]
    few = channels <= FEW and kernel.shape[3] >= 4 * channels
    shared = shared and groups == 1 and kernel.shape[0] > 1 and (few or small)
    shares = _shares(dy, kernel) if shared else None
    phases = []
    for i, j in itertools.product(range(strides), repeat=2):
        if shares is not None:
            phases.append(_sum_of_shares(shares[..., i::strides, j::strides, :], rows, columns, dilation))
            continue
        taps = _turned(kernel[i::strides, j::strides], groups)  # [at most reach, same, O / groups, C]
        if 0 in taps.shape:
            phases.append(jnp.zeros((dy.shape[0], rows, columns, channels), dy.dtype))
            continue
        # The offset's pixels reach `reach - 1` places before and after the outputs; fewer taps leave zeros there.
        before = [dilation * (size - 1) for size in taps.shape[:2]]
        after = (reach - 1, reach - 1)
        padded = jnp.pad(dy, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
        views = _views(padded, taps.shape[0], taps.shape[1], 1, dilation)
        phases.append(_product(views, taps.reshape(-1, *taps.shape[2:]), groups))
    if strides == 1:
        whole = phases[0]
    else:
        grid = jnp.stack(phases, axis=-2).reshape(dy.shape[0], rows, columns, strides, strides, -1)
        whole = grid.swapaxes(2, 3).reshape(dy.shape[0], rows * strides, columns * strides, -1)
    height, width = image_size
    # Where the stride does not divide, the last pixels were met by no window.
    short = [max(0, padding + wanted - have) for wanted, have in zip(image_size, whole.shape[1:3], strict=True)]
    whole = jnp.pad(whole, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))
    return whole[:, padding : padding + height, padding : padding + width]


@functools.partial(jax.jit, static_argnames=("kernel_size", "strides", "padding", "groups", "dilation"))
def kernel_gradient(
    x: Inputs, dy: Outputs, *, kernel_size: int, strides: int, padding: int, groups: int = 1, dilation: int = 1
) -> Kernel:
    """The gradient of `forward` with respect to `kernel`.

    Computed for one row of taps at a time: with all patches, XLA would keep those of the forward pass until here.
    """
    x = _pad(x, padding)
    last = x.shape[1] - dilation * (kernel_size - 1) - 1
    products = []
    for i in range(kernel_size):
        row = x[:, i * dilation : i * dilation + last + 1]
        products.append(_taps(_views(row, 1, kernel_size, strides, dilation), dy, groups))
    return jnp.stack(products).reshape(kernel_size, kernel_size, x.shape[-1] // groups, dy.shape[-1])


def _shares(dy: Outputs, kernel: Kernel) -> Float[Array, "b oh ow kh kw c"]:
    """The gradient that each tap gives to each channel; with few channels, much less than the views of all outputs."""
    taken = dy @ kernel.reshape(-1, kernel.shape[3]).T
    return taken.reshape(*dy.shape[:3], *kernel.shape[:3])


def _sum_of_shares(shares: Float[Array, "b oh ow i j c"], rows: int, columns: int, dilation: int) -> Inputs:
    """The sum of the shares of all taps, as images of this size; the shares of each tap begin at its place."""
    batch, down, right, height, width, channels = shares.shape
    total = jnp.zeros((batch, rows, columns, channels), shares.dtype)
    for i, j in itertools.product(range(height), range(width)):
        starts = (dilation * i, dilation * j)
        edges = [
            (start, size - start - length, 0)
            for start, size, length in zip(starts, (rows, columns), (down, right), strict=True)
        ]
        total += jax.lax.pad(shares[:, :, :, i, j], jnp.zeros((), shares.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return total


def _pad(x: Inputs, padding: int) -> Inputs:
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _views(x: Inputs, height: int, width: int, strides: int, dilation: int) -> list[View]:
    """The pixels that each tap of a kernel sees, in the order of the kernel's axes."""
    down = (x.shape[1] - dilation * (height - 1) - 1) // strides + 1
    right = (x.shape[2] - dilation * (width - 1) - 1) // strides + 1
    return [
        x[:, i : i + strides * (down - 1) + 1 : strides, j : j + strides * (right - 1) + 1 : strides]
        for i, j in itertools.product(range(0, dilation * height, dilation), range(0, dilation * width, dilation))
    ]


def _together(views: Sequence[View]) -> Float[Array, "b oh ow taps*c"]:
    return views[0] if len(views) == 1 else jnp.concatenate(views, axis=-1)


def _product(views: Sequence[View], taps: Taps, groups: int) -> Outputs:
    """The sum of the views times `taps`, within each group of channels."""
    inputs, outputs = taps.shape[1:]
    if groups == 1:
        return _together(views) @ taps.reshape(-1, outputs)
    if inputs == 1:
        # One multiplication for each output and tap: each channel is repeated for the outputs of its group.
        repeated = (view if outputs == groups else jnp.repeat(view, outputs // groups, axis=-1) for view in views)
        return sum(view * tap[0] for view, tap in zip(repeated, taps, strict=True))
    columns = jnp.stack([view.reshape(*view.shape[:3], groups, inputs) for view in views], axis=-2)
    return jnp.einsum("bhwgtc,tcgo->bhwgo", columns, taps.reshape(-1, inputs, groups, outputs // groups)).reshape(
        *views[0].shape[:3], outputs
    )


def _taps(views: Sequence[View], dy: Outputs, groups: int) -> Taps:
    """The gradient of the taps of `_product`, from that of its result."""
    outputs, channels = dy.shape[-1], views[0].shape[-1]
    if groups == 1:
        columns = _together(views)
        return columns.reshape(-1, columns.shape[-1]).T @ dy.reshape(-1, outputs)
    if channels == groups:
        repeated = (view if outputs == groups else jnp.repeat(view, outputs // groups, axis=-1) for view in views)
        # Over the rows first: XLA:CPU sums a large array to few numbers faster in two stages.
        return jnp.stack([(view * dy).sum(axis=1).sum(axis=(0, 1)) for view in repeated])[:, None]
    columns = jnp.stack([view.reshape(*view.shape[:3], groups, channels // groups) for view in views], axis=-2)
    grouped = dy.reshape(*dy.shape[:3], groups, outputs // groups)
    return jnp.einsum("bhwgtc,bhwgo->tcgo", columns, grouped).reshape(len(views), channels // groups, outputs)


def _turned(kernel: Kernel, groups: int) -> Float[Array, "kh kw o//groups c"]:
    """The kernel that maps the gradient of the outputs to that of the inputs."""
    height, width, inputs, outputs = kernel.shape
    apart = kernel[::-1, ::-1].reshape(height, width, inputs, groups, outputs // groups)
    return apart.transpose(0, 1, 4, 3, 2).reshape(height, width, outputs // groups, groups * inputs)
