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

INTERRUPTED = 75  # exit code: stopped by a signal, resumable (EX_TEMPFAIL of sysexits.h)
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
      leaving: called by that thread before the process leaves, and given `LEAVING_SECONDS`.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.phase = "start"
        self.where = "the same command starts it again"
        self.received: str | None = None
        self.leaving: Callable[[], None] | None = None
        self._grace_seconds = grace_seconds
        self._previous: dict[int, object] = {}

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
        """Raise `Interrupted` if a signal has come."""
        if self.received:
            raise Interrupted(self.received)

    def _watch(self) -> None:
        while data := self._read.recv(1):
            if data[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            name = signal.Signals(data[0]).name
            if self.received:
                _last_words(f"jaxcnn: {name} again: stopped at once; {self.where}")
                os._exit(128 + data[0])
            self.received = name
            if self.phase in _NOTHING_TO_SAVE:
                _last_words(f"jaxcnn: {name} during {self.phase}: stopped, nothing was lost; {self.where}")
                self._leave()
            _last_words(f"jaxcnn: {name} during {self.phase}: saving a checkpoint and stopping (again: at once)")
            timer = threading.Timer(self._grace_seconds, self._give_up)
            timer.daemon = True
            timer.start()

    def _give_up(self) -> None:
        _last_words(
            f"jaxcnn: {self.phase} did not finish within {self._grace_seconds:.0f} s of the signal; "
            f"stopped with the newest finished checkpoint; {self.where}"
        )
        self._leave()

    def _leave(self) -> None:
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
