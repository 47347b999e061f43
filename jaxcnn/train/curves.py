"""The training curves of a workdir, as a picture."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcnn.config.fields import Augment
from jaxcnn.machine import json_text
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import save_picture, shorten, shown


def read_records(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl`; lines that are damaged, or cut off by a crash, are left out (see `damage`)."""
    return [record for record in _lines(folder) if record is not None]


def damage(folder: pathlib.Path) -> list[str]:
    """A remark if lines of `metrics.jsonl` are damaged; a last line that a crash cut off does not count."""
    damaged = [number for number, record in enumerate(_lines(folder)[:-1], start=1) if record is None]
    if not damaged:
        return []
    which = f"lines {', '.join(map(str, damaged[:3]))}{' …' if len(damaged) > 3 else ''} are"
    return [f"{folder}/metrics.jsonl: {which if len(damaged) > 1 else f'line {damaged[0]} is'} damaged, and skipped"]


def _lines(folder: pathlib.Path) -> list[dict[str, Any] | None]:
    """The record in each line of `metrics.jsonl`; None for a line that holds none."""

    def record(line: bytes) -> dict[str, Any] | None:
        try:
            value = json_text.parse(line.decode())
        except ValueError:
            return None
        return value if isinstance(value, dict) and "kind" in value else None

    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    return [record(line) for line in (lines[:-1] if lines[-1] == b"" else lines)]


