"""The ways to make the steps of a population, and the choice of the fastest one here."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.learn import population, programs, sharded
from jaxcnn.machine import mesh as meshes
from jaxcnn.train.session import Session

WAYS = {"vmap": "vmap on one device", "devices": "spread over devices", "in_turn": "one after the other"}
TIMED_CALLS, TIMED_STEPS = 3, 16  # timed calls, and the steps in each if it can have several
Members = dict[int, Session]  # members that have not ended, by number


class StackedStepper:
    """Steps all members in one program, with stacked states, over the first `devices` devices of this machine."""

    def __init__(self, sessions: Members, devices: int) -> None:
        first = first_of(sessions)
        self._numbers, self._most = list(sessions), first.steps_per_call
        self._mesh = population.make_mesh(devices)
        self._compiled = population.compiled_train_step(first.spec, self._mesh, len(sessions), first.steps_per_call)
        split = first.hooks.shared.resident(first.splits.train, meshes.replicated(first.mesh))
        self._inputs = jax.device_put((split, first.constants), meshes.replicated(self._mesh))
        self._states: Any = None

    def load(self, states: dict[int, Any]) -> None:
        """Start from these states, by member."""
        self._states = population.stack([states[number] for number in self._numbers], self._mesh)

    def step(self, count: int, live: Members) -> Any:
        """Start `count` steps of every member; return their metrics, for `rows`."""
        inputs = programs.call_inputs((self._states, *self._inputs), self._mesh, self._most, count)
        self._states, metrics = self._compiled(*inputs)
        return metrics

    def rows(self, metrics: Any) -> dict[int, Any]:
        """Wait for the metrics and copy them to the host: arrays [steps], by member."""
        host = jax.device_get(metrics)
        return {
            number: jax.tree.map(lambda x, place=place: np.atleast_1d(x[..., place]), host)
            for place, number in enumerate(self._numbers)
        }

    def states(self) -> dict[int, Any]:
        """The state of each member, by number."""
        return dict(zip(self._numbers, population.unstack(self._states), strict=True))

    def wait(self) -> None:
        """Wait until all started steps are done."""
        jax.block_until_ready(self._states)


class SequentialStepper:
    """Steps one member after the other, by the program of a single run; members that have ended cost nothing."""

    def __init__(self, sessions: Members) -> None:
        first = first_of(sessions)
        self._mesh, self._most = first.mesh, first.steps_per_call
        arguments = (first.spec, first.mesh, first.loader.kind, first.steps_per_call)
        self._compiled = programs.train_step(*arguments)  # already compiled, as for a single run
        self._shardings = sharded.state_shardings(first.spec, first.mesh)
        split = first.hooks.shared.resident(first.splits.train, meshes.replicated(first.mesh))
        self._inputs = (split, first.constants)
        self._states: dict[int, Any] = {}

    def load(self, states: dict[int, Any]) -> None:
        """Start from these states, by member."""
        # Copies, because the step donates its state.
        self._states = {n: jax.device_put(jax.tree.map(np.array, s), self._shardings) for n, s in states.items()}

    def step(self, count: int, live: Members) -> Any:
        """Start `count` steps of every live member; return their metrics, for `rows`."""
        found = {}
        for number in live:
            inputs = programs.call_inputs((self._states[number], *self._inputs), self._mesh, self._most, count)
            self._states[number], found[number] = self._compiled(*inputs)
        return found

    def rows(self, metrics: Any) -> dict[int, Any]:
        """Wait for the metrics and copy them to the host: arrays [steps], by member."""
        return jax.tree.map(np.atleast_1d, jax.device_get(metrics))

    def states(self) -> dict[int, Any]:
        """The state of each member, by number."""
        return self._states

    def wait(self) -> None:
        """Wait until all started steps are done."""
        jax.block_until_ready(self._states)


Stepper = StackedStepper | SequentialStepper


@dataclasses.dataclass(frozen=True)
class Choice:
    """The way chosen for a group, and a line on why. `lasting`: may be reused for groups of the same spec and size."""

    way: str
    why: str
    lasting: bool = True


def prepare(sessions: Members, way: str, known: dict[Any, Choice]) -> tuple[Stepper, Choice]:
    """The stepper of members, by a way of `WAYS` or, for "auto", by the way that is fastest for them; and the choice.

    Args:
      sessions: sessions of one spec, each with its state, which is taken from it.
      way: a key of `WAYS`, or "auto".
      known: earlier measured choices, which are not measured again; a new lasting choice is added.

    Raises:
      UserError: no way is possible here.
    """
    began = time.monotonic()
    states = {number: jax.device_get(session.state) for number, session in sessions.items()}
    for session in sessions.values():
        session.state = sharded.abstract_state(session.spec, session.mesh)
    possible = _possible(sessions)
    devices = first_of(sessions).mesh.size
    key = (first_of(sessions).spec, len(sessions))
    if way not in ("auto", *possible):
        why = f"because {len(sessions)} trials cannot be divided equally over {devices} devices"
        choice = Choice("vmap", f"population of {len(sessions)}: {WAYS['vmap']}, {why}")
    elif way != "auto":
        choice = Choice(way, f"population of {len(sessions)}: {WAYS[way]}, as requested")
    elif before := _way_before(sessions, possible):
        choice = Choice(before, f"population of {len(sessions)}: {WAYS[before]}, as before this start")
    elif key in known:
        choice = known[key]
    else:
        choice = _measure(sessions, states, possible)
        if choice.lasting:
            known[key] = choice
    for session in sessions.values():
        session.progress.way = choice.way
    make = possible[choice.way]()
    make.load(states)
    for session in sessions.values():
        session.progress.compile_seconds += (time.monotonic() - began) / len(sessions)  # most of measuring is compiling
    return make, choice


def _way_before(sessions: Members, possible: Mapping[str, Any]) -> str:
    """The way of these members before they were stopped, as another rounds differently; empty if not usable."""
    ways = {session.progress.way for session in sessions.values()}
    return next(iter(ways)) if len(ways) == 1 and ways <= possible.keys() else ""


def _possible(sessions: Members) -> dict[str, Callable[[], Stepper]]:
    """Functions that create the stepper of members, by way; only ways that are possible here."""
    found: dict[str, Callable[[], Stepper]] = {
        "in_turn": lambda: SequentialStepper(sessions),
        "vmap": lambda: StackedStepper(sessions, 1),
    }
    fitting = [n for n in range(2, first_of(sessions).mesh.size + 1) if len(sessions) % n == 0]
    if fitting:
        found["devices"] = lambda: StackedStepper(sessions, fitting[-1])
    return found


def _measure(sessions: Members, states: dict[int, Any], possible: dict[str, Callable[[], Stepper]]) -> Choice:
    """Time a few steps in each way; only "in_turn", already compiled, if no other way could repay its compilation."""
    name = f"population of {len(sessions)} x {first_of(sessions).spec.model.name}"
    seconds, words = {}, []
    for way, made in possible.items():
        try:
            seconds[way] = _seconds_of_step(made(), sessions, states)
            words.append(f"{WAYS[way]} {1000 * seconds[way]:.1f} ms")
        except jax.errors.JaxRuntimeError as error:  # such as too little memory
            words.append(f"{WAYS[way]} not possible ({' '.join(str(error).split())[:120]})")
        if way == "in_turn" and (why := _too_few_steps(sessions, seconds.get(way, math.inf))):
            return Choice(way, f"{name}, measured: {why}; chosen: in_turn", lasting=False)
    if not seconds:
        raise UserError(f"a population of {len(sessions)} cannot run: {'; '.join(words)}; make it smaller")
    best = min(seconds, key=seconds.__getitem__)
    lead = ", the fastest"
    if best != "in_turn" and "in_turn" in seconds:
        lead = f", {seconds['in_turn'] / seconds[best]:.2f} x as fast as in turn"
    return Choice(
        best,
        f"{name}, measured, one step of all: {', '.join(words)}; chosen: {best}{lead}",
    )


def _too_few_steps(sessions: Members, seconds: float) -> str:
    """A reason if all remaining steps, at `seconds` each, take less time than compiling a program did; else empty."""
    first = first_of(sessions)
    left = max(session.spec.total_steps - session.step for session in sessions.values())
    compiling = first.hooks.shared.compile_seconds.get(first.spec, 0.0)
    if left * seconds >= compiling:
        return ""
    return (
        f"{left} steps of all {WAYS['in_turn']} take {left * seconds:.1f} s, less than the {compiling:.1f} s that the "
        "programs of a run took to compile"
    )


def _seconds_of_step(make: Stepper, sessions: Members, states: dict[int, Any]) -> float:
    """The seconds of one step of all members: the least of a few calls, after a call to warm up.

    The time includes copying the metrics to the host, as in training: on a CPU, nothing hides it.
    """
    count = min(first_of(sessions).steps_per_call, TIMED_STEPS)
    seconds = []
    make.load(states)
    for _ in range(1 + TIMED_CALLS):
        began = time.perf_counter()
        make.rows(make.step(count, sessions))
        make.wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) / count


def first_of(sessions: Members) -> Session:
    """Any one of the members, which have the same spec, mesh and data."""
    return next(iter(sessions.values()))
