"""What runs the workers of a sweep: this process, processes of this machine, Slurm, or anything else that starts them.

An engine is a module with `run(job)`, which returns when all has been done that may be. Workers take their trials from
the desk, so engines know of no trial, and each goes on where another stopped.
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
    """A sweep that is ready to be worked on.

    Attributes:
      folder: of the sweep.
      definition: of the study.
      storage, url: where it is.
      command: what started it, for the record.
      until: time.time() from which on no trial is begun; None: no limit.
      workers: how many; 0: as the engine finds fit.
      options: of the engine, by name.
      display: shows how it goes.
      shared: data that lies ready in this process.
      interrupts: what may stop it, as of `train`.
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
    """What starts a worker; its storage goes by the environment, where it does not show in a list of processes."""
    command = [sys.executable, "-m", "jaxcnn.sweep", "--worker", f"--workdir={folder}"]
    return command if timeout is None else [*command, f"--timeout={max(0.0, timeout):.0f}"]


STORAGE_VARIABLE = "JAXCNN_STORAGE"
