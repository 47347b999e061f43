"""Pictures of the effect of a config key: accuracy and time against its values, and over two keys at once."""

from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Effect, Family
from jaxcnn.reporting.plots import (
    DARK,
    FONT,
    INK,
    MARKERS,
    SERIES,
    STAR,
    SURFACE,
    Plot,
    cell,
    hollow,
    hover,
    logarithmic,
    new,
    place,
    plot_name,
    spread_tip,
    words,
)
from jaxcnn.reporting.settings import Setting

MOST_LINES = len(SERIES)
MARKS = "Star: the setting chosen on validation; hollow stars: the best setting of each line on validation. "
LOGARITHMIC = ("optim.learning_rate", "optim.weight_decay", "optim.epsilon")


def key_effect(effect: Effect) -> Plot:
    """Accuracy and training time against one key, with a line for each choice of the others."""
    family, key = effect.family, effect.key
    word = labels.key(key)
    lines = effect.lines[:MOST_LINES]
    legend = len(effect.lines) > 1
    held_out = any(s.validation for _, line in lines for s in line)
    split = "validation" if held_out else "test"
    plot = new(
       plot_name("effect", word, place(family)), "effects", 4.1 + 0.2 * ((len(lines) + 1) // 2) * legend,
        f"{split} {family.headline.label} and training time of {place(family)} against {word}",
        f"Mean ± standard deviation over seeds, only the {word} changes along a line. "
        + (MARKS if held_out else "Nothing was held out, so nothing is marked. ")
        + (f"{len(effect.lines) - len(lines)} more lines are in the table." if len(effect.lines) > len(lines) else ""),
    )  # fmt: skip
    accuracy_axes, time_axes = plot.figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    values = sorted({s.varied[key] for _, line in lines for s in line})
    for i, (name, line) in enumerate(lines):
        colour, marker = SERIES[i], MARKERS[i]
        shown = [(s, of) for s in line if (of := s.validation if held_out else s.test)]
        axes_style: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 2.5, "label": words(name) or None}
        accuracy_axes.errorbar(
            [s.varied[key] for s, _ in shown], [of.scale * of.mean for _, of in shown],
            yerr=[of.scale * (of.std or 0) for _, of in shown], **axes_style,
        )  # fmt: skip
        timed = [(s, s.train_seconds) for s in line if s.train_seconds]
        time_axes.errorbar(
            [s.varied[key] for s, _ in timed], [of.mean for _, of in timed],
            yerr=[of.std or 0 for _, of in timed], **axes_style,
        )  # fmt: skip
        best = max(line, key=lambda s: s.validation.mean if s.validation else -1.0)
        for setting, of in shown:
            told = spread_tip(f"{setting.all_keys or setting.label}, {split}", of)
            hover(plot, accuracy_axes, setting.varied[key], of.scale * of.mean, told)
            if held_out and setting is family.chosen:
                accuracy_axes.plot([setting.varied[key]], [of.scale * of.mean], color=colour, **STAR)
            elif held_out and setting is best:
                accuracy_axes.plot([setting.varied[key]], [of.scale * of.mean], **STAR | hollow(colour))
    if _is_logarithmic(key, values):
        time_axes.set_xscale("log")
        logarithmic(time_axes.xaxis)
    elif len(values) > 2 and min(values) > 0 and max(values) >= 4 * min(values):
        time_axes.set_xscale("log", base=2)
        logarithmic(time_axes.xaxis, 2)
    if len(values) <= 8:
        time_axes.set_xticks(values, [labels.value(v) for v in values])
        time_axes.minorticks_off()
    for axes in (accuracy_axes, time_axes):
        axes.margins(y=0.12)
    accuracy_axes.set(title=place(family), ylabel=family.axis(split))
    time_axes.set(xlabel=words(word), ylabel="training (s)")
    time_axes.set_ylim(0, 1.06 * time_axes.get_ylim()[1])
    if legend:
        plot.figure.legend(
            *accuracy_axes.get_legend_handles_labels(), loc="outside lower left", ncols=1 if _long(lines) else 2
        )
    return plot


def _is_logarithmic(key: str, values: list[Any]) -> bool:
    return key in LOGARITHMIC and min(values) > 0


