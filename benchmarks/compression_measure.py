"""Evaluates and times the networks of `benchmarks.compression`, in a process of its own.

    python -m benchmarks.compression_measure --runs=<folder of the run>,<folder of the steps> --out=<file.json>

Each file of ONNX and LiteRT is run in its own runtime on the test split, beside its run in JAX. Then all are timed with
one image, in turns; the fastest turn of each network counts.
"""

import pathlib
from typing import Any

from absl import flags

from benchmarks.compression_report import FORMS, KINDS
from benchmarks.compression_steps import Options, words
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import writable

RUNS = flags.DEFINE_list("runs", [], "The folder of the run, and that of the steps.")
OUT = command.define_path("out", "", "The file of the figures.")
SECONDS = flags.DEFINE_float("seconds", Options.seconds, words()["seconds"], lower_bound=0.0)
TURNS = flags.DEFINE_integer("turns", Options.turns, words()["turns"], lower_bound=1)

BATCH = 100


def main() -> int:
    """Measure, and write the file; return the exit code."""
    if len(RUNS.value) != 2 or not OUT.value:
        raise UserError("give --runs=<folder of the run>,<folder of the steps> and --out=<file.json>")
    writable.check_file(pathlib.Path(OUT.value))
    from jaxcnn.deploy import latency, runtimes, verify
    from jaxcnn.learn import executables
    from jaxcnn.machine import instructions
    from jaxcnn.train import assess, trained
    from jaxcnn.train.workdir import write_json

    executables.keep()
    run, steps = map(pathlib.Path, RUNS.value)
    timed, figures = {}, {}
    for name, folder in (("whole", run), ("slim", steps / "slim_on")):
        network, _ = trained.load(folder, "last", "", 1)
        split, _ = assess.open_split(network, folder, "test", "")
        timed[f"{name} in JAX"] = runtimes.of_run(network)
        for file in (f"{name}.{kind}.{form}" for kind in KINDS[name] for form in FORMS):
            timed[file] = runtimes.of_file(steps / file)
            verdict = verify.verify(network, timed[file], split, BATCH)
            figures[file] = {
                "bytes": verdict.size,
                "agreement": verdict.agreement,
                "figures": {metric: of_file for metric, _, of_file in verdict.figures},
            }
    shortest: dict[str, latency.Timing] = {}
    for _ in range(TURNS.value or 1):
        for name, runtime in timed.items():
            (timing,) = latency.measure(runtime, (1,), SECONDS.value or 0.0)
            shortest[name] = min(timing, shortest.get(name, timing), key=lambda each: each.p50)
    record: dict[str, Any] = {
        "files": figures,
        "seconds": {name: timing.p50 for name, timing in shortest.items()},
        "quantiles": {name: [timing.p50, timing.p95, timing.p99] for name, timing in shortest.items()},
        "int8": instructions.in_words(),
    }
    write_json(pathlib.Path(OUT.value), record)
    return 0


if __name__ == "__main__":
    command.run(main)
