"""A worker: runs one trial after another until all have ended. Every engine consists of workers."""

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
from jaxcnn.study.lease import Lease, Nothing
from jaxcnn.study.trial_queue import TrialQueue
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupted, Interrupts

POLL_SECONDS = 2.0  # between checks for a trial left by another worker


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
    """Run trials until all have ended or the time is `until`, when no trial may start or continue.

    The worker keeps one program and one data set from trial to trial, and prefers trials that share them. While others
    run the last trials, it stays to take over trials that they may leave.

    Args:
      folder: folder of the sweep.
      definition: definition of the study.
      storage: its storage.
      command: command line that started this process, for the record.
      until: end time as in time.time(); None: no limit.
      shared: data already loaded.
      began, ended: called before and after every trial.
      population: how trials of a program are trained together; None: each alone.
      say: called with a text on the way that is chosen.
      interrupts: what may stop the worker, as in `train`.

    Raises:
      Interrupted: it was stopped; the current trial has a checkpoint, and any worker can continue it.
      UserError: the store has been unavailable for minutes.
    """
    queue, shared, program = TrialQueue(folder, definition, storage), shared or Shared(), ""
    known: dict[Any, Any] = {}
    interrupts = interrupts or Interrupts()
    with interrupts.one_run():
        while True:
            # Between trials, too, a signal waits for writes to finish; each trial states its current phase.
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
    """Leave SIGUSR2, which Slurm sends to all processes of a job as notice, to the process that started this one."""
    if os.environ.get("SLURM_JOB_ID") or os.environ.get("SUBMITIT_EXECUTOR"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
