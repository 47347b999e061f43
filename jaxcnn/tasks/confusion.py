"""Confusion matrices: counts by true and predicted class, the figures that follow from them, and their picture."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.text import distinct, save_picture, shorten, shown

MOST_DENSE = 200  # classes up to which a file has every cell; with more, only non-zero cells
MOST_DRAWN = 1000  # rows of a picture; with more classes, neighbours share a row
MOST_CLASSES = 10_000_000  # largest number of classes that a file may declare


@dataclasses.dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix stored as its non-zero cells, so it is never larger than the number of counted examples.

    Attributes:
      classes: number of classes; rows (true class) and columns (predicted class) of the matrix.
      true, predicted: int64 [M], row and column of each cell, sorted by (true, predicted).
      counts: int64 or float64 [M], above 0.
    """

    classes: int
    true: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, guesses: np.ndarray, classes: int) -> "Confusion":
        """The matrix of true labels and predicted classes, integers [N] below `classes`."""
        cells, counts = np.unique(labels.astype(np.int64) * classes + guesses, return_counts=True)
        return cls(classes, cells // classes, cells % classes, counts.astype(np.int64))

    @classmethod
    def mean(cls, several: Sequence["Confusion"]) -> "Confusion":
        """The mean of matrices with equal numbers of classes."""
        classes = several[0].classes
        cells = np.concatenate([one.true * classes + one.predicted for one in several])
        found, place = np.unique(cells, return_inverse=True)
        counts = np.bincount(place, np.concatenate([one.counts for one in several]), len(found)) / len(several)
        return cls(classes, found // classes, found % classes, counts)

    @classmethod
    def from_json(cls, value: Any) -> "Confusion":
        """The matrix from the output of `to_json`, in either form.

        Raises:
          ValueError: the value is not a confusion matrix.
        """
        if isinstance(value, dict):
            classes, cells = value.get("classes"), np.array(value.get("cells"), dtype=object)
            if type(classes) is not int or not 0 < classes <= MOST_CLASSES:
                raise ValueError("the confusion matrix has no number of classes")
            cells = cells.reshape(0, 3) if cells.size == 0 else cells
            if cells.ndim != 2 or cells.shape[1] != 3 or not all(type(of) is int for of in cells.flat):
                raise ValueError("the cells of the confusion matrix are not rows of [true, predicted, count]")
            true, predicted, counts = cells.T
        else:
            matrix = np.array(value, dtype=object)
            if matrix.ndim != 2 or not matrix.size or matrix.shape[0] != matrix.shape[1]:
                raise ValueError("the confusion matrix is not square")
            if not all(type(of) is int for of in matrix.flat):
                raise ValueError("the confusion matrix has cells that are not counts")
            classes = len(matrix)
            true, predicted = np.nonzero(matrix)
            counts = matrix[true, predicted]
        if not all(0 <= of < 2**53 for of in counts) or not all(0 <= of < classes for of in [*true, *predicted]):
            raise ValueError("the confusion matrix has counts or classes out of range")
        cells, place = np.unique(true.astype(np.int64) * classes + predicted.astype(np.int64), return_index=True)
        if len(cells) < len(true):
            raise ValueError("the confusion matrix has a cell twice")
        return cls(classes, cells // classes, cells % classes, counts[place].astype(np.int64))

    def to_json(self) -> Any:
        """The matrix as a list of rows; above 200 classes as {"classes", "cells": [[true, predicted, count], …]}."""
        if self.classes <= MOST_DENSE:
            return self.dense().tolist()
        cells = np.stack([self.true, self.predicted], axis=1).tolist()
        return {
            "classes": self.classes,
            "cells": [[*cell, count] for cell, count in zip(cells, self.counts.tolist(), strict=True)],
        }

    def dense(self) -> np.ndarray:
        """The whole matrix [K, K]."""
        matrix = np.zeros((self.classes, self.classes), self.counts.dtype)
        matrix[self.true, self.predicted] = self.counts
        return matrix

    def pooled(self, most: int = MOST_DRAWN) -> tuple[np.ndarray, int]:
        """The matrix with at most `most` rows, and the number of neighbouring classes that share a row."""
        width = -(-self.classes // most)
        rows = -(-self.classes // width)
        matrix = np.zeros((rows, rows), self.counts.dtype)
        np.add.at(matrix, (self.true // width, self.predicted // width), self.counts)
        return matrix, width

    @property
    def totals(self) -> np.ndarray:
        """The number of examples of each class [K]."""
        return np.bincount(self.true, self.counts, self.classes)

    @property
    def guessed(self) -> np.ndarray:
        """The number of predictions of each class [K]."""
        return np.bincount(self.predicted, self.counts, self.classes)

    @property
    def right(self) -> np.ndarray:
        """The number of correctly predicted examples of each class [K]."""
        on_diagonal = self.true == self.predicted
        return np.bincount(self.true[on_diagonal], self.counts[on_diagonal], self.classes)

    def most_confused(self) -> tuple[np.ndarray, np.ndarray]:
        """The wrong class most often predicted for each class (the first of equals), and how often it was [K]."""
        other, often = np.zeros(self.classes, np.int64), np.zeros(self.classes)
        wrong = self.true != self.predicted
        true, predicted, counts = self.true[wrong], self.predicted[wrong], self.counts[wrong]
        order = np.lexsort((-predicted, counts, true))  # the last entry of each class is assigned
        other[true[order]], often[true[order]] = predicted[order], counts[order]
        return other, often


def each_class(confusion: Confusion, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Examples, precision, recall and F1 of the classes in `names`, the first of the matrix; None without examples."""
    totals, guessed, right = confusion.totals, confusion.guessed, confusion.right
    there = totals > 0
    recall = right / np.maximum(totals, 1)
    precision = right / np.maximum(guessed, 1)
    f1 = 2 * right / np.maximum(totals + guessed, 1)
    return {
        name: {
            "examples": int(totals[k]),
            "precision": float(precision[k]) if there[k] else None,
            "recall": float(recall[k]) if there[k] else None,
            "f1": float(f1[k]) if there[k] else None,
        }
        for k, name in enumerate(names)
    }


def by_class(confusion: Confusion, class_names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, precision, recall and F1 of each class, and their means over the classes that have examples.

    For a class without examples they are None. Precision is 0 for a class that was never predicted.
    `per_class_accuracy` is the recall, and balanced accuracy is its mean.
    """
    per_class = each_class(confusion, distinct(class_names))
    there = [row for row in per_class.values() if row["recall"] is not None]
    means = {name: float(np.mean([row[name] for row in there])) for name in ("precision", "recall", "f1")}
    return {
        "balanced_accuracy": means["recall"],
        **{f"macro_{name}": of for name, of in means.items()},
        "per_class_accuracy": {name: row["recall"] for name, row in per_class.items()},
        "per_class": per_class,
        "confusion_matrix": confusion.to_json(),
    }


def draw(confusion: Confusion, class_names: Sequence[str], path: pathlib.Path) -> None:
    """Draw a matrix as a picture of row shares.

    Cells show counts for up to 20 classes, axes show names for up to 150; above 1,000 classes, neighbours share a row.
    Colours follow the square root of a share, so that confusions of a few per cent are visible.
    """
    from matplotlib.figure import Figure

    side = side_of(confusion.classes)
    figure = Figure(figsize=(side + 1, side), layout="constrained", dpi=130)
    axes = figure.subplots()
    draw_on(figure, axes, confusion, class_names)
    examples, right = confusion.counts.sum(), confusion.right.sum()
    title = f"{path.stem}: {100 * right / max(examples, 1):.2f} % of {examples} right"
    axes.set_title(title, fontsize=_size(confusion.classes))
    save_picture(figure, path)


def side_of(classes: int) -> float:
    """The side of the picture of a matrix, in inches."""
    return min(4 + 0.45 * classes, 22)


def _size(classes: int) -> int:
    """The size in points of the title and the axis labels of the picture."""
    return 10 if classes <= 20 else 18


def draw_on(figure: Any, axes: Any, confusion: Confusion, class_names: Sequence[str]) -> None:
    """Draw a matrix on axes of a figure in the way that `draw` describes."""
    from matplotlib.colors import PowerNorm

    classes = confusion.classes
    matrix, width = confusion.pooled()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    if classes <= 150:
        size = 9 if classes <= 20 else max(5.5, 9 - classes / 30)
        names = [shorten(shown(name), 60) for name in class_names]
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
    text: dict[str, Any] = {"fontsize": _size(classes)}
    together = f" ({width} classes a row)" if width > 1 else ""
    axes.set_xlabel(f"predicted{together}", **text)
    axes.set_ylabel(f"true{together}", **text)
    if classes <= 20:
        for row, column in np.ndindex(matrix.shape):
            if matrix[row, column]:
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class", **text)
