"""A worker: takes one trial after the other until all have ended. Every engine is made of these."""

import functools
import os
import pathlib
import signal
import time
from collections.abc import Callable
from typing import Any

import optuna

from jaxcnn.study import store, together, trial
from jaxcnn.study.folder import Definition
from jaxcnn.study.trial_queue import Lease, Nothing, TrialQueue
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupted, Interrupts

POLL_SECONDS = 2.0  # between looks for a trial that another worker leaves behind


def work(
    folder: pathlib.Path,
    definition: Definition,
    storage: optuna.storages.BaseStorage,
    command: list[str],
    *,
    until: float | None = None,
    shared: Shared | None = None,
    began: Callable[[Lease], None] = lambda _: None,
    ended: Callable[[Lease, trial.Outcome], None] = lambda *_: None,
    population: together.Settings | None = None,
    say: Callable[[str], None] = lambda _: None,
    interrupts: Interrupts | None = None,
) -> None:
    """Run trials until all have ended, or, at `until` (time.time()), none may begin or go on any more.

    One program and one data set stay with the worker from trial to trial, and it prefers trials that share them. While
    others run the last trials it stays, to take up what they may leave behind.

    Args:
      folder: of the sweep.
      definition: of the study.
      storage: where it is.
      command: what started this, for the record.
      until: see above; None: no limit.
      shared: data that lies ready.
      began, ended: called around every trial.
      population: how trials of a program are trained together; None: each alone.
      say: told of the way that is chosen.
      interrupts: what may stop it, as of `train`.

    Raises:
      Interrupted: it was stopped; the trial under way has a checkpoint, and any worker may go on with it.
      UserError: the store has been away for minutes.
    """
    queue, shared, program = TrialQueue(folder, definition, storage), shared or Shared(), ""
    known: dict[Any, Any] = {}
    interrupts = interrupts or Interrupts()
    with interrupts.one_run():
        while True:
            # Between trials too a signal waits for what is written; each trial tells what it is doing.
            interrupts.enter("sweep")
            interrupts.where = interrupts.goes_on(folder)
            if until is not None and time.time() >= until:
                return
            lease = store.patiently(functools.partial(queue.take, program))
            if lease is Nothing.DONE:
                return
            if interrupts.is_asked():
                if isinstance(lease, Lease):
                    queue.let_go(lease)
                    lease.lock.release()
                raise Interrupted(f"{interrupts.received}: stopped between trials; {interrupts.where}")
            if lease is Nothing.WAIT:
                time.sleep(POLL_SECONDS)
                continue
            assert isinstance(lease, Lease)
            program = lease.program
            leases = [lease]
            if population is not None and program:
                leases += store.patiently(functools.partial(queue.take_more, program, population.members - 1))
            for each in leases:
                began(each)
            if lease.first is not None:
                ended(lease, trial.take_over(queue, lease))
            elif population is None or len(leases) == 1:
                ended(lease, trial.run(queue, lease, shared, command, interrupts))
            else:
                together.run(
                    queue, leases, shared, command, interrupts, settings=population, known=known, say=say, ended=ended
                )


def ignore_preemption_notice() -> None:
    """Leave SIGUSR2, by which Slurm gives notice to all processes of a job, to the process that started this one."""
    if os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_EXECUTOR"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
