"""3x3 convolution of stride 1 with a quarter of the multiplications, as matrix products.

Winograd's minimal filtering (Lavin & Gray 2015, arXiv:1509.09308): the image is cut into overlapping tiles, tiles and
kernel are transformed by small constant matrices, and then one matrix product is computed for each of the (m + 2)^2
places of a tile: 36 multiplications for 4x4 outputs, where the plain sum needs 144. All three passes of training can be
computed so, each by its own function here. Each processes the rows of a tile's places in turn (transform, product,
inverse transform), so that the data of one row is still in the cache.

The interpolation points of tiles of 4 are 0, +-3/4, +-3/2 and infinity: the float32 error depends on them (Barabasz et
al. 2018, arXiv:1803.10986). With 512 channels it is 2e-6 of the result's standard deviation, half of that of the usual
points 0, +-1, +-2, and six times that of the plain sum.
"""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64
from numpy.polynomial import polynomial

# Dimensions besides those of `jaxcnn.data.batch`: p places along the side of a tile, tiles t of (a part of) a batch.
Inputs = Float[Array, "b h w c"]
Outputs = Float[Array, "b oh ow o"]
Kernel = Float[Array, "3 3 c o"]
Tiles = Float[Array, "p t c"]  # one row of the places of all tiles
TilesOfOutputs = Float[Array, "p t o"]
KernelRow = Float[Array, "p c o"]
Matrix = Float64[np.ndarray, "p q"]
_Tree = TypeVar("_Tree")

KERNEL_SIZE = 3
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
# Bytes of transformed tiles per pass of the loop over parts of a batch; about half is in use at once, due to the rows'
# turns. Measured with a last-level cache of 32 MiB; up to 96 MiB, the result is the same.
CACHE = 40 * 2**20


@functools.cache
def matrices(
    tile: int,
) -> tuple[Float64[np.ndarray, "p tile"], Float64[np.ndarray, "p p"], Float64[np.ndarray, "p 3"]]:
    """The transforms (A, B, G) for tiles of `tile` outputs, with p = tile + 2.

    For any d [p] and g [3], A.T @ ((G @ g) * (B @ d)) is the correlation of d and g, [tile]. Toom-Cook: A and G
    evaluate polynomials at the points and at infinity, B contains the Lagrange polynomials.
    """
    points = np.array(POINTS[tile])
    size = tile + KERNEL_SIZE - 1
    a, b, g = np.zeros((size, tile)), np.zeros((size, size)), np.zeros((size, KERNEL_SIZE))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        a[i] = point ** np.arange(tile)
        g[i] = point ** np.arange(KERNEL_SIZE) / np.prod(point - others)
        b[i, :-1] = polynomial.polyfromroots(others)
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = polynomial.polyfromroots(points)
    return a, b, g


@functools.partial(jax.jit, static_argnames=("tile", "padding"))
def forward(x: Inputs, kernel: Kernel, *, tile: int, padding: int) -> Outputs:
    """Convolve `x` with `kernel`; oh = h + 2 padding - 2."""
    _, _, g = matrices(tile)
    return _products(x, _both_axes(g, kernel), "ptc,pco->pto", tile, padding)


@functools.partial(jax.jit, static_argnames=("tile", "padding"))
def input_gradient(dy: Outputs, kernel: Kernel, *, tile: int, padding: int) -> Inputs:
    """Gradient of `forward` with respect to `x`: convolution with the rotated kernel."""
    _, _, g = matrices(tile)
    return _products(dy, _both_axes(g, kernel[::-1, ::-1]), "pto,pco->ptc", tile, KERNEL_SIZE - 1 - padding)


@functools.partial(jax.jit, static_argnames=("tile", "padding"))
def kernel_gradient(x: Inputs, dy: Outputs, *, tile: int, padding: int) -> Kernel:
    """Gradient of `forward` with respect to `kernel`, by the transposed transforms of `dy` and kernel."""
    a, _, g = matrices(tile)

    def add(totals: list[KernelRow], part: tuple[Inputs, Outputs]) -> tuple[list[KernelRow], None]:
        x, dy = part
        rows = zip(totals, _tiles(x, tile, padding), _spread(dy, tile), strict=True)
        return [total + jnp.einsum("ptc,pto->pco", x, dy) for total, x, dy in rows], None

    x = _in_parts(x, x.shape[-1] + dy.shape[-1], tile)
    dy = dy.reshape(*x.shape[:2], *dy.shape[1:])
    zeros = jnp.zeros((len(a), x.shape[-1], dy.shape[-1]), x.dtype)
    totals, _ = lax.scan(add, [zeros] * len(a), (x, dy))
    # Not `_both_axes`, for which the totals would be copied into one array: half as much machine code again, and more
    # time and memory, most with many channels.
    rows = _combinations(g.T, totals)
    return jnp.stack([_combine(g.T, list(row)) for row in rows])


def _products(x: Inputs, kernel: list[KernelRow], contraction: str, tile: int, padding: int) -> Outputs:
    """Transform `x`, multiply by the transformed `kernel` for each row of a tile, transform back."""

    def convolve(part: Inputs) -> Outputs:
        rows = zip(_tiles(part, tile, padding), kernel, strict=True)
        products = [jnp.einsum(contraction, tiles, kernel) for tiles, kernel in rows]
        return _untile(products, (part.shape[0], *_outputs(part, padding)), tile)

    y = lax.map(convolve, _in_parts(x, sum(kernel[0].shape[1:]), tile))
    return y.reshape(-1, *y.shape[2:])


