"""Recall, precision and other figures of each class, of the chosen settings, from their tests."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.settings import Setting, sample
from jaxcnn.reporting.sound import is_number
from jaxcnn.reporting.statistics import Spread, spread
from jaxcnn.reporting.tables import Cell, Table, by_name, number, text
from jaxcnn.tasks.confusion import Confusion, each_class

MOST_CLASSES = 20
COUNTED = {"recall %": "recall", "precision %": "precision", "F1 %": "f1"}  # of a confusion matrix


def by_class(findings: Findings) -> dict[str, Table]:
    """A table for each family whose chosen setting has confusion matrices."""
    return by_name(map(_of_family, findings.families))


def confusions(setting: Setting) -> list[Confusion]:
    """The test confusion matrices of a setting's finished runs, one per seed: the mean of that seed's runs."""
    by_seed: dict[Any, list[Confusion]] = {}
    for run in setting.finished:
        first = next(iter(by_seed.values()), [run.confusion])[0]
        if run.confusion and first and run.confusion.classes == first.classes:
            by_seed.setdefault(sample(run), []).append(run.confusion)
    return [Confusion.mean(matrices) for matrices in by_seed.values()]


def names(setting: Setting) -> tuple[str, ...]:
    """The class names of `confusions`."""
    return next(run.class_names for run in setting.finished if run.confusion)


def _of_family(family: Family) -> Table | None:
    seeds = confusions(family.chosen) if family.chosen else []
    if not family.chosen or not seeds or any("matched" in (run.test or {}) for run in family.chosen.finished):
        return None  # those of detectors are in `detectors`
    named = names(family.chosen)
    totals = np.array([matrix.totals for matrix in seeds])  # [seeds, K]
    classes = range(totals.shape[1])
    of_seeds = [each_class(matrix, [str(k) for k in classes]) for matrix in seeds]
    shown = {
        title: [spread([of[str(k)][figure] for of in of_seeds]) for k in classes] for title, figure in COUNTED.items()
    }
    other, often = Confusion.mean(seeds).most_confused()
    shares = often / np.maximum(totals.mean(axis=0), 1e-9)
    there = sorted((of.mean, k) for k, of in enumerate(shown["recall %"]) if of)
    measured = {title: of for title, find in MEASURED.items() if (of := _measured(family.chosen, find))}
    rows = []
    for _, k in there[:MOST_CLASSES]:
        share = float(shares[k])
        rows.append([
            text(named[k]), *(_cell(of[k]) for of in shown.values()),
            *(_cell(of.get(named[k])) for of in measured.values()),
            text(named[other[k]] if share else "–"), number(share, f"{100 * share:.1f}" if share else "–"),
            number(float(totals[0, k]), f"{totals[0, k]:.0f}"),
        ])  # fmt: skip
    figures = [*shown, *measured]
    columns = ["class", *figures, "most often taken for", "share %", "examples"]
    place = f"{family.architecture} on {family.dataset}"
    hidden = len(there) - len(rows)
    notes = [
        f"The lowest recall first, {labels.count(len(seeds), 'seed')}. Recall: the share of a class that is found."
    ]
    if hidden > 0:
        notes.append(f"{labels.count(hidden, 'better class', 'better classes')} left out.")
    return Table(
        f"classes-{labels.slug(place)}", f"Classes of {place}", columns, rows,
        frozenset({*figures, "share %", "examples"}), notes,
    )  # fmt: skip


def _measured(setting: Setting, find: Callable[[Mapping[str, Any], str], Any]) -> dict[str, Spread]:
    """The spread over seeds of a figure that `find` takes from a test, by class; only of classes that have it."""
    found: dict[str, Spread] = {}
    for name in names(setting):
        values = [find(run.test or {}, name) for run in setting.finished]
        of = spread([v if is_number(v) else None for v in values], [sample(run) for run in setting.finished])
        found |= {name: of} if of else {}
    return found


def _auroc(test: Mapping[str, Any], name: str) -> Any:
    return _inner(_inner(test, "screening"), name).get("auroc")


def _iou(test: Mapping[str, Any], name: str) -> Any:
    return _inner(test, "iou_by_class").get(name)


def _inner(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


MEASURED = {"AUROC %": _auroc, "IoU %": _iou}  # what a confusion matrix does not tell


def _cell(of: Spread | None) -> Cell:
    """A cell with mean ± std in per cent, with one decimal."""
    if of is None:
        return text("–")
    return number(of.mean, f"{100 * of.mean:.1f}" + (f" ± {100 * of.std:.1f}" if of.std is not None else ""))
