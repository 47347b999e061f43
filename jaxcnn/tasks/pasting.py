"""Masks of objects in an image: painted from grids, drawn over the image, and read from records. All in NumPy."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from jaxcnn.tasks.found_boxes import colour_table
from jaxcnn.tasks.segmentation import OPACITY

Inside = Bool[np.ndarray, "h w"]
Pixels = UInt8[np.ndarray, "h w 3"]


def pasted(grid: Float[np.ndarray, "m m"], box: Float[np.ndarray, "4"], sides: tuple[int, int]) -> Inside:
    """The pixels of an image at whose centres a grid of probabilities, laid over a box, is at least 1/2.

    The grid is interpolated linearly between the centres of its cells, and towards 0 half a cell outside its border.
    A box whose left is larger than its right holds a mirrored grid.

    Args:
      grid: values from 0 to 1.
      box: left, top, right, bottom in pixels of the image; may reach outside.
      sides: height and width of the image.
    """
    inside = np.zeros(sides, bool)
    (left, right), (top, bottom) = (sorted(box[axis::2].tolist()) for axis in (0, 1))
    rows = slice(max(int(np.floor(top)), 0), max(min(int(np.ceil(bottom)), sides[0]), 0))
    columns = slice(max(int(np.floor(left)), 0), max(min(int(np.ceil(right)), sides[1]), 0))
    if right <= left or bottom <= top or rows.start >= rows.stop or columns.start >= columns.stop:
        return inside
    y = _read(np.arange(rows.start, rows.stop) + 0.5, float(box[1]), float(box[3]), len(grid))
    x = _read(np.arange(columns.start, columns.stop) + 0.5, float(box[0]), float(box[2]), len(grid))
    inside[rows, columns] = y @ grid.astype(np.float64) @ x.T >= 0.5
    return inside


def _read(places: Float[np.ndarray, " n"], first: float, last: float, side: int) -> Float[np.ndarray, "n side"]:
    """The interpolation weight of each cell at places along one axis; 0 outside the grid."""
    at = (places - first) / (last - first) * side
    near = np.maximum(1.0 - np.abs(at[:, None] - 0.5 - np.arange(side)), 0.0)
    return np.where(((at >= 0) & (at <= side))[:, None], near, 0.0)


def from_grid(bits: UInt8[np.ndarray, "side bytes"], box: Float32[np.ndarray, "4"], sides: tuple[int, int]) -> Inside:
    """The true mask of a record (`box_records`) in an image: a pixel has the value of the cell around its centre.

    Args:
      bits: cells of the grid as bits.
      box: where the grid lies in the image.
      sides: height and width of the image.
    """
    grid = np.unpackbits(bits, axis=1).astype(bool)
    side = len(grid)
    y, x = (np.floor((np.arange(n) + 0.5 - a) / (b - a) * side) for n, a, b in _spans(box, sides))
    rows, columns = ((each >= 0) & (each < side) for each in (y, x))
    inside = np.zeros(sides, bool)
    inside[np.ix_(rows, columns)] = grid[np.ix_(y[rows].astype(np.int64), x[columns].astype(np.int64))]
    return inside


def _spans(box: Float32[np.ndarray, "4"], sides: tuple[int, int]) -> list[tuple[int, float, float]]:
    left, top, right, bottom = map(float, box)
    return [(sides[0], top, bottom), (sides[1], left, right)]


def covered(image: Pixels, masks: Sequence[Inside], labels: Sequence[int]) -> Pixels:
    """The image with masks laid over it in the colours of their classes."""
    mixed, table = image.astype(np.float32), colour_table()
    for mask, label in zip(masks, labels, strict=True):
        mixed[mask] = (1 - OPACITY) * mixed[mask] + OPACITY * table[label % len(table)]
    return mixed.round().astype(np.uint8)
