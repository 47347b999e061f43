"""Curves for tests of classifiers with `task.specificity`: sensitivity over false alarms, and precision over recall."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcnn.reporting import labels
from jaxcnn.reporting.detectors import FEW, STEPS
from jaxcnn.reporting.findings import Family
from jaxcnn.reporting.plots import MUTED, SERIES, Plot, new, place, plot_name, words
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.sound import is_number

KINDS = ("roc", "precision")


def curves(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """The curves of each class in the test of a run, by kind; only those that are sound."""
    told = (run.test or {}).get("screening_curves")
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, of_class in told.items() if isinstance(told, Mapping) else ():
        values = {kind: of_class.get(kind) for kind in KINDS} if isinstance(of_class, Mapping) else {"": None}
        if all(isinstance(each, list) and len(each) == STEPS and all(map(is_number, each)) for each in values.values()):
            found[str(name)] = {kind: np.clip(np.array(each, float), 0, 1) for kind, each in values.items()}
    return found


def has_curves(family: Family) -> bool:
    """Whether a run of the chosen setting has such curves."""
    return family.chosen is not None and any(curves(run) for run in family.chosen.finished)


def both(family: Family) -> Plot:
    """Plot the two curves of each class of the chosen setting, means over seeds; of two classes, of the second one."""
    assert family.chosen
    of_runs = [found for run in family.chosen.finished if (found := curves(run))]
    classes = list(dict.fromkeys(name for found in of_runs for name in found))
    classes = classes[1:] if len(classes) == 2 else classes
    plot = new(
        plot_name("screening", place(family)), "confusion", 3.4,
        f"Sensitivity over false alarms, and precision over recall, of {place(family)} on the test split",
        f"Each class against the rest, {labels.count(len(of_runs), 'run')}. Left: the ROC curve; dotted: by chance. "
        "Right: the highest precision at each recall or above it.",
    )  # fmt: skip
    left, right = plot.figure.subplots(1, 2)
    at = np.linspace(0, 1, STEPS)
    left.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.0)
    for number, name in enumerate(classes):
        of_class = [each[name] for each in of_runs if name in each]
        few = len(classes) <= FEW
        style: dict[str, Any] = {"color": SERIES[number % len(SERIES)]} if few else {"color": MUTED, "alpha": 0.5}
        for axes, kind in ((left, "roc"), (right, "precision")):
            mean = np.mean([each[kind] for each in of_class], axis=0)
            tip = plot.tip(f"{words(name)}: area {100 * np.trapezoid(mean, at):.1f} %")
            label = words(name, 24) if few and axes is left else None
            axes.plot(at, mean, linewidth=1.8, gid=tip, label=label, **style)
    for axes, x, y in ((left, "false alarms (1 - specificity)", "sensitivity"), (right, "recall", "precision")):
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.03))
    plot.figure.suptitle(place(family))
    plot.figure.legend(loc="outside lower left", ncols=4)
    return plot
