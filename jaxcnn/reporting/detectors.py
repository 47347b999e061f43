"""Tables and curves for tests of detectors: each class with its AP, and precision over recall."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcnn.reporting import labels
from jaxcnn.reporting.classes import MOST_CLASSES, confusions, names
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.plots import MUTED, SERIES, Plot, new, place, plot_name, words
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import Setting, sample
from jaxcnn.reporting.sound import is_number
from jaxcnn.reporting.statistics import spread
from jaxcnn.reporting.tables import Cell, Table, by_name, number, text
from jaxcnn.tasks.confusion import Confusion

FEW = 8  # classes whose curves have colours of their own
STEPS = 101  # recalls of a curve, from 0 to 1


def by_class(findings: Findings) -> dict[str, Table]:
    """A table for each family whose chosen setting has a confusion matrix with background."""
    return by_name(map(_of_family, findings.families))


def matched(run: Run) -> Mapping[str, Any] | None:
    """The figures of matching found objects to annotated ones in the test of a run; None if it is no detector's."""
    told = (run.test or {}).get("matched")
    sound = isinstance(told, Mapping) and is_number(told.get("score")) and is_number(told.get("overlap"))
    return told if sound and run.confusion and run.confusion.classes > 1 else None


def of_setting(setting: Setting | None) -> Mapping[str, Any] | None:
    """`matched` of the first run with a confusion matrix."""
    return next((matched(run) for run in setting.finished if run.confusion), None) if setting else None


def how(told: Mapping[str, Any]) -> str:
    """The score and the overlap as text."""
    masks = " of the masks" if told.get("of") == "masks" else ""
    return f"from a score of {told['score']:g}, matched at an overlap{masks} of {told['overlap']:g}"


def _of_family(family: Family) -> Table | None:
    setting = family.chosen
    told, seeds = of_setting(setting), confusions(setting) if setting else []
    if setting is None or told is None or not seeds:
        return None
    named, last = names(setting), seeds[0].classes - 1
    totals = np.array([matrix.totals for matrix in seeds])[:, :last]
    whole = Confusion.mean(seeds)
    right, guessed = whole.right[:last], whole.guessed[:last]
    recall, precision = right / np.maximum(whole.totals[:last], 1e-9), right / np.maximum(guessed, 1e-9)
    missed = np.zeros(last)
    at = (whole.predicted == last) & (whole.true < last)
    missed[whole.true[at]] = whole.counts[at] / np.maximum(whole.totals[whole.true[at]], 1e-9)
    taken = _most_taken(whole)
    order = [k for k in np.argsort(recall, kind="stable") if totals[:, k].any()]
    rows = []
    for k in order[:MOST_CLASSES]:
        other, share = taken[k]
        rows.append([
            text(named[k]), _percent(_ap(setting, named[k])), _share(recall[k]), _share(precision[k]),
            _share(missed[k]), text(named[other] if share else "–"), _share(share) if share else text("–"),
            number(float(totals[0, k]), f"{totals[0, k]:.0f}"),
        ])  # fmt: skip
    figure = setting.headline.label
    columns = ["class", f"{figure} %", "recall %", "precision %", "missed %", "most often taken for", "share %"]
    columns += ["objects"]
    notes = [
        f"The lowest recall first, {labels.count(len(seeds), 'seed')}. Recall, precision and what follows: {how(told)}."
    ]
    if len(order) > len(rows):
        notes.append(f"{labels.count(len(order) - len(rows), 'better class', 'better classes')} left out.")
    return Table(
        f"classes-{labels.slug(place(family))}", f"Classes of {place(family)}", columns, rows,
        frozenset(columns) - {"class", "most often taken for"}, notes,
    )  # fmt: skip


def _most_taken(whole: Confusion) -> list[tuple[int, float]]:
    """The class that each class was most often taken for, background aside, and its share of the objects."""
    last = whole.classes - 1
    table = whole.dense()[:last, :last].astype(float)
    np.fill_diagonal(table, 0)
    shares = table / np.maximum(whole.totals[:last, None], 1e-9)
    return [(int(row.argmax()), float(row.max(initial=0.0))) for row in shares]


