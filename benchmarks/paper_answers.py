"""What the kept runs answer of the paper's table, cell by cell: accuracy, time, and time to convergence.

One seed gives no spread over seeds, so a single accuracy is compared by the sampling of the test images alone: 1.96
standard errors of a share of n images. Several seeds are compared by 95 % of a t distribution of their mean. The paper
gives neither, so its own figure is taken as exact, and an answer is "not shown" more often than not.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper_runs import MODELS, NOT_MEASURED, PLACES, SETS, Kept
from jaxcnn.text import markdown_table

NORMAL_95 = 1.96
# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond, the last is used, which is wider.
STUDENT_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def half_width(accuracies: Sequence[float], examples: int) -> float:
    """Half of the 95 % interval of the mean accuracy, a fraction; of one run by the number of its test images."""
    mean = statistics.fmean(accuracies)
    if len(accuracies) == 1:
        return NORMAL_95 * math.sqrt(mean * (1 - mean) / examples)
    factor = STUDENT_95[min(len(accuracies) - 1, len(STUDENT_95)) - 1]
    return factor * statistics.stdev(accuracies) / math.sqrt(len(accuracies))


def table(found: Mapping[tuple[str, str, str], Sequence[Kept]], published: dict[str, Any]) -> str:
    """A Markdown table with a row for each cell that has runs, and a line with the cells that have none."""
    paper = {(f["data"], f["model"]): f for f in published["seed_paper"]["figures"]}
    below = {(f["data"], f["model"]): f for f in published["seed_paper"]["below"]}
    rows, absent = [], []
    for (data, model, place), runs in found.items():
        name = f"{SETS[data]}, {MODELS[model]}, {PLACES[place]}"
        if not runs:
            absent.append(name)
            continue
        told = paper.get((data, model)) or below[data, model]
        rows.append([name, _accuracy(runs, told, exact=(data, model) in paper), _time(runs, told["hours"]), _to(runs)])
    heads = ("", "more accurate than the paper?", "in less time?", "training time to convergence")
    lines = markdown_table(heads, rows) if rows else []
    if absent:
        lines += ["", f"{NOT_MEASURED.capitalize()}: {'; '.join(absent)}."]
    return "\n".join(lines)


def _accuracy(runs: Sequence[Kept], told: dict[str, Any], *, exact: bool) -> str:
    accuracies = [run.accuracy for run in runs]
    mean, half = 100 * statistics.fmean(accuracies), 100 * half_width(accuracies, runs[0].examples)
    if not exact:
        return f"{mean:.2f} ± {half:.2f} %; the paper gives no figure"
    more = mean - told["accuracy"]
    answer = "not shown" if abs(more) <= half else "yes" if more > 0 else "no"
    return f"{answer}: {more:+.2f} ± {half:.2f} points"


def _time(runs: Sequence[Kept], hours: float) -> str:
    ours = statistics.fmean(run.hours for run in runs)
    return f"{'yes' if ours < hours else 'no'}: {ours / hours:.2f} times the paper's {hours:g} h"


def _to(runs: Sequence[Kept]) -> str:
    known = [(run.converged, run.training) for run in runs if run.converged is not None]
    if not known:
        return "not known"
    hours, share = (statistics.fmean(each) for each in zip(*((c, c / whole) for c, whole in known), strict=True))
    return f"{hours:.1f} h, {100 * share:.0f} % of the training time"
