"""Marks for what was found in an image: boxes, and outlines of masks along the borders of pixels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool


@dataclasses.dataclass(frozen=True)
class Mark:
    """One object or region that was found in an image.

    Attributes:
      name, number: name of the class, and its number, counted from 0.
      told: further text, such as its score.
      score: from 0 to 1; None without a score.
      box: x, y, width, height in pixels of the stored image; None without a box.
      mask: run lengths (`run_length`) of the size of the stored image; None without a mask.
      quiet: whether the mark is only shown when the user picks its class, as for a background.
    """

    name: str
    number: int
    told: str
    score: float | None = None
    box: Sequence[float] | None = None
    mask: Mapping[str, Any] | None = None
    quiet: bool = False


@runtime_checkable
class Marking(Protocol):
    """An evaluation whose answers are marks in an image."""

    def marks(self, answer: Mapping[str, Any]) -> list[Mark]:
        """The marks of an answer in pixels of the stored image, from `Finding.in_stored`."""
        ...


def outline(mask: Bool[np.ndarray, "h w"]) -> str:
    """The outline of a mask as an SVG path of whole pixels, with holes by the rule "evenodd"; empty for an empty mask.

    A corner is where one or three of the four pixels around a point are inside the mask; there are two corners where
    two pixels only touch there. The corners are joined in pairs along each row, and along each column; walking from
    one kind of join to the other closes a loop.
    """
    inside = np.pad(mask.astype(np.int8), 1)
    upper, lower = inside[:-1], inside[1:]
    around = upper[:, :-1] + upper[:, 1:] + lower[:, :-1] + lower[:, 1:]
    touching = (around == 2) & (upper[:, :-1] == lower[:, 1:])
    y, x = np.concatenate([np.argwhere(around % 2 == 1), *[np.argwhere(touching)] * 2]).T
    along_row, along_column = np.empty(len(x), np.int64), np.empty(len(x), np.int64)
    for partner, order in ((along_row, np.lexsort((x, y))), (along_column, np.lexsort((y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    rows, columns, across, down = along_row.tolist(), along_column.tolist(), x.tolist(), y.tolist()
    left, path = set(range(len(across))), []
    for first in range(len(across)):
        if first not in left:
            continue
        path.append(f"M{across[first]} {down[first]}")
        here = first
        while True:
            corner = rows[here]
            path.append(f"h{across[corner] - across[here]}")
            left -= {here, corner}
            here = columns[corner]
            if here == first:
                break
            path.append(f"v{down[here] - down[corner]}")
        path.append("z")
    return "".join(path)
