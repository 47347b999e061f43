"""Accuracy, size and latency of runs and of their files, from what `python -m jaxcnn.latency` kept in their folders."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcnn.deploy import kept_figures
from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Findings
from jaxcnn.reporting.read import Run, json_object
from jaxcnn.reporting.settings import Setting, validation_figure
from jaxcnn.reporting.tables import Table, number, text
from jaxcnn.tasks.headline import Headline

FILES = "latency-*.json"
_LARGEST = 2**63  # numbers of a file that is not damaged are smaller


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
    """The points of one data set and figure that were timed on one device and equally many cores, quickest first."""

    data: str
    machine: str
    points: tuple[Point, ...]


def planes(findings: Findings) -> list[Plane]:
    """The planes with at least two points."""
    places: dict[tuple[str, str, Headline], list[Point]] = {}
    for family in findings.families:
        for setting in family.settings:
            for run in setting.finished:
                for machine, point in _points(setting, run):
                    places.setdefault((setting.dataset, machine, run.headline), []).append(point)
    return [
        Plane(data, machine, _with_front(points)) for (data, machine, _), points in places.items() if len(points) > 1
    ]


def _points(setting: Setting, run: Run) -> list[tuple[str, Point]]:
    found = []
    for path in sorted(run.folder.glob(FILES)):
        told = _read(path)
        figure = _figure(run, told) if told else None
        if figure is None:
            continue
        one, machine = _of_one_image(told), labels.printable(kept_figures.machine(told))
        form = f"{told.get('runtime')}, {told['file']}" if "file" in told else str(told.get("runtime"))
        title = f"{setting.title}, seed {run.seed}"
        names = (title, setting.architecture, labels.printable(form))
        times = (float(one["p50"]), float(one["p99"]))
        found.append((machine, Point(*names, run.headline, figure, told["bytes"], *times)))
    return found


def _figure(run: Run, told: dict[str, Any]) -> float | None:
    """The headline figure on validation: of the run, or of a file that is still as it was verified on that split."""
    if "file" not in told:
        return validation_figure(run)
    verified = _object(told.get("verified"))
    value: Any = _object(verified.get("figures")).get(run.headline.name)
    if not _is_number(value) or verified.get("split") != kept_figures.SPLIT:
        return None
    return float(value) if kept_figures.is_still(run.folder / told["file"], verified.get("sha256")) else None


def _of_one_image(told: dict[str, Any]) -> dict[str, Any]:
    return next((each for each in told["timings"] if isinstance(each, dict) and each.get("batch") == 1), {})


def _read(path: pathlib.Path) -> dict[str, Any]:
    """What a file tells of the times of one image; empty if that is not whole."""
    told, _ = json_object(path)
    if told is None or not isinstance(told.get("timings"), list):
        return {}
    one, file = _of_one_image(told), told.get("file", path.name)
    counts = all(_is_number(told.get(name)) and told[name] >= 1 for name in ("bytes", "cores"))
    counts = counts and all(isinstance(told[name], int) for name in ("bytes", "cores"))
    times = all(_is_number(one.get(name)) and one[name] > 0 for name in ("p50", "p99"))
    beside = isinstance(file, str) and pathlib.PurePath(file).name == file
    return told if counts and times and beside else {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


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
            text(plane.data), text(plane.machine), text(point.title), text(point.form), text(point.headline.label),
            number(point.figure, labels.figure(point.figure, point.headline), strong=point.on_front),
            number(point.size, f"{point.size:,}"), number(point.p50, f"{1000 * point.p50:.3f}"),
            number(point.p99, f"{1000 * point.p99:.3f}"), text("yes" if point.on_front else ""),
        ]
        for plane in planes(findings)
        for point in plane.points
    ]  # fmt: skip
    numeric = ["validation %", "bytes", "ms, one image", "p99 ms"]
    columns = ["data", "machine", "setting", "form", "figure", *numeric, "on the front"]
    notes = [
        "Times of one image, medians, as `python -m jaxcnn.latency` kept them. On the front: no other row of the same "
        "data, machine and figure is at least as good in this figure, bytes and time, and better in one. The figure of "
        "a file is its own, from `export --verify`; files that changed since, or are gone, are left out."
    ]
    return Table("latency", "Accuracy, size and latency", columns, rows, frozenset(numeric), notes)
