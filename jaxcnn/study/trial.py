"""One trial: an ordinary run in its own folder, with a `trial.json` that describes it, however it ends."""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from jaxcnn.config import Config, UserError, open_names
from jaxcnn.study import folder as files
from jaxcnn.study import inherit, objectives, repeats, spec, store
from jaxcnn.study.lease import Lease
from jaxcnn.study.trial_queue import TrialQueue
from jaxcnn.tasks import by_name
from jaxcnn.train.drive import Diverged
from jaxcnn.train.hooks import Hooks, Shared
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.loop import train
from jaxcnn.train.workdir import write_json


class Pruned(Exception):
    """Raised when the pruner expects no good result from this trial."""


class Lost(Exception):
    """Raised when another worker has taken over this trial, because this worker seemed dead."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
      state: one of `folder.STATES`.
      reason: the reason, if it is not complete.
      values: values of the objectives, by name.
      figures: figures of its `summary.json`, for tables.
    """

    state: str
    reason: str | None = None
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


def config_of(folder: pathlib.Path, base: Config, lease: Lease) -> Config:
    """The config of a trial of the sweep in a folder.

    Raises:
      ConfigError: the config is impossible.
      UserError: it names code or data that the sweep does not name.
    """
    config = spec.apply(base, lease.overrides | {spec.SEED: lease.seed})
    _check_code(config, folder)
    return config if lease.parent is None else inherit.started(config, folder, lease.parent)


def _check_code(config: Config, folder: pathlib.Path) -> None:
    """Refuse code and data not named in `sweep.json`: overrides are from the store, to which others may write."""
    named = {config.data.source, *(name for _, _, name in open_names.foreign(config))}
    if strange := sorted(named - set(_texts(files.read_sweep(folder)))):
        raise UserError(
            f"the study's store names {strange[0]!r}, which {folder / files.SWEEP} does not; somebody has changed the "
            "store: restore it from a backup, or start the sweep again in another workdir"
        )


