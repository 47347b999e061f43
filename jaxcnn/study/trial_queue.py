"""The queue from which workers take trials: a trial has one worker at a time, and trials of dead workers continue.

Optuna's store has the state of each trial. In addition, every trial has a lock in its folder, which the kernel releases
when its worker ends, however it ends. If the lock of a running trial can be taken, its worker is gone. On the same
machine this is certain; for another machine's trial, the heartbeat must have stopped too, since not every network file
system shares locks between machines. Heartbeats are recorded in the store or, if it does not support them, as the
modification time of the trial's lock file. The trial keeps its number, its folder and its checkpoints.

While a trial is chosen, a lock on the sweep's folder is held briefly, since a SQLite store alone would let two workers
take the same trial.
"""

import contextlib
import math
import pathlib
import platform
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxcnn.study import folder as files
from jaxcnn.study import spec, store
from jaxcnn.study.folder import Definition
from jaxcnn.study.inherit import parent_of
from jaxcnn.study.lease import Lease, Nothing
from jaxcnn.study.repeats import Repeats
from jaxcnn.study.repeats import number as number_of

MAX_LOSSES = 10  # lost workers at one step after which the trial itself is considered the cause
SILENT_BEATS = 2  # missed heartbeats after which a worker counts as gone, as in Optuna's own stores


