"""Short runs on the digits, in this process, for tests of finished runs."""

import dataclasses
import pathlib
from unittest import mock

import jax
import numpy as np
import pytest

from jaxcnn.config import Config
from jaxcnn.train import drive, trained
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.loop import train
from jaxcnn.train.steps_per_call import StepsPerCall
from tests import runs, small

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


def run_up_to(step: int, folder: pathlib.Path, **groups) -> None:
    """Train `config(**groups)` in a workdir and stop after a step; `run` goes on from there, with the same programs."""
    interrupts, start = Interrupts(), drive.Driver._start

    def then_stop(driver: drive.Driver, count: int) -> drive.Call:
        call = start(driver, count)
        if driver._session.step >= step:
            interrupts.received = "a test"
        return call

    stopped = pytest.raises(Interrupted, match=f"stopped with a checkpoint of step {step} of")
    with small.programs_kept(), mock.patch.object(drive.Driver, "_start", then_stop), stopped:
        train(config(**groups), folder, command=COMMAND, interrupts=interrupts)


def weights(folder: pathlib.Path) -> list[np.ndarray]:
    """Every array of the network in the last checkpoint of a run."""
    network, _ = trained.load(folder, "last", "last", 1)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(network.variables)]


def have_same_bits(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two runs have the same losses, and the same bits in all weights of their last checkpoints."""
    pairs = zip(weights(one), weights(other), strict=True)
    return runs.losses(one) == runs.losses(other) and all(np.array_equal(*pair) for pair in pairs)


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