def _ap(setting: Setting, name: str) -> list[float | None]:
    """The AP of a class in each run, of which the setting's headline figure is the mean."""
    found = []
    for run in setting.finished:
        of_classes = (run.test or {}).get(f"{setting.headline.name}_by_class")
        value = of_classes.get(name) if isinstance(of_classes, Mapping) else None
        found.append(value if is_number(value) else None)
    of = spread(found, [sample(run) for run in setting.finished])
    return list(of.values) if of else []


def _percent(values: list[float | None]) -> Cell:
    of = spread(values)
    return number(of.mean if of else None, "–" if of is None else labels.percent_spread(of))


def _share(of: float) -> Cell:
    return number(float(of), f"{100 * of:.1f}")


def curves(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """The sound curves of precision over recall in the test of a run: "mean" by overlap, "by_class" by name."""
    test = run.test or {}
    told = test.get("mask_curves" if run.headline.name.startswith("mask_") else "curves")
    found: dict[str, dict[str, np.ndarray]] = {"mean": {}, "by_class": {}}
    for kind in found:
        of_kind = told.get(kind) if isinstance(told, Mapping) else None
        for name, values in of_kind.items() if isinstance(of_kind, Mapping) else ():
            if isinstance(values, list) and len(values) == STEPS and all(map(is_number, values)):
                found[kind][str(name)] = np.clip(np.array(values, float), 0, 1)
    return found


def has_curves(family: Family) -> bool:
    """Whether a run of the chosen setting has such curves."""
    return family.chosen is not None and any(curves(run)["mean"] for run in family.chosen.finished)


def precision_recall(family: Family) -> Plot:
    """Plot precision over recall of the chosen setting: means over seeds, for all classes together and for each."""
    assert family.chosen
    of_runs = [found for run in family.chosen.finished if (found := curves(run))["mean"]]
    overlaps = list(of_runs[0]["mean"])
    classes = list(dict.fromkeys(name for found in of_runs for name in found["by_class"]))
    single = len(classes) == 1
    coloured = {name: SERIES[(k + 1) % len(SERIES)] for k, name in enumerate(classes)} if len(classes) < FEW else {}
    plot = new(
        plot_name("precision-recall", place(family)), "confusion", 3.6,
        f"Precision over recall of {place(family)} on the test split",
        f"The highest precision at each recall or above it, {labels.count(len(of_runs), 'run')}. "
        + ("Solid: " if single else "Thick: the mean over the classes, solid ")
        + ", dashed ".join(f"at an overlap of {overlap}" for overlap in overlaps)
        + ("." if single else f"; thin: each class at {overlaps[0]}."),
    )  # fmt: skip
    axes = plot.figure.subplots()
    recall = np.linspace(0, 1, STEPS)
    for name in () if single else classes:
        mean = np.mean([found["by_class"][name] for found in of_runs if name in found["by_class"]], axis=0)
        style = {"color": coloured[name], "label": words(name, 24)} if coloured else {"color": MUTED, "alpha": 0.35}
        tip = plot.tip(f"{words(name)}: AP at an overlap of {overlaps[0]} {100 * mean.mean():.1f} %")
        axes.plot(recall, mean, linewidth=1.0, gid=tip, **style)
    for overlap, line in zip(overlaps, ("-", "--", ":"), strict=False):
        mean = np.mean([found["mean"][overlap] for found in of_runs if overlap in found["mean"]], axis=0)
        tip = plot.tip(f"overlap {overlap}: AP {100 * mean.mean():.1f} %")
        label = f"overlap {overlap}" if single else f"mean, overlap {overlap}"
        axes.plot(recall, mean, line, color=SERIES[0], linewidth=2.2, gid=tip, label=label)
    axes.set(title=place(family), xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03))
    plot.figure.legend(loc="outside lower left", ncols=3)
    return plot
