"""Boxes of objects in images, as one array with a row for each image.

A row is a record of padded arrays, so that base splits of boxes are cut, joined and cached as labels are. Boxes are
left, top, right, bottom in pixels of the image as the network gets it; the corner of the first pixel is (0, 0).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from jaxcnn.config import UserError

Records = np.ndarray  # of `record_type`
MASK, MASK_BOX, OUTLINE, STORED = "mask", "mask_box", "outline", "stored"  # the columns that only instances have
OF_IMAGE = ("frame", STORED)  # the columns that belong to the image; the others belong to each object
ON_HOST = (OUTLINE, STORED)  # the columns that never go to the devices, since only the figures need them


def record_type(most: int, mask_side: int = 0, outlines: bool = False) -> np.dtype:
    """The record type of an image with at most `most` objects.

    `frame` is scale_x, scale_y, left, top: a place x in the stored image is at scale_x * x + left in the network's. It
    is meaningless for training images that were rotated or composed of several.

    Args:
      most: places for objects in a record.
      mask_side: side of the masks of objects, a multiple of 8; 0: objects have none. `mask` has the bits of rows,
        the first in the highest place; `mask_box` is where its pixels lie, as a box, mirrored if its left is larger
        than its right.
      outlines: whether objects also have the masks that their annotations describe. `outline` is the mask in the
        stored image, as COCO's compressed run lengths, text (0: padding); `stored` is the height and width of that
        image.
    """
    columns: list[tuple[str, type, tuple[int, ...]]] = [
        ("boxes", np.float32, (most, 4)),
        ("label", np.int32, (most,)),
        ("valid", np.bool_, (most,)),
        ("crowd", np.bool_, (most,)),
        ("area", np.float32, (most,)),
        ("frame", np.float32, (4,)),
    ]
    if mask_side:
        columns += [(MASK, np.uint8, (most, mask_side, mask_side // 8)), (MASK_BOX, np.float32, (most, 4))]
    if outlines:
        columns += [(OUTLINE, np.object_, (most,)), (STORED, np.int32, (2,))]
    return np.dtype(columns)


def mask_side(rows: Records) -> int:
    """The side of the masks of records; 0 if they have none."""
    return int(rows.dtype[MASK].shape[1]) if MASK in (rows.dtype.names or ()) else 0


def padded(rows: Records, most: int, title: str) -> Records:
    """The records with `most` places for objects.

    Raises:
      UserError: an image has more objects.
    """
    counts = rows["valid"].sum(axis=1)
    if len(rows) and (fullest := int(counts.max())) > most:
        raise UserError(
            f"{title}: an image has {fullest} boxes (at index {int(counts.argmax())}), more than "
            f"config.task.most_boxes={most}; set it to {fullest}"
        )
    wider = np.zeros(len(rows), record_type(most, mask_side(rows), OUTLINE in (rows.dtype.names or ())))
    for name in wider.dtype.names or ():
        if name in OF_IMAGE:
            wider[name] = rows[name]
        else:
            held = min(most, rows[name].shape[1])  # objects come first, padding after them
            wider[name][:, :held] = rows[name][:, :held]
    return wider


def numbers_as_names(parts: Sequence[Records], title: str) -> tuple[str, ...]:
    """Numbers as class names, one for each class that the labels of the boxes of base splits imply.

    Args:
      parts: the records of the base splits, whose labels are not checked.
      title: name of the set, for messages.

    Raises:
      UserError: the labels have gaps, so one of them may be wrong.
    """
    used = np.unique(np.concatenate([np.zeros(0, np.int32), *(rows["label"][rows["valid"]] for rows in parts)]))
    used = used[used >= 0].astype(np.int64)
    if not len(used) or len(used) == used[-1] + 1:
        return tuple(map(str, range(max(len(used), 1))))
    first = int(np.flatnonzero(np.append(used, -1) != np.arange(len(used) + 1))[0])  # missing
    others = int(used[-1]) - len(used)
    more = f" (nor {others} others below)" if others else ""
    advice = "subtract 1 from each" if not first and not others else "correct them, or give the names of all classes"
    raise UserError(
        f"{title}: the largest label of a box is {used[-1]}, but no box has {first}{more}; without names of classes "
        f"(class_names), labels are counted from 0 without gaps: {advice}"
    )


def in_stored(boxes: Float32[np.ndarray, "k 4"], frame: Float32[np.ndarray, "4"]) -> Float64[np.ndarray, "k 4"]:
    """Boxes in the network's image converted to pixels of the stored image."""
    scale, shift = np.tile(frame[:2], 2).astype(np.float64), np.tile(frame[2:], 2).astype(np.float64)
    return (boxes.astype(np.float64) - shift) / scale
