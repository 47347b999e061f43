"""The GPU kernels in a profile of JAX's profiler, and their times."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from benchmarks import report


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel, with its total seconds and its number of launches in all traced steps."""

    name: str
    seconds: float
    starts: int


def kernels_of(planes: Iterable[Any]) -> list[Kernel]:
    """The kernels on the GPU streams of a profile, sorted by time, longest first."""
    seconds: collections.Counter[str] = collections.Counter()
    starts: collections.Counter[str] = collections.Counter()
    for plane in planes:
        for line in plane.lines if "GPU" in plane.name else ():
            if line.name.startswith("Stream"):
                for event in line.events:
                    seconds[event.name] += event.duration_ns / 1e9
                    starts[event.name] += 1
    return [Kernel(name, spent, starts[name]) for name, spent in seconds.most_common()]


def describe(kernels: list[Kernel], steps: int, top: int) -> str:
    """Markdown text with the time of all kernels in a step, and a table of the `top` slowest kernels."""
    total, starts = sum(kernel.seconds for kernel in kernels), sum(kernel.starts for kernel in kernels)
    rows = [
        [f"`{kernel.name[:80]}`", f"{1e3 * kernel.seconds / steps:.4f}", f"{kernel.starts / steps:.1f}"]
        for kernel in kernels[:top]
    ]
    head = f"kernels take {1e3 * total / steps:.3f} ms of a step, in {starts / steps:.0f} starts"
    return f"{head}\n\n{report.table(['kernel', 'ms/step', 'starts/step'], rows)}"
