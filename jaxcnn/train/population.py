"""Several runs of one program trained together: each an ordinary run in its own workdir, but for who makes its steps.

All members are evaluated, saved and tested as runs alone are, at the steps that their config promises, by the same
functions and programs. Only their steps are made together, in the way that is the fastest of those there are.
"""

import contextlib
import dataclasses
import operator
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxcnn.config import UserError
from jaxcnn.learn import sharded
from jaxcnn.machine import malloc
from jaxcnn.train import loop
from jaxcnn.train.drive import Diverged, is_ready, record_metrics
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.population_based import KIND, Evolution, Exchange, exchanged, exchanges
from jaxcnn.train.population_ways import Members, Stepper, first_of
from jaxcnn.train.session import Session
from jaxcnn.train.steps_per_call import StepsPerCall


@dataclasses.dataclass(frozen=True)
class _Call:
    """Steps that were started together: how many, the step of each member before them, and their metrics."""

    count: int
    before: dict[int, int]
    metrics: Any


class Group:
    """Members that are trained together, until each has ended.

    Args:
      sessions: of one program, by number, each up to its first step; they may stand at different steps.
      make: makes their steps; their states are loaded.
      interrupts: what may stop them all.
      ended: called with the number of a member and its summary, or the exception that ended it.
      evolution: by which members take over the states of others; None: each is for itself.
    """

    def __init__(
        self,
        sessions: Members,
        make: Stepper,
        interrupts: Interrupts,
        ended: Callable[[int, dict[str, Any] | Exception], None],
        evolution: Evolution | None = None,
    ) -> None:
        self._live = dict(sessions)
        self._due = {number: loop.due_steps(session) for number, session in self._live.items()}
        self._make, self._interrupts, self._ended, self._evolution = make, interrupts, ended, evolution
        self._exchange_steps: frozenset[int] = frozenset()
        if evolution is not None:
            spec = first_of(sessions).spec
            total = spec.total_steps
            # After the last step nobody would train what was taken over.
            self._exchange_steps = loop.rhythm(evolution.every_epochs, spec.steps_per_epoch, total) - {total}
            # All are saved there, so that what one took over and what it took it from are of one step on disk too.
            self._due = {
                number: loop.Due(due.evaluate | self._exchange_steps, due.save | self._exchange_steps)
                for number, due in self._due.items()
            }
        self._pace = StepsPerCall(first_of(sessions).steps_per_call)
        self._memory = malloc.KeptMemory()
        self._unread: _Call | None = None
        self._window = 0.0

    def run(self) -> None:
        """Train, evaluate and save until all members have ended.

        Raises:
          Interrupted: they have to stop; each member that has not ended has a checkpoint.
        """
        try:
            self._visit(loop.begin, list(self._live))
            self._exchange()
            while self._live:
                self._train(min(self._left(number) for number in self._live))
                here = [n for n, session in self._live.items() if session.step in self._due[n].steps]
                self._visit(loop.at_step, here)
                self._exchange()
        except Interrupted as error:
            raise Interrupted(self._stop(error)) from None

    def _left(self, number: int) -> int:
        """Steps of a member until something is due."""
        step = self._live[number].step
        return min(due for due in self._due[number].steps if due > step) - step

    def _visit(self, what: Callable[[Session, loop.Due], None], numbers: list[int]) -> None:
        """Do what is due with some members, one after the other, as with a run alone; end those that are through."""
        states = self._make.states() if numbers else {}
        for number in numbers:
            session = self._live[number]
            with _holding(session, states[number]):
                try:
                    what(session, self._due[number])
                    through = session.step >= session.spec.total_steps
                    figures = loop.finish(session) if through else None
                except Interrupted:
                    raise
                except Exception as error:
                    self._end(number, error)
                    continue
                if figures is not None:
                    self._end(number, figures)

    def _exchange(self) -> None:
        """Where it is due, let members take over the states of others that stand at the same step, and save them.

        One that has done so at this step, before it was stopped, does not again; its accuracy is that of its own last
        evaluation, so the others find the same as they would have then.
        """
        if self._evolution is None:
            return
        for step in {session.step for session in self._live.values()} & self._exchange_steps:
            there = {n: session.progress for n, session in self._live.items() if session.step == step}
            found = exchanges(self._evolution, step, {n: progress.accuracy for n, progress in there.items()})
            found = [each for each in found if there[each.member].exchanged < step]
            if not found:
                continue
            states = {number: jax.device_get(state) for number, state in self._make.states().items()}
            states |= {each.member: exchanged(each, states) for each in found}
            for each in found:
                self._record(each, step, states)
            self._make.load(states)

    def _record(self, exchange: Exchange, step: int, states: dict[int, Any]) -> None:
        """Tell of an exchange in the logs of the member, and save it."""
        assert self._evolution is not None
        session, name = self._live[exchange.member], self._evolution.names[exchange.source]
        hyper = states[exchange.member].hyper
        values = {"from": name, "learning_rate": float(hyper.learning_rate), "weight_decay": float(hyper.weight_decay)}
        session.logbook.record(KIND, step, values)
        session.logbook.say(
            f"step {step}: goes on from trial {name}, learning rate {values['learning_rate']:g}, "
            f"weight decay {values['weight_decay']:g}"
        )
        session.progress.exchanged, session.saved = step, -1
        with _holding(session, states[exchange.member]):
            try:
                loop.save(session, evaluated=True)
            except UserError as error:
                self._end(exchange.member, error)

    def _train(self, steps: int) -> None:
        """Train all members so many steps. All that were made have been read when it returns or raises."""
        self._interrupts.enter("train")
        self._window = time.time()
        done = 0
        try:
            while done < steps and self._live:
                self._interrupts.check()
                count = min(self._pace.allowed, steps - done)
                before = {number: session.step for number, session in self._live.items()}
                call = _Call(count, before, self._make.step(count, self._live))
                for session in self._live.values():
                    session.step += count
                self._read()  # the call before, so the host never holds up the devices
                self._unread = call
                if is_ready(call.metrics):
                    self._read()
                done += count
        finally:
            self._read()

    def _read(self) -> None:
        """Wait for the unread call, if there is one; each member takes in its metrics, and its share of the time."""
        call, self._unread = self._unread, None
        if call is None:
            return
        rows = self._make.rows(call.metrics)
        now = time.time()
        seconds, self._window = now - self._window, now
        self._pace.measured(call.count, seconds)
        share = seconds / call.count / len(call.before)
        for number, before in call.before.items():
            if number not in self._live:
                continue
            session = self._live[number]
            session.time_to_first_step = session.time_to_first_step or now - session.started
            try:
                for i in range(call.count):
                    record_metrics(session, before + i + 1, jax.tree.map(operator.itemgetter(i), rows[number]), share)
            except Diverged as error:
                self._end(number, error)
        self._memory.after_call()

    def _end(self, number: int, result: dict[str, Any] | Exception) -> None:
        del self._live[number]
        self._ended(number, result)

    def _stop(self, why: Interrupted) -> str:
        """Save all members; return what there is to say."""
        states = self._make.states()
        for number, session in list(self._live.items()):
            with _holding(session, states[number]):
                try:
                    loop.stop(session, why)
                except UserError as error:  # the others are saved all the same
                    self._end(number, error)
        return f"{why}: stopped with a checkpoint of each of {len(self._live)} trials; {self._interrupts.where}"


@contextlib.contextmanager
def _holding(session: Session, state: Any) -> Iterator[None]:
    """A session with its state, on its own mesh, for a while; else it has shapes alone, so no member is kept twice."""
    session.state = jax.device_put(state, sharded.state_shardings(session.spec, session.mesh))
    try:
        yield
    finally:
        session.state = sharded.abstract_state(session.spec, session.mesh)
