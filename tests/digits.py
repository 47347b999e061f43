"""Short runs on the digits, in this process, for tests of finished runs."""

import dataclasses
import pathlib

from jaxcnn.config import Config
from jaxcnn.train import drive
from jaxcnn.train.loop import train
from jaxcnn.train.steps_per_call import StepsPerCall
from tests import small

STEPS = 40
COMMAND = ["main.py", "--config=configs/quickstart.py"]


def config(**groups) -> Config:
    """40 steps of 64 digits on one device: two epochs, validated at steps 20, 39 and 40, with a moving average."""
    base = small.config(
        global_batch_size=64,
        data={"source": "digits", "val_examples": 200},
        optim={"learning_rate": 0.2, "ema_decay": 0.8},
        schedule={"name": "constant"},
        run={"steps": STEPS, "log_every_steps": 5, "tensorboard": False, "curves": False},
        checkpoint={"keep_every_steps": 20},
        parallel={"devices": 1},
    )
    changes = {
        name: dataclasses.replace(getattr(base, name), **value) if isinstance(value, dict) else value
        for name, value in groups.items()
    }
    return dataclasses.replace(base, **changes)


def run(folder: pathlib.Path, **groups) -> dict:
    """Train `config(**groups)` in a workdir; return the summary."""
    with small.programs_kept():
        return train(config(**groups), folder, command=COMMAND)


class Whole(StepsPerCall):
    """Always allows the longest call, whatever time it takes."""

    def __init__(self, most):
        self.most = self.allowed = most

    def measured(self, steps, seconds):
        pass


def call_lengths(monkeypatch) -> list[int]:
    """A list to which every run from now on appends the number of steps of each call."""
    seen: list[int] = []
    start = drive.Driver._start
    monkeypatch.setattr(drive.Driver, "_start", lambda self, count: seen.append(count) or start(self, count))
    return seen
