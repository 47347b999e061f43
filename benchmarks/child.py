"""Runs a command to its end, or until a given time or the stop of this command; its output goes to a file."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts

ROOT = pathlib.Path(__file__).parents[1]
LOOK_SECONDS = 0.05
GRACE_SECONDS = 90.0  # time to save and stop after SIGTERM; more than a run of jaxcnn needs
TIME = "the time was up"
# Becomes the command, which gets SIGTERM when its parent ends. A `preexec_fn` would run in a fork of this process, with
# the locks that its other threads held.
_ENDS_WITH_PARENT = (
    "import ctypes, os, signal, sys; PR_SET_PDEATHSIG = 1; "  # linux/prctl.h
    "ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM); os.execvp(sys.argv[1], sys.argv[1:])"
)
_BEFORE = [sys.executable, "-S", "-E", "-c", _ENDS_WITH_PARENT] if sys.platform == "linux" else []


@dataclasses.dataclass(frozen=True)
class Ended:
    """The outcome of a command.

    Attributes:
      code: exit code; -n: killed by signal n.
      seconds: how long it ran.
      stopped: reason why it was asked to stop; empty if it was not.
    """

    code: int
    seconds: float
    stopped: str = ""


def python(module: str, *flags: str) -> list[str]:
    """The command line of a module, with this interpreter."""
    return [sys.executable, "-m", module, *flags]


def ready(interrupts: Interrupts) -> None:
    """Make signals to this command stop its child first, from now on."""
    interrupts.grace_seconds = GRACE_SECONDS + 30
    interrupts.enter("measure")


def run(
    command: Sequence[str],
    log: pathlib.Path,
    interrupts: Interrupts,
    *,
    until: float | None = None,
    enough: Callable[[], bool] = lambda: False,
    environment: dict[str, str] | None = None,
    folder: pathlib.Path = ROOT,
) -> Ended:
    """Run a command; it gets SIGTERM once, if it has to stop, and SIGKILL if it does not stop within the grace period.

    It runs in a session of its own, so that a Ctrl-C reaches this process alone. It gets SIGTERM also if this process
    is killed (on Linux).

    Args:
      command: the command line.
      log: the file to which standard output and error are appended.
      interrupts: decides when this process stops.
      until: time.monotonic() at which the command is stopped.
      enough: called now and then; once it returns True, the command is stopped.
      environment: variables in addition to those of this process.
      folder: the current folder of the command; by default the root of the source tree.
    """
    began = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    stopped, limit = "", float("inf")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*_BEFORE, *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return Ended(process.wait(LOOK_SECONDS), time.monotonic() - began, stopped)
            if not stopped and (stopped := _reason(interrupts, until, enough)):
                process.terminate()
                limit = time.monotonic() + GRACE_SECONDS
            if time.monotonic() > limit:
                process.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # processes that it may have left behind
        process.wait()


def check(interrupts: Interrupts) -> None:
    """Raise `Interrupted` if this command was asked to stop."""
    if interrupts.is_asked():
        raise Interrupted(f"{interrupts.received}: stopped; the same command continues")


def say_stopped(error: Interrupted) -> int:
    """Print that this command stopped; return its exit code."""
    print(f"jaxcnn: {error}", file=sys.stderr)
    return INTERRUPTED


def last_line(log: pathlib.Path) -> str:
    """The last line of a log that is not empty, at most 300 characters; empty if there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _reason(interrupts: Interrupts, until: float | None, enough: Callable[[], bool]) -> str:
    if interrupts.is_asked():
        return interrupts.received or "a signal"
    if until is not None and time.monotonic() >= until:
        return TIME
    return "enough" if enough() else ""
