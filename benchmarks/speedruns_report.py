"""The figures of `benchmarks.speedruns`, and the section of the Markdown file."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.torch_log import Run


def lengths(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of trials, by their length in epochs: lists with a value for each trial."""
    found = []
    for epochs in sorted({round(each["epochs"], 3) for each in summaries}):
        of_length = [each for each in summaries if round(each["epochs"], 3) == epochs]
        resets = [each["reset_seconds"] or 0.0 for each in of_length]
        clock = [reset + each["train_seconds"] for reset, each in zip(resets, of_length, strict=True)]
        found.append(
            {
                "peer": "jaxcnn",
                "epochs": epochs,
                "seeds": [each["seed"] for each in of_length],
                "tta_accuracy": [each["test"].get("tta_top1_accuracy") for each in of_length],
                "accuracy": [each["test"]["top1_accuracy"] for each in of_length],
                "seconds": clock,
                "reset_seconds": resets,
                "seconds_with_tests": [a + each["test_seconds"] for a, each in zip(clock, of_length, strict=True)],
                "wall_seconds": [each["wall_seconds"] for each in of_length],
            }
        )
    return found


def of_torch(runs: Sequence[Run], script: str) -> dict[str, Any]:
    """The figures of the script's runs, in the same form."""
    return {
        "peer": script,
        "epochs": max((run.epochs for run in runs), default=0),
        "tta_accuracy": [run.tta_accuracy for run in runs],
        "accuracy": [run.accuracy for run in runs],
        "seconds": [run.train_seconds for run in runs],
        "seconds_with_tests": [run.seconds for run in runs],
    }


def table(record: dict[str, Any]) -> str:
    """A Markdown table with a row for each peer and length."""
    rows = []
    for its in record["peers_figures"]:
        accuracies = [_percent(its["tta_accuracy"]), _percent(its["accuracy"])]
        seconds = [_seconds(its["seconds"]), _seconds(its["seconds_with_tests"])]
        rows.append([f"{its['peer']}, {its['epochs']:g} epochs", f"{len(its['seconds'])}", *accuracies, *seconds])
    heads = ["", "n", "with test-time augmentation, %", "without, %", "seconds", "seconds with tests"]
    return report.table(heads, rows)


def _percent(values: list[float | None]) -> str:
    """The mean, standard deviation over runs, lowest and highest value, in per cent."""
    if not values or None in values:
        return "-"
    known = [100 * value for value in values if value is not None]
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.2f}{spread} ({min(known):.2f} to {max(known):.2f})"


def _seconds(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file."""
    text = (
        "Accuracies are means over runs ± the standard deviation of one run (lowest to highest), seconds medians "
        "(lowest to highest) of all runs. *Seconds* are those of the reset, whitening, the set-up of augmentation and "
        "training (a script of PyTorch: without its reset), not of compilation; *with tests* adds the evaluation with "
        "test-time augmentation, and of jaxcnn that without. The peers took turns."
    )
    how = [f"{number}. {each['peer']}: {each['how']}" for number, each in enumerate(record["turns"], start=1)]
    return "\n\n".join(["## Speedruns", report.describe(record), text, table(record), "\n".join(how)])
