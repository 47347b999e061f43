"""The folder of a sweep: `sweep.json`, which all workers follow, and per trial one run workdir with a `trial.json`.

A report reads only these files. The store of the study (`study.db` by default) decides which worker has which trial.
"""

import contextlib
import dataclasses
import datetime
import pathlib
import platform
from collections.abc import Iterator
from typing import Any, ClassVar

import jaxcnn.config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.machine import json_text, locks
from jaxcnn.study import spec
from jaxcnn.train.workdir import write_json

SWEEP, TRIAL, TRIALS, LOG = "sweep.json", "trial.json", "trials", "log.txt"
# Lock files: of the sweep while it is created, and while a trial is chosen; of a trial while it has a worker.
BEGIN, QUEUE, WORKER = ".begin", ".queue", ".worker"
STATES = ("waiting", "running", "complete", "pruned", "diverged", "failed")
ENDED = STATES[2:]


@dataclasses.dataclass(frozen=True)
class Definition:
    """The definition of a study, the same for all its workers.

    Attributes:
      name: name of the config file and variant.
      study: name of the study in the store.
      storage: location of the store for display, without a password.
      base: the config that trials change.
      sampler: grid, random, or one of Optuna's.
      pruner: none, median or hyperband.
      directions: name of each objective -> maximize or minimize.
      space: the space from which a search draws; None if all trials are planned.
      trials: number of trials of a search.
      seed: seed of the sampler, and of the trials of a search.
      heartbeat: seconds between heartbeats of a running trial.
      evaluations: validation evaluations in a whole run, for the pruner; 0: unknown.
      generation: trials per generation of an evolutionary search, unchanged if trials are added; 0: the sampler's own.
      inherit: whether trials start from the weights of the finished trial that is most like them.
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
    inherit: bool = False

    def to_json(self) -> dict[str, Any]:
        """The JSON form in `sweep.json`."""
        kept = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        space = None if self.space is None else [dataclasses.asdict(each) for each in spec.dimensions(self.space)]
        return kept | {"base": configs.to_dict(self.base), "space": space}


def read_definition(folder: pathlib.Path) -> Definition:
    """The definition in a sweep's folder.

    Raises:
      UserError: it is missing or cannot be read.
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
    """The whole content of `sweep.json`.

    Raises:
      UserError: it is missing or cannot be read.
    """
    path = folder / SWEEP
    try:
        return json_text.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; start the sweep there first: python -m jaxcnn.sweep --config=<file> --workdir={folder}"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it from a backup") from error


def trial_folder(folder: pathlib.Path, number: int) -> pathlib.Path:
    """The workdir of a trial."""
    return folder / TRIALS / f"{number:04d}"


def read_trial(folder: pathlib.Path) -> dict[str, Any] | None:
    """The `trial.json` in a trial's workdir; None if it does not exist yet."""
    try:
        return json_text.parse((folder / TRIAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / TRIAL} cannot be read ({error}); restore it from a backup") from error


def newest_checkpoint(trial: pathlib.Path) -> int:
    """The step of the newest checkpoint in a trial's workdir; 0 without one."""
    folder = trial / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def now() -> str:
    """The current time in ISO 8601 with its time zone."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Lock:
    """A lock that the kernel releases when its process ends, however it ends.

    Without locks in the file system, a process that called `work_alone` continues; its locks then exclude each other
    only within the process.
    """

    alone = False
    _of_this_process: ClassVar[set[pathlib.Path]] = set()  # used without locks in the file system

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: Any = None

    def take(self, *, wait: bool) -> bool:
        """Take the lock; return whether this succeeded, which is certain with `wait`.

        Raises:
          UserError: the file system has no locks and others may work here, or the folder is not writable.
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
                    "it on a file system with locks, or use a single process: --engine=inline"
                ) from error
            ours = self._path not in Lock._of_this_process
            Lock._of_this_process.add(self._path)
        if not ours:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Release the lock, so that another process can take it."""
        if self._file is not None:
            self._file.close()
            self._file = None
            Lock._of_this_process.discard(self._path)


def work_alone(folder: pathlib.Path) -> None:
    """Allow this process to work without locks if the file system has none, with a log message: it works alone."""
    Lock.alone = True
    with (folder / BEGIN).open("a+", encoding="utf-8") as file:
        try:
            locks.take(file, wait=False)
        except locks.NoLocksError as error:
            locks.tell(folder, error, "sweep or worker")


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Wait for a lock and hold it."""
    lock = Lock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def released_on_error(*locks: Lock) -> Iterator[None]:
    """Release locks if the work under them fails, for example because the store is temporarily unavailable."""
    try:
        yield
    except BaseException:
        for lock in locks:
            lock.release()
        raise


def settle(folder: pathlib.Path) -> None:
    """Write "waiting" into the `trial.json` of trials whose worker on this machine was killed."""
    for trial in sorted((folder / TRIALS).glob("*")):
        there = read_trial(trial)
        if there is None or there["state"] != "running" or there["worker"].rpartition(":")[0] != platform.node():
            continue
        lock = Lock(trial / WORKER)
        if lock.take(wait=False):
            write_json(trial / TRIAL, there | {"state": "waiting", "reason": "its worker was killed"})
            lock.release()


def put_back(trial: pathlib.Path) -> None:
    """Record that an ended trial waits to be run again."""
    if (there := read_trial(trial)) is not None:
        write_json(trial / TRIAL, there | {"state": "waiting", "reason": None, "ended": None})
