"""Figures of classifiers in medicine and remote sensing: AUROC with intervals, kappa, Brier score, sensitivity.

Each class is compared with all others by its probability. Probabilities are float64 [n, K], labels int [n]; a figure
is None where the split has no example of the class, or no example of the others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.tasks.areas import auroc
from jaxcnn.tasks.multilabel import average_precision
from jaxcnn.text import named

CONFIDENCE = 0.95  # confidence level of intervals
RESAMPLES = 1000  # resamples of the bootstrap
MOST_RESAMPLED = 2**20  # largest number of probabilities in a split that is resampled, which takes seconds
MOST_TOLD = 3  # largest number of classes in a line of text
MOST_DRAWN = 20  # largest number of classes with curves
STEPS = 101  # points of a curve, from 0 to 1


def thresholds(probabilities: np.ndarray, labels: np.ndarray, specificity: float) -> list[float | None]:
    """The smallest threshold of each class that keeps a share `specificity` of the other examples below it."""
    found: list[float | None] = []
    for k, scores in enumerate(probabilities.T):
        others = np.sort(scores[labels != k])
        if not len(others) or len(others) == len(scores):
            found.append(None)
            continue
        candidates: np.ndarray = np.append(np.unique(scores), np.nextafter(scores.max(), np.inf))
        below = np.searchsorted(others, candidates, "left")
        # The last candidate has all others below it; the count is compared, which a rounded share would not be exactly.
        found.append(float(candidates[np.argmax(below >= math.ceil(specificity * len(others) - 1e-9))]))
    return found


def figures(
    probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], chosen: Sequence[float | None]
) -> dict[str, Any]:
    """All figures of a split, as JSON.

    Args:
      probabilities: float64 [n, K].
      labels: int [n].
      names: names of the classes.
      chosen: the threshold of each class, from `thresholds` of the validation split; empty without one.
    """
    by_class: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(names):
        scores, own = probabilities[:, k], labels == k
        area, interval = auroc(scores, own)
        by_class[name] = {
            "auroc": area,
            "auroc_interval": interval,
            "average_precision": average_precision(scores, own) if own.any() and not own.all() else None,
            **_at_threshold(scores, own, chosen[k] if k < len(chosen) else None),
        }
    precisions = [of["average_precision"] for of in by_class.values() if of["average_precision"] is not None]
    return {
        "kappa": kappa(labels, probabilities.argmax(-1), len(names)),
        "brier_score": brier_score(probabilities, labels),
        "macro_average_precision": float(np.mean(precisions)) if precisions else None,
        "macro_auroc_interval": by_class[names[-1]]["auroc_interval"]
        if len(names) == 2
        else macro_interval(probabilities, labels),
        "screening": by_class,
        "screening_curves": curves(probabilities, labels, names),
    }


def curves(probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """The curves of each class, rounded to four digits; of no class where there are more than MOST_DRAWN.

    "roc" is the highest sensitivity at each share of false alarms (1 - specificity) or below it, "precision" the
    highest precision at each recall or above it; shares and recalls are 0, 0.01, …, 1. A class without examples, or
    without others, has none.
    """
    found = {}
    for k, name in enumerate(names if len(names) <= MOST_DRAWN else ()):
        own = labels == k
        if own.any() and not own.all():
            found[name] = _curves(probabilities[:, k], own)
    return found


def _curves(scores: np.ndarray, own: np.ndarray) -> dict[str, list[float]]:
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores, which are found together
    right, wrong = np.cumsum(own[order])[last], np.cumsum(~own[order])[last]
    at = np.linspace(0, 1, STEPS)
    sensitivity = np.append(0, right / own.sum())[np.searchsorted(wrong, at * (~own).sum() + 1e-9, "right")]
    best_from = np.maximum.accumulate((right / (right + wrong))[::-1])[::-1]
    precision = best_from[np.searchsorted(right, at * own.sum() - 1e-9, "left")]
    return {"roc": sensitivity.round(4).tolist(), "precision": precision.round(4).tolist()}


def kappa(labels: np.ndarray, guesses: np.ndarray, classes: int) -> float | None:
    """Cohen's kappa (1960), the agreement of labels and guesses beyond chance; None if chance alone always agrees."""
    of_labels, of_guesses = (np.bincount(each, minlength=classes) / len(labels) for each in (labels, guesses))
    by_chance = float(of_labels @ of_guesses)
    return None if by_chance == 1 else (float(np.mean(labels == guesses)) - by_chance) / (1 - by_chance)


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The Brier score: squared distances of probabilities from labels, summed over classes; for two classes, of one."""
    off = probabilities.copy()
    off[np.arange(len(labels)), labels] -= 1
    summed = float(np.square(off).sum(axis=-1).mean())
    return summed / 2 if probabilities.shape[1] == 2 else summed


def macro_interval(probabilities: np.ndarray, labels: np.ndarray) -> list[float] | None:
    """The 95 % interval of the mean AUROC over classes: percentiles of a bootstrap that resamples within each class.

    The draws are the same at every call. None for a split with too many probabilities, or with a single class.
    """
    there = [np.flatnonzero(labels == k) for k in range(probabilities.shape[1])]
    if probabilities.size > MOST_RESAMPLED or sum(len(of) > 0 for of in there) < 2:
        return None
    ranked = [np.unique(scores, return_inverse=True)[1] for scores in probabilities.T]
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = np.empty(RESAMPLES)
    for turn in range(RESAMPLES):
        chosen = [of[generator.integers(len(of), size=len(of))] for of in there if len(of)]
        weights = np.bincount(np.concatenate(chosen), minlength=len(labels)).astype(np.float64)
        drawn[turn] = np.mean(
            [_weighted_area(ranked[k], labels == k, weights) for k, of in enumerate(there) if len(of)]
        )
    interval: list[float] = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    return interval


def _weighted_area(ranks: np.ndarray, own: np.ndarray, weights: np.ndarray) -> float:
    """The area under the ROC curve of weighted examples; equal ranks count half."""
    positives = np.bincount(ranks, weights * own)
    negatives = np.bincount(ranks, weights * ~own)
    return float(positives @ (np.cumsum(negatives) - negatives / 2) / (positives.sum() * negatives.sum()))


def _at_threshold(scores: np.ndarray, own: np.ndarray, threshold: float | None) -> dict[str, float | None]:
    """The sensitivity and the specificity at a threshold that was chosen on another split."""
    if threshold is None:
        return {"threshold": None, "sensitivity": None, "specificity": None}
    found = scores >= threshold
    return {
        "threshold": threshold,
        "sensitivity": float(found[own].mean()) if own.any() else None,
        "specificity": float(1 - found[~own].mean()) if not own.all() else None,
    }


def describe(figures: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text; no lines if the split has no such figures."""
    if "screening" not in figures:
        return []
    by_class = figures["screening"]
    parts = [
        f"{title} {figures[name]:.4f}"
        for title, name in (("kappa", "kappa"), ("Brier score", "brier_score"))
        if figures[name] is not None
    ]
    if figures["macro_average_precision"] is not None:
        parts.append(f"average precision {100 * figures['macro_average_precision']:.2f}%")
    if figures["macro_auroc_interval"] is not None:
        low, high = figures["macro_auroc_interval"]
        parts.append(f"AUROC's 95% interval {100 * low:.2f} to {100 * high:.2f}%")
    told = [
        f"{named(name)}: sensitivity {100 * of['sensitivity']:.2f}% at specificity {100 * of['specificity']:.2f}% "
        f"(threshold {of['threshold']:.4f}, chosen on validation)"
        for name, of in by_class.items()
        if of["sensitivity"] is not None and of["specificity"] is not None
    ]
    # Of two classes the second one is the class that is looked for.
    return ["  ".join(parts), *(told[-1:] if len(by_class) == 2 else told[:MOST_TOLD])]
