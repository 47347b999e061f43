"""The mask of each object: as the bits of a small grid over its place, for training, and whole, for the figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, UInt8

from jaxcnn.data.boxes import Crops, Objects
from jaxcnn.data.examples import map_in_threads
from jaxcnn.data.label_maps import mask_of
from jaxcnn.tasks import run_length


def of_images(
    images: Sequence[Objects], sizes: Int[np.ndarray, "n 2"], side: int, workers: int = 0
) -> tuple[list[Objects], list[Crops], list[tuple[int, str]]]:
    """The objects that have masks, their masks, and (index of the image, fault) for each object without one.

    A crowd has a mask, too, since what is found in it does not count; without an outline, that of its filled box. Work
    is done in threads.

    Args:
      images: the objects of each image.
      sizes: height and width of each stored image.
      side: side of the grids; a multiple of 8.
      workers: threads; 0: one for each core.

    Raises:
      MissingExtra: a package that fills polygons is not installed.
    """

    def of_image(number: int) -> tuple[Objects, Crops, list[str]]:
        return _of_image(images[number], int(sizes[number][0]), int(sizes[number][1]), side)

    made = list(map_in_threads(of_image, range(len(images)), workers))
    wrong = [(number, line) for number, (_, _, lines) in enumerate(made) for line in lines]
    return [objects for objects, _, _ in made], [crops for _, crops, _ in made], wrong


def _of_image(objects: Objects, height: int, width: int, side: int) -> tuple[Objects, Crops, list[str]]:
    kept, wrong, bits, corners, outlines = [], [], [], [], []
    for place in range(len(objects.labels)):
        crowd = bool(objects.crowd[place])
        outline: Any = objects.outlines[place] if place < len(objects.outlines) else None
        try:
            filled = crowd and not outline
            mask = _box(objects.corners[place], height, width) if filled else mask_of(outline, height, width)
            grid, box = crop(mask, side)
        except ValueError as error:
            wrong.append(f"an object of class {int(objects.labels[place])} has no mask: {error}")
            kept.append(False)
            continue
        kept.append(True)
        bits.append(grid)
        corners.append(box)
        outlines.append(_run_lengths(mask))
    crops = Crops(
        np.array(bits, np.uint8).reshape(-1, side, side // 8),
        np.array(corners, np.float64).reshape(-1, 4),
        tuple(outlines),
        (height, width),
    )
    return objects.only(np.array(kept, bool)), crops, wrong


def _box(corners: Float64[np.ndarray, "4"], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """The mask of a box within an image: of the pixels that it touches."""
    mask = np.zeros((height, width), np.uint8)
    (left, top), (right, bottom) = np.floor(corners[:2]).astype(int), np.ceil(corners[2:]).astype(int)
    mask[top:bottom, left:right] = 1
    return mask


def _extent(mask: UInt8[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """The top, left, bottom and right of the pixels of a mask; of a mask without a pixel, those of its first pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 1, 1
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _run_lengths(mask: UInt8[np.ndarray, "h w"]) -> str:
    """The compressed run lengths of a mask."""
    top, left, bottom, right = _extent(mask)
    return run_length.encode_at(mask[top:bottom, left:right], (top, left), mask.shape)["counts"]


def crop(mask: UInt8[np.ndarray, "h w"], side: int) -> tuple[UInt8[np.ndarray, "side bytes"], Float64[np.ndarray, "4"]]:
    """A mask sampled on a grid of `side` x `side` cells over its extent, as bits, and the place of the grid.

    In a direction in which the object has at most `side` pixels, a cell is a pixel, and the grid may reach beyond the
    image: small objects are kept exactly. Larger ones fill the grid, and a cell has the value of most of its area. An
    object that fills no cell so far, such as a thin line, keeps its fullest cells.
    """
    top, left, bottom, right = _extent(mask)
    inside = mask[top:bottom, left:right] != 0
    share = _shares(bottom - top, side) @ inside.astype(np.float64) @ _shares(right - left, side).T
    ends = [left, top, left + max(right - left, side), top + max(bottom - top, side)]
    least = min(0.5, share.max()) or 0.5
    return np.packbits(share >= least, axis=1), np.array(ends, np.float64)


def _shares(pixels: int, side: int) -> Float64[np.ndarray, "side pixels"]:
    """The share of each cell's length that each pixel covers."""
    edges = np.arange(side + 1) * (max(pixels, side) / side)
    low, high = np.maximum(edges[:-1, None], np.arange(pixels)), np.minimum(edges[1:, None], np.arange(pixels) + 1)
    return np.maximum(high - low, 0) / (edges[1] - edges[0])
