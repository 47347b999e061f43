"""Pooling: reduces images to smaller ones."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt

import jaxcnn.config as config
from jaxcnn.models import context
from jaxcnn.models.geometry import check_covers

Images = Float[Array, "b h w c"]
Pooled = Float[Array, "b oh ow c"]
Places = UInt[Array, "b oh ow c"]


def pool(model: config.Model, x: Images, window: int, strides: int) -> Pooled:
    """Pools each window by `model.pooling`: its largest value, its mean, or the sum of both.

    Mishkin et al. 2016, arXiv:1606.02228, compare them.
    """
    return _by_kind(model, lambda: max_pool(x, window, strides), lambda: average_pool(x, window, strides))


def halving_pool(model: config.Model, x: Images) -> Pooled:
    """`pool` over 2x2 windows of stride 2, whose number is rounded up: oh = ceil(h / 2), so no image vanishes.

    The last window of an odd side has the pixels that are there.
    """
    return _by_kind(model, lambda: max_pool(x, 2, 2, ceil=True), lambda: halving_average_pool(x))


def _by_kind(model: config.Model, largest: Callable[[], Pooled], mean: Callable[[], Pooled]) -> Pooled:
    if model.pooling == "max":
        return largest()
    return mean() if model.pooling == "mean" else mean() + largest()


def average_pool(x: Images, window: int, strides: int) -> Pooled:
    """Mean of each window; oh = (h - window) // strides + 1.

    Raises UserError if the image is smaller than the window.
    """
    check_covers(x, window, 0)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if context.is_portable():
        sides, steps = (1, window, window, 1), (1, strides, strides, 1)
        total = lax.reduce_window(wide, np.array(0, wide.dtype), lax.add, sides, steps, "VALID")
    else:
        total = functools.reduce(jnp.add, _taps(wide, window, strides))
    return (total / window**2).astype(x.dtype)


def max_pool(x: Images, window: int, strides: int, padding: int = 0, *, ceil: bool = False) -> Pooled:
    """Largest value of each window; oh = (h + 2 padding - window) // strides + 1, with `ceil` rounded up instead.

    Padding is never the largest, nor is what a window of `ceil` has beyond the image. The gradient goes to the first of
    equal values, row by row, as in PyTorch. Raises UserError if the image is smaller than the window, unless windows
    that do not overlap are rounded up.
    """
    if not (ceil and window == strides):
        check_covers(x, window, padding)
    if ceil:
        beyond = [-(length + 2 * padding - window) % strides for length in x.shape[1:3]]
        edges = [(padding, padding + more, 0) for more in beyond]
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    elif padding:
        x = lax.pad(
            x, jnp.array(-jnp.inf, x.dtype), ((0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0))
        )
    return _max_of_windows(x, window, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_of_windows(x: Images, window: int, strides: int) -> Pooled:
    if context.is_portable():
        sides, steps = (1, window, window, 1), (1, strides, strides, 1)
        return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, sides, steps, "VALID")
    # A maximum of slices is one pass over the image; XLA:CPU computes `reduce_window` one value at a time.
    return functools.reduce(jnp.maximum, _taps(x, window, strides))


def _max_forward(x: Images, window: int, strides: int) -> tuple[Pooled, tuple[Images, Pooled, Places]]:
    largest, *others = _taps(x, window, strides)
    place = jnp.zeros(largest.shape, np.min_scalar_type(window**2))
    for number, tap in enumerate(others, start=1):
        place = jnp.where(tap > largest, place.dtype.type(number), place)
        largest = jnp.maximum(largest, tap)
    return _max_of_windows(x, window, strides), (x, largest, place)


def _max_backward(window: int, strides: int, residuals: tuple[Images, Pooled, Places], dy: Pooled) -> tuple[Images]:
    """The gradient, by the platform's own method; XLA drops the residuals that it does not use.

    On a GPU, it uses the places of the largest values, one byte each, in one pass over the image, so that `x` need not
    be kept. On CPU, this is not faster, and sums over it would round differently in a loop of steps.
    """
    by_values = functools.partial(_gradient_by_values, window, strides)
    by_places = functools.partial(_gradient_by_places, window, strides)
    return (lax.platform_dependent(*residuals, dy, cpu=by_values, default=by_places),)


def _gradient_by_values(window: int, strides: int, x: Images, y: Pooled, place: Places, dy: Pooled) -> Images:
    del place
    taken = jnp.zeros(y.shape, bool)
    shares = []
    for tap in _taps(x, window, strides):
        wins = (tap == y) & ~taken
        taken |= wins
        shares.append(jnp.where(wins, dy, 0))
    return _interleave(shares, x.shape, window) if window == strides else _overlap(shares, x.shape, strides)


def _gradient_by_places(window: int, strides: int, x: Images, y: Pooled, place: Places, dy: Pooled) -> Images:
    del y
    if window == strides:
        return _spread(place, dy, window, x.shape[1:3])
    return _overlap([jnp.where(place == number, dy, 0) for number in range(window**2)], x.shape, strides)


_max_of_windows.defvjp(_max_forward, _max_backward)


def _taps(x: Images, window: int, strides: int) -> list[Pooled]:
    """The values of all windows at each place in the window: a list of window * window arrays."""
    ends = [strides * ((length - window) // strides) + 1 for length in x.shape[1:3]]
    return [
        x[:, i : i + ends[0] : strides, j : j + ends[1] : strides]
        for i, j in itertools.product(range(window), repeat=2)
    ]


def _overlap(shares: list[Pooled], shape: tuple[int, ...], strides: int) -> Images:
    """The inverse of `_taps` for gradients: adds the values of each window place to the pixels they came from."""
    window = math.isqrt(len(shares))
    zero = jnp.zeros((), shares[0].dtype)
    total = jnp.zeros(shape, shares[0].dtype)
    for (i, j), share in zip(itertools.product(range(window), repeat=2), shares, strict=True):
        edges = [
            (start, length - start - strides * (count - 1) - 1, strides - 1)
            for start, length, count in zip((i, j), shape[1:3], share.shape[1:3], strict=True)
        ]
        total += lax.pad(share, zero, ((0, 0, 0), *edges, (0, 0, 0)))
    return total


def _spread(place: Places, dy: Pooled, window: int, size: tuple[int, ...]) -> Images:
    """Put the value of each window (they do not overlap) at its place in the image of `size`; all else is 0.

    Rows and columns that no window covers belong to an additional window without a place.
    """
    rest = [(0, -(-length // window) - count) for length, count in zip(size, dy.shape[1:3], strict=True)]
    edges = [(0, 0), *rest, (0, 0)]
    place, dy = jnp.pad(place, edges, constant_values=window**2), jnp.pad(dy, edges)
    batch, down, right, channels = dy.shape
    numbers = jnp.arange(window**2, dtype=place.dtype).reshape(1, 1, window, 1, window, 1)
    grid = jnp.where(place[:, :, None, :, None] == numbers, dy[:, :, None, :, None], 0)
    return grid.reshape(batch, down * window, right * window, channels)[:, : size[0], : size[1]]


def _interleave(shares: list[Pooled], shape: tuple[int, ...], window: int) -> Images:
    """Put the values of each place in the windows (they do not overlap) back to their pixels; all else is 0."""
    batch, down, right, channels = shares[0].shape
    grid = jnp.stack(shares, axis=3).reshape(batch, down, right, window, window, channels)
    whole = grid.swapaxes(2, 3).reshape(batch, down * window, right * window, channels)
    rest = [length - covered for length, covered in zip(shape[1:3], whole.shape[1:3], strict=True)]
    return jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))


def global_average_pool(x: Images) -> Float[Array, "b c"]:
    """Mean over all pixels."""
    return x.mean(axis=(1, 2))


def halving_average_pool(x: Images) -> Pooled:
    """Mean of each 2x2 window, of stride 2; oh = ceil(h / 2).

    The last window of an odd side has the pixels that are there, as in PyTorch's AvgPool2d with ceil_mode=True and
    count_include_pad=False.
    """
    height, width = x.shape[1:3]
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    padded = jnp.pad(x.astype(dtype), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows, columns = (np.minimum(2, length - 2 * np.arange(-(-length // 2))) for length in (height, width))
    if context.is_portable():
        total = lax.reduce_window(padded, np.array(0, dtype), lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    else:
        total = functools.reduce(jnp.add, _taps(padded, 2, 2))
    return (total / (rows[:, None] * columns)[..., None]).astype(x.dtype)


def adaptive_average_pool(x: Images, size: int) -> Float[Array, "b size size c"]:
    """Mean over size x size windows that cover the image.

    Window i extends from floor(i h / size) to ceil((i + 1) h / size), as in PyTorch's AdaptiveAvgPool2d, so windows may
    overlap, and an image may also be smaller than `size`.
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
