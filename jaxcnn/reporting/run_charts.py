"""Pictures of single runs: curves of loss, headline figure and learning rate over epochs, and the hardest images."""

import base64
import html
import pathlib
from typing import Any

import numpy as np

from jaxcnn.reporting.findings import (
    Family,
    rate_curve,
    training_loss_curve,
    validation_curve,
    validation_loss_curve,
)
from jaxcnn.reporting.plots import MUTED, SERIES, Plot, new, place, plot_name
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import sample, test_figure
from jaxcnn.reporting.statistics import scale

FINDING = ("detection", "instances", "segmentation")  # tasks whose answers are shown beside the annotations
ALONE = (
    "below each its label, and in red what the network answered. --mode=eval makes a page of them, with those of the "
    "highest loss."
)
PAIRED = "left as annotated, right as found, and in red what is wrong. --mode=eval makes a page with more of them."
MOST_BYTES = 2**22  # largest picture that is put into the page
PNG = b"\x89PNG\r\n\x1a\n"


def curves(family: Family) -> Plot:
    """Loss and headline figure over epochs: the chosen setting in front of the others; only loss if none is chosen."""
    validated = any(validation_curve(run) for s in family.settings for run in s.runs)
    figures = validated or family.chosen is not None
    told = f"and validation {family.headline.label} " if figures else ""
    plot = new(
       plot_name("curves", place(family)), "curves", 4.6 if figures else 2.8,
        f"Training and validation loss {told}of {place(family)} over epochs",
        "Each line is a run; in colour the seeds of the chosen setting, in grey all others. Dashed: not finished. "
        "Dotted, above: loss on validation; training loss is of augmented images, and with any label smoothing.",
    )  # fmt: skip
    loss_axes, *others = plot.figure.subplots(1 + figures, 1, sharex=True, squeeze=False)[:, 0]
    ordered = [s for s in family.settings if s is not family.chosen] + [s for s in [family.chosen] if s]
    top = 0.0
    for setting in ordered:
        chosen = setting is family.chosen
        seeds = list(dict.fromkeys(sample(run) for run in setting.runs))
        named: set[int | None] = {None}
        for run in setting.runs:
            i = seeds.index(sample(run))
            drawn: dict[str, Any] = {
                "color": SERIES[i % len(SERIES)] if chosen else MUTED,
                "alpha": 1.0 if chosen else 0.25,
                "linewidth": 1.5 if chosen else 0.8,
                "linestyle": "-" if run.summary else "--",
            }
            told = f"{run.name}: {setting.all_keys or setting.label} seed {run.seed}, {run.state}"
            losses = training_loss_curve(run)
            label = f"seed {run.seed}" if chosen and losses and run.seed not in named else None
            named |= {run.seed} if losses else set()
            if losses := losses[:: max(1, len(losses) // (200 if chosen else 50))]:
                marker = "." if len(losses) <= 12 else None
                loss_axes.plot(*zip(*losses, strict=True), label=label, marker=marker, gid=plot.tip(told), **drawn)
                top = max(top, losses[0][1])
            if chosen and (held_out := validation_loss_curve(run)):
                loss_axes.plot(*zip(*held_out, strict=True), ":", color=SERIES[i % len(SERIES)], linewidth=1.8)
                top = max(top, held_out[0][1])
            if points := validation_curve(run):
                points = points[: -1 : max(1, len(points) // (200 if chosen else 50))] + points[-1:]
                marker = "." if len(points) <= 12 else None
                reached = [epoch for epoch, _, _ in points], [scale(family.headline) * of for _, _, of in points]
                others[0].plot(*reached, marker=marker, gid=plot.tip(told), **drawn)
            elif chosen and (tested := test_figure(run)) is not None:
                others[0].axhline(scale(family.headline) * tested, linestyle=":", color=SERIES[i % len(SERIES)])
    drawn_losses = [y for line in loss_axes.lines for y in np.asarray(line.get_ydata(), float) if np.isfinite(y)]
    if drawn_losses:
        high, low = min(max(drawn_losses), 1.5 * top), min(drawn_losses)
        loss_axes.set_ylim(0 if low < 0.5 * high else low - 0.1 * (high - low), high + 0.05 * (high - low))
    loss_axes.set(title=place(family), ylabel="loss (nats)")
    for figure_axes in others:
        _from_where_it_happens(figure_axes)
        figure_axes.set(ylabel=family.axis("validation" if validated else "test"))
    plot.figure.axes[-1].set(xlabel="epoch", xlim=(0, None))
    if loss_axes.get_legend_handles_labels()[1]:
        plot.figure.legend(loc="outside lower left", ncols=4)
    return plot


def _from_where_it_happens(axes: Any) -> None:
    """Let the axis span the values after the first fifth of the epochs."""
    lines = [np.asarray(line.get_xydata(), float) for line in axes.lines]
    points = np.concatenate(lines) if lines else np.zeros((0, 2))
    late = points[np.isfinite(points).all(axis=1) & (points[:, 0] >= 0.2 * points[:, 0].max(initial=0.0))][:, 1]
    if len(late) and late.min() < late.max():
        margin = 0.06 * (late.max() - late.min())
        axes.set_ylim(late.min() - margin, late.max() + margin)


def learning_rates(family: Family) -> Plot:
    """The learning rate over epochs; the chosen setting in front of the others."""
    plot = new(
       plot_name("learning-rate", place(family)), "curves", 2.8, f"Learning rate of {place(family)} over epochs",
        "In colour the chosen setting, in grey all others.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    ordered = [s for s in family.settings if s is not family.chosen] + [s for s in [family.chosen] if s]
    for setting in ordered:
        chosen = setting is family.chosen
        for run in setting.runs[:1]:
            if points := rate_curve(run):
                points = points[: -1 : max(1, len(points) // 200)] + points[-1:]
                told = f"{setting.described}: the highest is {max(rate for _, rate in points):.4g}"
                axes.plot(
                    *zip(*points, strict=True), color=SERIES[0] if chosen else MUTED, alpha=1.0 if chosen else 0.4,
                    gid=plot.tip(told),
                )  # fmt: skip
    axes.set(title=place(family), xlabel="epoch", ylabel="learning rate", xlim=(0, None), ylim=(0, None))
    return plot


def hardest(family: Family) -> tuple[Plot, bytes] | None:
    """The picture of hardest images that a run of the chosen setting has left, as PNG; None without one."""
    for run in family.chosen.finished if family.chosen else ():
        if (content := _picture(run)) is not None:
            pairs = str(run.config.get("task.name")) in FINDING
            shown = PAIRED if pairs else ALONE
            caption = f"The hardest images of {run.name} on the test split: {shown}"
            name = plot_name("hardest", place(family))
            return Plot(name, "confusion", f"The hardest images of {place(family)}", caption, None), content
    return None


def _picture(run: Run) -> bytes | None:
    """The content of the picture, from the run itself or from its last evaluation."""
    evaluated = sorted(run.folder.glob("eval-test-*-hardest.png"), key=lambda path: (len(path.name), path.name))
    for path in (run.folder / "hardest.png", *evaluated[::-1]):
        try:
            if path.is_file() and path.stat().st_size <= MOST_BYTES and (content := path.read_bytes()).startswith(PNG):
                return content
        except OSError:
            continue
    return None


def as_image(plot: Plot, content: bytes, folder: pathlib.Path) -> str:
    """Keep the picture beside the other pictures; return it as an image of the page."""
    (folder / f"{plot.name}.png").write_bytes(content)
    source = base64.b64encode(content).decode("ascii")
    return f'<img alt="{html.escape(plot.alt, quote=True)}" src="data:image/png;base64,{source}">'
