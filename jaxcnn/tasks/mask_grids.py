"""Masks of the objects of an image on small grids (`jaxcnn.tasks.box_records`): rotated, cut, and read at pixels.

All in JAX. A place has the value of the cell in which it lies; a cell is in the image if its centre is.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt8

from jaxcnn.tasks.moving import COORDINATE_BITS, Move, product

Bits = UInt8[Array, "m side bytes"]
Cells = Bool[Array, "m side side"]
Places = Float32[Array, "m 4"]  # left, top, right, bottom; mirrored if left is right of right
Along = Float[Array, "m side"]

NEAR = 2.0**-7  # pixels by which the place of a rotated cell may be wrong: the matrix has 16 fraction bits


def cells_of(bits: Bits) -> Cells:
    """The cells of grids that are stored as bits, bool [m, side, side]."""
    return jnp.unpackbits(bits, axis=-1).astype(bool)


def bits_of(cells: Cells) -> Bits:
    """The bits of cells; the inverse of `cells_of`."""
    return jnp.packbits(cells, axis=-1)


def centres(place: Places, side: int) -> tuple[Along, Along]:
    """The x of the centres of columns and the y of the centres of rows of grids, in pixels of the image."""
    number = jnp.arange(side) + 0.5
    x, y = (place[:, axis, None] + number * (place[:, axis + 2] - place[:, axis])[:, None] / side for axis in (0, 1))
    return x, y


def inside(place: Places, side: int, sides: tuple[int, int]) -> Cells:
    """Whether each cell lies in an image of height and width `sides`."""
    x, y = centres(place, side)
    return ((y >= 0) & (y < sides[0]))[:, :, None] & ((x >= 0) & (x < sides[1]))[:, None, :]


def extent(cells: Cells, place: Places) -> Places:
    """The box around the cells that are set; zeros where none is set."""
    side = cells.shape[-1]

    def ends(some: Bool[Array, "m side"], axis: int) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        first, last = some.argmax(axis=1), side - some[:, ::-1].argmax(axis=1)
        length = place[:, axis + 2] - place[:, axis]
        one, other = (place[:, axis] + number * length / side for number in (first, last))
        return jnp.minimum(one, other), jnp.maximum(one, other)

    (left, right), (top, bottom) = ends(cells.any(axis=1), 0), ends(cells.any(axis=2), 1)
    box = jnp.stack([left, top, right, bottom], axis=1)
    return jnp.where(cells.any(axis=(1, 2))[:, None], box, 0.0)


def turned(cells: Cells, place: Places, move: Move) -> tuple[Cells, Places]:
    """The grids of an image that was rotated, sampled on new upright grids.

    A new grid begins and ends at whole pixels. In a direction in which the rotated object has at most as many pixels as
    the grid has cells, a cell is a pixel. A new cell has the value of the place from which its centre comes.

    Args:
      cells: which cells are set.
      place: where the grids lie.
      move: how the image was rotated.
    """
    assert move.across is not None
    side = cells.shape[-1]
    x, y = centres(place, side)
    half = jnp.abs(place[:, 2:] - place[:, :2]) / side / 2  # of a cell
    starts, lengths = [], []
    for axis, (of_x, of_y) in enumerate(((move.scale[0], move.across[0]), (move.across[1], move.scale[1]))):
        at = (product(of_x, x)[:, None, :] + product(of_y, y)[:, :, None]) + move.shift[axis]
        reach = product(jnp.abs(of_x), half[:, 0]) + product(jnp.abs(of_y), half[:, 1])
        low = jnp.where(cells, at, jnp.inf).min(axis=(1, 2)) - reach
        high = jnp.where(cells, at, -jnp.inf).max(axis=(1, 2)) + reach
        first = jnp.floor(low + NEAR)
        starts.append(first)
        lengths.append(jnp.maximum(jnp.ceil(high - NEAR) - first, side))
    start, length = jnp.stack(starts, axis=1), jnp.stack(lengths, axis=1)
    new = jnp.concatenate([start, start + length], axis=1)
    new = jnp.where(cells.any(axis=(1, 2))[:, None], new, place)
    return _sampled(cells, place, new, move), new


def looked_up(seen: Bool[Array, "h w"], place: Places, side: int) -> Cells:
    """The values of a boolean map at the centres of the cells of grids; False outside the image."""
    height, width = seen.shape
    x, y = (jnp.floor(each) for each in centres(place, side))
    column, row = (jnp.clip(each, 0, most - 1).astype(jnp.int32) for each, most in ((x, width), (y, height)))
    return seen[row[:, :, None], column[:, None, :]] & inside(place, side, (height, width))


def covered(cells: Cells, place: Places, chosen: Bool[Array, " m"], sides: tuple[int, int]) -> Bool[Array, "h w"]:
    """The pixels of an image with these sides that the chosen grids cover: their centres lie in cells that are set."""

    def add(so_far: Bool[Array, "h w"], one: tuple[Array, Array, Array]) -> tuple[Bool[Array, "h w"], None]:
        grid, box, wanted = one
        side = len(grid)
        row, column = (
            jnp.floor((jnp.arange(count) + 0.5 - box[axis]) * side / (box[axis + 2] - box[axis]))
            for axis, count in ((1, sides[0]), (0, sides[1]))
        )
        known = ((row >= 0) & (row < side))[:, None] & ((column >= 0) & (column < side))
        row, column = (jnp.clip(each, 0, side - 1).astype(jnp.int32) for each in (row, column))
        return so_far | (grid[row[:, None], column] & known & wanted), None

    return jax.lax.scan(add, jnp.zeros(sides, bool), (cells, place, chosen))[0]


def _sampled(cells: Cells, place: Places, new: Places, move: Move) -> Cells:
    """The values of the cells from which the centres of the cells of `new` grids come."""
    side = cells.shape[-1]
    x, y = centres(new, side)
    back = move.matrix.astype(jnp.float32) / 2.0**COORDINATE_BITS
    at = [
        (product(back[axis, 0], x)[:, None, :] + product(back[axis, 1], y)[:, :, None]) + back[axis, 2]
        for axis in (0, 1)
    ]
    column, row = (
        jnp.floor((each - place[:, axis, None, None]) * side / (place[:, axis + 2] - place[:, axis])[:, None, None])
        for axis, each in enumerate(at)
    )
    known = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    row, column = (jnp.clip(each, 0, side - 1).astype(jnp.int32) for each in (row, column))
    return jax.vmap(lambda grid, i, j: grid[i, j])(cells, row, column) & known