def _in_parts(x: Inputs, channels: int, tile: int) -> Float[Array, "parts b//parts h w c"]:
    """Cut the batch of `x` into parts whose transforms fit into the cache.

    `channels` is the total of input and output channels.
    """
    batch, height, width, _ = x.shape
    tiles = -(-height // tile) * -(-width // tile)
    image_bytes = (tile + KERNEL_SIZE - 1) ** 2 * tiles * channels * x.dtype.itemsize
    parts = next(n for n in range(1, batch + 1) if batch % n == 0 and (batch // n * image_bytes <= CACHE or n == batch))
    return x.reshape(parts, batch // parts, *x.shape[1:])


def _outputs(x: Inputs, padding: int) -> tuple[int, int]:
    height, width = (size + 2 * padding - KERNEL_SIZE + 1 for size in x.shape[1:3])
    return height, width


def _tiles(x: Inputs, tile: int, padding: int) -> list[Tiles]:
    """Transform the tiles of `x` by B on both axes, for each row of a tile."""
    _, b, _ = matrices(tile)
    down, right = (-(-size // tile) for size in _outputs(x, padding))
    # Pads all but the outermost places, which only one row of a transform reads: for these, `_strided` adds the zeros.
    before = min(padding, 1)
    ends = [max(count * tile + 1 - padding - size, 0) for count, size in zip((down, right), x.shape[1:3], strict=True)]
    x = jnp.pad(x, ((0, 0), (padding - before, ends[0]), (padding - before, ends[1]), (0, 0)))
    return _rows(b, x, (down, right), tile, before)


def _spread(dy: Outputs, tile: int) -> list[TilesOfOutputs]:
    """Transform the gradients of the outputs by A, for each row of a tile."""
    a, _, _ = matrices(tile)
    down, right = (-(-size // tile) for size in dy.shape[1:3])
    ends = (down * tile - dy.shape[1], right * tile - dy.shape[2])
    dy = jnp.pad(dy, ((0, 0), (0, ends[0]), (0, ends[1]), (0, 0)))
    return _rows(a, dy, (down, right), tile, before=0)


def _rows(matrix: Matrix, x: Inputs, counts: tuple[int, int], stride: int, before: int) -> list[Tiles]:
    """Apply `matrix` to both axes of `counts` tiles of `x`, for each row of a tile.

    Tiles of q places are `stride` apart; the first one begins `before` places in front of `x`.
    """
    starts = matrix.shape[1]
    rows = _materialize(_combinations(matrix, _strided(x, 1, starts, counts[0], stride, before)))
    return [_flat(_combine(matrix, _strided(row, 2, starts, counts[1], stride, before))) for row in rows]


def _untile(products: list[TilesOfOutputs], shape: tuple[int, int, int], tile: int) -> Outputs:
    """Transform the rows' products by A's transpose on both axes: images of `shape` = (b, oh, ow)."""
    a, _, _ = matrices(tile)
    batch, height, width = shape
    down, right = -(-height // tile), -(-width // tile)
    products = [row.reshape(len(a), batch, down, right, -1) for row in products]
    rows = [_materialize(_combine(a.T, list(row), axis=3)) for row in products]  # [b, down, right, tile, o]
    image = _combine(a.T, rows, axis=2)
    return image.reshape(batch, down * tile, right * tile, -1)[:, :height, :width]


def _both_axes(matrix: Matrix, kernel: Float[Array, "q q c o"]) -> list[KernelRow]:
    """Apply `matrix` to the first two axes of `kernel`, for each row."""
    columns = [_combinations(matrix, list(kernel[:, j])) for j in range(kernel.shape[1])]
    return [_combine(matrix, list(row)) for row in zip(*columns, strict=True)]


def _strided(x: Array, axis: int, starts: int, count: int, stride: int, before: int) -> list[Array]:
    """The `count` values of `x`, `stride` apart, from each of the first `starts` places along an axis.

    The first place is `before` places in front of `x`; values in front of `x` and behind it are zeros.
    """

    def from_place(start: int) -> Array:
        first = start - before
        end = first + (count - 1) * stride + 1
        if first >= 0 and end <= x.shape[axis]:  # no padding, whose tracing would delay a start
            return lax.slice_in_dim(x, first, end, stride, axis)
        ends = [(0, 0, 0)] * x.ndim
        ends[axis] = (-first, end - x.shape[axis], 0)  # negative values cut off
        return lax.slice_in_dim(lax.pad(x, jnp.zeros((), x.dtype), ends), 0, None, stride, axis)

    return [from_place(start) for start in range(starts)]


def _flat(places: Float[Array, "p b down right c"]) -> Tiles:
    """The tiles of all images along one axis."""
    return places.reshape(len(places), -1, places.shape[-1])


def _combine(matrix: Matrix, terms: list[Array], axis: int = 0) -> Array:
    """`matrix` times the q terms, stacked along a new axis."""
    return jnp.stack(_combinations(matrix, terms), axis)


def _combinations(matrix: Matrix, terms: list[Array]) -> list[Array]:
    """The sum of the terms times the factors in each row of `matrix`; multiplications by 0 and 1 are left out."""
    return _traced_once(tuple(map(tuple, matrix.tolist())), terms)


@functools.partial(jax.jit, static_argnames="matrix")
def _traced_once(matrix: tuple[tuple[float, ...], ...], terms: list[Array]) -> list[Array]:
    """The results of `_combinations`, traced once per shape: its many operations would slow even a cached start."""

    def scaled(term: Array, factor: float) -> Array:
        return term if factor == 1 else lax.mul(term, term.dtype.type(factor))

    return [
        functools.reduce(lax.add, [scaled(term, factor) for factor, term in zip(row, terms, strict=True) if factor])
        for row in matrix
    ]


def _materialize(x: _Tree) -> _Tree:
    """Prevent XLA from fusing the pass along one axis into that along the other, which would repeat it n times."""
    return lax.optimization_barrier(x)
