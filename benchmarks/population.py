"""Compare the time of a population with that of the same trials one after another, for a small and a large network.

    python -m benchmarks.population [--cases=small,large] [--ways=auto] [--rounds=3]

`python -m jaxcnn.sweep` runs each sweep of `configs/sweeps/population.py` in a separate process with an empty cache of
compiled programs. In every round it first runs one trial after another, and then a population: in the way that jaxcnn
measures to be the fastest (auto), or in the given ways. Writes <out>.json and a section of <out>.md.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags

from benchmarks import population_cost, report
from benchmarks.population_cost import ALONE, Swept
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.study import folder as files

CASES = flags.DEFINE_list("cases", ["small", "large"], "Variants of configs/sweeps/population.py.")
WAYS = flags.DEFINE_list("ways", ["auto"], "Of --population_way.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of runs of each.", lower_bound=1)
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

CONFIG = "configs/sweeps/population.py"
SECTION = "population"


def main() -> int:
    """Print the figures and write them; return the exit code."""
    out = report.check_out(OUT.value)
    found: dict[str, dict[str, list[Swept]]] = {case: {way: [] for way in (ALONE, *WAYS.value)} for case in CASES.value}
    for _ in range(ROUNDS.value):
        for case, ways in found.items():
            for way, swept in ways.items():
                swept.append(run_sweep(case, way))
                print(f"{case}, {way}: {population_cost.describe(swept[-1])}", flush=True)
    environment = next(iter(found.values()))[ALONE][0].environment
    record = report.provenance("benchmarks.population", {"jaxcnn": environment}) | population_cost.figures(found)
    print(population_cost.table(record))
    for path in report.write(out, SECTION, record, population_cost.markdown(record)):
        print(f"wrote {path}")
    return 0


def run_sweep(case: str, way: str) -> Swept:
    """Run a sweep, either as a population of all its trials or with one trial after another.

    Raises:
      UserError: not all trials were completed.
    """
    sweep = [sys.executable, "-m", "jaxcnn.sweep", f"--config={CONFIG}:{case}", "--nomeasure"]
    if way != ALONE:
        sweep += ["--population=8", f"--population_way={way}"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "sweep"
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{scratch}/cache"}
        began = time.perf_counter()
        done = subprocess.run(
            [*sweep, f"--workdir={folder}"], capture_output=True, text=True, env=environment, check=False
        )
        seconds = time.perf_counter() - began
        rows = [files.read_trial(path) for path in sorted((folder / files.TRIALS).glob("*"))]
        complete = [row for row in rows if row is not None and row["state"] == "complete"]
        if done.returncode or not complete or len(complete) < len(rows):
            raise UserError(f"{' '.join(sweep)} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        said = [line for line in done.stdout.splitlines() if line.startswith("population of")]
        return Swept(complete, seconds, said, files.read_sweep(folder)["environment"])


if __name__ == "__main__":
    command.run(main)
