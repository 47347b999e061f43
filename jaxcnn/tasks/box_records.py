"""Boxes of objects in images, as one array with a row for each image.

A row is a record of padded arrays, so that base splits of boxes are cut, joined and cached as labels are. Boxes are
left, top, right, bottom in pixels of the image as the network gets it; the corner of the first pixel is (0, 0).
"""

import numpy as np
from jaxtyping import Float32, Float64

from jaxcnn.config import UserError

Records = np.ndarray  # of `record_type`
COLUMNS = ("boxes", "label", "valid", "crowd", "area")  # of each object; `frame` is of the image


def record_type(most: int) -> np.dtype:
    """The record of an image with at most `most` objects.

    `frame` is scale_x, scale_y, left, top: a place x in the stored image is at scale_x * x + left in the network's.
    """
    return np.dtype(
        [
            ("boxes", np.float32, (most, 4)),
            ("label", np.int32, (most,)),
            ("valid", np.bool_, (most,)),
            ("crowd", np.bool_, (most,)),
            ("area", np.float32, (most,)),
            ("frame", np.float32, (4,)),
        ]
    )


def padded(rows: Records, most: int, title: str) -> Records:
    """The same records with `most` places. Raises UserError if an image has more objects."""
    counts = rows["valid"].sum(axis=1)
    if len(rows) and (fullest := int(counts.max())) > most:
        raise UserError(
            f"{title}: an image has {fullest} boxes (at index {int(counts.argmax())}), more than "
            f"config.task.most_boxes={most}; set it to {fullest}"
        )
    wider = np.zeros(len(rows), record_type(most))
    wider["frame"] = rows["frame"]
    for name in COLUMNS:
        held = min(most, rows[name].shape[1])  # objects come first, padding after them
        wider[name][:, :held] = rows[name][:, :held]
    return wider


def in_stored(boxes: Float32[np.ndarray, "k 4"], frame: Float32[np.ndarray, "4"]) -> Float64[np.ndarray, "k 4"]:
    """Boxes of the network's image in pixels of the stored image."""
    scale, shift = np.tile(frame[:2], 2).astype(np.float64), np.tile(frame[2:], 2).astype(np.float64)
    return (boxes.astype(np.float64) - shift) / scale
