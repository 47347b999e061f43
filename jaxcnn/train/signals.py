"""SIGTERM and SIGINT in any phase of a run.

Python runs signal handlers only between bytecodes of the main thread, which may be inside one XLA compilation for a
minute. So the signal's number goes through `signal.set_wakeup_fd` to a thread of our own, which acts at once where
there is nothing to save, and else asks the loop to save and stop, and makes sure that it does.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from jaxcnn.lifeline import RESTARTABLE, Cluster

INTERRUPTED = RESTARTABLE  # exit code: stopped by a signal
GRACE_SECONDS = 20.0  # for the current step, evaluation batch and save, before the process leaves all the same
LEAVING_SECONDS = 5.0

# Phases in which the state on disk is all there is, so that leaving at once loses nothing.
_NOTHING_TO_SAVE = ("start", "data", "compile")


class Interrupted(Exception):
    """The user or the scheduler asked the run to stop; it is resumable."""


class Interrupts:
    """A context manager that watches for SIGTERM and SIGINT while a run is under way.

    Attributes:
      phase: what the run is doing: start, data, compile, train, evaluate, save; set by the run.
      where: one line on how to go on, printed when the process leaves from the watching thread.
      leaving: called by the watching thread before the process leaves, and given `LEAVING_SECONDS`.
      cluster: the processes of the run. Where there are several, they are told why this one leaves; and a second
        signal changes nothing, since schedulers and launchers send one each.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.phase = "start"
        self.where = "the same command starts it again"
        self.received: str | None = None
        self.leaving: Callable[[], None] | None = None
        self._grace_seconds = grace_seconds
        self._previous: dict[int, object] = {}
        self._asked: Callable[[], list[Any]] | None = None

    def __enter__(self) -> "Interrupts":
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, _wake_only)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_fd)
        self._write.close()  # ends the thread

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come: on several processes at the same call of this, if to any of them.

        What the processes tell each other is read a call late, so that nobody waits for it; the call after the one
        that a signal came before is the one that raises.
        """
        self.agree()

    def agree(self, value: Any = None) -> list[Any]:
        """`check`, and the values that the processes gave at the call before, in their order; this one's if alone."""
        if self.cluster.alone:
            if self.received:
                raise Interrupted(self.received)
            return [value]
        before, self._asked = self._asked, self.cluster.start_gather([self.received, value])
        answers = before() if before else [[None, value]]
        for host, (received, _) in zip(self.cluster.hosts, answers, strict=False):
            if received:
                raise Interrupted(f"{received} on {host}")
        return [given for _, given in answers]

    def _watch(self) -> None:
        while data := self._read.recv(1):
            if data[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            name = signal.Signals(data[0]).name
            if self.received:
                if self.cluster.alone:
                    _last_words(f"jaxcnn: {name} again: stopped at once; {self.where}")
                    os._exit(128 + data[0])
                continue
            self.received = name
            if self.phase in _NOTHING_TO_SAVE:
                self._leave(f"{name} during {self.phase}: stopped, nothing was lost")
            again = " (again: at once)" if self.cluster.alone else ""
            _last_words(f"jaxcnn: {name} during {self.phase}: saving a checkpoint and stopping{again}")
            timer = threading.Timer(self._grace_seconds, self._give_up)
            timer.daemon = True
            timer.start()

    def _give_up(self) -> None:
        self._leave(
            f"{self.phase} did not finish within {self._grace_seconds:.0f} s of the signal; "
            "stopped with the newest finished checkpoint"
        )

    def _leave(self, why: str) -> None:
        if self.cluster.lifeline is not None:
            self.cluster.lifeline.leave(why, INTERRUPTED)
        _last_words(f"jaxcnn: {why}; {self.where}")
        if self.leaving is not None:
            thread = threading.Thread(target=self.leaving, name="leaving", daemon=True)
            thread.start()
            thread.join(LEAVING_SECONDS)
        os._exit(INTERRUPTED)


def _wake_only(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the wake-up descriptor has already told the watching thread."""


def _last_words(line: str) -> None:
    # Not print: the main thread may hold the lock of a buffered stream.
    os.write(2, f"\n{line}\n".encode())
