"""Stopping a run between steps: by a condition of its caller or KeyboardInterrupt; in commands, by signals.

Python raises KeyboardInterrupt between any two bytecodes of the main thread, for example when a step has run but its
results are not stored yet. So a run called from the main thread continues in another thread from its first step on:
nothing interrupts that thread, and the main thread asks it to stop. This module neither touches signal handlers nor
ends the process; `jaxcnn.command.signals` does so for commands.
"""

import concurrent.futures
import contextlib
import contextvars
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxcnn.machine.heartbeat import RESTARTABLE, Cluster

GRACE_SECONDS = 20.0  # seconds for the current step, evaluation batch and save
LOOK_SECONDS = 0.1
AGAIN_SECONDS = 1.0  # an interrupt so long after the first one leaves at once; one before it is the same press
INTERRUPTED = RESTARTABLE  # exit code: stopped by a signal

# Phases in which all state is on disk, so leaving at once loses nothing.
NOTHING_TO_SAVE = ("start", "data", "compile")

T = TypeVar("T")
_log = logging.getLogger("jaxcnn")


class Stopped(KeyboardInterrupt):
    """KeyboardInterrupt of a run that has stopped; its text says at which step."""


class Interrupted(Exception):
    """A run has stopped on request; it is resumable."""


class Interrupts:
    """Tells whether a run has to stop, and in which phase it is.

    Args:
      stop_requested: called between steps and between batches of an evaluation, in the training thread; once it
        returns true, the run saves a checkpoint and stops.
      cluster: see the attribute.

    Attributes:
      phase: what the run is doing: start, data, compile, train, evaluate, save or finish; set by `enter`. A sweep is in
        phase sweep between its trials.
      where: one line on how to resume, for the message.
      leaving: called before the process exits while nothing needs saving; only commands call it.
      cluster: the processes of the run; if there are several, all stop at the same step.
      grace_seconds: seconds that a run may take to stop; only commands enforce this.
      received: the reason to stop, in one or two words, such as a signal; None if there is none.
    """

    def __init__(self, stop_requested: Callable[[], bool] = lambda: False, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.phase = "start"
        self.where = "the same call starts it again"
        self.grace_seconds = GRACE_SECONDS
        self.received: str | None = None
        self.leaving: Callable[[], None] | None = None
        self._abandoned = False  # by a second interrupt, while the run hung
        self._stop_requested = stop_requested
        self._sent: Callable[[], list[Any]] | None = None

    def enter(self, phase: str) -> None:
        """Set the phase. Raises Interrupted if the run has to stop and nothing needs saving."""
        self._go_on()
        self.phase = phase
        if phase in NOTHING_TO_SAVE and self.cluster.alone and self.is_asked():
            raise Interrupted(f"{self.received} before {phase}: stopped, nothing was lost; {self.where}")

    def _go_on(self) -> None:
        """End the thread of a run that was left: another call may use the workdir now."""
        if self._abandoned:
            raise Interrupted("left by a second interrupt")

    def check(self) -> None:
        """Raise `Interrupted` if the run has to stop; if any of several processes has to, all raise at the same call.

        Processes read each other's messages one call late, so that none waits: after a signal, the first call sends
        it and the second one raises.
        """
        self.agree()

    def agree(self, value: Any = None) -> list[Any]:
        """`check`, then return the values that all processes gave at the previous call, in order; [value] if alone."""
        self._go_on()
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
        """Whether this process knows that it has to stop; then `received` says why."""
        if self.received is None and self._stop_requested():
            self.received = "stop requested"
        return self.received is not None

    def goes_on(self, folder: pathlib.Path) -> str:
        """A sentence on how to resume the run in a workdir."""
        return f"the same call with {folder} continues"

    @contextlib.contextmanager
    def one_run(self) -> Iterator[None]:
        """Limit changes of this object to one run: afterwards they are undone."""
        names = ("phase", "where", "leaving", "cluster", "grace_seconds", "_sent")
        before = {name: getattr(self, name) for name in names}
        try:
            yield
        finally:
            vars(self).update(before)
            self._forget()

    def _forget(self) -> None:
        """Forget a KeyboardInterrupt after a run, because it concerned that run only."""
        self.received = None

    def drive(self, work: Callable[[], T]) -> T:
        """Return `work()`, the steps of a run. A KeyboardInterrupt asks it to stop, and is raised once it has stopped.

        Another one, at least `AGAIN_SECONDS` later, is raised at once, for example if a function of the user hangs. The
        thread of the run then ends at its next step, and writes nothing more.
        The same holds for any other exception that a signal handler of the caller raises in the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return work()
        running: concurrent.futures.Future[T] = concurrent.futures.Future()
        may_start, started = threading.Event(), False

        def run() -> None:
            may_start.wait()
            if not started:
                return
            try:
                running.set_result(work())
            except BaseException as error:
                running.set_exception(error)

        # No executor: if an interrupt hits the start of its thread, it forgets the thread, which continues to run. A
        # daemon, as a script could not end while a run that was left at once hangs.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(run,), name="jaxcnn-run", daemon=True)
        try:
            thread.start()
            started = True
            may_start.set()
            broken = self._wait(running)
        except BaseException as caught:  # just before or after the wait
            self.received = self.received or type(caught).__name__
            may_start.set()
            if not started or self._abandoned:
                raise
            self._wait(running, caught)
            broken = caught
        if broken is None:
            return running.result()
        error = running.exception()
        if error is not None and not isinstance(error, Interrupted):
            raise error
        if isinstance(broken, KeyboardInterrupt):
            raise Stopped(str(error or "the run has ended")) from None
        raise broken

    def _wait(
        self, running: concurrent.futures.Future[Any], broken: BaseException | None = None
    ) -> BaseException | None:
        """Wait for the end of a run in another thread; return the exception raised in this thread meanwhile, if any.

        Args:
          running: the result of the run.
          broken: the exception that has asked it to stop already.

        Raises:
          Stopped: another exception came later.
        """
        since = time.monotonic()
        while not running.done():
            try:
                concurrent.futures.wait([running], LOOK_SECONDS)  # `_thread.interrupt_main` does not end a wait
            except BaseException as error:  # keep waiting: the run is stopping, and must complete its files
                now = time.monotonic()
                if broken is None:
                    broken, self.received, since = error, type(error).__name__, now
                    _log.warning(
                        "%s during %s: saving a checkpoint and stopping (another one after %g second leaves at once)",
                        self.received,
                        self.phase,
                        AGAIN_SECONDS,
                    )
                elif now - since >= AGAIN_SECONDS:
                    self._abandoned = True
                    raise Stopped(
                        f"interrupted again during {self.phase}: left at once, and what is not in a checkpoint is "
                        f"lost; {self.where}"
                    ) from None
        return broken
