"""Signals to a command, in any phase of it.

SIGTERM, SIGINT, SIGHUP (a terminal that was closed) and SIGUSR1 (the notice of many schedulers) all ask it to stop.
Python runs signal handlers only between bytecodes of the main thread, which may be inside one XLA compilation for a
minute. So the signal's number goes through `signal.set_wakeup_fd` to a thread of our own, which acts at once where
there is nothing to save, and else asks the run to save and stop, and makes sure that it does.
"""

import atexit
import os
import pathlib
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from jaxcnn.at_start import last_words, numbers
from jaxcnn.train.interrupts import INTERRUPTED, NOTHING_TO_SAVE, Interrupts

LEAVING_SECONDS = 5.0
# A person, or a scheduler, that sends these twice insists; SIGHUP comes from the kernel and from the shell as well.
_INSISTENT = (signal.SIGTERM, signal.SIGINT)
_STOPPING = {
    "sweep": "stopping",
    "finish": "stopping once the last files are written",
}

T = TypeVar("T")


class Signals(Interrupts):
    """A context manager that watches for signals while a command is under way; `Interrupts` says the rest.

    A run that has not stopped `grace_seconds` after a signal is left as it is, and the process ends. Where a run has
    several processes, they are told why this one leaves; and a second signal changes nothing, since schedulers and
    launchers send one each. `leaving` is called by the watching thread before the process leaves, and is given
    `LEAVING_SECONDS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where = "the same command starts it again"
        self._lock = threading.Lock()  # what a signal does goes by the phase, which must not change meanwhile
        self._timer: threading.Timer | None = None
        self._insisted = False
        self._code: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in numbers():
            self._previous[number] = signal.signal(number, _wake_only)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is not None:  # the process is at its end
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_fd)
        self._write.close()  # ends the thread

    def end(self, code: int) -> None:
        """The command has done all it does: a signal from here on cannot change its exit code."""
        with self._lock:
            self._code = code
            self._cancel()

    def enter(self, phase: str) -> None:
        """Tell what the command does from here on."""
        with self._lock:
            self.phase = phase

    def goes_on(self, folder: pathlib.Path) -> str:
        """How a run in a workdir goes on, in words."""
        return f"the same command with --workdir={folder} goes on"

    def _forget(self) -> None:
        with self._lock:
            self._cancel()

    def drive(self, work: Callable[[], T]) -> T:
        """`work()`: no signal raises anything here."""
        return work()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self) -> None:
        while data := self._read.recv(1):
            if data[0] in self._previous:
                with self._lock:
                    self._came(signal.Signals(data[0]))

    def _came(self, number: signal.Signals) -> None:
        if self._code is not None:
            os._exit(self._code)
        insisted, self._insisted = self._insisted, self._insisted or number in _INSISTENT
        if self.received:
            if insisted and number in _INSISTENT and self.cluster.alone:
                last_words(f"{number.name} again: stopped at once; {self.where}")
                os._exit(128 + number)
            return
        self.received = number.name
        if self.phase in NOTHING_TO_SAVE:
            self._leave(f"{number.name} during {self.phase}: stopped, nothing was lost")
        again = " (again: at once)" if self.cluster.alone else ""
        stopping = _STOPPING.get(self.phase, "saving a checkpoint and stopping")
        last_words(f"{number.name} during {self.phase}: {stopping}{again}")
        self._timer = threading.Timer(self.grace_seconds, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        with self._lock:
            if self._timer is None:  # it was cancelled as it went off
                return
            self._leave(
                f"{self.phase} did not finish within {self.grace_seconds:.0f} s of the signal; "
                "stopped with the newest finished checkpoint"
            )

    def _leave(self, why: str) -> None:
        if self.cluster.heartbeat is not None:
            self.cluster.heartbeat.leave(why, INTERRUPTED)
        last_words(f"{why}; {self.where}")
        if self.leaving is not None:
            thread = threading.Thread(target=self.leaving, name="leaving", daemon=True)
            thread.start()
            thread.join(LEAVING_SECONDS)
        os._exit(INTERRUPTED)


def _wake_only(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the wake-up descriptor has already told the watching thread."""


def ignore_at_exit() -> None:
    """Once Python has ended its threads nothing can watch, and signals no longer change a command's exit code."""

    def ignore() -> None:
        for number in numbers():
            signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)  # what is registered first is called last
