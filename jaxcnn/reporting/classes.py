"""Accuracy by class of the chosen settings, out of the confusion matrices of their tests."""

import dataclasses

import numpy as np

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.tables import Table, number, text

MOST_CLASSES = 20


def by_class(findings: Findings) -> dict[str, Table]:
    """A table for each family whose chosen setting has confusion matrices."""
    made = [table for family in findings.families if (table := _of_family(family)) is not None]
    taken: set[str] = set()
    named = [dataclasses.replace(table, name=labels.untaken(table.name, taken)) for table in made]
    return {table.name: table for table in named}


def _of_family(family: Family) -> Table | None:
    runs = family.chosen.finished if family.chosen else []
    tests = [run.test for run in runs if run.test and run.test.get("confusion_matrix")]
    if not tests:
        return None
    matrices = np.array([test["confusion_matrix"] for test in tests], float)  # [seeds, K, K]
    names = list(tests[0].get("per_class_accuracy") or map(str, range(len(matrices[0]))))
    totals = matrices.sum(axis=2)
    right = matrices.diagonal(axis1=1, axis2=2) / np.maximum(totals, 1)
    confused = matrices.sum(axis=0)
    np.fill_diagonal(confused, 0)
    rows = []
    for k in np.argsort(right.mean(axis=0)):
        if not totals[:, k].any():
            continue
        std = f" ± {100 * right[:, k].std(ddof=1):.1f}" if len(tests) > 1 else ""
        other = int(confused[k].argmax())
        share = confused[k, other] / totals[:, k].sum()
        rows.append([
            text(names[k]), number(float(right[:, k].mean()), f"{100 * right[:, k].mean():.1f}{std}"),
            text(names[other] if share else "–"), number(float(share), f"{100 * share:.1f}" if share else "–"),
            number(float(totals[0, k]), f"{totals[0, k]:.0f}"),
        ])  # fmt: skip
    columns = ["class", "accuracy %", "most often taken for", "share %", "examples"]
    place = f"{family.architecture} on {family.dataset}"
    hidden = len(rows) - MOST_CLASSES
    notes = [f"The weakest first, {labels.count(len(tests), 'seed')}."]
    if hidden > 0:
        notes.append(f"{labels.count(hidden, 'better class', 'better classes')} left out.")
    return Table(
        f"classes-{labels.slug(place)}", f"Classes of {place}", columns, rows[:MOST_CLASSES],
        frozenset({"accuracy %", "share %", "examples"}), notes,
    )  # fmt: skip
