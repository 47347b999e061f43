"""How long a stop and a restart may take: SIGTERM to the exit, and a restart beside a warm start of the same run."""

import json
import pathlib
import shutil
import signal
import threading
import time
from typing import Any

from tests.campaign.draws import Draw
from tests.campaign.struck import start
from tests.campaign.watched import LIMIT

STOP = 15.0  # seconds from SIGTERM to the exit, on CPUs
TIMES = 2.0  # of the seconds of a warm start, within which a restart makes its first step
SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL", "SIGKILL in a save")  # others slow a start down themselves
FIRST_STEP = "compiled in"  # the words of a run that has made its first step
_measuring = threading.Lock()


def warm(draw: Draw, undisturbed: pathlib.Path, again: bool = False) -> float:
    """Seconds from a first start of the run to its first step, where its programs are kept; the slowest seen.

    Args:
      draw: the run.
      undisturbed: the folder of the undisturbed run, whose programs are kept.
      again: measure once more, since the machine may have more to do by now.

    Raises:
      RuntimeError: it made no step.
    """
    told = undisturbed.with_name(f"warm-{'fresh' if draw.fresh else 'forked'}.json")
    with _measuring:
        seen = json.loads(told.read_text()) if told.exists() else []
        if not seen or again:
            workdir = undisturbed.with_name("warm")
            shutil.rmtree(workdir, ignore_errors=True)
            watched = start(draw, workdir)
            deadline = time.monotonic() + LIMIT
            while watched.seconds_to(FIRST_STEP) is None and watched.runs() and time.monotonic() < deadline:
                time.sleep(0.02)
            watched.send(signal.SIGKILL)
            watched.end()
            shutil.rmtree(workdir, ignore_errors=True)
            seconds = watched.seconds_to(FIRST_STEP)
            if seconds is None:
                raise RuntimeError(f"a warm start of {draw} made no step: {watched.output()[-1000:]}")
            seen.append(round(seconds, 2))
            told.write_text(json.dumps(seen))
        return max(seen)


def slowest_restart(outcome: dict[str, Any]) -> float:
    """Seconds of the slowest restart after a signal, to its first step; 0: there is none that can be compared."""
    if "devices" in outcome or any(fault["fault"] == "other devices" for fault in outcome["faults"]):
        return 0.0
    those = [fault for fault in outcome["faults"] if fault["fault"] in SIGNALS] + outcome.get("restarts", [])
    return max((each["ready"] for each in those if "ready" in each), default=0.0)


def slow(outcome: dict[str, Any], draw: Draw, undisturbed: pathlib.Path) -> str:
    """What took too long in a trial, in a few words; empty: nothing.

    A restart that seems too slow is held against a warm start of now. Restarts on other devices are left out, whose
    programs are not kept, and those after them.
    """
    for fault in outcome["faults"]:
        if fault["fault"] == "SIGTERM" and fault["hit"] and fault["seconds"] > STOP:
            return f"{fault['seconds']:g} s from SIGTERM to the exit, of {STOP:g}"
    slowest = slowest_restart(outcome)
    outcome["warm"] = warm(draw, undisturbed) if slowest else None
    if slowest and slowest > TIMES * outcome["warm"]:
        outcome["warm"] = warm(draw, undisturbed, again=True)
    if slowest and slowest > TIMES * outcome["warm"]:
        return f"{slowest:g} s from a restart to its first step, and {outcome['warm']:g} s from a warm start"
    return ""
