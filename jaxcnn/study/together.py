"""Several trials of one program as one population: trained together, each with the folder and the outcome of its own.

A trial of a population is judged, pruned and written as any other is. Where its steps are made in one program, a trial
that ends before the others goes on costing its part of their steps, as the program is for so many.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import mesh as meshes
from jaxcnn.study.trial import Attempt, Outcome
from jaxcnn.study.trial_queue import Lease, TrialQueue
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
    """How trials are trained together.

    Attributes:
      members: how many at most; 1: each alone.
      way: of `train.population_ways.WAYS`, or "auto".
      pbt_every_epochs: between exchanges of population-based training; 0: none.
    """

    members: int = 1
    way: str = "auto"
    pbt_every_epochs: float = 0.0


def check(plan: Any, shared: Shared, settings: Settings) -> None:
    """Refuse a sweep whose trials cannot be trained together so.

    Raises:
      UserError: a sampler draws them one by one, their data is streamed, their images grow, there is one device to
        spread them over, or nothing tells which of them does well.
    """
    if plan.planned is None:
        raise UserError(
            f"--population is for sweeps whose trials are planned; --sampler={plan.sampler} draws each by those before"
        )
    for group in plan.groups:
        parallel = group.config.parallel
        if settings.way == "devices" and meshes.make_mesh(parallel.devices, parallel.model_devices).size == 1:
            raise UserError("--population_way=devices: there is one device; leave it out")
        if group.config.augment.small_sides:
            raise UserError("--population trains on images of one size; leave config.augment.small_sides out")
        if settings.pbt_every_epochs:
            if group.config.data.protocol == "full":
                raise UserError(
                    "--pbt_every_epochs goes by validation accuracy, which config.data.protocol='full' does not have"
                )
            if group.config.run.test_with == "best":
                raise UserError(
                    "--pbt_every_epochs goes with config.run.test_with='last' alone, since what a member takes over "
                    "replaces its checkpoint of that step"
                )
        splits = shared.splits(group.config.data)
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
    """Train trials of one program together until each has ended, and record what came of them.

    Args:
      desk: of this worker, whose trials they are.
      claims: of the trials.
      shared, command, interrupts: as of `trial.run`.
      settings: see there.
      known: the choices of populations before; see `train.population_ways.prepare`.
      say: told how the steps are made, and why so.
      ended: told of each trial and its outcome.

    Raises:
      Interrupted: they were stopped; the trials wait for any worker, each with a checkpoint.
    """
    with contextlib.ExitStack() as held:
        attempts = [held.enter_context(Attempt(queue, lease, shared)) for lease in leases]
        held.enter_context(interrupts.one_run())
        runs = [held.enter_context(contextlib.ExitStack()) for _ in leases]

        sessions: dict[int, Session] = {}  # of those that have not ended

        def end(number: int, outcome: Outcome) -> None:
            sessions.pop(number, None)
            runs[number].close()  # first, so that whoever takes the trial up again finds its folder free
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
        except Exception as error:  # of the steps of all, such as too little memory: a row of the sweep for each
            for number in list(sessions):
                through(number, error)


def _opened(attempt: Attempt, interrupts: Interrupts, command: list[str], leave_all: Callable[[], None]) -> Any:
    """The run of a trial up to its first step, or its summary, as a context manager."""
    hooks = dataclasses.replace(attempt.hooks(), leaving=leave_all)
    return loop.opened(attempt.config(), attempt.folder, interrupts, command=command, started=time.time(), hooks=hooks)


def _enter(run: contextlib.ExitStack, opening: Callable[[], Any]) -> Any:
    return run.enter_context(opening())


def _outcome(attempt: Attempt, result: dict[str, Any] | Exception) -> Outcome:
    if isinstance(result, Exception):
        raise result
    return attempt.complete(result)
