"""A peer for tests of `benchmarks`, with nothing but the standard library: it does what its spec says."""

import os
import sys
from typing import Any

from benchmarks.serve import Task


def facts() -> dict[str, Any]:
    print("a line of a library")  # must not be taken for an answer
    return {"torch": "0.0", "threads": 1, "cpu_capability": "none", "tunables": os.environ.get("GLIBC_TUNABLES")}


def device_memory() -> None:
    return None


def build(spec: dict[str, Any]) -> Task:
    if "say" in spec:
        raise ValueError(spec["say"])
    if "import" in spec:
        __import__(spec["import"])
    if "exit" in spec:
        print("what it said at last", file=sys.stderr)
        os._exit(spec["exit"])
    return Counting(spec.get("bytes", 0))


class Counting(Task):
    def __init__(self, size: int) -> None:
        self._memory, self._count, self._settled = bytearray(size), 0, 0

    def run(self, steps: int) -> None:
        self._count += steps

    def settle(self) -> None:
        self._settled += 1

    def facts(self) -> dict[str, Any]:
        return {"count": self._count, "settled": self._settled}
