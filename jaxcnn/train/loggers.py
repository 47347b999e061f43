"""Loggers of experiments: Weights & Biases, MLflow, and those of users.

A logger gets every record that `metrics.jsonl` gets. A logger that fails is dropped until the next start, and the
reason is printed: no run ends because of it. A run that resumes continues the same run of the logger, whose name is in
`loggers.json`. What a start logs again after its checkpoint is what was logged before, to the bit.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from jaxcnn.config import UserError
from jaxcnn.machine import extras, plugins
from jaxcnn.train.workdir import read_json, write_json

FILE = "loggers.json"
PROJECT = "jaxcnn"  # name of the project or experiment, unless the logger's own variable names another


class Logger(Protocol):
    """Takes records; made with the workdir, the flat config and, if known, the logger's own name for the run."""

    @property
    def run(self) -> str:
        """The logger's own name for the run, by which the next start continues it."""
        ...

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Take a record; `kind` is train, val, test or pbt."""
        ...

    def close(self, finished: bool) -> None:
        """End the logger; `finished` says whether the run is over or continues with its next start."""
        ...


class Wandb:
    """A run of Weights & Biases, in the project of $WANDB_PROJECT; with WANDB_MODE=offline, files in the workdir."""

    def __init__(self, folder: pathlib.Path, config: Mapping[str, Any], run: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run,
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )

    @property
    def run(self) -> str:
        """The id of the run in Weights & Biases."""
        return self._run.id

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values as `kind/name`."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)

    def close(self, finished: bool) -> None:
        """Send what has not been sent yet."""
        self._run.finish(exit_code=0)


class MLflow:
    """A run of MLflow at $MLFLOW_TRACKING_URI, in the experiment of $MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, folder: pathlib.Path, config: Mapping[str, Any], run: str | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if run is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(name)
            of = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
            run = self._client.create_run(of, run_name=folder.name).info.run_id
            params = [Param(key, str(value)[:500]) for key, value in config.items()]
            for start in range(0, len(params), 100):  # MLflow's limit for one call
                self._client.log_batch(run, params=params[start : start + 100])
        else:
            self._client.set_terminated(run, "RUNNING")
        self._id = run

    @property
    def run(self) -> str:
        """The id of the run in MLflow."""
        return self._id

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values as `kind/name`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(f"{kind}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, finished: bool) -> None:
        """Mark the run as finished, or as stopped."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


OURS: dict[str, Callable[..., Logger]] = {"wandb": Wandb, "mlflow": MLflow}


class Loggers:
    """The loggers of one start of a run, each in its own thread, so that no step waits for them.

    Raises:
      UserError: a package is not installed, or a name leads to nothing.
    """

    def __init__(self, names: Sequence[str], folder: pathlib.Path, config: Mapping[str, Any]) -> None:
        for name in names:
            if name in OURS:
                extras.need(name, f"config.run.loggers=({name!r},)")
        made = {name: OURS[name] if name in OURS else plugins.load("loggers", name).function for name in names}
        known = _known(folder)
        self._folder = folder
        self._threads = {name: concurrent.futures.ThreadPoolExecutor(1, f"jaxcnn-{name}") for name in made}
        self._loggers = {
            name: self._threads[name].submit(make, folder, config, known.get(name)) for name, make in made.items()
        }
        self._calls: dict[str, list[concurrent.futures.Future[None]]] = {name: [] for name in made}

    def add(self, kind: str, step: int, values: Mapping[str, Any]) -> list[str]:
        """Give a record to all loggers; return a line for each logger that has failed since."""
        numbers = {name: float(value) for name, value in values.items() if type(value) in (int, float)}
        self._start(lambda logger: logger.add(kind, step, numbers))
        return self._failures(wait=False)

    def close(self, finished: bool) -> list[str]:
        """End all loggers when they have all records; return a line for each logger that has failed."""
        self._start(lambda logger: logger.close(finished))
        told = self._failures(wait=True)
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._calls = {}
        return told

    def _start(self, what: Callable[[Logger], None]) -> None:
        for name, calls in self._calls.items():
            calls.append(self._threads[name].submit(_when_made, what, self._loggers[name]))

    def _failures(self, wait: bool) -> list[str]:
        told = []
        for name, calls in list(self._calls.items()):
            over = [call for call in calls if wait or call.done()]
            self._calls[name] = calls[len(over) :]  # calls end in the order of their start
            error = next(filter(None, (call.exception() for call in over)), None)
            if error is not None:
                del self._calls[name]
                lines = str(error).strip().splitlines() or [""]
                told.append(f"{name} logs no more until the next start ({type(error).__name__}: {lines[0][:200]})")
            elif over:
                self._keep(name, self._loggers[name].result().run)
        return told

    def _keep(self, name: str, run: str) -> None:
        known = _known(self._folder)
        if known.get(name) != run:
            write_json(self._folder / FILE, known | {name: run})


def _when_made(what: Callable[[Logger], None], logger: concurrent.futures.Future[Logger]) -> None:
    what(logger.result())


def _known(folder: pathlib.Path) -> dict[str, str]:
    """The names of the run in its loggers; empty if there are none, or if the file is damaged."""
    with contextlib.suppress(UserError):
        known = read_json(folder / FILE) if (folder / FILE).is_file() else {}
        return {str(key): str(value) for key, value in known.items()}
    return {}
