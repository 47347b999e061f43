"""The report of `benchmarks.peers`: a line of text for each case, and the section of the Markdown file."""

from typing import Any

from benchmarks import report
from benchmarks.cases import MODES, SIDE, TITLES

MEBI = 2**20


def line(result: dict[str, Any]) -> str:
    """A line of text for a measured case."""
    parts = [f"{TITLES[peer]} {report.figure(f['images_per_second'])} images/s" for peer, f in result["peers"].items()]
    if "ratios" in result:
        parts.append(f"{result['ratios']['speed']['median']:.2f} x PyTorch ({result['peers']['torch']['variant']})")
    return ", ".join(parts)


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement, speeds and memory."""
    measured = [case for case in record["cases"] if "error" not in case]
    parts = ["## jaxcnn and PyTorch: networks", report.describe(record), _protocol(record)]
    if measured:
        parts += [_speed(measured), _memory(measured), _notes(measured)]
    parts += [f"Failed: {case['error']}" for case in record["cases"] if "error" in case]
    return "\n\n".join(part for part in parts if part)


def _protocol(record: dict[str, Any]) -> str:
    peaks = "; ".join(
        f"{report.figure(m['flops_per_second'] / 1e9)} GFLOP/s on the {m['device']} in {m['dtype']} "
        f"({m['side']} x {m['side']}; the best of both peers, before and after)"
        for m in record["matrix_products"]
    )
    return (
        f"Medians of {record['rounds']} rounds in which the peers take turns of about {record['seconds']:g} s, each a "
        "process of its own that is stopped while it is not its turn. A turn begins with a step that is not counted. "
        "Both gather uint8 images of three channels from memory (32 pixels, or as the row says), "
        "normalise them and compute; training is SGD with Nesterov momentum and weight decay, that of airbench Muon "
        "as in its speedrun. jaxcnn runs the "
        "trainer's own step, which also computes top-1, top-5 and the gradient's norm. PyTorch runs channels_last, in "
        "the fastest of the ways listed below. *Peak* is the share of the machine's matrix-product speed: "
        f"{peaks}. FLOPs are those of convolutions and dense layers, counted from the layers' shapes, "
        "two to a multiply-add."
    )


def _name(case: dict[str, Any]) -> str:
    width = "" if case["width"] == 1 else f" (width {case['width']:g})"
    width += "" if case.get("side", SIDE) == SIDE else f" at {case['side']} pixels"
    return f"{case['model']}{width}, {MODES[case['mode']]}, {case['batch_size']}, {case['device']} {case['dtype']}"


def _speed(cases: list[dict[str, Any]]) -> str:
    peers = list(cases[0]["peers"])
    header = ["network, mode, batch", "GFLOP/image"]
    for peer in peers:
        header += [f"{TITLES[peer]} ms/step", "images/s", "peak"]
    if len(peers) > 1:
        header += ["jaxcnn / PyTorch", "lowest to highest"]
    rows = []
    for case in cases:
        row = [_name(case), report.figure(case["flops_per_image"] / 1e9)]
        for peer in peers:
            figures = case["peers"][peer]
            row.append(report.figure(1e3 * figures["seconds_per_step"]))
            row.append(report.figure(figures["images_per_second"]))
            row.append(f"{100 * figures['fraction_of_matrix_peak']:.0f} %")
        if "ratios" in case:
            speed = case["ratios"]["speed"]
            row += [f"**{speed['median']:.2f}**", f"{speed['lowest']:.2f} to {speed['highest']:.2f}"]
        rows.append(row)
    return report.table(header, rows)


def _memory(cases: list[dict[str, Any]]) -> str:
    peers = list(cases[0]["peers"])
    device = any(case["device"] == "gpu" for case in cases)
    header = ["peak memory, MiB"]
    for peer in peers:
        header += [f"{TITLES[peer]} process", "above import", "while stepping", *(["device"] if device else [])]
    header.insert(2, "first start")
    if len(peers) > 1:
        header += ["process ratio", "above import ratio", "while stepping ratio", *(["device ratio"] if device else [])]
    rows = []
    for case in cases:
        row = [_name(case)]
        for peer in peers:
            memory = case["peers"][peer]["memory"]
            sizes = [memory["peak_bytes"], memory["peak_bytes"] - memory["baseline_bytes"]]
            sizes += [memory["peak_of_steps_bytes"], *([memory["device_peak_bytes"]] if device else [])]
            if peer == "jaxcnn":
                sizes.insert(1, case["peers"][peer]["first_start"]["peak_bytes"])
            row += [report.figure(size and size / MEBI) for size in sizes]
        if "ratios" in case:
            ratios = case["ratios"]["memory"]
            keys = ["peak", "peak_above_import", "peak_of_steps", *(["device_peak"] if device else [])]
            row += [f"{ratios[key]:.2f}" if key in ratios else "-" for key in keys]
        rows.append(row)
    explained = (
        "Resident memory of each peer's process: its peak from start to end; that less what it held after importing "
        "and starting its backend; and its peak over the measured steps alone. jaxcnn's takes its programs from the "
        "cache of compiled ones, as every start of a command does but the first; *first start* is the peak of that, "
        "which compiles them."
    )
    return f"{report.table(header, rows)}\n\n{explained}"


def _notes(cases: list[dict[str, Any]]) -> str:
    lines = []
    for case in cases:
        if torch := case["peers"].get("torch"):
            ways = ", ".join(
                f"{name} {report.figure(1e3 * fared)} ms" if isinstance(fared, float) else f"{name} {fared}"
                for name, fared in torch["variants"].items()
            )
            lines.append(f"- {_name(case)}: {torch['variant']} of {ways}")
    head = (
        "PyTorch's ways, tried before each case (+huge-pages: the C library asks the kernel for huge pages, as it does "
        "under jaxcnn's commands):"
    )
    return head + "\n\n" + "\n".join(lines) if lines else ""
