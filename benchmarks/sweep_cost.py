"""The parts of the time of a finished sweep, read from its folder; for `benchmarks.sweep`."""

import datetime
import pathlib
from typing import Any

from benchmarks import report
from jaxcnn.config import UserError
from jaxcnn.study import folder as files


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The trials, in the order in which they ran.

    Raises:
      UserError: not all are complete, or several processes ran them, or the sweep was interrupted.
    """
    rows = [row for path in (folder / files.TRIALS).glob("*") if (row := files.read_trial(path)) is not None]
    planned = len(files.read_sweep(folder)["planned"] or [])
    if len([row for row in rows if row["state"] == "complete"]) < max(planned, 1):
        raise UserError(f"{folder}: not all of its {planned} planned trials are complete")
    if len({row["worker"] for row in rows}) > 1 or any(row["starts"] > 1 for row in rows):
        raise UserError(f"{folder} is not a sweep that one process ran without a stop")
    return sorted(rows, key=lambda row: row["began"])


def measure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of the parts, and the ratio of the whole time without the one compilation to the time of the steps.

    `preparation_seconds` is the longest time that another trial spent in the phase in which the first trial compiled.
    """
    steps, compiling = sum(row["train_seconds"] for row in rows), rows[0]["compile_seconds"]
    whole = _seconds(rows[0]["began"], rows[-1]["ended"])
    return {
        "trials": len(rows),
        "whole_seconds": whole,
        "step_seconds": steps,
        "eval_seconds": sum(row["eval_seconds"] for row in rows),
        "compile_seconds": compiling,
        "preparation_seconds": max((row["compile_seconds"] for row in rows[1:]), default=0.0),
        "ratio": (whole - compiling) / steps,
    }


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement and the figures."""
    text = (
        f"{record['trials']} trials of `{record['sweep']}`, from the start of the first to the end of the last: "
        f"{record['whole_seconds']:.1f} s. Steps took {record['step_seconds']:.1f} s, evaluation "
        f"{record['eval_seconds']:.1f} s, and the one compilation, of the first trial's programs, "
        f"{record['compile_seconds']:.1f} s; the same phase of the others took at most "
        f"{record['preparation_seconds']:.2f} s. **Without that compilation the sweep took {record['ratio']:.3f} times "
        "its steps.**"
    )
    return "\n\n".join(["## A sweep over the learning rate", report.describe(record), text])


def _seconds(began: str, ended: str) -> float:
    return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(began)).total_seconds()
