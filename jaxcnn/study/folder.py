"""The folder of a sweep: `sweep.json`, which every worker goes by, and one run workdir with a `trial.json` per trial.

A report reads these files alone. The store of the study (`study.db` by default) decides which trial is whose.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import Any, ClassVar

from jaxcnn import config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.machine import locks
from jaxcnn.study import spec

SWEEP, TRIAL, TRIALS, LOG = "sweep.json", "trial.json", "trials", "log.txt"
# Locks: of the sweep while it is made, and while a trial is chosen; of a trial while it has a worker.
BEGIN, DESK, WORKER = ".begin", ".desk", ".worker"
STATES = ("waiting", "running", "complete", "pruned", "diverged", "failed")
ENDED = STATES[2:]


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a study is, the same for all its workers.

    Attributes:
      name: of the config file and variant.
      study: name of the study in the store.
      storage: where the store is, without a password; for people.
      base: the config that trials change.
      sampler: grid, random, or one of Optuna's.
      pruner: none, median or hyperband.
      directions: name of each objective -> maximize or minimize.
      space: what a search draws from; None where all trials are planned.
      trials: how many a search makes.
      seed: of sampler, and of the trials of a search.
      heartbeat: seconds between signs of life of a running trial.
      evaluations: on validation in a whole run, for the pruner; 0: not known.
      generation: trials in one of an evolutionary search, which does not change when it is given more trials; 0: the
        sampler's own.
    """

    name: str
    study: str
    storage: str
    base: Config
    sampler: str
    pruner: str
    directions: dict[str, str]
    space: spec.Space | None
    trials: int
    seed: int
    heartbeat: int
    evaluations: int = 0
    generation: int = 0

    def to_json(self) -> dict[str, Any]:
        """As kept in `sweep.json`."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        space = None if self.space is None else [dataclasses.asdict(each) for each in spec.dimensions(self.space)]
        return kept | {"base": configs.to_dict(self.base), "space": space}


def read_definition(folder: pathlib.Path) -> Definition:
    """The definition in a sweep's folder.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    kept = read_sweep(folder)
    names = {field.name for field in dataclasses.fields(Definition)}
    values = {name: value for name, value in kept.items() if name in names}
    space = None
    if values["space"] is not None:
        parts = [spec.Rows(tuple(d["rows"])) if "rows" in d else spec.Range(**d) for d in values["space"]]
        space = spec.product(*parts)
    return Definition(**values | {"base": configs.from_config_dict(values["base"]), "space": space})


def read_sweep(folder: pathlib.Path) -> dict[str, Any]:
    """All of `sweep.json`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = folder / SWEEP
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; start the sweep there first: python -m jaxcnn.sweep --config=<file> --workdir={folder}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); bring it back from a copy") from error


def trial_folder(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The workdir of a trial."""
    return folder / TRIALS / f"{number:04d}"


def read_trial(folder: pathlib.Path) -> dict[str, Any] | None:
    """The `trial.json` of a trial's workdir; None if there is none yet."""
    try:
        return json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / TRIAL} cannot be read ({error}); bring it back from a copy") from error


def newest_checkpoint(trial: pathlib.Path) -> int:
    """The step of the newest checkpoint of a trial's workdir; 0 if there is none."""
    folder = trial / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON so that a reader, or a crash, never meets half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def now() -> str:
    """The time, as ISO 8601 with its zone."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Lock:
    """A lock that the kernel lets go of when its process ends, however it ends.

    Where the file system has no locks, a process that has said so by `work_alone` goes on; its locks then hold among
    themselves.
    """

    alone = False
    _of_this_process: ClassVar[set[pathlib.Path]] = set()  # where the file system has no locks

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: Any = None

    def take(self, *, wait: bool) -> bool:
        """Take the lock; return whether it is ours, which it is for sure if we `wait`.

        Raises:
          UserError: the file system has no locks and others may work here, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self._path.parent} cannot be written: {error.strerror}; choose another folder"
            ) from error
        try:
            ours = locks.take(file, wait=wait)
        except OSError as error:
            if not (isinstance(error, locks.NoLocksError) and Lock.alone):
                file.close()
                raise UserError(
                    f"{self._path} cannot be locked ({error.strerror}); where several processes work on a sweep, keep "
                    "it on a file system with locks, or let one do it all: --engine=inline"
                ) from error
            ours = self._path not in Lock._of_this_process
            Lock._of_this_process.add(self._path)
        if not ours:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let go of it."""
        if self._file is not None:
            self._file.close()
            self._file = None
            Lock._of_this_process.discard(self._path)


def work_alone(folder: pathlib.Path) -> None:
    """Go on without locks where the file system has none, after a remark: this process does all the work."""
    Lock.alone = True
    with (folder / BEGIN).open("a+", encoding="utf-8") as file:
        try:
            locks.take(file, wait=False)
        except locks.NoLocksError as error:
            locks.tell(folder, error, "sweep or worker")


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Hold a lock, waiting for it."""
    lock = Lock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def released_on_error(*locks: Lock) -> Iterator[None]:
    """Let go of locks if what is done under them fails, such as where the store is away for a time."""
    try:
        yield
    except BaseException:
        for lock in locks:
            lock.release()
        raise


def settle(folder: pathlib.Path) -> None:
    """Write "waiting" into the `trial.json` of trials whose worker, on this machine, was killed."""
    for trial in sorted((folder / TRIALS).glob("*")):
        there = read_trial(trial)
        if there is None or there["state"] != "running" or there["worker"].rpartition(":")[0] != platform.node():
            continue
        lock = Lock(trial / WORKER)
        if lock.take(wait=False):
            write_json(trial / TRIAL, there | {"state": "waiting", "reason": "its worker was killed"})
            lock.release()


def put_back(trial: pathlib.Path) -> None:
    """Say that an ended trial waits to be run again."""
    if (there := read_trial(trial)) is not None:
        write_json(trial / TRIAL, there | {"state": "waiting", "reason": None, "ended": None})
