"""Signals to a command in any of its phases.

SIGTERM, SIGINT, SIGHUP (a closed terminal) and SIGUSR1 (the notice of many schedulers) all ask the command to stop.
Python runs signal handlers only between bytecodes of the main thread, which may spend a minute in an XLA compilation.
So the signal's number goes through `signal.set_wakeup_fd` to a separate thread. If nothing needs saving, it ends the
process at once; otherwise it asks the run to save and stop, and makes sure that this happens.
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
# For the last files of a run (phase finish): all its steps are in a checkpoint by then, so a machine that is too busy
# to draw the curves in this time loses nothing, and the process ends within 15 s of a signal.
LAST_FILES_SECONDS = 9.0
# If a person or a scheduler sends one of these twice, the process ends at once. SIGHUP is excluded, because it comes
# both from the kernel and from the shell.
_INSISTENT = (signal.SIGTERM, signal.SIGINT)
_STOPPING = {
    "sweep": "stopping",
    "serve": "answering what has come, then stopping",
    "measure": "stopping what is measured",
    "finish": "stopping after the last files are written",
}

T = TypeVar("T")


class Signals(Interrupts):
    """A context manager that watches for signals while a command runs; see also `Interrupts`.

    If a run has not stopped `grace_seconds` after a signal, the process ends without waiting; if it only has to write
    its last files, after `LAST_FILES_SECONDS` at most. If a run has several processes, the others get the reason, and a
    second signal has no effect, since scheduler and launcher each send one.
    The watching thread calls `leaving` before the process ends, and waits for it for up to `LEAVING_SECONDS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where = "the same command starts it again"
        self._lock = threading.Lock()  # a signal's effect depends on the phase, which must not change meanwhile
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
        if self._code is not None:  # the process is ending
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_fd)
        self._write.close()  # ends the thread

    def end(self, code: int) -> None:
        """The command has finished: from now on, a signal cannot change its exit code."""
        with self._lock:
            self._code = code
            self._cancel()

    def enter(self, phase: str) -> None:
        """Set the current phase of the command."""
        with self._lock:
            self.phase = phase

    def goes_on(self, folder: pathlib.Path) -> str:
        """A text on how to continue a run in a workdir."""
        return f"the same command with --workdir={folder} continues"

    def _forget(self) -> None:
        with self._lock:
            self._cancel()

    def drive(self, work: Callable[[], T]) -> T:
        """Return `work()`; signals raise no exception during it."""
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
        again = " (a second signal stops it at once)" if self.cluster.alone else ""
        stopping = _STOPPING.get(self.phase, "saving a checkpoint and stopping")
        last_words(f"{number.name} during {self.phase}: {stopping}{again}")
        seconds = min(self.grace_seconds, LAST_FILES_SECONDS) if self.phase == "finish" else self.grace_seconds
        self._timer = threading.Timer(seconds, self._give_up, [seconds])
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self, seconds: float) -> None:
        with self._lock:
            if self._timer is None:  # it was cancelled while it fired
                return
            self._leave(
                f"{self.phase} did not finish within {seconds:.0f} s of the signal; "
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
    """A handler that does nothing: the wake-up descriptor has already notified the watching thread."""


def ignore_at_exit() -> None:
    """Ignore signals once Python has ended its threads, so that no thread watches: the exit code must not change."""

    def ignore() -> None:
        for number in numbers():
            signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)  # functions registered first are called last