def key_scatter(family: Family, key: str, settings: list[Setting]) -> Plot:
    """Validation accuracy against one key for settings that differ in others too, such as randomly drawn ones."""
    word = labels.key(key)
    plot = new(
        plot_name("scatter", word, place(family)), "effects", 3.2,
        f"validation {family.headline.label} of {place(family)} against {word}, a mark for each setting",
        "A mark is a setting, its bar the standard deviation over seeds, if several. Other keys change from mark to "
        "mark too, so the picture shows at most a tendency. Star: the best of these settings on validation.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    best = max(settings, key=lambda s: s.validation.mean if s.validation else -1.0)
    for setting in settings:
        of = setting.validation
        assert of
        x, y = setting.varied[key], of.scale * of.mean
        axes.errorbar([x], [y], yerr=[of.scale * (of.std or 0)], fmt="o", color=SERIES[0], capsize=2.5)
        hover(plot, axes, x, y, spread_tip(setting.all_keys or setting.label, of))
        if setting is best:
            axes.plot([x], [y], color=SERIES[0], **STAR)
    if _is_logarithmic(key, [s.varied[key] for s in settings]):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    axes.set(title=place(family), xlabel=words(word), ylabel=family.axis("validation"))
    axes.margins(y=0.12)
    return plot


def _long(lines: list[tuple[str, list[Setting]]]) -> bool:
    return max(len(name) for name, _ in lines) > 26


def grid_keys(family: Family) -> tuple[str, str] | None:
    """Two keys whose values form a grid that is mostly filled by settings which differ only in these two."""
    measured = [s for s in family.settings if s.validation and not s.evolved]
    keys = {key for s in measured for key in s.varied}
    if keys != {"global_batch_size", "optim.learning_rate"}:
        return None
    across, down = "optim.learning_rate", "global_batch_size"
    cells = {(s.varied.get(across), s.varied.get(down)) for s in measured}
    columns, rows = {c for c, _ in cells}, {r for _, r in cells}
    filled = len(cells) >= 0.5 * len(columns) * len(rows)
    return (across, down) if len(columns) > 1 and len(rows) > 1 and filled else None


def heat(family: Family, across: str, down: str) -> Plot:
    """Validation accuracy over two keys."""
    measured = [s for s in family.settings if s.validation and not s.evolved]
    columns, rows = (sorted({s.varied[key] for s in measured}) for key in (across, down))
    plot = new(
       plot_name("grid", place(family)), "effects", 1.1 + 0.42 * len(rows),
        f"Validation {family.headline.label} of {place(family)} over {labels.key(down)} and {labels.key(across)}",
        f"Mean {family.axis('validation')}, below it the standard deviation over seeds, if several. Framed: chosen.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    means = [s.validation.mean for s in measured if s.validation]
    low, high = min(means), max(means)
    for setting in measured:
        of = setting.validation
        assert of
        x, y = columns.index(setting.varied[across]), rows.index(setting.varied[down])
        share = (of.mean - low) / (high - low) if high > low else 1.0
        alpha = 0.08 + 0.87 * share**2
        cell(axes, x, y, alpha, gap=0.02)
        told = labels.percent_spread(of).replace(" ± ", "\n± ")
        colour = SURFACE if alpha > DARK else INK
        axes.text(
            x, y, told, ha="center", va="center", color=colour, fontsize=FONT - 1, linespacing=1.05,
            gid=plot.tip(spread_tip(setting.all_keys or setting.label, of)),
        )  # fmt: skip
        if setting is family.chosen:
            axes.plot(
                [x - 0.46, x + 0.46, x + 0.46, x - 0.46, x - 0.46], [y - 0.46, y - 0.46, y + 0.46, y + 0.46, y - 0.46],
                color=SERIES[1], linewidth=2.2,
            )  # fmt: skip
    axes.set_xticks(range(len(columns)), [labels.value(v) for v in columns])
    axes.set_yticks(range(len(rows)), [labels.value(v) for v in rows])
    axes.set(
        xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel=labels.key(across),
        ylabel=labels.key(down), title=place(family),
    )  # fmt: skip
    axes.grid(visible=False)
    return plot
