"""What a finished run has fitted to its validation split, such as thresholds or a temperature, in `fitted.json`."""

import pathlib
from typing import Any

from jaxcnn.train import workdir

FILE = "fitted.json"


def write(folder: pathlib.Path, fitted: dict[str, Any], step: int, weights: str) -> None:
    """Write what was fitted with the weights ("last" or "ema") of a step."""
    workdir.write_sealed(folder / FILE, {"step": step, "weights": weights, "fitted": fitted})


def read(folder: pathlib.Path, step: int, weights: str) -> dict[str, Any]:
    """The fitted values for these weights; empty if nothing was fitted with them.

    Raises:
      UserError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return {}
    kept = workdir.read_sealed(folder / FILE)
    return kept["fitted"] if (kept.get("step"), kept.get("weights")) == (step, weights) else {}
