"""Labels in the columns of a table, converted to arrays."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from jaxcnn.config import UserError
from jaxcnn.data.examples import Labels

Columns = dict[str, list[Any]]  # the cells of each column of labels, by its name
Refuse = Callable[[int, str], UserError]  # the error for a row and what is wrong there


def read(
    columns: Columns, task: str, separator: str, refuse: Refuse
) -> tuple[Labels | UInt8[np.ndarray, "n k"] | Float64[np.ndarray, "n k"], tuple[str, ...]]:
    """The labels of a table for a task, and the names of its classes or columns.

    Args:
      columns: the columns of labels; at least one.
      task: `config.task.name`; it takes: "classification" one column of names or numbers; "multilabel" several
        columns of 0 and 1, or one, of lists or of 0 and 1; "regression" columns of numbers.
      separator: between the labels in a cell that is text, for "multilabel".
      refuse: makes the error for a row.

    Raises:
      UserError: a row has no such label.
    """
    (cells, *others) = columns.values()
    if task == "regression":
        return np.stack([_numbers(name, each, refuse) for name, each in columns.items()], axis=1), tuple(columns)
    if task == "multilabel":
        if others:
            return np.stack([_zeros_and_ones(name, each, refuse) for name, each in columns.items()], 1), tuple(columns)
        if all(number(cell) in (0, 1) for cell in cells):
            (name,) = columns
            return _zeros_and_ones(name, cells, refuse)[:, None], (name,)
        return multi_hot([_several(cell, separator, row, refuse) for row, cell in enumerate(cells)])
    if others:
        raise UserError(
            f"config.data.label_column names {len(columns)} columns; one class for each image is in one column, and "
            "several need config.task.name='multilabel' or 'regression'"
        )
    return class_numbers(_texts(cells, refuse))


def class_numbers(labels: Sequence[str]) -> tuple[Labels, tuple[str, ...]]:
    """The class number of each label, and the names of the classes: the labels that occur, in order.

    The order is that of numbers if all labels are integers, otherwise that of names. So labels 0, 1, … keep their
    number, and others are numbered without gaps.
    """
    names = in_order(set(labels))
    number_of = {name: number for number, name in enumerate(names)}
    return np.array([number_of[label] for label in labels], np.int32), tuple(names)


def multi_hot(labels: Sequence[Sequence[str]]) -> tuple[UInt8[np.ndarray, "n k"], tuple[str, ...]]:
    """An array with 1 where an image has a class, and the names of the classes, ordered as in `class_numbers`."""
    names = in_order({label for row in labels for label in row})
    number_of = {name: number for number, name in enumerate(names)}
    hot = np.zeros((len(labels), len(names)), np.uint8)
    for row, of_row in enumerate(labels):
        hot[row, [number_of[label] for label in of_row]] = 1
    return hot, tuple(names)


def are_lists(labels: Any) -> bool:
    """Whether labels given from Python are lists of names, one list for each image; a column of names is none."""
    if is_column_of_names(labels):
        return False
    rows = labels.tolist() if isinstance(labels, np.ndarray) and labels.dtype.kind in "OUS" else labels
    if not isinstance(rows, list | tuple) or not all(isinstance(row, list | tuple | set | frozenset) for row in rows):
        return False
    return len(rows) > 0 and all(isinstance(name, str) for row in rows for name in row)


def is_column_of_names(labels: Any) -> bool:
    """Whether labels given from Python are an array of names, [n, 1], as a table with one column gives it."""
    is_column = isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.shape[1] == 1
    return is_column and labels.dtype.kind in "OUS" and all(isinstance(name, str | bytes) for name in labels[:, 0])


def in_order(names: set[str]) -> list[str]:
    """Names in the order of numbers if all are integers, otherwise in that of names."""
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def as_text(cell: Any) -> str:
    """A label as text; empty if there is none. The number 3.0, which programs write for 3 in columns with gaps, is "3".

    Raises:
      ValueError: the cell is not a single value.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | tuple | dict | set):
        raise ValueError("holds several values; each image has one label (config.task.name='multilabel' takes several)")
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def number(cell: Any) -> float:
    """A cell as a number; NaN if it is not one."""
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def names(cells: Sequence[Any], refuse: Refuse) -> list[str]:
    """The cells of a column as text, none of which is empty; numbers as in `as_text`.

    Raises:
      UserError: a cell is empty, or has no single value.
    """
    texts = []
    for row, cell in enumerate(cells):
        try:
            texts.append(as_text(cell))
        except ValueError:
            raise refuse(row, "is a list or an object; give one name or number") from None
    if empty := [row for row, text in enumerate(texts) if not text]:
        raise refuse(empty[0], f"is empty{_such(empty)}; fill it, or remove the row")
    return texts


def _such(rows: Sequence[int]) -> str:
    return f" ({len(rows)} such rows)" if len(rows) > 1 else ""


def _texts(cells: list[Any], refuse: Refuse) -> list[str]:
    texts = [_text(cell, row, refuse) for row, cell in enumerate(cells)]
    if empty := [row for row, text in enumerate(texts) if not text]:
        raise refuse(empty[0], f"the label is empty{_such(empty)}; fill it, or remove the row")
    return texts


def _text(cell: Any, row: int, refuse: Refuse) -> str:
    try:
        return as_text(cell)
    except ValueError as error:
        raise refuse(row, f"the label {error}") from None


def _several(cell: Any, separator: str, row: int, refuse: Refuse) -> list[str]:
    """The labels in one cell, a list or a text with separators; none for an empty cell."""
    if isinstance(cell, dict):
        raise refuse(row, "the labels are an object; give a list of them")
    parts = list(cell) if isinstance(cell, list | tuple | set) else _text(cell, row, refuse).split(separator)
    texts = [_text(part, row, refuse) for part in parts]
    if len(texts) > 1 and "" in texts and isinstance(cell, str):
        texts = [text for text in texts if text]  # "cat;" has one label
    if texts == [""]:
        return []
    if "" in texts:
        raise refuse(row, "one of the labels is empty")
    return texts


def _numbers(name: str, cells: list[Any], refuse: Refuse) -> Float64[np.ndarray, " n"]:
    found = np.array([number(cell) for cell in cells], np.float64)
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        raise refuse(int(wrong[0]), f"{cells[wrong[0]]!r} in column {name!r} is no finite number")
    return found


def _zeros_and_ones(name: str, cells: list[Any], refuse: Refuse) -> UInt8[np.ndarray, " n"]:
    found = np.array([number(cell) for cell in cells])
    if len(wrong := np.flatnonzero((found != 0) & (found != 1))):
        raise refuse(int(wrong[0]), f"{cells[wrong[0]]!r} in column {name!r} is neither 0 nor 1")
    return found.astype(np.uint8)


def columns_named(text: str, names: Sequence[str]) -> list[str]:
    """The columns that `config.data.label_column` names: one, or several with commas between them."""
    return [text] if text in names or "," not in text else [name.strip() for name in text.split(",")]
