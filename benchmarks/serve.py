"""A worker process: it builds a task and runs it for the requested number of steps.

    python -m benchmarks.serve <module>

Each peer runs in a separate process, and may have its own interpreter. So this module needs only the standard library.
Requests are lines of JSON on standard input; answers are lines of JSON on standard output. The output of libraries goes
to standard error. The module of a peer has

- `facts()`: starts the backend and returns versions, device and threads;
- `build(spec)`: returns a `Task`, compiled and warmed up;
- `device_memory()`: returns the peak of the device's allocator in bytes, or None if there is only the host's memory.
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
    """A task that is measured."""

    @abc.abstractmethod
    def run(self, steps: int) -> None:
        """Run `steps` steps, and wait for the last result."""

    def settle(self) -> None:
        """Prepare a measured block, such as emptying a queue that has filled up; this is not measured."""
        return None

    def facts(self) -> dict[str, Any]:
        """Facts for the record, called after the task has run. Raises if the results are wrong."""
        return {}


class Served:
    """The answers of a worker to requests, one request at a time."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._peer: Any = None
        self._task: Any = None
        self._memory: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Import the peer and start its backend; the resident memory after that is the baseline of a case."""
        self._peer = importlib.import_module(self._module)
        facts = self._peer.facts()
        self._memory["baseline_bytes"] = memory("VmRSS")
        return facts

    def build(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Build a task; return the seconds."""
        started = time.perf_counter()
        self._task = self._peer.build(spec)
        seconds = time.perf_counter() - started
        self._memory["peak_of_build_bytes"] = memory("VmHWM")
        reset_peak_memory()
        return {"seconds": seconds}

    def run(self, steps: int) -> dict[str, Any]:
        """Run `steps` steps; return the seconds for all of them."""
        self._task.settle()
        started = time.perf_counter()
        self._task.run(steps)
        return {"seconds": time.perf_counter() - started}

    def finish(self) -> dict[str, Any]:
        """The facts of the task, and its memory in bytes."""
        steps = memory("VmHWM")
        self._memory["peak_of_steps_bytes"] = steps
        self._memory["peak_bytes"] = max(steps, self._memory["peak_of_build_bytes"])
        self._memory["device_peak_bytes"] = self._peer.device_memory()
        return {"facts": self._task.facts(), "memory": self._memory}


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes; without /proc, the peak in both cases."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Reset VmHWM to VmRSS, if the system supports it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write(RESET_PEAK_RSS)


def main() -> None:
    """Answer requests until standard input ends."""
    if sys.platform == "linux":  # a stopped worker cannot notice that its parent has ended
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
