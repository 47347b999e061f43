"""How long a network takes to answer, by batch size, and to answer for the first time."""

import dataclasses
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxcnn.config import UserError
from jaxcnn.deploy.runtimes import Runtime
from jaxcnn.text import markdown_table

LEAST_CALLS, MOST_CALLS = 20, 10_000
MOST_BATCH = 2**16


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of one batch size, in seconds.

    Attributes:
      batch: number of images in a call.
      first: time of the first call, which compiles or plans.
      calls: number of calls after the first.
      p50, p95, p99: times that this share of the calls does not exceed. Of fewer than 100 calls, p99 is the slowest.
    """

    batch: int
    first: float
    calls: int
    p50: float
    p95: float
    p99: float

    @property
    def images_per_second(self) -> float:
        """By the median."""
        return self.batch / self.p50


def check_batches(batches: Sequence[int | str]) -> None:
    """Refuse batch sizes that are no numbers from 1 to `MOST_BATCH`.

    Raises:
      UserError: there is one, or none at all.
    """
    if not batches or not all(isinstance(each, int) and 0 < each <= MOST_BATCH for each in batches):
        given = ",".join(map(str, batches))
        raise UserError(f"--batches={given}: batch sizes are numbers from 1 to {MOST_BATCH}")


def measure(
    runtime: Runtime,
    batches: Sequence[int],
    seconds: float,
    answered: Callable[[], None] = lambda: None,
    given: Num[np.ndarray, "n h w c"] | None = None,
) -> list[Timing]:
    """Time each batch size for about `seconds` after its first call; images are new in memory each time.

    They are random, or those `given`, again and again in their order. `answered` is called after the first call of each
    batch size.
    """
    timings = []
    for batch in batches:
        generator = np.random.default_rng(batch)
        shape = (batch, *runtime.image_shape)
        if given is not None:
            images = given[np.arange(batch) % len(given)]
        elif runtime.image_dtype == "float32":
            images = generator.random(shape, np.float32)
        else:
            images = generator.integers(0, np.iinfo(runtime.image_dtype).max, shape, runtime.image_dtype, endpoint=True)
        first = _seconds(runtime, images)
        answered()
        _seconds(runtime, images)  # the second call still allocates
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < LEAST_CALLS or (time.perf_counter() < until and len(times) < MOST_CALLS):
            times.append(_seconds(runtime, images.copy()))
        p50, p95, p99 = np.quantile(times, (0.5, 0.95, 0.99), method="inverted_cdf")
        timings.append(Timing(batch, first, len(times), float(p50), float(p95), float(p99)))
    return timings


def _seconds(runtime: Runtime, images: np.ndarray) -> float:
    began = time.perf_counter()
    runtime.call(images)
    return time.perf_counter() - began


def record(timing: Timing) -> dict[str, Any]:
    """The figures of one batch size by name; times in seconds."""
    return dataclasses.asdict(timing) | {"images_per_second": timing.images_per_second}


def process_seconds() -> float | None:
    """Seconds since this process was started, its imports included; None where the system does not tell (not Linux)."""
    try:
        started = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def peak_bytes() -> int | None:
    """The most memory that this process had at once; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def table(timings: Sequence[Timing]) -> list[str]:
    """The timings as lines of a Markdown table; milliseconds."""
    lines = []
    for each in timings:
        times = (each.p50, each.p95, each.p99)
        shown = [f"{1000 * seconds:.3f}" for seconds in times]
        rate = f"{each.images_per_second:,.0f}"
        lines.append([str(each.batch), f"{1000 * each.first:.1f}", str(each.calls), *shown, rate])
    return markdown_table(["batch", "first call ms", "calls", "p50 ms", "p95 ms", "p99 ms", "images/s"], lines)
