"""Labels of a table, as class numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.data.examples import Labels


def class_numbers(labels: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """The class number of each label, and the names of the classes: the labels that occur, in order.

    The order is that of numbers if all labels are integers, otherwise that of names. So labels 0, 1, … keep their
    number, and others are numbered without gaps.
    """
    names = sorted(set(labels))
    if all(name.removeprefix("-").isdecimal() for name in names):
        names.sort(key=lambda name: (int(name), name))
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[label] for label in labels], np.int32), tuple(names)


def as_text(cell: Any) -> str:
    """A label as text; empty if there is none. The number 3.0, as programs write 3 in a column with gaps, is "3".

    Raises:
      ValueError: it is no single value.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple | dict | set):
        raise ValueError("holds several values; each image has one label")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
