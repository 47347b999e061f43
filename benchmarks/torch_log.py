"""The runs in a log of airbench94_muon.py, or of a script that logs in its columns."""

import dataclasses
import pathlib
import re

# | run | epoch | train_acc | val_acc | tta_val_acc | time_seconds |; the run's name stands in its first row only.
_ROW = re.compile(r"^" + r"\|\s*([\w.-]*)\s*" * 6 + r"\|\s*$")


@dataclasses.dataclass(frozen=True)
class Run:
    """A complete run.

    Attributes:
      name: number of the run.
      epochs: epochs of training.
      accuracy, tta_accuracy: on test, in [0, 1], without and with test-time augmentation.
      train_seconds: the script's clock after the last epoch: whitening, set-up of augmentation and training.
      seconds: the script's clock after the evaluation with test-time augmentation.
    """

    name: str
    epochs: int
    accuracy: float
    tta_accuracy: float
    train_seconds: float
    seconds: float


def runs(log: pathlib.Path) -> list[Run]:
    """The complete runs, without the warm-up; none if there is no log."""
    if not log.exists():
        return []
    found: list[Run] = []
    name, trained = "", list[float]()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if not (row := _ROW.match(line)):
            continue
        run, epoch, _, accuracy, tta_accuracy, seconds = row.groups()
        if run == "run":
            continue
        if run:
            name, trained = run, []
        if epoch != "eval":
            trained.append(float(seconds))
        elif trained and name.isdecimal():
            figures = (float(accuracy), float(tta_accuracy), trained[-1], float(seconds))
            found.append(Run(name, len(trained), *figures))
    return found
