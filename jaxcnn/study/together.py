"""Several trials of one program as a population: trained together, each with its own folder and outcome.

A trial of a population is evaluated, pruned and recorded like any other. If one program computes the steps of all
members, a trial that ends early still costs its share of the steps, because the program has a fixed number of members.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import mesh as meshes
from jaxcnn.study.lease import Lease
from jaxcnn.study.trial import Attempt, Outcome
from jaxcnn.study.trial_queue import TrialQueue
from jaxcnn.train import loop, population_ways
from jaxcnn.train import population as populations
from jaxcnn.train.curves import read_records
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.loaders import choose_loader
from jaxcnn.train.population_based import KIND, Evolution
from jaxcnn.train.session import Session


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings by which trials are trained together.

    Attributes:
      members: most members of a population; 1: each trial alone.
      way: one of `train.population_ways.WAYS`, or "auto".
      pbt_every_epochs: epochs between exchanges of population-based training; 0: no exchanges.
    """

    members: int = 1
    way: str = "auto"
    pbt_every_epochs: float = 0.0


def check(plan: Any, shared: Shared, settings: Settings) -> None:
    """Refuse a sweep whose trials cannot be trained together with these settings.

    Raises:
      UserError: a sampler draws the trials one by one, their data is streamed, their images grow, there is only one
        device to spread them over, or no figure on validation shows which of them does well.
    """
    if plan.planned is None:
        raise UserError(
            f"--population is for sweeps whose trials are planned; --sampler={plan.sampler} draws each trial from the "
            "results of the earlier ones"
        )
    for group in plan.groups:
        parallel = group.config.parallel
        if settings.way == "devices" and meshes.make_mesh(parallel.devices, parallel.model_devices).size == 1:
            raise UserError("--population_way=devices: there is only one device; leave this flag out")
        if group.config.augment.small_sides:
            raise UserError("--population needs images of one size; leave out config.augment.small_sides")
        if group.config.augment.sides or group.config.augment.shapes:
            raise UserError("--population needs images of one size; leave out config.augment.sides and shapes")
        if group.config.schedule.name == "plateau":
            raise UserError("--population needs rates that are planned; leave out config.schedule.name='plateau'")
        if settings.pbt_every_epochs:
            if group.config.data.protocol == "full":
                raise UserError(
                    "--pbt_every_epochs needs figures on validation, which config.data.protocol='full' does not have"
                )
            if group.config.run.patience:
                raise UserError(
                    "--pbt_every_epochs needs config.run.patience=0, as no member may stop before the others"
                )
            if group.config.run.test_with == "best":
                raise UserError(
                    "--pbt_every_epochs needs config.run.test_with='last', since the weights that a member takes over "
                    "replace its checkpoint of that step"
                )
        splits = shared.splits(group.config.data, group.config.task)
        loader, why = choose_loader(group.config.data, (splits.train, splits.val, splits.test))
        if loader != "resident":
            raise UserError(
                f"--population needs config.data.loader='resident', but {group.config.data.source} is streamed ({why})"
            )


def run(
    queue: TrialQueue,
    leases: list[Lease],
    shared: Shared,
    command: list[str],
    interrupts: Interrupts,
    *,
    settings: Settings,
    known: dict[Any, population_ways.Choice],
    say: Callable[[str], None],
    ended: Callable[[Lease, Outcome], None],
) -> None:
    """Train trials of one program together until each has ended, and record their outcomes.

    Args:
      queue: the queue of this worker, which has the trials.
      leases: leases of the trials.
      shared, command, interrupts: as in `trial.run`.
      settings: how the trials are trained together.
      known: choices made for earlier populations; see `train.population_ways.prepare`.
      say: called with a text on how the steps are computed, and why.
      ended: called with each ended trial and its outcome.

    Raises:
      Interrupted: the run was stopped; the trials wait for any worker, each with a checkpoint.
    """
    with contextlib.ExitStack() as held:
        attempts = [held.enter_context(Attempt(queue, lease, shared)) for lease in leases]
        held.enter_context(interrupts.one_run())
        runs = [held.enter_context(contextlib.ExitStack()) for _ in leases]

        sessions: dict[int, Session] = {}  # sessions of the trials that have not ended

        def end(number: int, outcome: Outcome) -> None:
            sessions.pop(number, None)
            runs[number].close()  # first, so that the folder is free for a worker that continues the trial
            ended(leases[number], attempts[number].end(outcome))

        def leave_all() -> None:
            for attempt in attempts:
                attempt.leave()

        for number, attempt in enumerate(attempts):
            opening = functools.partial(_opened, attempt, interrupts, command, leave_all)
            found = attempt.judge(functools.partial(_enter, runs[number], opening))
            if isinstance(found, Session):
                sessions[number] = found
            else:
                end(number, attempt.complete(found) if isinstance(found, dict) else found)
        if not sessions:
            return

        def through(number: int, result: dict[str, Any] | Exception) -> None:
            attempt = attempts[number]
            if settings.pbt_every_epochs:
                attempt.notes[KIND] = [r for r in read_records(attempt.folder) if r["kind"] == KIND]
            end(number, attempt.judge(lambda: _outcome(attempt, result)))

        try:
            make, choice = population_ways.prepare(sessions, settings.way, known)
            say(choice.why)
            for number, session in sessions.items():
                session.logbook.say(f"  {choice.why}")
                attempts[number].notes["population"] = {"members": len(sessions), "way": choice.way}
            evolution = None
            if settings.pbt_every_epochs:
                names = {number: leases[number].number for number in sessions}
                evolution = Evolution(settings.pbt_every_epochs, queue.definition.seed, names)
            interrupts.drive(populations.Group(dict(sessions), make, interrupts, through, evolution).run)
        except (Interrupted, UserError):
            raise
        except Exception as error:  # in the common steps, such as too little memory: fails every trial
            for number in list(sessions):
                through(number, error)


def _opened(attempt: Attempt, interrupts: Interrupts, command: list[str], leave_all: Callable[[], None]) -> Any:
    """A context manager of the trial's run, ready for its first step; or of its summary if it has already ended."""
    hooks = dataclasses.replace(attempt.hooks(), leaving=leave_all)
    return loop.opened(
        attempt.config(), attempt.folder, interrupts, command=command, started=time.monotonic(), hooks=hooks
    )


def _enter(run: contextlib.ExitStack, opening: Callable[[], Any]) -> Any:
    return run.enter_context(opening())


def _outcome(attempt: Attempt, result: dict[str, Any] | Exception) -> Outcome:
    if isinstance(result, Exception):
        raise result
    return attempt.complete(result)
