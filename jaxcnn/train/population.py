"""Several runs of one spec trained together: each is an ordinary run in its own workdir, except for its steps.

Members are evaluated, saved and tested like single runs, at the steps due by their config, by the same functions and
programs. Only their steps are made together, in the fastest of the possible ways.
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
from jaxcnn.train import due, loop
from jaxcnn.train.drive import Diverged, is_ready, record_metrics
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.population_based import KIND, Evolution, Exchange, exchanged, exchanges
from jaxcnn.train.population_ways import Members, Stepper, first_of
from jaxcnn.train.session import Session
from jaxcnn.train.steps_per_call import StepsPerCall


@dataclasses.dataclass(frozen=True)
class _Call:
    """Steps that were started together: their number, the step of each member before them, and their metrics."""

    count: int
    before: dict[int, int]
    metrics: Any


class Group:
    """Members that are trained together, until each has ended.

    Args:
      sessions: sessions of one spec, by number, each opened up to its first step; they may be at different steps.
      make: the stepper that makes their steps; their states are loaded.
      interrupts: decides when all members stop.
      ended: called with the number of a member and its summary, or the exception that ended it.
      evolution: how members take over the states of others; None: they never do.
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
        self._due = {number: loop.due_of(session) for number, session in self._live.items()}
        self._make, self._interrupts, self._ended, self._evolution = make, interrupts, ended, evolution
        self._exchange_steps: frozenset[int] = frozenset()
        if evolution is not None:
            spec = first_of(sessions).spec
            total = spec.total_steps
            # After the last step, a state that was taken over would not be trained any more.
            self._exchange_steps = due.rhythm(evolution.every_epochs, spec.steps_per_epoch, total) - {total}
            # All members are saved there, so that on disk too a state taken over and its source are of the same step.
            self._due = {
                number: loop.Due(due.evaluate | self._exchange_steps, due.save | self._exchange_steps)
                for number, due in self._due.items()
            }
        self._calls = StepsPerCall(first_of(sessions).steps_per_call)
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
        """Do what is due for some members, one by one as in single runs; finish those at their last step."""
        states = self._make.states() if numbers else {}
        for number in numbers:
            session = self._live[number]
            with _holding(session, states[number]):
                try:
                    what(session, self._due[number])
                    figures = loop.finish(session) if loop.ended(session, self._due[number]) else None
                except Interrupted:
                    raise
                except Exception as error:
                    self._end(number, error)
                    continue
                if figures is not None:
                    self._end(number, figures)

    def _exchange(self) -> None:
        """Let members take over the states of others at the same step, if this is due, and save them.

        A member that did so at this step before it was stopped does not do so again. Its score is still that of its
        own last evaluation, so the exchanges of the others are the same as they would have been then.
        """
        if self._evolution is None:
            return
        for step in {session.step for session in self._live.values()} & self._exchange_steps:
            there = {n: session.progress for n, session in self._live.items() if session.step == step}
            found = exchanges(self._evolution, step, {n: progress.score for n, progress in there.items()})
            found = [each for each in found if there[each.member].exchanged < step]
            if not found:
                continue
            states = {number: jax.device_get(state) for number, state in self._make.states().items()}
            states |= {each.member: exchanged(each, states) for each in found}
            for each in found:
                self._record(each, step, states)
            self._make.load(states)

    def _record(self, exchange: Exchange, step: int, states: dict[int, Any]) -> None:
        """Log an exchange in the logs of its member, and save the member."""
        assert self._evolution is not None
        session, name = self._live[exchange.member], self._evolution.names[exchange.source]
        hyper = states[exchange.member].hyper
        values = {"from": name, "learning_rate": float(hyper.learning_rate), "weight_decay": float(hyper.weight_decay)}
        session.logbook.record(KIND, step, values)
        session.logbook.say(
            f"step {step}: continues from trial {name}, learning rate {values['learning_rate']:g}, weight decay "
            f"{values['weight_decay']:g}"
        )
        session.progress.exchanged, session.saved = step, -1
        with _holding(session, states[exchange.member]):
            try:
                loop.save(session, evaluated=True)
            except UserError as error:
                self._end(exchange.member, error)

    def _train(self, steps: int) -> None:
        """Train all members for `steps` steps. When this returns or raises, all steps made are read."""
        self._interrupts.enter("train")
        self._window = time.monotonic()
        done = 0
        try:
            while done < steps and self._live:
                self._interrupts.check()
                count = min(self._calls.allowed, steps - done)
                before = {number: session.step for number, session in self._live.items()}
                call = _Call(count, before, self._make.step(count, self._live))
                for session in self._live.values():
                    session.step += count
                self._read()  # the previous call, so the devices never wait for the host
                self._unread = call
                if is_ready(call.metrics):
                    self._read()
                done += count
        finally:
            self._read()

    def _read(self) -> None:
        """Wait for the unread call, if any; record for each member its metrics and its share of the time."""
        call, self._unread = self._unread, None
        if call is None:
            return
        rows = self._make.rows(call.metrics)
        now = time.monotonic()
        seconds, self._window = now - self._window, now
        self._calls.measured(call.count, seconds)
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
        """Save all members; return the message for the user."""
        states = self._make.states()
        for number, session in list(self._live.items()):
            with _holding(session, states[number]):
                try:
                    loop.stop(session, why)
                except UserError as error:  # the other members are still saved
                    self._end(number, error)
        return f"{why}: stopped with a checkpoint of each of {len(self._live)} trials; {self._interrupts.where}"


@contextlib.contextmanager
def _holding(session: Session, state: Any) -> Iterator[None]:
    """Give a session its state, on its own mesh, in the body; else it has only shapes, so no state is stored twice."""
    session.state = jax.device_put(state, sharded.state_shardings(session.spec, session.mesh))
    try:
        yield
    finally:
        session.state = sharded.abstract_state(session.spec, session.mesh)