def draw(folder: pathlib.Path, headline: Headline) -> pathlib.Path:
    """Draw `metrics.jsonl` into `curves.png`: loss, headline figure and learning rate over epochs; return its path.

    The title names the run. If there are many training records, they are drawn faintly, with their moving
    mean over them. The axis of the headline figure spans the values after the first fifth of the run.
    """
    from matplotlib.figure import Figure

    records, config = read_records(folder), _config(folder)
    kinds = {kind: [r for r in records if r["kind"] == kind] for kind in ("train", "val", "test")}
    figure = Figure(figsize=(10, 3.6), layout="constrained", dpi=200)
    loss_axes, figure_axes, rate_axes = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    figure.suptitle(_title(folder, config), fontsize=10, x=0.01, ha="left")
    _draw_series(loss_axes, kinds, "loss", 1, augments(config))
    scale = 100 if headline.percent else 1
    drawn = _draw_series(figure_axes, kinds, headline.name, scale, augments(config))
    _draw_test(figure_axes, kinds["test"], headline, scale)
    train = kinds["train"]
    last = max((r["epoch"] for r in (*train, *kinds["val"])), default=0.0)
    rates = [(r["epoch"], r["learning_rate"]) for r in train]
    if rates:
        rate_axes.plot(*zip(*rates, strict=True), color="tab:green", linewidth=1.2, marker=_marker(rates))
    for axes, title in (
        (loss_axes, "loss"),
        (figure_axes, f"{headline.label}{' (%)' if headline.percent else ''}"),
        (rate_axes, "learning rate"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, 1.05 * last or 1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    _scale_loss(loss_axes)
    if limits := interesting([*drawn, *_tested(kinds["test"], headline, scale)], top=100 if headline.percent else None):
        figure_axes.set_ylim(*limits)
    for axes, place in (
        (loss_axes, "upper right"),
        (figure_axes, "lower right" if headline.better == "higher" else "upper right"),
    ):
        if axes.lines:
            place = "best" if _marker(train) else place  # clear of few points
            axes.legend(loc=place, fontsize=8, framealpha=0.85, edgecolor="none")
    path = folder / "curves.png"
    save_picture(figure, path)
    return path


def _config(folder: pathlib.Path) -> dict[str, Any]:
    """The config of the run as it is written down; empty if it cannot be read."""
    try:
        found = json_text.parse((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _title(folder: pathlib.Path, config: dict[str, Any]) -> str:
    """A title that identifies the run: its folder, network, data, batch size, learning rate and seed."""
    name = shorten(shown(folder.resolve().name), 40)
    try:
        source = config["data"]["source"].rpartition("/")[2]
        told = (
            f"{config['model']['name']} on {source}, batch size {config['global_batch_size']}, "
            f"learning rate {config['optim']['learning_rate']:g}, seed {config['seed']}"
        )
    except (KeyError, TypeError, ValueError, AttributeError):  # a config that somebody changed
        return name
    return f"{name}: {shorten(shown(told), 100)}"


def augments(config: dict[str, Any]) -> bool:
    """Whether a config, as in `config.json`, changes training images, so that training figures belong to those."""
    plain = dataclasses.asdict(Augment())
    unchanging = (
        *("normalize", "normalize_by", "mean", "std"),
        *("crop_padding", "policy_layers", "policy_magnitude", "small_sides", "small_until", "sides", "shapes"),
    )
    found = config.get("augment", {})
    return any(
        found[name] not in (value, list(value) if isinstance(value, tuple) else value)
        for name, value in plain.items()
        if name in found and name not in unchanging
    )


def _draw_series(
    axes: Any, kinds: dict[str, list[dict[str, Any]]], name: str, scale: float, augmented: bool
) -> list[tuple[float, float]]:
    """Draw a figure of training and validation; return the points that the axis should show."""
    points = [(r["epoch"], scale * r[name]) for r in kinds["train"] if name in r]
    shown_points: list[tuple[float, float]] = []
    if points:
        epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
        window = len(points) // 20
        words = [*(["augmented"] if augmented else []), *(["smoothed"] if window > 1 else [])]
        label = "training" + (f" ({', '.join(words)})" if words else "")
        if window > 1:
            axes.plot(epochs, values, color="tab:gray", linewidth=0.5, alpha=0.35)
            values = smoothed(values, window)
        axes.plot(epochs, values, color="tab:gray", linewidth=1.2, label=label, marker=_marker(points))
        shown_points += zip(epochs, values, strict=True)
    for prefix, colour, line, label in (
        ("", "tab:blue", "-", "validation"),
        ("ema_", "tab:orange", "--", "validation, moving average"),
    ):
        found = [(r["epoch"], scale * r[prefix + name]) for r in kinds["val"] if prefix + name in r]
        if found:
            axes.plot(*zip(*found, strict=True), line, color=colour, linewidth=1.4, label=label, marker=_marker(found))
        shown_points += found
    return shown_points


def _marker(points: list[Any]) -> str:
    """A marker for each point if there are few; a single point has no line, and a larger marker."""
    return "o" if len(points) == 1 else "." if len(points) < 30 else ""


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and its neighbours, `window` on each side, fewer at the ends."""
    return [
        sum(near) / len(near)
        for k in range(len(values))
        for reach in [min(window, k, len(values) - 1 - k)]
        for near in [values[k - reach : k + reach + 1]]
    ]


def _tested(tests: list[dict[str, Any]], headline: Headline, scale: float) -> list[tuple[float, float]]:
    """The figure of each test, at the end of the run."""
    values = [test.get(f"ema_{headline.name}") or test.get(headline.name) for test in tests]
    return [(float("inf"), scale * value) for value in values if value is not None]


def _draw_test(axes: Any, tests: list[dict[str, Any]], headline: Headline, scale: float) -> None:
    for _, value in _tested(tests, headline, scale):
        label = f"test {headline.shown(value / scale).replace('%', ' %')}"
        axes.axhline(value, color="tab:red", linewidth=1, linestyle="-.", label=label)


def _scale_loss(axes: Any) -> None:
    """Make an axis logarithmic if the losses span more than a factor of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    values = [float(value) for line in axes.lines for value in line.get_ydata()]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def interesting(points: Sequence[tuple[float, float]], top: float | None) -> tuple[float, float] | None:
    """The limits of an axis that shows the values after the first fifth of the epochs, with a margin.

    Args:
      points: epoch and value; an infinite epoch is the end.
      top: the highest possible value, if there is one.

    Returns:
      The lower and the upper limit; None where these values are all equal, or there are none.
    """
    ends = [epoch for epoch, _ in points if epoch != float("inf")]
    values = [value for epoch, value in points if epoch >= 0.2 * max(ends, default=0.0) and math.isfinite(value)]
    if not values or min(values) == max(values):
        return None
    low, high = min(values), max(values)
    margin = 0.06 * (high - low)
    return low - margin, high + margin if top is None else min(high + margin, top + 0.5 * margin)
