"""What stops a run between its steps: a condition of its caller's, or KeyboardInterrupt; in commands, signals.

Python raises KeyboardInterrupt between any two bytecodes of the main thread, such as those where a step is made and its
results are in nobody's hands yet. So a run that is called from the main thread is driven in another one from its first
step on: there nothing breaks off, and the main thread tells it to stop. Nothing here touches signal handlers or ends
the process; `jaxcnn.command.signals` does, for commands.
"""

import concurrent.futures
import contextlib
import contextvars
import logging
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxcnn.machine.heartbeat import RESTARTABLE, Cluster

GRACE_SECONDS = 20.0  # for the current step, evaluation batch and save
LOOK_SECONDS = 0.1
INTERRUPTED = RESTARTABLE  # exit code: stopped by a signal

# Phases in which the state on disk is all there is, so that leaving at once loses nothing.
NOTHING_TO_SAVE = ("start", "data", "compile")

T = TypeVar("T")
_log = logging.getLogger("jaxcnn")


class Interrupted(Exception):
    """A run was asked to stop; it is resumable."""


class Interrupts:
    """Whether a run has to stop, and what it is doing.

    Args:
      asked: asked between steps and between batches of an evaluation, from the thread that trains; once it is true the
        run saves a checkpoint and stops.

    Attributes:
      phase: what the run is doing: start, data, compile, train, evaluate, save, finish; told by `enter`. A sweep is in
        phase sweep between its trials.
      where: one line on how to go on, for the message.
      leaving: called before the process leaves where there is nothing to save; by commands alone.
      cluster: the processes of the run. Where there are several, all stop at the same step.
      grace_seconds: how long a run may take to stop; only commands make sure of it.
      received: what asked the run to stop, in a word or two; None: nothing has.
    """

    def __init__(self, asked: Callable[[], bool] = lambda: False, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.phase = "start"
        self.where = "the same call starts it again"
        self.grace_seconds = GRACE_SECONDS
        self.received: str | None = None
        self.leaving: Callable[[], None] | None = None
        self._asked = asked
        self._sent: Callable[[], list[Any]] | None = None

    def enter(self, phase: str) -> None:
        """Tell what the run does from here on. Raises Interrupted where it has to stop and has nothing to save."""
        self.phase = phase
        if phase in NOTHING_TO_SAVE and self.cluster.alone and self.is_asked():
            raise Interrupted(f"{self.received} before {phase}: stopped, nothing was lost; {self.where}")

    def check(self) -> None:
        """Raise `Interrupted` if the run has to stop: on several processes at the same call of this, if any has to.

        What the processes tell each other is read a call late, so that nobody waits for it; the call after the one
        that a signal came before is the one that raises.
        """
        self.agree()

    def agree(self, value: Any = None) -> list[Any]:
        """`check`, and the values that the processes gave at the call before, in their order; this one's if alone."""
        self.is_asked()
        if self.cluster.alone:
            if self.received:
                raise Interrupted(self.received)
            return [value]
        before, self._sent = self._sent, self.cluster.start_gather([self.received, value])
        answers = before() if before else [[None, value]]
        for host, (received, _) in zip(self.cluster.hosts, answers, strict=False):
            if received:
                raise Interrupted(f"{received} on {host}")
        return [given for _, given in answers]

    def is_asked(self) -> bool:
        """Whether this process has to stop, as far as it knows; then `received` says why."""
        if self.received is None and self._asked():
            self.received = "asked to stop"
        return self.received is not None

    def goes_on(self, folder: pathlib.Path) -> str:
        """How a run in a workdir goes on, in words."""
        return f"the same call with {folder} goes on"

    @contextlib.contextmanager
    def one_run(self) -> Iterator[None]:
        """What is told meanwhile is of one run: afterwards it is as it was before."""
        names = ("phase", "where", "leaving", "cluster", "grace_seconds", "_sent")
        before = {name: getattr(self, name) for name in names}
        try:
            yield
        finally:
            vars(self).update(before)
            self._forget()

    def _forget(self) -> None:
        """After a run: a KeyboardInterrupt was its own alone."""
        self.received = None

    def drive(self, work: Callable[[], T]) -> T:
        """`work()`, the steps of a run. A KeyboardInterrupt asks it to stop, and is raised once it has.

        So is whatever else a signal handler of the caller's raises in the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return work()
        with concurrent.futures.ThreadPoolExecutor(1, "jaxcnn-run") as pool:
            running = pool.submit(contextvars.copy_context().run, work)
            broken = self._wait(running)
        if broken is None:
            return running.result()
        error = running.exception()
        if error is not None and not isinstance(error, Interrupted):
            raise error
        if isinstance(broken, KeyboardInterrupt):
            raise KeyboardInterrupt(str(error or "the run has ended")) from None
        raise broken

    def _wait(self, running: concurrent.futures.Future[Any]) -> BaseException | None:
        """Wait for the end of a run that works in another thread; return what was raised here meanwhile."""
        broken: BaseException | None = None
        while not running.done():
            try:
                concurrent.futures.wait([running], LOOK_SECONDS)  # `_thread.interrupt_main` wakes nobody
            except BaseException as error:  # once more: the run is stopping, and its files are not to be torn
                if broken is None:
                    broken, self.received = error, type(error).__name__
                    _log.warning("%s during %s: saving a checkpoint and stopping", self.received, self.phase)
        return broken
