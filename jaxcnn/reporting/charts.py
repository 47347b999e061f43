"""The pictures of a report, made from its findings."""

import functools
import textwrap
from collections.abc import Iterator

import numpy as np

from jaxcnn.reporting import labels, quickness, screening, sizes
from jaxcnn.reporting.classes import confusions
from jaxcnn.reporting.classes import names as class_names
from jaxcnn.reporting.detectors import has_curves, how, of_setting, precision_recall
from jaxcnn.reporting.effect_charts import grid_keys, heat, key_effect, key_scatter
from jaxcnn.reporting.findings import Family, Findings, scattered
from jaxcnn.reporting.plots import (
    DARK,
    FONT,
    GRID,
    INK,
    MUTED,
    SERIES,
    STAR,
    SURFACE,
    Plot,
    cell,
    hover,
    new,
    place,
    plot_name,
    spread_tip,
    words,
)
from jaxcnn.reporting.run_charts import curves, learning_rates
from jaxcnn.reporting.statistics import ACCURACY
from jaxcnn.reporting.time_charts import by_latency, by_size, pareto, speed_up, time_to_accuracy
from jaxcnn.tasks.confusion import Confusion

MOST_ROWS = 16


def charts(findings: Findings) -> Iterator[functools.partial[Plot]]:
    """A function for each picture for which the findings have data; call it within `plots.style()`."""
    make = functools.partial
    if any(f.paper or f.published for f in comparable(findings)):
        yield make(versus_published, findings)
    for family in findings.families:
        if sum(s.validation is not None for s in family.settings) > 2:
            yield make(ranking, family)
    for effect in findings.effects:
        yield make(key_effect, effect)
    for family in findings.families:
        for key, members in scattered(family):
            yield make(key_scatter, family, key, members)
    for family in findings.families:
        if (grid := grid_keys(family)) is not None:
            yield make(heat, family, *grid)
    for family in findings.families:
        if any(run.records for s in family.settings for run in s.runs):
            yield make(curves, family)
            yield make(learning_rates, family)
    figures = dict.fromkeys((row["data"], row["setting"].headline) for row in findings.times_to_accuracy)
    for number, (dataset, headline) in enumerate(figures, start=1):
        yield make(time_to_accuracy, findings, dataset, headline, number)
    for i, front in enumerate(findings.fronts):
        yield make(pareto, front, i, findings)
    for number, front in enumerate(sizes.fronts(findings.families), start=1):
        yield make(by_size, front, number)
    for number, plane in enumerate(quickness.planes(findings), start=1):
        yield make(by_latency, plane, number)
    for i, facts in enumerate(findings.scalings):
        yield make(speed_up, facts, i, findings)
    for family in findings.families:
        if family.chosen and any(run.confusion for run in family.chosen.finished):
            yield make(confusion, family)
    for family in findings.families:
        if has_curves(family):
            yield make(precision_recall, family)
    for family in findings.families:
        if screening.has_curves(family):
            yield make(screening.both, family)


def _wrapped(told: str, width: int = 30) -> str:
    return "\n".join(textwrap.wrap(told, width)[:3])


def comparable(findings: Findings) -> list[Family]:
    """The families with a test accuracy, which is what others have published."""
    tested = [f for f in findings.families if f.chosen and f.chosen.test]
    return [f for f in tested if f.headline.name == ACCURACY.name]


