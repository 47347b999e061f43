"""Masks as run lengths, in both of COCO's forms, and as polygons.

Runs count pixels column by column: first those outside the object, then those inside, and so on. The compressed form
is text: each run, from the third on its difference to the run two places before, is written in groups of five bits,
the lowest first; the sixth bit of a letter says that another group of the same run follows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

Mask = UInt8[np.ndarray, "h w"]
Corners = Float64[np.ndarray, "4"]  # left, top, right, bottom in pixels

_FIRST, _GROUP, _SIGN, _MORE = 48, 5, 0x10, 0x20
_LONGEST = 60  # bits of a run; a longer one is of no image


def decode(lengths: Any) -> Mask:
    """The mask of `{"size": [h, w], "counts": a list or compressed text}`: 1 inside, 0 outside.

    A file may tell any size, and its pixels are all made: compare `size` with the image before.

    Raises:
      ValueError: `lengths` is no such mapping, or the runs do not fill the image.
    """
    height, width = size(lengths)
    runs = _runs(lengths)
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(inside, runs).reshape(width, height).T


def size(lengths: Any) -> tuple[int, int]:
    """Height and width of the image of run lengths, which are not read.

    Raises:
      ValueError: `lengths` has no size.
    """
    sides = lengths.get("size") if isinstance(lengths, dict) else None
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(map(_whole, sides)):
        raise ValueError("its run lengths have no size of [height, width]")
    height, width = map(int, sides)
    if min(height, width) < 1:
        raise ValueError(f"its run lengths are of an image of {height}x{width}")
    return height, width


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _runs(lengths: Any) -> Int64[np.ndarray, " runs"]:
    """The runs of a mapping with a size, which they fill; no memory is taken for the pixels themselves."""
    height, width = size(lengths)
    counts = lengths.get("counts")
    if not isinstance(counts, str | bytes | list):
        raise ValueError("its run lengths have no counts")
    try:
        runs = _uncompressed(counts) if isinstance(counts, str | bytes) else counts
        whole = all(_whole(run) and run >= 0 for run in runs)
    except IndexError:
        raise ValueError("its compressed run lengths end within a run") from None
    except UnicodeEncodeError:
        raise ValueError("its compressed run lengths have other letters than ASCII") from None
    if not whole or sum(runs) != height * width or sum(runs) >= 2**62:
        raise ValueError(f"its runs do not fill {height}x{width} pixels")
    return np.array(runs, np.int64)


def encode(mask: Bool[np.ndarray, "h w"] | Mask) -> dict[str, Any]:
    """The compressed run lengths of a mask."""
    return encode_at(mask, (0, 0), mask.shape)


def encode_at(part: Bool[np.ndarray, "h w"] | Mask, corner: tuple[int, int], sides: tuple[int, ...]) -> dict[str, Any]:
    """The compressed run lengths of a mask of which only a part is given: outside of it, all is 0.

    Args:
      part: the part of the mask, which must lie within it.
      corner: the row and the column of its first pixel.
      sides: height and width of the whole mask.
    """
    columns = np.zeros((part.shape[1], part.shape[0] + 2), bool)  # a column begins and ends outside the object
    columns[:, 1:-1] = (part != 0).T
    column, row = np.nonzero(columns[:, 1:] != columns[:, :-1])
    ends = ((column + corner[1]) * sides[0] + row + corner[0]).reshape(-1, 2)  # first pixel, and one behind the last
    joined = ends[1:, 0] == ends[:-1, 1]  # over the end of a column
    first, last = np.append(True, ~joined)[: len(ends)], np.append(~joined, True)[: len(ends)]
    edges = np.stack([ends[first, 0], ends[last, 1]], axis=1).ravel()
    runs = np.diff(edges, prepend=0)
    rest = sides[0] * sides[1] - (int(edges[-1]) if len(edges) else 0)
    return {"size": list(sides), "counts": _compressed(np.append(runs, rest) if rest else runs)}


def _uncompressed(text: str | bytes) -> list[int]:
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
            if not group & _MORE or shift > _LONGEST:
                break
        if group & _SIGN:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _compressed(runs: Int64[np.ndarray, " runs"]) -> str:
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    letters, used = [], []
    more = np.ones(len(values), bool)
    while more.any():
        used.append(more)
        group = values & (_MORE - 1)
        values = values >> _GROUP
        more = more & (values != np.where(group & _SIGN, -1, 0))
        letters.append(np.where(more, group | _MORE, group) + _FIRST)
    if not letters:
        return ""
    return np.stack(letters, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes().decode("ascii")


def corners(segmentation: Any) -> Corners:
    """The box around an object, from polygons (a list of [x1, y1, x2, y2, …]) or from run lengths.

    Raises:
      ValueError: the segmentation is neither, or it is empty.
    """
    if isinstance(segmentation, dict):
        height, _ = size(segmentation)
        runs = _runs(segmentation)
        ends = np.cumsum(runs)[1::2]  # of the runs inside
        inside = runs[1::2] > 0
        last = ends[inside] - 1
        if not len(last):
            raise ValueError("its mask is empty")
        first = last - runs[1::2][inside] + 1
        whole = first // height != last // height  # over the end of a column, so both of its ends are inside
        top, bottom = np.where(whole, 0, first % height).min(), np.where(whole, height - 1, last % height).max()
        return np.array([first.min() // height, top, last.max() // height + 1, bottom + 1], np.float64)
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
    if not np.isfinite(points).all():
        raise ValueError("its outline has a point that is not finite")
    return points
