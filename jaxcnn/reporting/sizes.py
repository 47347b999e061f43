"""Accuracy beside size: the settings of pruned networks that no other setting beats in both."""

from collections.abc import Sequence
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.settings import Setting
from jaxcnn.reporting.statistics import pareto_front
from jaxcnn.reporting.tables import Table, number, text
from jaxcnn.tasks.headline import Headline

LIVE, ALL = "live_parameters", "parameters"


def live(setting: Setting) -> float | None:
    """The number of nonzero parameters: the mean over the finished runs, or all if none of these was pruned."""
    found = [run.summary.get(LIVE, run.summary.get(ALL)) for run in setting.finished if run.summary]
    known = [each for each in found if isinstance(each, int | float)]
    return sum(known) / len(known) if known else None


def fronts(families: Sequence[Family]) -> list[dict[str, Any]]:
    """The settings of each data set and headline figure with a pruned network, and the front of size and validation."""
    places: dict[tuple[str, Headline], list[Setting]] = {}
    for family in families:
        for setting in family.settings:
            if setting.validation and live(setting) is not None:
                places.setdefault((setting.dataset, setting.headline), []).append(setting)
    found = []
    for (dataset, _), settings in places.items():
        pruned = any(LIVE in (run.summary or {}) for setting in settings for run in setting.finished)
        if pruned and len({live(setting) for setting in settings}) > 1:
            points = [(live(s) or 0.0, s.headline.score(s.validation.mean if s.validation else 0.0)) for s in settings]
            found.append({"data": dataset, "settings": settings, "front": [settings[i] for i in pareto_front(points)]})
    return found


def table(findings: Findings) -> Table:
    """A table of the settings that no other setting beats in both accuracy and size."""
    rows = [
        [
            text(front["data"]), text(setting.title), number(live(setting), f"{live(setting):,.0f}"),
            text(setting.headline.label),
            number(setting.validation.mean, labels.percent_spread(setting.validation)),
            number(len(setting.seeds), str(len(setting.seeds))),
        ]
        for front in fronts(findings.families)
        for setting in front["front"]
    ]  # fmt: skip
    numeric = ["parameters not 0", "validation %", "seeds"]
    columns = ["data", "setting", numeric[0], "figure", *numeric[1:]]
    notes = [
        "Settings for which no other setting on the same data is both smaller and more accurate (means over seeds)."
    ]
    return Table("sizes", "Pareto front of accuracy and size", columns, rows, frozenset(numeric), notes)
