"""The training curves of a workdir, as a picture."""

import pathlib
from typing import Any

from jaxcnn.machine import json_text
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import save_picture


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
    """Draw `metrics.jsonl` into `curves.png`: loss, headline figure and learning rate over epochs; return its path."""
    from matplotlib.figure import Figure

    records, scale = read_records(folder), 100 if headline.percent else 1
    kinds = {kind: [r for r in records if r["kind"] == kind] for kind in ("train", "val", "test")}
    figure = Figure(figsize=(12, 3.8), layout="constrained", dpi=150)
    loss_axes, figure_axes, rate_axes = figure.subplots(1, 3)
    series = [("train", "", "tab:gray", "train"), ("val", "", "tab:blue", "validation")]
    if any("ema_loss" in r for r in records):
        series.append(("val", "ema_", "tab:orange", "validation, moving average"))
    for kind, prefix, colour, label in series:
        epochs = [r["epoch"] for r in kinds[kind]]
        style: dict[str, Any] = {"color": colour, "label": label, "linewidth": 1.2}
        if len(epochs) < 30:
            style["marker"] = "."
        if epochs:
            loss_axes.plot(epochs, [r[f"{prefix}loss"] for r in kinds[kind]], **style)
        name = f"{prefix}{headline.name}"
        found = [(r["epoch"], scale * r[name]) for r in kinds[kind] if name in r]
        if found:
            figure_axes.plot(*zip(*found, strict=True), **style)
    for test in kinds["test"]:
        value = test.get(f"ema_{headline.name}") or test[headline.name]
        label = f"test {headline.shown(value).replace('%', ' %')}"
        figure_axes.axhline(scale * value, color="tab:red", linewidth=1, linestyle="--", label=label)
    train = kinds["train"]
    rate_axes.plot([r["epoch"] for r in train], [r["learning_rate"] for r in train], color="tab:green", linewidth=1.2)
    for axes, title in (
        (loss_axes, "loss"),
        (figure_axes, f"{headline.label}{' (%)' if headline.percent else ''}"),
        (rate_axes, "learning rate"),
    ):
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
    for axes, place in (
        (loss_axes, "upper right"),
        (figure_axes, "lower right" if headline.better == "higher" else "upper right"),
    ):
        if axes.lines:
            axes.legend(loc=place, fontsize=9, framealpha=0.85, edgecolor="none")
    path = folder / "curves.png"
    save_picture(figure, path)
    return path