def versus_published(findings: Findings) -> Plot:
    """Test accuracy of each network beside the paper's and the published figures."""
    families = comparable(findings)
    plot = new(
        "beside-published", "results", 1.35 + 0.5 * len(families),
        "Test accuracy of each network here, beside Ashraf et al.'s and other published figures",
        "Mean ± standard deviation over seeds. Hollow marks are figures published by others, trained from scratch on "
        "the same set.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    for row, family in enumerate(reversed(families)):
        assert family.chosen and family.chosen.test
        ours = family.chosen.test
        axes.errorbar(
            [ours.scale * ours.mean], [row], xerr=[ours.scale * (ours.std or 0)], fmt="o", color=SERIES[0], capsize=3,
            markersize=7, label="here" if row == 0 else None, zorder=5,
        )  # fmt: skip
        hover(plot, axes, ours.scale * ours.mean, row, spread_tip(place(family), ours))
        others = [(family.paper, "D", SERIES[1], "Ashraf et al.")] if family.paper else []
        if family.published:
            others.append(
                (max(f["accuracy"] for f in family.published) / 100, "s", SERIES[2], "same network, published")
            )
        best = [f["accuracy"] for f in findings.published["figures"] if f["data"] == family.dataset_id]
        if best:
            others.append((max(best) / 100, "^", SERIES[3], "best from scratch in our list"))
        for (accuracy, marker, colour, label), shift in zip(others, (0.17, -0.17, 0), strict=False):
            axes.plot(
                [100 * accuracy], [row + shift], marker=marker, linestyle="none", markerfacecolor="none",
                color=colour, markersize=7, gid=plot.tip(f"{label}: {100 * accuracy:.2f} %"), label=label,
            )  # fmt: skip
    axes.set_yticks(range(len(families)), [_wrapped(place(f), 22) for f in reversed(families)])
    axes.set(xlabel="test accuracy (%)", ylim=(-0.6, len(families) - 0.4))
    axes.grid(axis="y", visible=False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    plot.figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2, handletextpad=0.4)
    return plot


def ranking(family: Family) -> Plot:
    """The settings of a family by validation accuracy."""
    members = [s for s in family.settings if s.validation][:MOST_ROWS]
    hidden = sum(s.validation is not None for s in family.settings) - len(members)
    rows = [_wrapped(s.described, 34) for s in members]
    lines = sum(row.count("\n") + 1 for row in rows)
    plot = new(
       plot_name("ranking", place(family)), "settings", 0.9 + 0.17 * lines + 0.09 * len(rows),
        f"Validation {family.headline.label} of the settings of {place(family)}, the best first",
        "Small dots: single seeds. Bars: mean ± standard deviation. Star: chosen."
        + (f" The table also has {labels.count(hidden, 'lower setting')}." if hidden else ""),
    )  # fmt: skip
    axes = plot.figure.subplots()
    for row, setting in enumerate(members):
        of = setting.validation
        assert of
        colour = SERIES[0] if setting is family.chosen else MUTED
        axes.plot([of.scale * v for v in of.values], [row] * of.n, ".", color=colour, alpha=0.45, markersize=4)
        axes.errorbar(
            [of.scale * of.mean], [row], xerr=[of.scale * (of.std or 0)],
            fmt="none" if setting is family.chosen else "o", color=colour, capsize=2.5,
        )  # fmt: skip
        hover(plot, axes, of.scale * of.mean, row, spread_tip(setting.all_keys or setting.label, of))
        if setting is family.chosen:
            axes.plot([of.scale * of.mean], [row], color=SERIES[0], **STAR)
    axes.set_yticks(range(len(members)), rows)
    axes.set(xlabel=family.axis("validation"), title=place(family), ylim=(len(members) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    return plot


def confusion(family: Family) -> Plot:
    """The confusion matrix of the chosen setting over all its seeds."""
    assert family.chosen
    seeds = confusions(family.chosen)
    whole = Confusion.mean(seeds)
    matrix, width = whole.pooled()
    names = [words(name, 40) for name in class_names(family.chosen)]
    few = whole.classes <= 20
    told = of_setting(family.chosen)
    matched = f" Found objects {how(told)}; background: missed objects and false finds." if told else ""
    noun = "objects and false finds" if told else "predictions"
    plot = new(
       plot_name("confusion", place(family)), "confusion", 4.6 if few else 4.9,
        f"Confusion matrix of {place(family)} on the test split",
        f"Rows: true class; columns: predicted{f', {width} classes in each' * (width > 1)}. "
        f"{labels.count(len(seeds), 'seed')}, {len(seeds) * whole.counts.sum():,.0f} {noun}.{matched} The depth of "
        "colour is the square root of the row's share, so that rare confusions can be seen; numbers are per cent of "
        "the row.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    if few:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        for row, column in np.ndindex(matrix.shape):
            if round(100 * shares[row, column]):
                alpha = float(np.sqrt(shares[row, column])) * 0.95
                cell(axes, column, row, alpha)
                colour = SURFACE if alpha > DARK else INK
                axes.text(
                    column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", color=colour,
                    fontsize=FONT - 1.5,
                )  # fmt: skip
    else:  # as pixels of one colour with varying opacity, so that the background shows through
        base = [int(SERIES[0][i : i + 2], 16) / 255 for i in (1, 3, 5)]
        pixels = np.empty((*shares.shape, 4))
        pixels[..., :3], pixels[..., 3] = base, np.sqrt(shares)
        axes.imshow(pixels, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true class", title=place(family))
    axes.grid(visible=False)
    axes.spines[:].set_color(GRID)
    axes.tick_params(length=0)
    return plot