class TrialQueue:
    """One worker's view of the study. Only `beat` may be called from another thread."""

    def __init__(self, folder: pathlib.Path, definition: Definition, storage: optuna.storages.BaseStorage) -> None:
        self.folder, self.definition, self.storage = folder, definition, storage
        self.worker = f"{platform.node()}:{uuid.uuid4().hex[:8]}"
        self.study = store.load_study(definition, storage)
        self._repeats = Repeats(definition.base)

    def take(self, program: str = "") -> Lease | Nothing:
        """A trial to run, preferably one of `program`, which needs no compilation.

        Trials left by a worker come first, then waiting ones; otherwise a search draws one.
        """
        with files.held(self.folder / files.QUEUE):
            for trial in self.study.get_trials(deepcopy=False):
                if trial.state == TrialState.RUNNING and (lease := self._adopt(trial)):
                    return lease
            trials = self.study.get_trials(deepcopy=False)
            waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
            for trial in sorted(waiting, key=lambda t: (t.user_attrs.get("program") != program, t.number)):
                if lease := self._start(trial):
                    return lease
            while self.definition.space is not None:
                trials = self.study.get_trials(deepcopy=False)
                counted = [t for t in trials if not {"retry_of", "undrawn"} & t.user_attrs.keys()]
                if len(counted) >= self.definition.trials:
                    break
                if lease := self._draw(len(trials)):
                    return lease
            running = any(trial.state == TrialState.RUNNING for trial in self.study.get_trials(deepcopy=False))
        return Nothing.WAIT if running else Nothing.DONE

    def take_more(self, program: str, most: int) -> list[Lease]:
        """Take at most `most` further trials of this program only, first those left by another worker."""
        leases: list[Lease] = []
        with files.held(self.folder / files.QUEUE):
            for state, taken in ((TrialState.RUNNING, self._adopt), (TrialState.WAITING, self._start)):
                for trial in self.study.get_trials(deepcopy=False):
                    if len(leases) < most and trial.state == state and trial.user_attrs.get("program") == program:
                        with files.released_on_error(*(lease.lock for lease in leases)):
                            lease = taken(trial)
                        leases += [lease] if lease else []
        return leases

    def _adopt(self, trial: FrozenTrial) -> Lease | None:
        """Take over a running trial if its worker is gone."""
        lock = self._lock(trial)
        if lock is None:
            return None
        with files.released_on_error(lock):
            return self._adopt_locked(trial, lock)

    def _adopt_locked(self, trial: FrozenTrial, lock: files.Lock) -> Lease | None:
        trial = self.storage.get_trial(trial._trial_id)  # it may have ended before the lock was taken
        owner = trial.user_attrs.get("worker", "")
        gone = self._is_here(owner) or self._is_silent(trial)
        if trial.state != TrialState.RUNNING or not gone or self._waits(trial):
            lock.release()
            return None
        if not self._is_drawn(trial):  # its worker died during sampling; another trial is drawn
            self.storage.set_trial_user_attr(trial._trial_id, "undrawn", True)
            self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            lock.release()
            return None
        if owner:  # the worker did not leave the trial properly
            step = files.newest_checkpoint(files.trial_folder(self.folder, number_of(trial)))
            before = trial.user_attrs.get("losses", [0, 0])
            losses = [step, before[1] + 1 if before[0] == step else 1]
            self.storage.set_trial_user_attr(trial._trial_id, "losses", losses)
        return self._sign(trial._trial_id, lock)

    def _is_drawn(self, trial: FrozenTrial) -> bool:
        """Whether a trial has all its parameters."""
        space = self.definition.space
        return (
            "overrides" in trial.user_attrs or space is None or store.distributions(space).keys() <= trial.params.keys()
        )

    def _is_here(self, owner: str) -> bool:
        """Whether the lock alone is decisive: the worker is on this machine, or has released its trial."""
        return not owner or owner.rpartition(":")[0] == platform.node()

    def _is_silent(self, trial: FrozenTrial) -> bool:
        """Whether a worker's heartbeat has stopped."""
        if isinstance(self.storage, optuna.storages._heartbeat.BaseHeartbeat):
            return trial._trial_id in self.storage._get_stale_trial_ids(self.study._study_id)
        queue, beaten = self.folder / files.QUEUE, self._lock_file(number_of(trial))
        queue.touch()  # so that both times come from the file system's clock
        return queue.stat().st_mtime - beaten.stat().st_mtime > SILENT_BEATS * self.definition.heartbeat

    def _start(self, trial: FrozenTrial) -> Lease | None:
        lock = None if self._waits(trial) else self._lock(trial)
        if lock is None:
            return None
        with files.released_on_error(lock), contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            self.beat(trial._trial_id, number_of(trial))  # first, so that no running trial is without a heartbeat
            if self.storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                return self._sign(trial._trial_id, lock)
        lock.release()
        return None

    def _waits(self, trial: FrozenTrial) -> bool:
        """Whether a trial repeats one that has not ended."""
        first = self._first(trial)
        return first is not None and not first.state.is_finished()

    def _first(self, trial: FrozenTrial) -> FrozenTrial | None:
        """The trial of a search that `trial` repeats, if any; planned trials are all different."""
        trials = self.study.get_trials(deepcopy=False) if self.definition.space is not None else []
        return self._repeats.first(trial, trials)

    def _draw(self, count: int) -> Lease | None:
        """A new trial; None if it repeats one that has not ended, for which it must wait."""
        assert self.definition.space is not None
        study = store.load_study(self.definition, self.storage, count)
        trial = study.ask(store.distributions(self.definition.space))
        lock = files.Lock(self._lock_file(trial.number))
        lock.take(wait=True)
        with files.released_on_error(lock):
            self.beat(trial._trial_id, trial.number)
            if self._waits(self._with_overrides(trial._trial_id)):
                lock.release()
                return None
            return self._sign(trial._trial_id, lock)

    def _with_overrides(self, trial_id: int) -> FrozenTrial:
        """Store the overrides and the seed that a drawn trial's parameters stand for; return the trial."""
        assert self.definition.space is not None
        trial = self.storage.get_trial(trial_id)
        drawn = store.overrides(self.definition.space, trial.params)
        told = {"overrides": drawn, "seed": drawn.get(spec.SEED, self.definition.seed)}
        if self.definition.inherit:
            told["parent"] = parent_of(self.definition, trial, self.study.get_trials(deepcopy=False))
        for name, value in told.items():
            self.storage.set_trial_user_attr(trial_id, name, value)
        return self.storage.get_trial(trial_id)

    def _lock_file(self, number: int) -> pathlib.Path:
        return files.trial_folder(self.folder, number) / files.WORKER

    def _lock(self, trial: FrozenTrial) -> files.Lock | None:
        lock = files.Lock(self._lock_file(number_of(trial)))
        return lock if lock.take(wait=False) else None

    def _sign(self, trial_id: int, lock: files.Lock) -> Lease:
        """Record this worker as the owner of a trial."""
        self.beat(trial_id, number_of(self.storage.get_trial(trial_id)))
        self.storage.set_trial_user_attr(trial_id, "worker", self.worker)
        trial = self.storage.get_trial(trial_id)
        if "overrides" not in trial.user_attrs:  # its worker died right after drawing it
            trial = self._with_overrides(trial_id)
        first = self._first(trial)
        attributes = trial.user_attrs
        return Lease(
            trial=trial,
            number=number_of(trial),
            overrides={key: value for key, value in attributes["overrides"].items() if key != spec.SEED},
            seed=attributes["seed"],
            program=attributes.get("program", ""),
            resumed=files.trial_folder(self.folder, number_of(trial)).joinpath(files.TRIAL).exists(),
            lock=lock,
            first=first if first is not None and first.state.is_finished() else None,
            parent=attributes.get("parent"),
        )

    def beat(self, trial_id: int, number: int) -> None:
        """Record a heartbeat of a trial's worker: in the store or, if it keeps none, as the time of the lock file."""
        if isinstance(self.storage, optuna.storages._heartbeat.BaseHeartbeat):
            self.storage.record_heartbeat(trial_id)
        else:
            self._lock_file(number).touch()

    @contextlib.contextmanager
    def beating(self, lease: Lease) -> Iterator[None]:
        """Record heartbeats regularly, in a thread."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self.definition.heartbeat):
                with contextlib.suppress(Exception):  # an unavailable store must not end a run
                    self.beat(lease.id, lease.number)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def is_mine(self, lease: Lease) -> bool:
        """Whether this worker still has the trial, and no other worker has taken it over."""
        trial = self.storage.get_trial(lease.id)
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("worker") == self.worker

    def killed_too_often(self, lease: Lease) -> str:
        """The reason for giving up a trial that repeatedly loses its workers; empty if it goes on."""
        step, times = lease.trial.user_attrs.get("losses", [0, 0])
        return f"its worker vanished {times} times after step {step}" if times >= MAX_LOSSES else ""

    def report(self, lease: Lease, evaluation: int, value: float) -> bool:
        """Report the headline figure of the trial's n-th validation; return whether to prune the trial."""
        trial = self.storage.get_trial(lease.id)
        if evaluation not in trial.intermediate_values:
            known = value if math.isfinite(value) else math.nan  # which pruners take as worse than every number
            self.storage.set_trial_intermediate_value(lease.id, evaluation, known)
            trial = self.storage.get_trial(lease.id)
        if self.definition.pruner == "none" or evaluation < max(trial.intermediate_values):
            return False
        return self.study.pruner.prune(self.study, trial)

    def finish(
        self,
        lease: Lease,
        state: str,
        values: dict[str, float],
        reason: str | None,
        write: Callable[[], None] = lambda: None,
    ) -> bool:
        """Record how a trial ended, once; return whether this worker still had the trial.

        `write` writes the outcome to the trial's folder. It is called before the store is updated: after a kill between
        the two, the store still has the trial as running, so it is taken over and ends at once. In the other order,
        nobody would complete the folder.
        """
        with files.held(self.folder / files.QUEUE):
            if not self.is_mine(lease):
                return False
            self.storage.set_trial_user_attr(lease.id, "state", state)
            if reason:
                self.storage.set_trial_user_attr(lease.id, "reason", reason)
            study = store.load_study(self.definition, self.storage, lease.trial.number)
            write()
            if state == "complete":
                study.tell(lease.trial.number, [values[name] for name in self.definition.directions])
            else:
                study.tell(lease.trial.number, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)
        return True

    def let_go(self, lease: Lease) -> None:
        """Leave a trial for any worker to continue."""
        if self.is_mine(lease):
            self.storage.set_trial_user_attr(lease.id, "worker", "")

    def retry(self, states: set[str]) -> int:
        """Queue the trials that ended in these states again, each in its folder; return their number."""
        count = 0
        with files.held(self.folder / files.QUEUE):
            latest: dict[int, FrozenTrial] = {}
            for trial in self.study.get_trials(deepcopy=False):
                latest[number_of(trial)] = trial
            for number, trial in latest.items():
                if not trial.state.is_finished() or trial.user_attrs.get("state") not in states:
                    continue
                kept = {k: v for k, v in trial.user_attrs.items() if k in ("overrides", "seed", "program", "parent")}
                self.study.add_trial(store.waiting_trial(trial, kept | {"folder": number, "retry_of": trial.number}))
                files.put_back(files.trial_folder(self.folder, number))
                count += 1
        return count

    def plan(self, trials: list[dict[str, Any]]) -> int:
        """Queue the planned trials that are not in the study yet; return their number.

        Each is `{"overrides", "seed", "program"}`.
        """
        params = store.planned_params([trial["overrides"] | {spec.SEED: trial["seed"]} for trial in trials])
        count = 0
        with files.held(self.folder / files.QUEUE):
            there = {_cell(trial.user_attrs) for trial in self.study.get_trials(deepcopy=False)}
            for trial, (values, kinds) in zip(trials, params, strict=True):
                if _cell(trial) not in there:
                    waiting = optuna.trial.create_trial(
                        state=TrialState.WAITING, params=values, distributions=kinds, user_attrs=trial
                    )
                    self.study.add_trial(waiting)
                    count += 1
        return count


def _cell(attributes: dict[str, Any]) -> str:
    return spec.identity({"overrides": attributes.get("overrides"), "seed": attributes.get("seed")})
