"""The tables in the report of `benchmarks.compression`."""

import dataclasses
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import report
from jaxcnn.train import summary

Run = Mapping[str, Any]  # one network and seed


@dataclasses.dataclass(frozen=True)
class Row:
    """A form of a network.

    Attributes:
      name: name of the form.
      size: size of the file, bytes.
      figure: headline figure of the test split.
      seconds: seconds for one image, by the runtime.
    """

    name: str
    size: float
    figure: float | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


FORMS = ("onnx", "tflite")
KINDS = {"whole": ("none", "float16", "int8"), "slim": ("none", "int8")}
SAME = ("model", "data", "epochs")  # runs with the same are one network, whose seeds differ
JAX = "JAX"
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}  # runtimes of the kinds of files
TIMED = (JAX, *RUNTIMES.values())


def rows(run: Run) -> list[Row]:
    """The forms of the network of one seed."""
    headline = summary.headline_of(run["summary"]).name
    files, seconds = run["measured"]["files"], run["measured"]["seconds"]

    def of_files(name: str, file: str, **more: float) -> Row:
        onnx = files[f"{file}.onnx"]
        times = {RUNTIMES[form]: seconds[f"{file}.{form}"] for form in FORMS}
        return Row(name, onnx["bytes"], onnx["figures"][headline], times | more)

    steps = {name: {row["step"].partition(":")[0]: row for row in told["steps"]} for name, told in run["coded"].items()}
    pruned, tuned = steps["pruned"], steps["tuned"]
    bare = pruned["pruned"]
    coded = [
        Row(f"pruned, int8, {coder}", size, pruned["int8 per channel"]["figures"][headline])
        for coder, size in pruned["int8 per channel"]["coded"].items()
    ]
    shared, trained = "shared values and indices", "Huffman words"
    return [
        of_files("float32", "whole.none", **{JAX: seconds["whole in JAX"]}),
        of_files("float16", "whole.float16"),
        of_files("int8", "whole.int8"),
        Row("pruned: float32 and indices", bare["size"], bare["figures"][headline]),
        *coded,
        Row("pruned, values shared", pruned[shared]["size"], pruned[shared]["figures"][headline]),
        Row("pruned, shared values trained", tuned[shared]["size"], tuned[shared]["figures"][headline]),
        Row(
            "Deep Compression: the same in Huffman words",
            run["coded_bytes"]["tuned"],
            tuned[trained]["figures"][headline],
        ),
        of_files("fewer channels", "slim.none", **{JAX: seconds["slim in JAX"]}),
        of_files("fewer channels, int8", "slim.int8"),
    ]


def markdown(record: Mapping[str, Any]) -> str:
    """The section of the report."""
    networks: dict[tuple[Any, ...], list[Run]] = {}
    for run in record["runs"]:
        networks.setdefault(tuple(run["summary"][of] for of in SAME), []).append(run)
    parts = ["## Compression", report.describe(dict(record))]
    for runs in networks.values():
        parts += _network(", ".join(_bases(runs)), runs)
    parts.append(
        "Bytes are those of a file, of the one of ONNX where there are two (of pruned networks without Huffman words: "
        "of kernels at a fixed length, and all else as float32). The figures are those of the test split without "
        "test-time augmentation, which nothing was chosen by; ± is the standard deviation over seeds of what was "
        "trained on, and over runs of one network and set. Points are differences from float32 of the same run. Times "
        "are the median of one image, of the turn that was disturbed least; zeros make nothing "
        "faster, so pruned networks have none of their own."
    )
    return "\n\n".join(parts)


def _network(name: str, runs: Sequence[Run]) -> list[str]:
    first = runs[0]
    headline = summary.headline_of(first["summary"])
    forms, bases = [rows(run) for run in runs], _bases(runs)
    lines = []
    for same in zip(*forms, strict=True):
        whole, figures = forms[0][0], [row.figure for row in same if row.figure is not None]
        size = statistics.mean(row.size for row in same)
        pairs = zip(same, forms, strict=True)
        changes = [100 * (row.figure - (mine[0].figure or 0.0)) for row, mine in pairs if row.figure is not None]
        lines.append(
            [
                same[0].name,
                f"{size:,.0f}",
                f"{whole.size / size:.1f}",
                _spread(figures, headline.shown),
                _spread(changes, "{:+.2f}".format, len(bases) > 1) if headline.percent else "",
                *(_milliseconds([row.seconds[of] for row in same if of in row.seconds]) for of in TIMED),
            ]
        )
    head = ["", "bytes", "times smaller", headline.label, "points", *(f"ms in {of}" for of in TIMED)]
    costs = {
        of: f"{first['costs']['before'][of]:,} → {first['costs']['after'][of]:,}" for of in ("parameters", "flops")
    }
    of_forms = [
        {form: run["measured"]["files"][f"{name}.{kind}.{form}"] for form in FORMS}
        for run in runs
        for name, kinds in KINDS.items()
        for kind in kinds
    ]
    apart = max(abs(np.subtract(*(each[form]["figures"][headline.name] for form in FORMS))) for each in of_forms)
    data = first["summary"]["data"]
    int8 = re.split("[:;]", first["measured"]["int8"])[0]  # not what to expect of it: the table shows what it brought
    told = (
        f"{first['summary']['model']} of {data}, {first['summary']['epochs']:g} epochs; {_count(runs)} of what was "
        f"trained on. Fewer channels: parameters {costs['parameters']}, "
        f"FLOPs of an image {costs['flops']}. {int8[:1].upper()}{int8[1:]}. "
        f"The figures of files of ONNX and of LiteRT differ by at most {headline.shown(apart)}."
    )
    return [f"### {name}", told, report.table(head, lines)]


def _bases(runs: Sequence[Run]) -> list[str]:
    """The names of the runs from which all began."""
    return list(dict.fromkeys(run["name"] for run in runs))


def _count(runs: Sequence[Run]) -> str:
    """How many runs and seeds there are, in words."""
    bases, seeds = len(_bases(runs)), len({run["seed"] for run in runs})
    words = f"{seeds} seed{'s' if seeds > 1 else ''}"
    return words if bases == 1 else f"{bases} runs, {words}"


def _spread(figures: Sequence[float], shown: Callable[[float], str], wanted: bool = True) -> str:
    if not figures:
        return ""
    mean = shown(statistics.mean(figures))
    if not wanted or len(figures) < 2 or len(set(figures)) == 1:
        return mean
    return f"{mean} ± {shown(statistics.stdev(figures)).lstrip('+')}"


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * min(seconds):.2f}" if seconds else ""
