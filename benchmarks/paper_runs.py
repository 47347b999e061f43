"""The runs of the paper's table that are kept in results/; see `benchmarks.paper`."""

import dataclasses
import pathlib
import shlex
from collections.abc import Iterator
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.reporting import convergence, read

MODELS = {"alexnet": "AlexNet", "vgg16": "VGG16", "resnet50": "ResNet50"}
SETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
PLACES = {"cores": "two CPU cores", "gpu": "one GPU"}
NOT_MEASURED = "not measured"
TEST_IMAGES = 10_000  # of both sets


@dataclasses.dataclass(frozen=True)
class Kept:
    """A kept run.

    Attributes:
      folder: name of the folder in results/.
      place: a key of `PLACES`.
      accuracy: that of the weights that its config chose as the headline, without test-time augmentation; a fraction.
      averaged: accuracy with test-time augmentation; None without.
      hours: wall time in hours, over all starts.
      examples: number of test images.
      training: hours of training, without start-up and evaluation.
      converged: hours of training to convergence (`jaxcnn.reporting.convergence`); None if the records do not tell.
      behind: command, machine, commit and note of the run, as text.
    """

    folder: str
    model: str
    data: str
    place: str
    seed: int
    accuracy: float
    averaged: float | None
    hours: float
    examples: int
    training: float
    converged: float | None
    epochs: float
    behind: str


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file of a run.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        return json_text.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); only a finished run can be kept") from error


def kept_runs(results: pathlib.Path) -> Iterator[Kept]:
    """The kept runs of the table's cells, by their folders."""
    for environment in sorted(results.glob("*/environment.json")):
        folder = environment.parent
        parts = folder.name.split("_")
        if not (len(parts) >= 3 and parts[0] in MODELS and parts[1] in SETS and parts[2] in PLACES):
            continue
        summary, config, of = (read_json(folder / f"{name}.json") for name in ("summary", "config", "environment"))
        headline = summary["headline"]
        averaged = headline.replace("top1", "tta_top1")
        machine = f"{of['devices']} x {of['processor'] if of['device'] == 'cpu' else of['device']}"
        if of["device"] == "cpu":
            machine = f"{of['cores']} cores of an {of['processor']}"
        command_line = shlex.join(["python", "-m", "jaxcnn.main", *of["command"][1:]])
        note = f"; {of['note']}" if of.get("note") else ""
        seconds = convergence.seconds_of_run(read.read_run(folder, results))
        yield Kept(
            folder=folder.name,
            model=parts[0],
            data=parts[1],
            place=parts[2],
            seed=config["seed"],
            accuracy=summary["test"][headline],
            averaged=summary["test"].get(averaged),
            hours=summary["wall_seconds"] / 3600,
            examples=summary["test"].get("examples", TEST_IMAGES),
            training=summary.get("train_seconds", summary["wall_seconds"]) / 3600,
            converged=seconds and seconds / 3600,
            epochs=summary["epochs"],
            behind=f"`{command_line}`, {machine}, jax {of['packages']['jax']}, {summary['dtype']}, commit "
            f"`{of['commit']}`{note}",
        )
