"""The figures of groups, such as patients or sites (`config.data.group`), in the tests of the chosen settings."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxcnn.reporting import labels, more_figures
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import Setting, sample
from jaxcnn.reporting.statistics import Spread, spread
from jaxcnn.reporting.tables import Cell, Table, by_name, number, text
from jaxcnn.tasks.areas import INTERVAL
from jaxcnn.tasks.headline import Headline

MOST_GROUPS = 20
ALSO = {name: more_figures.TITLES[name] for name in ("balanced_accuracy", "macro_auroc")}  # shares of 1


def by_group(findings: Findings) -> dict[str, Table]:
    """A table for each family whose chosen setting has figures of groups."""
    return by_name(map(_of_family, findings.families))


def figures(run: Run) -> dict[str, dict[str, float]]:
    """The headline figure of each group in the test of a run, its number of examples, and those of `ALSO` that it has.

    Invalid rows are left out.
    """
    rows = (run.test or {}).get("per_group")
    found = {}
    for name, row in rows.items() if isinstance(rows, Mapping) else ():
        row = row if isinstance(row, Mapping) else {}
        sound = {key: row[key] for key in (run.headline.name, *ALSO) if _is_finite(row.get(key))}
        if run.headline.name in sound and type(row.get("examples")) is int:
            found[str(name)] = sound | {"examples": row["examples"]}
    return found


def intervals(run: Run) -> dict[str, str]:
    """The 95 % interval of the mean AUROC of each group in the test of a run, in per cent, where it has one."""
    rows = (run.test or {}).get("per_group")
    found = {}
    for name, row in rows.items() if isinstance(rows, Mapping) else ():
        ends = row.get(INTERVAL) if isinstance(row, Mapping) else None
        if isinstance(ends, list) and len(ends) == 2 and all(map(_is_finite, ends)):
            found[str(name)] = f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _of_family(family: Family) -> Table | None:
    setting = family.chosen
    of_runs = [(run, figures(run)) for run in setting.finished] if setting else []
    names = dict.fromkeys(name for _, of_run in of_runs for name in of_run)
    if setting is None or not names:
        return None
    headline, seeds = setting.headline, [sample(run) for run, _ in of_runs]
    of_group = {
        name: _spread(setting, [of.get(name, {}).get(headline.name) for _, of in of_runs], seeds) for name in names
    }
    also = {key: label for key, label in ALSO.items() if any(key in of for _, run in of_runs for of in run.values())}
    order = sorted(names, key=lambda name: headline.score(of_group[name].mean))
    between = intervals(of_runs[0][0]) if len(of_runs) == 1 else {}  # over several runs, the spread tells more
    rows = []
    for name in order[:MOST_GROUPS]:
        counts = [int(of[name]["examples"]) for _, of in of_runs if name in of]
        row = [text(labels.printable(name)), _cell(of_group[name], headline)]
        for key in also:
            values = [of.get(name, {}).get(key) for _, of in of_runs]
            row.append(_cell(spread(values, seeds), Headline(key, also[key])))
        row += [text(between.get(name, "–"))] if between else []
        rows.append([*row, number(counts[0], str(counts[0]))])
    means = Spread(tuple(of.mean for of in of_group.values()), headline)
    every = labels.percent_spread(means)
    column = f"{headline.label} %" if headline.percent else headline.label
    notes = [
        f"The weakest first, {labels.count(len(set(seeds)), 'seed')}. Over the {labels.count(len(names), 'group')}, "
        f"each counted once: {every}" + (" (mean ± standard deviation)." if means.std is not None else ".")
    ]
    if len(names) > len(rows):
        notes.append(f"{labels.count(len(names) - len(rows), 'better group')} left out.")
    place = f"{family.architecture} on {family.dataset}"
    return Table(
        f"groups-{labels.slug(place)}", f"Groups of {place}",
        [_by(of_runs[0][0]), column, *also.values(), *(["its 95 % interval"] if between else []), "examples"], rows,
        frozenset({column, *also.values(), "examples"}), notes,
    )  # fmt: skip


def _cell(of: Spread | None, figure: Headline) -> Cell:
    told = None if of is None else dataclasses.replace(of, headline=figure)
    return number(None if of is None else of.mean, labels.percent_spread(told))


def _by(run: Run) -> str:
    """The word for what the groups are, such as "patient"."""
    return labels.printable(str(run.config.get("data.group") or "group"))


def _spread(setting: Setting, values: list[Any], seeds: list[Any]) -> Spread:
    found = spread(values, seeds)
    assert found is not None  # a group with a name is in some run
    return dataclasses.replace(found, headline=setting.headline)
