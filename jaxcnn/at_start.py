"""Signals to a command that is still importing: one line and exit code 75, where Python would show a traceback.

Commands import this before anything else; it acts in the process that was started as one, and nowhere else.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 75  # as `jaxcnn.machine.heartbeat.RESTARTABLE`, which is not imported yet


def numbers() -> list[int]:
    """The signals that ask a command to stop: those a parent had ignored, as `nohup` does, stay so."""
    ignored = (number for number in (signal.SIGHUP, signal.SIGUSR1) if signal.getsignal(number) != signal.SIG_IGN)
    return [signal.SIGTERM, signal.SIGINT, *ignored]


def last_words(line: str) -> None:
    """Tell the user, from any thread, something that the process may end with."""
    # Not print: the main thread may hold the lock of a buffered stream. The terminal may be what is gone.
    with contextlib.suppress(OSError):
        os.write(2, f"\njaxcnn: {line}\n".encode(errors="backslashreplace"))


def _leave(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    last_words(f"{name} during start: stopped, nothing was lost; the same command starts it again")
    os._exit(INTERRUPTED)


def _is_command() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.startswith("jaxcnn.")


if _is_command():
    for _number in numbers():
        signal.signal(_number, _leave)
