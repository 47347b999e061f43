"""What a population costs beside the same trials one after another, for a small and a large network.

    python -m benchmarks.population [--cases=small,large] [--ways=auto]

Each sweep of `configs/sweeps/population.py` is run by `python -m jaxcnn.sweep` in a process of its own with an empty
cache of compiled programs, first one trial after another, then as a population: as jaxcnn chooses by its measurement
(auto), and in the ways that are named. The total is the time of the whole command: start, compilation, the measurement
of the ways, steps, evaluation and files.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.study import folder as files

CASES = flags.DEFINE_list("cases", ["small", "large"], "Variants of configs/sweeps/population.py.")
WAYS = flags.DEFINE_list("ways", ["auto"], "Of --population_way.")
CONFIG = "configs/sweeps/population.py"


def main() -> int:
    """Print the figures; return the exit code."""
    for case in CASES.value:
        alone = time_sweep(case, "")
        print(f"{case}: {len(alone.rows)} trials", flush=True)
        print(f"  {'one after another':<20} {alone.describe()}", flush=True)
        for way in WAYS.value:
            timed = time_sweep(case, way)
            total, steps = alone.total / timed.total, alone.steps / timed.steps
            print(f"  {f'population, {way}':<20} {timed.describe()}", flush=True)
            print(f"    {total:.2f} x as fast in total, {steps:.2f} x in its steps", flush=True)
            for line in timed.said:
                print(f"    {line}", flush=True)
    return 0


class Timed:
    """A sweep that was run: its trials, what it said of its population, and the seconds of the whole command."""

    def __init__(self, rows: list[dict], said: list[str], total: float) -> None:
        self.rows, self.said, self.total = rows, said, total
        self.steps = sum(row["train_seconds"] for row in rows)
        self.compiling = sum(row["compile_seconds"] for row in rows)
        self.evaluation = sum(row["eval_seconds"] for row in rows)

    def describe(self) -> str:
        """The seconds in one line."""
        return (
            f"{self.total:6.1f} s in total: steps {self.steps:.1f}, compiling {self.compiling:.1f}, "
            f"evaluation {self.evaluation:.1f}"
        )


def time_sweep(case: str, way: str) -> Timed:
    """Run a sweep, as a population of all its trials in a way, or without one."""
    sweep = [sys.executable, "-m", "jaxcnn.sweep", f"--config={CONFIG}:{case}", "--nomeasure"]
    if way:
        sweep += ["--population=8", f"--population_way={way}"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "sweep"
        environment = os.environ | {"JAXCNN_CACHE": f"{scratch}/cache"}
        began = time.perf_counter()
        done = subprocess.run(
            [*sweep, f"--workdir={folder}"], capture_output=True, text=True, env=environment, check=False
        )
        total = time.perf_counter() - began
        rows = [files.read_trial(path) for path in sorted((folder / files.TRIALS).glob("*"))]
    if done.returncode or any(row is None or row["state"] != "complete" for row in rows):
        raise UserError(f"{' '.join(sweep)} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    said = [line for line in done.stdout.splitlines() if line.startswith("population of")]
    return Timed([row for row in rows if row is not None], said, total)


if __name__ == "__main__":
    command.run(main)
