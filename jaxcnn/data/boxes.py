"""Objects in images, as a source reads them, and the records made from them (`jaxcnn.tasks.box_records`)."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from jaxcnn.data import decode
from jaxcnn.tasks.box_records import MASK, MASK_BOX, OUTLINE, STORED, Records, mask_side, record_type

Corners = Float64[np.ndarray, "k 4"]

WHOLE = np.array([1, 1, 0, 0], np.float32)  # the frame of an image that is used as it is stored


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects of one image, in pixels of the image as it is stored.

    Attributes:
      corners: left, top, right, bottom of each box.
      labels: class numbers.
      crowd: whether each is a region of many objects, or does not count: neither learnt nor measured.
      area: area of each object in pixels; that of its box if nothing else is known.
      outlines: segmentation of each object, in COCO's form; empty if there are none.
    """

    corners: Corners
    labels: Int64[np.ndarray, " k"]
    crowd: Bool[np.ndarray, " k"]
    area: Float64[np.ndarray, " k"]
    outlines: tuple[Any, ...] = ()

    def only(self, kept: Bool[np.ndarray, " k"]) -> "Objects":
        """The objects for which `kept` is True."""
        outlines = tuple(itertools.compress(self.outlines, kept.tolist()))
        return Objects(self.corners[kept], self.labels[kept], self.crowd[kept], self.area[kept], outlines)


@dataclasses.dataclass(frozen=True)
class Crops:
    """The masks of the objects of one image: each on a square grid over its place, and whole.

    Attributes:
      bits: [k, side, side / 8], as in `box_records.record_type`.
      corners: the place of each grid in the stored image.
      outlines: the run lengths of each whole mask, as in `box_records.record_type`.
      stored: height and width of the stored image.
    """

    bits: UInt8[np.ndarray, "k side bytes"]
    corners: Corners
    outlines: tuple[str, ...]
    stored: tuple[int, int]

    @property
    def side(self) -> int:
        """The side of the grids, in cells."""
        return self.bits.shape[1]


def areas(corners: Corners) -> Float64[np.ndarray, " k"]:
    """The areas of boxes, in square pixels."""
    return (corners[:, 2:] - corners[:, :2]).prod(axis=1)


def _moved(corners: np.ndarray, frame: Float32[np.ndarray, "4"]) -> np.ndarray:
    """Corners [..., 4] in the stored image converted to the network's image; the inverse of `box_records.in_stored`."""
    return corners * np.tile(frame[:2], 2) + np.tile(frame[2:], 2)


def records(
    images: Sequence[Objects], frames: Float32[np.ndarray, "n 4"], masks: Sequence[Crops] | None = None
) -> Records:
    """The records of images, with as many places as the fullest image needs, and with masks if they are given."""
    most = max((len(each.labels) for each in images), default=0)
    side = 0 if masks is None else masks[0].side if masks else 8
    rows = np.zeros(len(images), record_type(max(most, 1), side, outlines=masks is not None))
    rows["frame"] = frames
    for row, each, frame in zip(rows, images, frames, strict=True):
        count = len(each.labels)
        row["boxes"][:count] = _moved(each.corners, frame)
        row["label"][:count], row["crowd"][:count], row["area"][:count] = each.labels, each.crowd, each.area
        row["valid"][:count] = True
    for row, crops, frame in zip(rows, masks or (), frames, strict=False):
        row[MASK][: len(crops.bits)] = crops.bits
        row[MASK_BOX][: len(crops.bits)] = _moved(crops.corners, frame)
        row[OUTLINE][: len(crops.bits)], row[STORED] = crops.outlines, crops.stored
    return rows


def frame_of(height: int, width: int, size: int, fit: str) -> Float32[np.ndarray, "4"]:
    """The map (scale_x, scale_y, left, top) from places in a stored image to the square that `decode.square` makes.

    With a `size` of 0, the image stays as it is. A JPEG that is first decoded at a reduced scale may be off by up to
    half a pixel.
    """
    if not size or not height or not width:
        return WHOLE
    if fit == "crop":
        scale = size / min(height, width)
        return np.array([scale, scale, (size - scale * width) / 2, (size - scale * height) / 2], np.float32)
    wide, high = decode.fitted((width, height), size, fit)
    return np.array([wide / width, high / height, (size - wide) // 2, (size - high) // 2], np.float32)


def refitted(rows: Records, height: int, width: int, size: int, fit: str) -> Records:
    """The records of stored images of equal size, for the square that is made of each image."""
    if not size or (height, width) == (size, size):
        return rows
    frame = frame_of(height, width, size, fit)
    moved = rows.copy()
    moved["frame"] = frame
    for name in ("boxes", MASK_BOX) if mask_side(rows) else ("boxes",):
        moved[name] = np.where(rows["valid"][..., None], _moved(rows[name], frame), 0)
    return moved
