"""Engines run the workers of a sweep: in this process, in processes of this machine, by Slurm, or started elsewhere.

An engine is a module with `run(job)`, which returns when all possible work is done. Workers take their trials from the
queue, so engines do not handle trials, and each engine can continue the work of another.
"""

import dataclasses
import pathlib
import sys

import optuna

from jaxcnn.study.folder import Definition
from jaxcnn.study.table import Display
from jaxcnn.study.together import Settings
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupts


@dataclasses.dataclass
class Job:
    """A sweep that is ready for workers.

    Attributes:
      folder: folder of the sweep.
      definition: definition of the study.
      storage, url: its storage.
      command: command line that started it, for the record.
      until: time.time() after which no trial starts; None: no limit.
      workers: number of workers; 0: chosen by the engine.
      options: options of the engine, by name.
      display: shows the progress.
      shared: data already loaded in this process.
      interrupts: what may stop the sweep, as in `train`.
      population: how trials are trained together, by the inline engine; None: each alone.
    """

    folder: pathlib.Path
    definition: Definition
    storage: optuna.storages.BaseStorage
    url: str
    command: list[str]
    until: float | None
    workers: int
    options: dict[str, str]
    display: Display
    shared: Shared
    interrupts: Interrupts
    population: Settings | None = None


def worker_command(folder: pathlib.Path, timeout: float | None = None) -> list[str]:
    """The command of a worker; its storage is passed in the environment, which process lists do not show."""
    command = [sys.executable, "-m", "jaxcnn.sweep", "--worker", f"--workdir={folder}"]
    return command if timeout is None else [*command, f"--timeout={max(0.0, timeout):.0f}"]


STORAGE_VARIABLE = "JAXCNN_STORAGE"
