"""Masks as run lengths, in both of COCO's forms, and as polygons.

Runs count pixels column by column: first those outside the object, then those inside, and so on. The compressed form
is text: each run, from the third on its difference to the run two places before, is written in groups of five bits,
the lowest first; the sixth bit of a letter says that another group of the same run follows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

Mask = UInt8[np.ndarray, "h w"]
Corners = Float64[np.ndarray, "4"]  # left, top, right, bottom in pixels

_FIRST, _GROUP, _SIGN, _MORE = 48, 5, 0x10, 0x20


def decode(lengths: Any) -> Mask:
    """The mask of `{"size": [h, w], "counts": a list or compressed text}`: 1 inside, 0 outside.

    Raises:
      ValueError: `lengths` is no such mapping, or the runs do not fill the image.
    """
    try:
        height, width = map(int, lengths["size"])
        counts = lengths["counts"]
        runs = _uncompressed(counts) if isinstance(counts, str | bytes) else np.asarray(counts, np.int64)
    except (KeyError, TypeError, IndexError):
        raise ValueError("it has no size and counts") from None
    if runs.ndim != 1 or (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(f"its runs do not fill {height} x {width} pixels")
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(inside, runs).reshape(width, height).T


def encode(mask: Mask) -> dict[str, Any]:
    """The compressed run lengths of a mask."""
    pixels = (mask != 0).T.ravel()
    edges = np.flatnonzero(np.diff(pixels)) + 1
    starts = np.concatenate([[0], edges, [pixels.size]])
    runs = np.diff(starts)
    if pixels.size and pixels[0]:
        runs = np.concatenate([[0], runs])
    return {"size": list(mask.shape), "counts": _compressed(runs.tolist())}


def _uncompressed(text: str | bytes) -> Int64[np.ndarray, " runs"]:
    letters = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    place = 0
    while place < len(letters):
        value = shift = 0
        while True:
            group = letters[place] - _FIRST
            place += 1
            value |= (group & (_MORE - 1)) << shift
            shift += _GROUP
            if not group & _MORE:
                break
        if group & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return np.array(runs, np.int64)


def _compressed(runs: list[int]) -> str:
    letters = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        while True:
            group = value & (_MORE - 1)
            value >>= _GROUP
            more = value != (-1 if group & _SIGN else 0)
            letters.append(chr((group | _MORE if more else group) + _FIRST))
            if not more:
                break
    return "".join(letters)


def corners(segmentation: Any) -> Corners:
    """The box around an object, from polygons (a list of [x1, y1, x2, y2, …]) or from run lengths.

    Raises:
      ValueError: the segmentation is neither, or it is empty.
    """
    if isinstance(segmentation, dict):
        rows, columns = np.nonzero(decode(segmentation))
        if not len(rows):
            raise ValueError("its mask is empty")
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
    points = _points(segmentation)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _points(polygons: Sequence[Sequence[float]]) -> Float64[np.ndarray, "points 2"]:
    try:
        rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in polygons]
        points = np.concatenate(rings)
    except (TypeError, ValueError):
        raise ValueError("its outline has no polygon of x and y in turns") from None
    if not len(points):
        raise ValueError("its outline has no point")
    return points
