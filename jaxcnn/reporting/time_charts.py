"""Pictures about time: training curves, time to accuracy, the Pareto front, and speed over devices."""

from typing import Any

import numpy as np

from jaxcnn.reporting.findings import Family, Findings, training_loss_curve, validation_curve
from jaxcnn.reporting.plots import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Plot,
    hover,
    logarithmic,
    new,
    place,
    plot_name,
    spread_tip,
    words,
)
from jaxcnn.reporting.scaling import Scaling
from jaxcnn.reporting.settings import test_accuracy


def curves(family: Family) -> Plot:
    """Loss and accuracy over epochs: the chosen setting in front of the others; only loss if none is chosen."""
    validated = any(validation_curve(run) for s in family.settings for run in s.runs)
    accuracies = validated or family.chosen is not None
    plot = new(
       plot_name("curves", place(family)), "curves", 4.6 if accuracies else 2.8,
        f"Training loss {'and validation accuracy ' * accuracies}of {place(family)} over epochs",
        "Each line is a run; in colour the seeds of the chosen setting, in grey all others. Dashed: not finished.",
    )  # fmt: skip
    loss_axes, *others = plot.figure.subplots(1 + accuracies, 1, sharex=True, squeeze=False)[:, 0]
    ordered = [s for s in family.settings if s is not family.chosen] + [s for s in [family.chosen] if s]
    top = 0.0
    for setting in ordered:
        chosen = setting is family.chosen
        seeds = list(dict.fromkeys(run.sample for run in setting.runs))
        named: set[int | None] = {None}
        for run in setting.runs:
            i = seeds.index(run.sample)
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
            if points := validation_curve(run):
                points = points[: -1 : max(1, len(points) // (200 if chosen else 50))] + points[-1:]
                marker = "." if len(points) <= 12 else None
                reached = [epoch for epoch, _, _ in points], [100 * of for _, _, of in points]
                others[0].plot(*reached, marker=marker, gid=plot.tip(told), **drawn)
            elif chosen and (tested := test_accuracy(run)) is not None:
                others[0].axhline(100 * tested, linestyle=":", color=SERIES[i % len(SERIES)])
    drawn_losses = [y for line in loss_axes.lines for y in np.asarray(line.get_ydata(), float) if np.isfinite(y)]
    if drawn_losses:
        high, low = min(max(drawn_losses), 1.5 * top), min(drawn_losses)
        loss_axes.set_ylim(0 if low < 0.5 * high else low - 0.1 * (high - low), high + 0.05 * (high - low))
    loss_axes.set(title=place(family), ylabel="training loss (nats)")
    for accuracy_axes in others:
        accuracy_axes.set(ylabel=f"{'validation' if validated else 'test'} accuracy (%)")
    plot.figure.axes[-1].set(xlabel="epoch", xlim=(0, None))
    if loss_axes.get_legend_handles_labels()[1]:
        plot.figure.legend(loc="outside lower left", ncols=4)
    return plot


def time_to_accuracy(findings: Findings, dataset: str) -> Plot:
    """Validation accuracy over training seconds, for the chosen setting of each network."""
    rows = [row for row in findings.times_to_accuracy if row["data"] == dataset]
    shown = list({id(row["setting"]): row["setting"] for row in rows}.values())
    machines = {name for s in shown for name in s.machines}
    several = f"Measured on {len(machines)} different machines: compare times within one only."
    plot = new(
       plot_name("time-to-accuracy", dataset), "times", 3.3 + 0.2 * len(shown),
        f"Validation accuracy on {dataset} over seconds of training",
        "The chosen setting of each network, a line for each run; dotted: the targets of the table. "
        + several * (len(machines) > 1),
    )  # fmt: skip
    axes = plot.figure.subplots()
    for i, setting in enumerate(shown):
        for number, run in enumerate(setting.finished):
            points = [(seconds, 100 * accuracy) for _, seconds, accuracy in validation_curve(run)]
            axes.plot(
                *zip(*points, strict=True), color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)],
                markersize=2.5, linewidth=1.2, alpha=0.85, label=words(setting.title) if number == 0 else None,
                gid=plot.tip(f"{setting.title}, seed {run.seed}, {'; '.join(setting.machines)}"),
            )  # fmt: skip
    for target in {row["target"] for row in rows}:
        axes.axhline(100 * target, color=MUTED, linestyle=":", linewidth=1)
    axes.set(title=words(dataset), xlabel="training (s)", ylabel="validation accuracy (%)", xlim=(0, None))
    if axes.get_legend_handles_labels()[1]:
        plot.figure.legend(loc="outside lower left")
    return plot


