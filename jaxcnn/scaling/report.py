"""The Markdown of scaling reports, and writing their files."""

import datetime
import json
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from jaxcnn.scaling.published import FIGURES
from jaxcnn.text import counted, save_picture

MIB = 2**20


def provenance(command: Sequence[str], environment: dict[str, Any]) -> dict[str, Any]:
    """The command, the time and the environment of a report."""
    return {
        "command": shlex.join(["python", "-m", "jaxcnn.scaling", *command]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "environment": environment,
    }


def write(
    folder: pathlib.Path, stem: str, record: dict[str, Any], markdown: str, draw: Callable[[dict[str, Any]], Any]
) -> list[pathlib.Path]:
    """Write `<stem>.json`, `.md` and, if `draw(record)` returns a picture, `.png`; return their paths."""
    paths = [folder / f"{stem}{suffix}" for suffix in (".json", ".md")]
    paths[0].write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(markdown, encoding="utf-8", errors="backslashreplace")
    if (figure := draw(record)) is not None:
        paths.append(folder / f"{stem}.png")
        save_picture(figure, paths[-1])
    return paths


def measured(record: dict[str, Any], picture: str) -> str:
    """The report of measured scaling."""
    parts = [
        "# Measured scaling",
        _described(record),
        "*Strong* scaling keeps the global batch, *weak* scaling the batch of each device. Efficiency is the speed-up "
        "over the number of devices, against the smallest number in the same table. " + METHOD,
    ]
    rows = record["rows"]
    if any(row["shares_cores"] for row in rows):
        parts.append(_about_shared_cores(record))
    for model, mode, over in dict.fromkeys((row["model"], row["mode"], row["over"]) for row in rows):
        series = [row for row in rows if (row["model"], row["mode"], row["over"]) == (model, mode, over)]
        unit = "devices of one process" if over == "devices" else "processes with one device each"
        parts += [f"## {model}, {mode} scaling over {unit}", measured_table(series)]
    parts += [f"![Speed-up and time of a step]({picture})", "## Published figures", published_table(), _CAVEAT]
    return "\n\n".join(parts) + "\n"


METHOD = (
    "*Communication* is the time that the collectives of the compiled step take by themselves, one after the other; "
    "*input* is the time of order and gather alone (resident loader), or what the loop loses against one that is fed "
    "the same batch again (stream loader); *computing* is the rest of the step, in which waiting for slower devices "
    "is included. Where communication overlaps with computing, the split gives too much to the former."
)
_CAVEAT = (
    "They are of other networks, images and batch sizes, so they say what is usual on GPUs, not what these networks "
    "should reach."
)


def measured_table(series: Sequence[dict[str, Any]]) -> str:
    """A table of the rows of one curve."""
    header = ["devices", "batch", "images/s", "lowest to highest", "speed-up", "efficiency", "ms/step", "computing"]
    header += ["communication", "input", "MiB reduced per step", "shares cores"]
    body = []
    for row in series:
        low, high = row["images_per_second_range"]
        body.append(
            [
                f"{row['devices']}",
                f"{row['global_batch_size']}",
                f"{row['images_per_second']:,.1f}",
                f"{low:,.1f} to {high:,.1f}",
                f"{row['speedup']:.2f}",
                f"{row['efficiency']:.0%}",
                *(f"{1000 * row[f'{name}_seconds']:,.1f}" for name in ("step", "compute", "communication", "input")),
                f"{sum(each['bytes'] for each in row['collectives']) / MIB:,.2f}",
                "yes" if row["shares_cores"] else "no",
            ]
        )
    return _table(header, body)


def _about_shared_cores(record: dict[str, Any]) -> str:
    cores = len(record["machine"]["cores"])
    return (
        f"**The devices here share {cores} CPU core{'s' if cores > 1 else ''}.** One virtual device already uses all "
        "of them, so more virtual devices of one process cannot be faster: their ideal speed-up is 1, and what is "
        "lost against it is the price of cutting the step into parts. Processes have one core each as long as there "
        f"are enough, so up to {cores} of them {'are' if cores > 1 else 'is'} real scaling, over TCP on one machine; "
        "beyond that they share cores too. Rows that share say so in the last column. No figure of such a row says "
        "anything about accelerators."
    )


def simulated(record: dict[str, Any], picture: str) -> str:
    """The report of a simulated machine."""
    machine, networks = record["machine"], record["networks"]
    parts = [
        f"# Simulated: {machine['name']}",
        _described(record),
        "**Nothing here ran.** The real training step was compiled for this machine "
        + (f"({machine['remark']})." if machine["remark"] else "by its own compiler.")
        + " Collectives, memory and FLOPs are read off the compiled program; times and efficiencies come from the "
        "model in `docs/scaling.md`.",
    ]
    parts.append(f"Links: {machine['links']}.")
    parts += ["## What the compiled step holds", program_table(networks)]
    parts.append(
        "Weak scaling: every device has the batch of its row. FLOPs are those of one device, by XLA's count before "
        "optimisation. Memory is the compiler's account of arguments, results and temporaries, without the data set."
    )
    for network in networks:
        parts += [f"### {network['title']}: collectives of one step", collectives_table(network["collectives"])]
    if any(network["prediction"]["curve"] for network in networks):
        parts += ["## Predicted weak scaling", prediction_table(networks), _OVERLAP, f"![Predicted]({picture})"]
        parts += ["## Published figures", published_table(), _CAVEAT]
    else:
        parts.append(
            "No times are predicted, since no peak FLOP/s of this device is known; `--step_seconds` takes the measured "
            "seconds of a step on one."
        )
    return "\n\n".join(parts) + "\n"


_OVERLAP = (
    "The first efficiency takes all communication as waited for; the second hides all-reduces and reduce-scatters of "
    "1 MiB and more behind the backward pass (two thirds of computing), as far as they fit; all-gathers, of "
    "parameters, come before the step or after the update and are waited for. A single fused all-reduce of all "
    "gradients can only begin when the last gradient is there, so it is near the first; buckets come nearer to the "
    "second. BatchNorm's statistics over all devices are waited for in both. The last column is the batch per device "
    "at which nine tenths of the step are computing with nothing hidden, on all devices."
)


def program_table(networks: Sequence[dict[str, Any]]) -> str:
    """A table with one row per network: parameters, FLOPs, bytes, memory."""
    header = ["network", "batch per device", "parameters", "GFLOP per device", "collectives", "MiB moved"]
    header += ["MiB of parameters", "MiB per device", "arguments", "temporaries"]
    body = []
    for network in networks:
        memory = network["memory"] or {}
        flop = network["flops_per_device"]
        body.append(
            [
                network["title"],
                f"{network['batch_per_device']}",
                f"{network['parameters']:,}",
                f"{flop / 1e9:,.1f}" if flop else "-",
                f"{len(network['collectives'])}",
                f"{sum(each['bytes'] for each in network['collectives']) / MIB:,.2f}",
                f"{4 * network['parameters'] / MIB:,.2f}",
                *(f"{memory[key] / MIB:,.0f}" if memory else "-" for key in ("total", "arguments", "temporaries")),
            ]
        )
    return _table(header, body)


def collectives_table(found: Sequence[dict[str, Any]]) -> str:
    """A table of the collectives by kind and group, with large and small ones separate."""
    groups: dict[tuple[str, int, bool], list[int]] = {}
    for each in found:
        groups.setdefault((each["kind"], each["group_size"], each["bytes"] >= MIB), []).append(each["bytes"])
    body = [
        [
            kind,
            "all" if size == 0 else f"{size}",
            "1 MiB and more" if large else "less than 1 MiB",
            f"{len(sizes)}",
            f"{sum(sizes):,}",
            f"{max(sizes):,}",
        ]
        for (kind, size, large), sizes in sorted(groups.items(), key=lambda item: -sum(item[1]))
    ]
    return _table(["kind", "devices in a group", "size", "count", "bytes", "largest"], body)


def prediction_table(networks: Sequence[dict[str, Any]]) -> str:
    """A table with one row per network and number of devices."""
    header = ["network", "devices", "computing, ms", "communication, ms", "left after overlap, ms", "efficiency"]
    header += ["with overlap", "images/s", "batch for 90 %"]
    body = []
    for network in networks:
        prediction = network["prediction"]
        for point in prediction["curve"]:
            last = point is prediction["curve"][-1]
            body.append(
                [
                    network["title"],
                    f"{point['devices']}",
                    f"{1000 * prediction['compute_seconds']:.2f}",
                    f"{1000 * point['communication_seconds']:.2f}",
                    f"{1000 * point['communication_seconds_overlapped']:.2f}",
                    f"{point['efficiency']:.0%}",
                    f"{point['efficiency_overlapped']:.0%}",
                    f"{point['images_per_second']:,.0f}",
                    f"{prediction['batch_for_90_percent']:,}" if last else "",
                ]
            )
    basis = "; ".join(dict.fromkeys(network["prediction"]["compute_basis"] for network in networks))
    return f"Computing: {basis}.\n\n" + _table(header, body)


def simulated_lines(record: dict[str, Any]) -> list[str]:
    """The figures of a simulated machine for the terminal: a few short lines for each network."""
    lines = []
    for network in record["networks"]:
        memory, prediction = network["memory"] or {}, network["prediction"]
        moved = sum(each["bytes"] for each in network["collectives"]) / MIB
        lines.append(f"{network['title']}: batch {network['batch_per_device']:,} per device")
        lines.append(
            f"  {network['parameters']:,} parameters, {counted(len(network['collectives']), 'collective')} of "
            f"{moved:,.1f} MiB a step" + (f", {memory['total'] / MIB:,.0f} MiB of memory per device" if memory else "")
        )
        if prediction["curve"]:
            lines.append("  devices  efficiency  with overlap       images/s")
        else:
            lines.append("  no times are predicted: no peak FLOP/s of this device is known; see --step_seconds")
        lines += [
            f"  {point['devices']:7,}  {point['efficiency']:10.0%}  {point['efficiency_overlapped']:12.0%}  "
            f"{point['images_per_second']:13,.0f}"
            for point in prediction["curve"]
        ]
    return [*lines, "Predicted by the model in docs/scaling.md; nothing of this ran."]


def published_table() -> str:
    """The table of `published.FIGURES`."""
    body = [
        [each.what, f"{each.base} to {each.devices}", f"{each.speedup:.2f}", f"{each.efficiency:.1%}", each.source]
        for each in FIGURES
    ]
    return _table(["what", "devices", "speed-up", "efficiency", "source"], body)


def _described(record: dict[str, Any]) -> str:
    environment = record["environment"]
    packages = environment.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("jaxcnn", "jax", "jaxlib") if packages.get(name))
    return (
        f"{record['date'][:10]}, {environment.get('cores')} cores of {environment.get('processor')}, "
        f"{environment.get('device')}; {versions}, commit {environment.get('commit')}.\n\n    {record['command']}"
    )


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))
