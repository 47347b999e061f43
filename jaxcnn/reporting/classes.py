"""Accuracy by class of the chosen settings, from the confusion matrices of their tests."""

from typing import Any

import numpy as np

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.settings import Setting, sample
from jaxcnn.reporting.tables import Table, by_name, number, text
from jaxcnn.tasks.confusion import Confusion

MOST_CLASSES = 20


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
    right = np.array([matrix.right for matrix in seeds]) / np.maximum(totals, 1)
    other, often = Confusion.mean(seeds).most_confused()
    shares = often / np.maximum(totals.mean(axis=0), 1e-9)
    there = [k for k in np.argsort(right.mean(axis=0)) if totals[:, k].any()]
    rows = []
    for k in there[:MOST_CLASSES]:
        std = f" ± {100 * right[:, k].std(ddof=1):.1f}" if len(seeds) > 1 else ""
        share = float(shares[k])
        rows.append([
            text(named[k]), number(float(right[:, k].mean()), f"{100 * right[:, k].mean():.1f}{std}"),
            text(named[other[k]] if share else "–"), number(share, f"{100 * share:.1f}" if share else "–"),
            number(float(totals[0, k]), f"{totals[0, k]:.0f}"),
        ])  # fmt: skip
    columns = ["class", "accuracy %", "most often taken for", "share %", "examples"]
    place = f"{family.architecture} on {family.dataset}"
    hidden = len(there) - len(rows)
    notes = [f"The weakest first, {labels.count(len(seeds), 'seed')}."]
    if hidden > 0:
        notes.append(f"{labels.count(hidden, 'better class', 'better classes')} left out.")
    return Table(
        f"classes-{labels.slug(place)}", f"Classes of {place}", columns, rows,
        frozenset({"accuracy %", "share %", "examples"}), notes,
    )  # fmt: skip
