"""Areas under ROC curves with 95 % intervals, of one label and of the mean over labels.

DeLong et al. 1988, "Comparing the areas under two or more correlated receiver operating characteristic curves"; the
placements are computed from ranks, in the time of sorting (Sun and Xu 2014). Equal scores count half.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

QUANTILE = 1.959963984540054  # quantile of the normal distribution: 95 % lie within this many standard deviations
AUROC, INTERVAL = "macro_auroc", "macro_auroc_interval"
OF_EACH = ("auroc", "auroc_interval")
NAMES = (AUROC, INTERVAL, *OF_EACH)  # of the figures


def auroc(scores: np.ndarray, own: np.ndarray) -> tuple[float | None, list[float] | None]:
    """The area under the ROC curve and its 95 % interval, clipped to [0, 1]; both None where a side has no example.

    There is no interval for fewer than two examples on a side.

    Args:
      scores: float64 [n].
      own: whether each example is of the class, bool [n].
    """
    area, moves = _with_moves(scores, own)
    return area, None if area is None or moves is None else _interval(area, moves)


def figures(scores: Float[np.ndarray, "n k"], wanted: Bool[np.ndarray, "n k"], names: Sequence[str]) -> dict[str, Any]:
    """The figures `NAMES` of labels of which an example may have several, as JSON.

    The interval of the mean over labels uses DeLong's covariance, because all labels belong to the same examples.
    Labels that no example has, or all have, are left out of the mean; an interval of the mean needs one of each of its
    labels.

    Args:
      scores: larger for more probable.
      wanted: which labels each example has.
      names: names of the labels.
    """
    areas: list[float] = []
    total: Any = 0.0  # the moves of the sum of areas
    of_each: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for k, name in enumerate(names):
        area, moves = _with_moves(scores[:, k], wanted[:, k])
        of_each[0][name] = area
        of_each[1][name] = None if area is None or moves is None else _interval(area, moves)
        if area is not None:
            areas.append(area)
            total = None if total is None or moves is None else total + moves
    mean = float(np.mean(areas)) if areas else None
    interval = None if mean is None or total is None else _interval(mean, total / len(areas))
    return {AUROC: mean, INTERVAL: interval, **dict(zip(OF_EACH, of_each, strict=True))}


def _with_moves(scores: np.ndarray, own: np.ndarray) -> tuple[float | None, np.ndarray | None]:
    """The area, and how far each example moves it, float64 [n]: the sum of their squares is DeLong's variance.

    The area is None where a side has no example, and the moves where one has fewer than two.
    """
    of_class, others = scores[own], scores[~own]
    if not len(of_class) or not len(others):
        return None, None
    ranked = np.sort(others)
    below, up_to = (np.searchsorted(ranked, of_class, side) for side in ("left", "right"))
    over = (below + up_to) / (2 * len(others))  # share of the others that each example of the class outranks
    ranked = np.sort(of_class)
    left, right = (np.searchsorted(ranked, others, side) for side in ("left", "right"))
    under = 1 - (left + right) / (2 * len(of_class))  # share of the class that outranks each of the others
    area = float(over.mean())
    if min(len(over), len(under)) < 2:
        return area, None
    moves = np.empty(len(scores))
    for side, placements in ((own, over), (~own, under)):
        moves[side] = (placements - placements.mean()) / math.sqrt(len(placements) * (len(placements) - 1))
    return area, moves


def _interval(area: float, moves: np.ndarray) -> list[float]:
    margin = QUANTILE * math.sqrt(float(moves @ moves))
    return [max(0.0, area - margin), min(1.0, area + margin)]


def describe(figures: Mapping[str, Any]) -> list[str]:
    """The mean AUROC with its interval as a line of text; no line without it."""
    if figures.get(AUROC) is None:
        return []
    between = ""
    if figures[INTERVAL] is not None:
        low, high = figures[INTERVAL]
        between = f" (95% interval {100 * low:.2f} to {100 * high:.2f}%)"
    return [f"AUROC {100 * figures[AUROC]:.2f}%{between}, mean over classes"]
