"""A worker process: it builds one thing to measure, then runs it for as many steps as it is asked to.

    python -m benchmarks.serve <module>

Each peer runs in a process, and perhaps an interpreter, of its own, so this needs nothing but the standard library.
Requests come as lines of JSON on standard input, answers go as lines of JSON to standard output; whatever libraries
print goes to standard error. The module has

- `facts()`: versions, device and threads, after the backend has started;
- `build(spec)`: a `Task`, compiled and warmed up;
- `device_memory()`: the allocator's peak in bytes since the process began, or None where the host's memory is all.
"""

import abc
import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
RESET_PEAK_RSS = "5"  # proc_pid_clear_refs(5)


class Task(abc.ABC):
    """Something to measure."""

    @abc.abstractmethod
    def run(self, steps: int) -> None:
        """Do so many steps, and wait for the last of their results."""

    def settle(self) -> None:
        """What comes before a measured block and is not measured, such as emptying a queue that filled up meanwhile."""
        return None

    def facts(self) -> dict[str, Any]:
        """What is worth recording of it; asked for after it has run. Raises where the work was not done right."""
        return {}


class Served:
    """What a worker does with requests; one of them is under way at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._peer: Any = None
        self._task: Any = None
        self._memory: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Import the peer and start its backend; the resident memory after that is what a case is held against."""
        self._peer = importlib.import_module(self._module)
        facts = self._peer.facts()
        self._memory["baseline_bytes"] = memory("VmRSS")
        return facts

    def build(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Build a task, and say how long it took."""
        started = time.perf_counter()
        self._task = self._peer.build(spec)
        seconds = time.perf_counter() - started
        self._memory["peak_of_build_bytes"] = memory("VmHWM")
        reset_peak_memory()
        return {"seconds": seconds}

    def run(self, steps: int) -> dict[str, Any]:
        """Run so many steps; seconds for all of them."""
        self._task.settle()
        started = time.perf_counter()
        self._task.run(steps)
        return {"seconds": time.perf_counter() - started}

    def finish(self) -> dict[str, Any]:
        """Facts of the task and its memory, in bytes."""
        steps = memory("VmHWM")
        self._memory["peak_of_steps_bytes"] = steps
        self._memory["peak_bytes"] = max(steps, self._memory["peak_of_build_bytes"])
        self._memory["device_peak_bytes"] = self._peer.device_memory()
        return {"facts": self._task.facts(), "memory": self._memory}


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes; where there is no /proc, its peak for both."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Let VmHWM begin again at VmRSS; where the system cannot, it goes on."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write(RESET_PEAK_RSS)


def main() -> None:
    """Answer requests until standard input ends."""
    if sys.platform == "linux":  # a worker that stands still could not notice that its parent has gone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    served = Served(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(served, request.pop("do"))(**request)}
        except BaseException as error:
            traceback.print_exc()
            text = str(error).strip().partition("\n")[0]
            answer = {
                "error": f"{type(error).__name__}: {text}" if text else type(error).__name__,
                "missing": error.name if isinstance(error, ModuleNotFoundError) else None,
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
