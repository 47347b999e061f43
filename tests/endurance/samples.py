"""Samples of a process (Linux): its memory, open files, threads and processor time, and what of them grew."""

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

PARTS = 10  # tenths of the work, which are compared
MEMORY = 0.02  # growth of the memory from the second tenth to the last that counts as flat
SLOWER = 0.05  # more processor time for the same work in the last tenth that counts as equally fast
TENTHS = ("first", "second", "fifth", "last")  # which are told
LEAST = 3  # samples in a tenth, of which the median and the minimum say something


@dataclasses.dataclass(frozen=True)
class Sample:
    """A process at one moment.

    Attributes:
      done: steps or requests so far.
      seconds: time of a clock that does not jump.
      processor: seconds of processor time so far, of all its threads.
      memory: resident bytes.
      files, threads: how many are open, and run.
    """

    done: int
    seconds: float
    processor: float
    memory: int
    files: int
    threads: int


def sample(process: int, done: int) -> Sample:
    """A process as it is now. Raises OSError if it has ended."""
    place = pathlib.Path("/proc") / str(process)
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    processor = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    memory, threads = 1024 * int(status["VmRSS"].split()[0]), int(status["Threads"])
    return Sample(done, time.monotonic(), processor, memory, len(os.listdir(place / "fd")), threads)


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """What the first, the second and the last tenth of the work took.

    The second tenth is compared with the last, since in the first the parts that every run needs are still met for the
    first time, such as the first evaluation and the first checkpoint. Of open files and threads the fewest of a tenth
    count: while a checkpoint is written, there are more for a moment. Speed is told by processor time as well, which
    hardly depends on other work on the machine. The fifth tenth tells threads that are added until the end from those
    of pools, which libraries fill up to a fixed number over many checkpoints.

    Raises:
      ValueError: too few samples.
    """
    first, last = samples[0].done, samples[-1].done
    width = (last - first) / PARTS
    tenths = [
        [each for each in samples if first + k * width <= each.done <= first + (k + 1) * width] for k in range(PARTS)
    ]
    if min(map(len, tenths)) < LEAST:
        raise ValueError(f"a tenth of the work has fewer than {LEAST} samples")
    told: dict[str, Any] = {"done": last - first, "seconds": samples[-1].seconds - samples[0].seconds}
    for name, tenth in zip(TENTHS, (tenths[0], tenths[1], tenths[4], tenths[-1]), strict=True):
        done = tenth[-1].done - tenth[0].done
        told[name] = {
            "memory": statistics.median(each.memory for each in tenth),
            "files": min(each.files for each in tenth),
            "threads": min(each.threads for each in tenth),
            "per_second": done / max(tenth[-1].seconds - tenth[0].seconds, 1e-9),
            "processor": (tenth[-1].processor - tenth[0].processor) / done,
        }
    return told


def complaints(told: dict[str, Any]) -> list[str]:
    """What grew or became slower, each in a few words; empty: nothing."""
    second, fifth, last = told["second"], told["fifth"], told["last"]
    found = []
    if last["memory"] > (1 + MEMORY) * second["memory"]:
        found.append(f"memory grew by {last['memory'] / second['memory'] - 1:.1%}, of {MEMORY:.0%}")
    if last["files"] > second["files"]:
        found.append(f"open files grew from {second['files']} to {last['files']}")
    if last["threads"] > max(second["threads"], fifth["threads"]):
        found.append(f"threads grew from {second['threads']} to {last['threads']}")
    if last["processor"] > (1 + SLOWER) * second["processor"]:
        found.append(f"the last tenth took {last['processor'] / second['processor'] - 1:.1%} more processor time")
    return found