def pareto(front: dict[str, Any], i: int, findings: Findings) -> Plot:
    """Validation accuracy against training time, and the front."""
    several = sum(other["data"] == front["data"] for other in findings.fronts) > 1
    plot = new(
       plot_name("pareto", front["data"], str(i + 1)), "times", 3.5,
        f"Validation accuracy against training time on {front['data']}; the front has {len(front['front'])} settings",
        "Each mark is the mean of a setting; on the line are those that no other setting beats in both. On "
        f"{front['machine']}"
        + (" alone; other machines have separate pictures." if several else "."),
    )  # fmt: skip
    axes = plot.figure.subplots()
    networks = list(dict.fromkeys(s.architecture for s in front["settings"]))
    for setting in front["settings"]:
        which = networks.index(setting.architecture) % len(SERIES)
        on_front = setting in front["front"]
        axes.plot(
            [setting.train_seconds.mean], [100 * setting.validation.mean], MARKERS[which], color=SERIES[which],
            markersize=6.5 if on_front else 4.5, alpha=1.0 if on_front else 0.45, linestyle="none", zorder=4,
            gid=plot.tip(f"{spread_tip(setting.title, setting.validation)}, {setting.train_seconds.mean:.1f} s"),
        )  # fmt: skip
    steps = [(s.train_seconds.mean, 100 * s.validation.mean) for s in front["front"]]
    axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", color=INK, linewidth=1, zorder=2)
    if len(networks) > 1:
        for which, network in enumerate(networks):
            colour, marker = SERIES[which % len(SERIES)], MARKERS[which % len(MARKERS)]
            axes.plot([], [], marker, color=colour, label=words(network), linestyle="none")
        plot.figure.legend(loc="outside lower left", ncols=2)
    times = [s.train_seconds.mean for s in front["settings"]]
    if max(times) > 8 * max(min(times), 1e-9):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    axes.set(title=words(front["data"]), xlabel="training (s)", ylabel="validation accuracy (%)")
    return plot


def speed_up(scaling: Scaling, i: int, findings: Findings) -> Plot:
    """Speed-up over devices, with the ideal."""
    curves = list(scaling.curves.items())[: len(SERIES)]
    plot = new(
        f"speed-up-{i + 1}", "scaling", 3.3 + 0.2 * ((len(curves) + 2) // 2),
        f"Speed-up over devices of {scaling.name}",
        "Dashed: ideal speed-up, equal to the number of devices."
        + (" Some devices share the cores of one processor: see the table." if scaling.shares_cores else ""),
    )  # fmt: skip
    axes = plot.figure.subplots()
    devices = sorted({row["devices"] for _, rows in curves for row in rows})
    axes.plot(devices, [d / devices[0] for d in devices], "--", color=MUTED, linewidth=1, label="ideal")
    for number, (label, rows) in enumerate(curves):
        colour, marker = SERIES[number], MARKERS[number]
        axes.plot(
            [r["devices"] for r in rows], [r["speedup"] for r in rows], marker=marker, color=colour, label=words(label)
        )
        for r in rows:
            told = f"{label}, {r['devices']} devices: {r['speedup']:.2f} times, {r['images_per_second']:,.0f} images/s"
            hover(plot, axes, r["devices"], r["speedup"], told)
    paper = findings.published["seed_paper"]
    if devices[0] == 1 and devices[-1] >= paper["speedup_devices"]:
        axes.plot(
            [paper["speedup_devices"]], [paper["speedup"]], "D", markerfacecolor="none", color=INK, markersize=7,
            linestyle="none", label=f"Ashraf et al., {paper['speedup_devices']} {paper['speedup_unit']}",
        )  # fmt: skip
    axes.set_xticks(devices)
    axes.set(title=words(scaling.name), xlabel="devices", ylabel="speed-up")
    axes.set_ylim(bottom=0)
    plot.figure.legend(loc="outside lower left", ncols=2)
    return plot
