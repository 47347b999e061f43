"""Accuracy, size and latency of runs and of their files, from what `python -m jaxcnn.latency` kept in their folders."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Findings
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import Setting, validation_figure
from jaxcnn.reporting.tables import Table, number, text
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import counted
from jaxcnn.train.workdir import read_json

FILES = "latency-*.json"


@dataclasses.dataclass(frozen=True)
class Point:
    """A run in JAX, or a file of it.

    Attributes:
      title: the setting of the run, and its seed.
      form: what was timed.
      headline: the figure that decides.
      figure: its value on the validation split: of the run, or of the file itself.
      size: bytes of the weights or of the file.
      p50, p99: seconds of one image.
      on_front: whether no other point of its plane is at least as good in figure, size and latency, and better in one.
    """

    title: str
    architecture: str
    form: str
    headline: Headline
    figure: float
    size: int
    p50: float
    p99: float
    on_front: bool = False


@dataclasses.dataclass(frozen=True)
class Plane:
    """The points of one data set that were timed on equally many cores of one processor, quickest first."""

    data: str
    machine: str
    points: tuple[Point, ...]


def planes(findings: Findings) -> list[Plane]:
    """The planes with at least two points."""
    places: dict[tuple[str, str], list[Point]] = {}
    for family in findings.families:
        for setting in family.settings:
            for run in setting.finished:
                for machine, point in _points(setting, run):
                    places.setdefault((setting.dataset, machine), []).append(point)
    return [Plane(data, machine, _with_front(points)) for (data, machine), points in places.items() if len(points) > 1]


def _points(setting: Setting, run: Run) -> list[tuple[str, Point]]:
    found = []
    for path in sorted(run.folder.glob(FILES)):
        told = _read(path)
        one = next((each for each in told.get("timings") or [] if each.get("batch") == 1), None)
        size, cores = told.get("bytes"), told.get("cores")
        figure = _figure(run, told)
        if one is None or figure is None or not isinstance(size, int) or not isinstance(cores, int):
            continue
        machine = f"{counted(cores, 'core')} of {labels.printable(str(told.get('processor')))}"
        form = f"{told.get('runtime')}, {told['file']}" if "file" in told else str(told.get("runtime"))
        title = f"{setting.title}, seed {run.seed}"
        names = (title, setting.architecture, labels.printable(form))
        found.append((machine, Point(*names, run.headline, figure, size, float(one["p50"]), float(one["p99"]))))
    return found


def _figure(run: Run, told: dict[str, Any]) -> float | None:
    """The headline figure on validation: of the run, or of a file if it was verified on that split."""
    if "file" not in told:
        return validation_figure(run)
    verified = told.get("verified") or {}
    value = (verified.get("figures") or {}).get(run.headline.name) if verified.get("split") == "val" else None
    return float(value) if isinstance(value, int | float) else None


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        told = read_json(path)
    except UserError:
        return {}
    whole = isinstance(told, dict) and isinstance(told.get("timings"), list)
    return told if whole and all(isinstance(each, dict) for each in told["timings"]) else {}


def _with_front(points: Sequence[Point]) -> tuple[Point, ...]:
    costs = [(-each.headline.score(each.figure), each.size, each.p50) for each in points]
    beaten = [
        any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in costs) for own in costs
    ]
    marked = [dataclasses.replace(each, on_front=not lost) for each, lost in zip(points, beaten, strict=True)]
    return tuple(sorted(marked, key=lambda each: each.p50))


def table(findings: Findings) -> Table:
    """A table of all points; those on the front are marked."""
    rows = [
        [
            text(plane.data), text(plane.machine), text(point.title), text(point.form),
            number(point.figure, labels.figure(point.figure, point.headline), strong=point.on_front),
            number(point.size, f"{point.size:,}"), number(point.p50, f"{1000 * point.p50:.3f}"),
            number(point.p99, f"{1000 * point.p99:.3f}"), text("yes" if point.on_front else ""),
        ]
        for plane in planes(findings)
        for point in plane.points
    ]  # fmt: skip
    numeric = ["validation %", "bytes", "ms, one image", "p99 ms"]
    columns = ["data", "machine", "setting", "form", *numeric, "on the front"]
    notes = [
        "Times of one image, medians, as `python -m jaxcnn.latency` kept them. On the front: no other row of the same "
        "data and machine is at least as good in accuracy, bytes and time, and better in one. The accuracy of a file "
        "is its own, from `export --verify`."
    ]
    return Table("latency", "Accuracy, size and latency", columns, rows, frozenset(numeric), notes)
