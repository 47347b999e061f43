"""Pictures about time and size: time to accuracy, the Pareto fronts, and speed over devices."""

from collections.abc import Callable
from typing import Any

from jaxcnn.reporting import sizes
from jaxcnn.reporting.findings import Findings, validation_curve
from jaxcnn.reporting.plots import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Plot,
    hover,
    logarithmic,
    new,
    plot_name,
    spread_tip,
    words,
)
from jaxcnn.reporting.quickness import Plane
from jaxcnn.reporting.scaling import Scaling
from jaxcnn.reporting.settings import Setting
from jaxcnn.tasks.headline import Headline


def time_to_accuracy(findings: Findings, dataset: str, headline: Headline, number: int) -> Plot:
    """A headline figure on validation over training seconds, for the chosen setting of each network."""
    ours = (dataset, headline)
    rows = [row for row in findings.times_to_accuracy if (row["data"], row["setting"].headline) == ours]
    shown = list({id(row["setting"]): row["setting"] for row in rows}.values())
    machines = {name for s in shown for name in s.machines}
    several = f"Measured on {len(machines)} different machines: compare times within one only."
    plot = new(
       plot_name("time-to-accuracy", dataset, *_again(number)), "times", 3.3 + 0.2 * len(shown),
        f"Validation {headline.label} on {dataset} over seconds of training",
        "The chosen setting of each network, a line for each run; dotted: the targets of the table. "
        + several * (len(machines) > 1),
    )  # fmt: skip
    axes = plot.figure.subplots()
    for i, setting in enumerate(shown):
        for place, run in enumerate(setting.finished):
            points = [(seconds, 100 * accuracy) for _, seconds, accuracy in validation_curve(run)]
            axes.plot(
                *zip(*points, strict=True), color=SERIES[i % len(SERIES)], marker=MARKERS[i % len(MARKERS)],
                markersize=2.5, linewidth=1.2, alpha=0.85, label=words(setting.title) if place == 0 else None,
                gid=plot.tip(f"{setting.title}, seed {run.seed}, {'; '.join(setting.machines)}"),
            )  # fmt: skip
    for target in {row["target"] for row in rows}:
        axes.axhline(100 * target, color=MUTED, linestyle=":", linewidth=1)
    axes.set(title=words(dataset), xlabel="training (s)", ylabel=_axis(rows[0]["setting"]), xlim=(0, None))
    if axes.get_legend_handles_labels()[1]:
        plot.figure.legend(loc="outside lower left")
    return plot


def _again(number: int) -> list[str]:
    """The last words of the name of a picture: of all but the first of a kind, its number."""
    return [str(number)] if number > 1 else []


def _axis(setting: Setting) -> str:
    return f"validation {setting.headline.label}{' (%)' if setting.headline.percent else ''}"


def pareto(front: dict[str, Any], i: int, findings: Findings) -> Plot:
    """The headline figure on validation against training time, and the front."""
    several = len({other["machine"] for other in findings.fronts if other["data"] == front["data"]}) > 1
    plot = new(
       plot_name("pareto", front["data"], str(i + 1)), "times", 3.5,
        f"Validation {front['settings'][0].headline.label} against training time on {front['data']}; the front has "
        f"{len(front['front'])} settings",
        "Each mark is the mean of a setting; on the line are those that no other setting beats in both. On "
        f"{front['machine']}"
        + (" alone; other machines have separate pictures." if several else "."),
    )  # fmt: skip
    _plane(plot, front, lambda s: s.train_seconds.mean, lambda of: f"{of:.1f} s", "training (s)")
    return plot


def by_size(front: dict[str, Any], number: int) -> Plot:
    """The headline figure on validation against the parameters that are not zero, and the front."""
    plot = new(
        plot_name("sizes", front["data"], *_again(number)), "times", 3.5,
        f"Validation {front['settings'][0].headline.label} against size on {front['data']}; the front has "
        f"{len(front['front'])} settings",
        "Size: the parameters that are not zero. Each mark is the mean of a setting; on the line are those that no "
        "other setting beats in both.",
    )  # fmt: skip
    _plane(plot, front, sizes.live, lambda of: f"{of:,.0f} parameters not 0", "parameters not 0")
    return plot


