"""F1 of several labels, and figures from counts of rounded probabilities where there are too many to keep."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

BINS = 4096  # of probabilities from 0 to 1: average precision and thresholds are those of probabilities rounded so


class Binned:
    """Counts images of each class by their probability; its memory does not depend on their number."""

    def __init__(self, classes: int) -> None:
        self._all = np.zeros((classes, BINS), np.int64)
        self._right = np.zeros((classes, BINS), np.int64)
        self._images, self._f1, self._exact = 0, 0.0, 0

    @staticmethod
    def numbers(classes: int) -> int:
        """How many numbers are kept."""
        return 2 * classes * BINS

    def add(self, probabilities: Float32[np.ndarray, "n k"], wanted: Bool[np.ndarray, "n k"], least: float) -> None:
        """Count images: their probabilities, and their true classes; `least` is the probability of a prediction."""
        guess = probabilities >= least
        right, total = (guess & wanted).sum(axis=1), guess.sum(axis=1) + wanted.sum(axis=1)
        self._images += len(wanted)
        self._f1 += float(np.where(total > 0, 2 * right / np.maximum(total, 1), 1.0).sum())
        self._exact += int((guess == wanted).all(axis=1).sum())
        places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
        for label, column in enumerate(places.T):
            self._all[label] += np.bincount(column, minlength=BINS)
            self._right[label] += np.bincount(column[wanted[:, label]], minlength=BINS)

    def average_precisions(self) -> list[float | None]:
        """The average precision of each class; None without an example."""
        found: list[float | None] = []
        for right, count in self._from_the_highest():
            if not right[-1]:
                found.append(None)
                continue
            precision, recall = right / np.maximum(count, 1), right / right[-1]
            found.append(float(np.sum(np.diff(recall, prepend=0.0) * precision)))
        return found

    def thresholds(self, without: float) -> list[float]:
        """The threshold of each class that has the best F1; `without` for a class without an example."""
        found = []
        for right, count in self._from_the_highest():
            f1 = 2 * right / np.maximum(count + right[-1], 1)
            found.append((BINS - 1 - int(f1.argmax())) / BINS if right[-1] else without)
        return found

    def f1_figures(self, least: float) -> dict[str, float]:
        """The kinds of F1 and the share of exact matches, as `f1_figures`, at the `least` given to `add`."""
        first = round(least * BINS)
        right, guessed = self._right[:, first:].sum(axis=1), self._all[:, first:].sum(axis=1)
        total = guessed + self._right.sum(axis=1)
        return {
            "micro_f1": 2 * float(right.sum()) / max(float(total.sum()), 1.0),
            "macro_f1": float(np.where(total > 0, 2 * right / np.maximum(total, 1), 0.0).mean()),
            "sample_f1": self._f1 / self._images,
            "exact_match": self._exact / self._images,
        }

    def _from_the_highest(self) -> list[tuple[Int64[np.ndarray, " b"], Float[np.ndarray, " b"]]]:
        """The images with each class and all images, up to each bin from the highest probability down."""
        return [
            (np.cumsum(right[::-1]), np.cumsum(count[::-1]))
            for right, count in zip(self._right, self._all, strict=True)
        ]


def f1_figures(guess: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """F1 of all decisions together (micro), averaged over classes (macro) and over images (sample).

    A class without an example that is never predicted has an F1 of 0; an image without a class and without a prediction
    has 1.
    """

    def f1(axis: int | None, empty: float) -> Any:
        right, total = (guess & wanted).sum(axis), guess.sum(axis) + wanted.sum(axis)
        return np.where(total > 0, 2 * right / np.maximum(total, 1), empty)

    return {
        "micro_f1": float(f1(None, 0.0)),
        "macro_f1": float(f1(0, 0.0).mean()),
        "sample_f1": float(f1(1, 1.0).mean()),
        "exact_match": float((guess == wanted).all(axis=1).mean()),
    }


def best_threshold(scores: np.ndarray, wanted: np.ndarray, positives: int | None = None) -> float:
    """The score threshold of a class that has the best F1: half-way between two neighbouring scores.

    0.5 if no image has the class. `positives` is how many examples the class has, if some of them have no score.
    """
    if not wanted.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    f1 = 2 * np.cumsum(wanted[order])[last] / (last + 1 + (wanted.sum() if positives is None else positives))
    place = int(f1.argmax())
    lower = scores[order][last[place] + 1] if last[place] + 1 < len(scores) else 0.0
    return float((scores[order][last[place]] + lower) / 2)
