"""Signals to a command during its imports: one line and exit code 75, where Python would show a traceback.

Commands import this before anything else. It acts only in the process that was started as a command.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 75  # equal to `jaxcnn.machine.heartbeat.RESTARTABLE`, which is not imported yet


def numbers() -> list[int]:
    """The signals that ask a command to stop, without those that a parent ignores, as `nohup` does."""
    ignored = (number for number in (signal.SIGHUP, signal.SIGUSR1) if signal.getsignal(number) != signal.SIG_IGN)
    return [signal.SIGTERM, signal.SIGINT, *ignored]


def last_words(line: str) -> None:
    """Print, from any thread, a line that may be the last one of the process."""
    # Not print: the main thread may hold the lock of a buffered stream. The terminal may have been closed.
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
