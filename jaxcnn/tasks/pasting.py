"""Masks of objects in an image: painted from grids, drawn over the image, and read from records. All in NumPy."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from jaxcnn.tasks import run_length
from jaxcnn.tasks.found_boxes import colour_table
from jaxcnn.tasks.segmentation import OPACITY

Inside = Bool[np.ndarray, "h w"]
Pixels = UInt8[np.ndarray, "h w 3"]


class Part(NamedTuple):
    """The part of a mask outside of which it is empty.

    Attributes:
      inside: the pixels of the part.
      corner: the row and the column of its first pixel.
    """

    inside: Inside
    corner: tuple[int, int]

    def encoded(self, sides: tuple[int, int]) -> dict[str, Any]:
        """The run lengths of the mask in an image of this height and width."""
        return run_length.encode_at(self.inside, self.corner, sides)

    def whole(self, sides: tuple[int, int]) -> Inside:
        """The mask in an image of this height and width."""
        mask = np.zeros(sides, bool)
        (top, left), (height, width) = self.corner, self.inside.shape
        mask[top : top + height, left : left + width] = self.inside
        return mask


_NOTHING = Part(np.zeros((0, 0), bool), (0, 0))


def pasted(grid: Float[np.ndarray, "m m"], box: Float[np.ndarray, "4"], sides: tuple[int, int]) -> Inside:
    """The whole mask of `pasted_part`."""
    return pasted_part(grid, box, sides).whole(sides)


def pasted_part(grid: Float[np.ndarray, "m m"], box: Float[np.ndarray, "4"], sides: tuple[int, int]) -> Part:
    """The pixels of an image at whose centres a grid of probabilities, laid over a box, is at least 1/2.

    The grid is interpolated linearly between the centres of its cells, and towards 0 half a cell outside its border.
    A box whose left is larger than its right holds a mirrored grid.

    Args:
      grid: values from 0 to 1.
      box: left, top, right, bottom in pixels of the image; may reach outside.
      sides: height and width of the image.
    """
    (left, right), (top, bottom) = (sorted(box[axis::2].tolist()) for axis in (0, 1))
    rows, columns = _within(top, bottom, sides[0]), _within(left, right, sides[1])
    if right <= left or bottom <= top or not rows or not columns:
        return _NOTHING
    framed = np.pad(grid.astype(np.float64), 1)
    down = _read(framed, np.array(rows) + 0.5, float(box[1]), float(box[3]))
    across = _read(down.T, np.array(columns) + 0.5, float(box[0]), float(box[2]))
    return Part(across.T >= 0.5, (rows.start, columns.start))


def _within(low: float, high: float, length: int) -> range:
    """The pixels that a span touches, of `length` pixels."""
    return range(max(math.floor(max(low, 0)), 0), min(math.ceil(min(high, length)), length))


def _read(
    framed: Float[np.ndarray, "cells c"], places: Float[np.ndarray, " n"], first: float, last: float
) -> Float[np.ndarray, "n c"]:
    """The rows of a grid in a frame of zeros, interpolated at places along its axis; 0 outside the grid.

    No matrix product: of a few rows, its threads would wait for each other longer than they compute.
    """
    side = len(framed) - 2
    at = (places - first) / (last - first) * side
    before = np.clip(np.floor(at - 0.5), -1, side - 1)
    share = np.where((at >= 0) & (at <= side), at - 0.5 - before, 0.0)[:, None]
    row = before.astype(np.int64) + 1
    weight = np.where((at >= 0) & (at <= side), 1.0, 0.0)[:, None] - share
    return weight * framed[row] + share * framed[row + 1]


def from_grid(bits: UInt8[np.ndarray, "side bytes"], box: Float32[np.ndarray, "4"], sides: tuple[int, int]) -> Inside:
    """The mask of a record (`box_records`) in an image: a pixel has the value of the cell around its centre.

    Args:
      bits: cells of the grid as bits.
      box: where the grid lies in the image.
      sides: height and width of the image.
    """
    grid = np.unpackbits(bits, axis=1).astype(bool)
    side = len(grid)
    axes = []
    for length, ends in zip(sides, (box[1::2], box[::2]), strict=True):
        first, last = map(float, ends)
        places = _within(min(first, last) - 1, max(first, last) + 1, length)
        at = np.floor((np.array(places) + 0.5 - first) / (last - first) * side)
        there = np.flatnonzero((at >= 0) & (at < side))
        if not len(there):
            return np.zeros(sides, bool)
        axes.append((places.start + int(there[0]), at[there].astype(np.int64)))
    (top, rows), (left, columns) = axes
    return Part(grid[np.ix_(rows, columns)], (top, left)).whole(sides)


def covered(image: Pixels, masks: Sequence[Inside], labels: Sequence[int]) -> Pixels:
    """The image with masks laid over it in the colours of their classes."""
    mixed, table = image.astype(np.float32), colour_table()
    for mask, label in zip(masks, labels, strict=True):
        mixed[mask] = (1 - OPACITY) * mixed[mask] + OPACITY * table[label % len(table)]
    return mixed.round().astype(np.uint8)