def by_latency(plane: Plane, number: int) -> Plot:
    """The headline figure on validation over the latency of one image, with areas for bytes; the front is opaque."""
    headline, ours = plane.points[0].headline, sum(point.on_front for point in plane.points)
    plot = new(
        plot_name("latency", plane.data, str(number)), "times", 3.5,
        f"Validation {headline.label} against the latency of one image on {plane.data}; the front has {ours} of "
        f"{len(plane.points)} points",
        f"On {plane.machine}. The area of a mark grows with the bytes. Pale: another one is at least as good in "
        "accuracy, size and latency.",
    )  # fmt: skip
    axes = plot.figure.subplots()
    networks, largest = (
        list(dict.fromkeys(point.architecture for point in plane.points)),
        max(point.size for point in plane.points),
    )
    for point in plane.points:
        which = networks.index(point.architecture) % len(SERIES)
        axes.plot(
            [1000 * point.p50], [point.figure * (100 if headline.percent else 1)], MARKERS[which], color=SERIES[which],
            markersize=4 + 12 * (point.size / largest) ** 0.5, alpha=0.9 if point.on_front else 0.3, linestyle="none",
            markeredgecolor=INK if point.on_front else "none", markeredgewidth=0.8,
            gid=plot.tip(
                f"{point.title}, {point.form}: {headline.shown(point.figure)}, {point.size:,} bytes, "
                f"{1000 * point.p50:.3f} ms"
            ),
        )  # fmt: skip
    for which, network in enumerate(networks):
        colour, marker = SERIES[which % len(SERIES)], MARKERS[which % len(MARKERS)]
        axes.plot([], [], marker, color=colour, label=words(network), linestyle="none")
    plot.figure.legend(loc="outside lower left", ncols=2)
    if plane.points[-1].p50 > 8 * max(plane.points[0].p50, 1e-9):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    axes.margins(0.1)  # for the largest marks
    unit = " (%)" if headline.percent else ""
    axes.set(title=words(plane.data), xlabel="one image (ms)", ylabel=f"validation {headline.label}{unit}")
    return plot


def _plane(
    plot: Plot, front: dict[str, Any], cost: Callable[[Any], Any], told: Callable[[float], str], label: str
) -> None:
    """Draw settings by a cost and their figure on validation, and the line of the front."""
    axes = plot.figure.subplots()
    networks = list(dict.fromkeys(s.architecture for s in front["settings"]))
    for setting in front["settings"]:
        which = networks.index(setting.architecture) % len(SERIES)
        on_front = setting in front["front"]
        axes.plot(
            [cost(setting)], [setting.validation.scale * setting.validation.mean], MARKERS[which],
            color=SERIES[which],
            markersize=6.5 if on_front else 4.5, alpha=1.0 if on_front else 0.45, linestyle="none", zorder=4,
            gid=plot.tip(f"{spread_tip(setting.title, setting.validation)}, {told(cost(setting))}"),
        )  # fmt: skip
    steps = [(cost(s), s.validation.scale * s.validation.mean) for s in front["front"]]
    axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", color=INK, linewidth=1, zorder=2)
    if len(networks) > 1:
        for which, network in enumerate(networks):
            colour, marker = SERIES[which % len(SERIES)], MARKERS[which % len(MARKERS)]
            axes.plot([], [], marker, color=colour, label=words(network), linestyle="none")
        plot.figure.legend(loc="outside lower left", ncols=2)
    known = [cost(s) for s in front["settings"]]
    if max(known) > 8 * max(min(known), 1e-9):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    axes.set(title=words(front["data"]), xlabel=label, ylabel=_axis(front["settings"][0]))


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
