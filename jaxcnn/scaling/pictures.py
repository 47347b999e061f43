"""The pictures of scaling reports."""

import textwrap
from typing import Any

from jaxcnn.scaling.published import FIGURES

PARTS = {"compute_seconds": "computing", "communication_seconds": "communication", "input_seconds": "input"}
COLOURS = {"compute_seconds": "tab:blue", "communication_seconds": "tab:orange", "input_seconds": "tab:green"}
MARKERS = "osD^vP"


def draw_measured(record: dict[str, Any]) -> Any:
    """Speed-up over devices beside the step time, one row of panels per network, as a matplotlib Figure."""
    from matplotlib.figure import Figure

    rows = record["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(13, 4.2 * len(models)), layout="constrained", dpi=120)
    panels = figure.subplots(len(models), 3, squeeze=False)
    for model, (speed, strong, weak) in zip(models, panels, strict=True):
        own = [row for row in rows if row["model"] == model]
        _draw_speedup(speed, own, f"{model}: speed-up")
        for axes, mode in ((strong, "strong"), (weak, "weak")):
            _draw_split(axes, [row for row in own if row["mode"] == mode], f"{model}: {mode} scaling, time of a step")
    return figure


def _draw_speedup(axes: Any, rows: list[dict[str, Any]], title: str) -> None:
    most = max(row["devices"] for row in rows)
    axes.plot([1, most], [1, most], color="tab:gray", linestyle=":", label="ideal, each device its own hardware")
    if any(row["shares_cores"] for row in rows):
        axes.axhline(1, color="tab:gray", linestyle="--", linewidth=1, label="ideal, devices that share cores")
    for number, (mode, over) in enumerate(dict.fromkeys((row["mode"], row["over"]) for row in rows)):
        series = [row for row in rows if (row["mode"], row["over"]) == (mode, over)]
        label = f"{mode}, {'virtual devices' if series[-1]['shares_cores'] and over == 'devices' else over}"
        line = axes.plot([row["devices"] for row in series], [row["speedup"] for row in series], label=label)
        for row in series:  # hollow marker if devices share cores
            axes.plot(
                row["devices"],
                row["speedup"],
                marker=MARKERS[number % len(MARKERS)],
                color=line[0].get_color(),
                markerfacecolor="white" if row["shares_cores"] else line[0].get_color(),
            )
    for each in FIGURES:
        if each.base == 1 and each.devices <= most:
            axes.plot(each.devices, each.speedup, marker="*", color="tab:red", linestyle="", markersize=9)
    axes.plot([], [], marker="*", color="tab:red", linestyle="", label="published, on GPUs (see the table)")
    axes.set(title=title, xlabel="devices (hollow: sharing cores)", ylabel="images/s against the fewest devices")
    _over_devices(axes, sorted({row["devices"] for row in rows}))
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=7, framealpha=0.85, edgecolor="none", loc="upper left")


def _draw_split(axes: Any, rows: list[dict[str, Any]], title: str) -> None:
    names = [f"{row['devices']}\n{row['over']}" for row in rows]
    bottom = [0.0] * len(rows)
    for part, label in PARTS.items():
        heights = [1000 * row[part] for row in rows]
        axes.bar(range(len(rows)), heights, bottom=bottom, color=COLOURS[part], label=label)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_xticks(range(len(rows)), names, fontsize=8)
    axes.set(title=title, ylabel="ms")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc="upper left")


def draw_simulated(record: dict[str, Any]) -> Any:
    """Predicted efficiency over devices, and the step on all devices, as a Figure; None without predictions."""
    from matplotlib.figure import Figure

    networks = [network for network in record["networks"] if network["prediction"]["curve"]]
    if not networks:
        return None
    figure = Figure(figsize=(13, 7), layout="constrained", dpi=110)
    efficiency, split = figure.subplots(1, 2, width_ratios=[1.7, 1])
    counts: set[int] = set()
    for network in networks:
        curve = network["prediction"]["curve"]
        devices = [point["devices"] for point in curve]
        counts |= set(devices)
        low, high = ([100 * point[key] for point in curve] for key in ("efficiency", "efficiency_overlapped"))
        line = efficiency.plot(devices, low, marker=".", label=f"{network['title']}, nothing hidden")
        efficiency.plot(devices, high, linestyle="--", color=line[0].get_color(), label="… with overlap")
    for number, each in enumerate(FIGURES):
        if each.devices <= max(counts, default=0):
            efficiency.plot(
                each.devices,
                100 * each.efficiency,
                marker=MARKERS[number],
                color="tab:red",
                linestyle="",
                markersize=6,
                label=f"published: {each.what}" + (f" (from {each.base})" if each.base > 1 else ""),
            )
    efficiency.set(
        title=f"{record['machine']['name']}: predicted weak scaling", xlabel="devices", ylabel="efficiency (%)"
    )
    efficiency.set_ylim(0, 105)
    _over_devices(efficiency, sorted(counts))
    efficiency.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    ends = [(network["prediction"]["compute_seconds"], network["prediction"]["curve"][-1]) for network in networks]
    places = range(len(networks))
    computing = [1000 * compute for compute, _ in ends]
    split.bar(places, computing, color="tab:blue", label="computing")
    waiting = [1000 * end["communication_seconds"] for _, end in ends]
    split.bar(places, waiting, bottom=computing, color="tab:orange", label="communication, nothing hidden")
    split.set_xticks(places, [textwrap.fill(network["title"], 14) for network in networks], fontsize=8)
    split.set(title=f"a step on {max(counts, default=0)} devices", ylabel="ms")
    split.grid(axis="y", alpha=0.3)
    split.set_ylim(top=1.15 * max(map(sum, zip(computing, waiting, strict=True))))
    split.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def _over_devices(axes: Any, counts: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