def _texts(tree: Any) -> Iterator[str]:
    """All texts among the values of a JSON tree."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(each)


def run(queue: TrialQueue, lease: Lease, shared: Shared, command: list[str], interrupts: Interrupts) -> Outcome:
    """Run a leased trial to its end, or as far as it gets, and record the outcome.

    Raises:
      Interrupted: `interrupts` stopped it; the trial waits for any worker, with a checkpoint.
    """
    with Attempt(queue, lease, shared) as attempt:

        def work() -> Outcome:
            config, hooks = attempt.config(), attempt.hooks()
            summary = train(
                config, attempt.folder, command=command, started=time.monotonic(), hooks=hooks, interrupts=interrupts
            )
            return attempt.complete(summary)

        return attempt.end(attempt.judge(work))


def take_over(queue: TrialQueue, lease: Lease) -> Outcome:
    """Give a trial that repeats an earlier one the outcome of that one."""
    assert lease.first is not None
    first, folder = lease.first, files.trial_folder(queue.folder, lease.number)
    record = _begin(queue, lease, folder) | {"as": repeats.number(first)}
    values = dict(zip(queue.definition.directions, first.values or (), strict=False))
    outcome = Outcome(first.user_attrs.get("state", "failed"), first.user_attrs.get("reason"), values)

    def finish() -> None:
        queue.storage.set_trial_user_attr(lease.id, "as", record["as"])
        if outcome.state == "pruned":
            for step, value in list(first.intermediate_values.items())[-1:]:  # the values that the sampler uses
                queue.storage.set_trial_intermediate_value(lease.id, step, value)
        queue.finish(lease, outcome.state, outcome.values, outcome.reason, lambda: _write(folder, record, outcome))

    try:
        store.patiently(finish)
    finally:
        lease.lock.release()
    return outcome


class Attempt:
    """A trial while this worker has it, a context manager: its lock, heartbeat, log and records.

    Attributes:
      lease: lease of the trial.
      folder: its workdir.
      notes: additional entries of `trial.json`, by name.
    """

    def __init__(self, queue: TrialQueue, lease: Lease, shared: Shared) -> None:
        self.lease, self.folder = lease, files.trial_folder(queue.folder, lease.number)
        self.notes: dict[str, Any] = {}
        self._queue, self._shared = queue, shared
        self._record = _begin(queue, lease, self.folder)
        self._held = contextlib.ExitStack()
        self._log: Any = None
        self._ended = False

    def __enter__(self) -> "Attempt":
        self._held.callback(self.lease.lock.release)
        self._held.enter_context(self._queue.beating(self.lease))
        self._log = self._held.enter_context((self.folder / files.LOG).open("a", encoding="utf-8"))
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, Interrupted | KeyboardInterrupt | UserError):
            self.leave(str(error).partition(":")[0] or type(error).__name__)
        self._held.close()

    def config(self) -> Config:
        """The config of the trial.

        Raises:
          ConfigError: the config is impossible.
        """
        return config_of(self._queue.folder, self._queue.definition.base, self.lease)

    def hooks(self) -> Hooks:
        """The hooks that connect the run to the study; they raise Pruned and Lost."""
        where = f"the same command with --workdir={self._queue.folder} continues"
        return Hooks(output=self._log, where=where, evaluated=self._evaluated, leaving=self.leave, shared=self._shared)

    def _evaluated(self, step: int, score: float) -> None:
        queue, lease = self._queue, self.lease
        headline = by_name.headline(queue.definition.base.task)
        value = headline.value(score)
        try:
            mine, prune = queue.is_mine(lease), queue.report(lease, _evaluations(self.folder), value)
        except optuna.exceptions.StorageInternalError as error:  # temporarily unavailable: no reason to stop a run
            print(f"jaxcnn: the store cannot be reached: {error}", file=self._log)
            return
        if not mine:
            raise Lost
        if prune:
            raise Pruned(
                f"by {queue.definition.pruner} at step {step}, validation {headline.label} {headline.shown(value)}"
            )

    def judge(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, or an Outcome if an exception ends the trial; only `Interrupted` is passed on."""
        if given_up := self._queue.killed_too_often(self.lease):
            return Outcome("failed", given_up)
        try:
            return work()
        except Lost:
            return Outcome("waiting", "another worker continues it")
        except Pruned as error:
            return Outcome("pruned", str(error))
        except Diverged as error:
            return Outcome("diverged", str(error))
        except UserError as error:
            return Outcome("failed", " ".join(str(error).split()))
        except Interrupted:
            raise
        except Exception as error:  # a bug or machine error: the trial failed, with the traceback in its log
            traceback.print_exc(file=self._log)
            return Outcome("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; see {files.LOG}")

    def complete(self, summary: dict[str, Any]) -> Outcome:
        """The outcome of a completed run; one without a finite figure on validation has diverged."""
        config, wanted = self.config(), self._queue.definition.directions
        values = objectives.values(summary, config, self.folder, self._shared, wanted)
        if wrong := [name for name, value in values.items() if not math.isfinite(value)]:
            return Outcome("diverged", f"{wrong[0]} is not a finite number", {}, summary)
        return Outcome("complete", None, values, summary)

    def end(self, outcome: Outcome) -> Outcome:
        """Record the outcome, unless another worker has the trial now."""
        self._ended = True
        if outcome.state != "waiting":

            def write() -> None:
                _write(self.folder, self._record | self.notes, outcome)

            queue, lease = self._queue, self.lease
            store.patiently(lambda: queue.finish(lease, outcome.state, outcome.values, outcome.reason, write))
        return outcome

    def leave(self, reason: str = "stopped by a signal") -> None:
        """If the trial has not ended, leave it for any worker to continue."""
        if self._ended:
            return
        _write(self.folder, self._record | self.notes, Outcome("waiting", reason))
        try:
            self._queue.let_go(self.lease)
        except optuna.exceptions.StorageInternalError as error:  # a signal must end the process nevertheless
            print(
                f"jaxcnn: the store cannot be reached: {error}; the released lock makes the trial free again",
                file=self._log,
            )


def _evaluations(folder: pathlib.Path) -> int:
    """The number of validation evaluations so far."""
    with (folder / "metrics.jsonl").open(encoding="utf-8") as lines:
        return sum(json.loads(line)["kind"] == "val" for line in lines)


def _begin(queue: TrialQueue, lease: Lease, folder: pathlib.Path) -> dict[str, Any]:
    """Record in `trial.json` that the trial runs; return the record, which later writes extend."""
    before = files.read_trial(folder) or {}
    record = {
        "number": lease.number,
        "overrides": lease.overrides,
        "seed": lease.seed,
        "program": lease.program,
        "state": "running",
        "reason": None,
        "starts": before.get("starts", 0) + 1,
        "worker": queue.worker,
        "began": before.get("began") or files.now(),
        "started": files.now(),
        "ended": None,
        "values": {},
    }
    if lease.parent is not None:
        record["started_from"] = lease.parent
    write_json(folder / files.TRIAL, record)
    return record


def _write(folder: pathlib.Path, record: dict[str, Any], outcome: Outcome) -> None:
    kept = ("images_per_second", "compile_seconds", "train_seconds", "eval_seconds", "wall_seconds", "test", "val_best")
    write_json(
        folder / files.TRIAL,
        record
        | {"state": outcome.state, "reason": outcome.reason, "values": outcome.values}
        | {"ended": None if outcome.state == "waiting" else files.now()}
        | {name: outcome.figures[name] for name in kept if name in outcome.figures},
    )
