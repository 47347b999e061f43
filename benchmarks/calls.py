"""Compare many steps in one call with the plain loop, in turns: `python -m benchmarks.calls`.

Two processes run the same training step of the same networks. One starts every step from Python; the other makes many
steps in one call of the compiled program (`config.run.steps_per_call`). The networks are thin and the batches small, so
Python's share of a step is large. Writes <out>.json and a section of <out>.md.
"""

import contextlib
import sys
from typing import Any

from absl import flags

from benchmarks import report
from benchmarks.cases import NETWORKS, Case
from benchmarks.measure import interleave, speed_ratio
from benchmarks.worker import Worker, jaxcnn_environment
from jaxcnn import command
from jaxcnn.config import UserError

MODELS = flags.DEFINE_list("models", ["cnn", "alexnet", "vgg16", "resnet50"], "Which networks.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images in a batch.", lower_bound=1)
WIDTH = flags.DEFINE_float("width", 0.25, "Multiplies all channels of the networks.", lower_bound=0.01)
STEPS = flags.DEFINE_integer("steps", 16, "Steps in one call.", lower_bound=2)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of turns of each way.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Approximate seconds of a turn; at least one call.", lower_bound=0.0)
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "calls"


def main() -> int:
    """Measure as the flags say; return the exit code."""
    out = report.check_out(OUT.value)
    if unknown := [name for name in MODELS.value if name not in (*NETWORKS, "cnn")]:
        raise UserError(f"--models: unknown value {unknown[0]!r}; choose from cnn, {', '.join(NETWORKS)}")
    with contextlib.closing(start()) as worker:
        facts = {"jaxcnn": worker.facts}
    results = []
    for model in MODELS.value:
        results.append(measure(model))
        print(_line(results[-1]))
    record = report.provenance("benchmarks.calls", facts)
    record |= {"rounds": ROUNDS.value, "seconds": SECONDS.value, "steps_per_call": STEPS.value, "networks": results}
    for path in report.write(out, SECTION, record, markdown(record)):
        print(f"wrote {path}")
    return 0


def start() -> Worker:
    """Start a worker of jaxcnn on its default device."""
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_tasks", jaxcnn_environment(""))


def measure(model: str) -> dict[str, Any]:
    """Measure the seconds per step of both ways, and the speed of the calls relative to the loop."""
    if model in NETWORKS:
        spec = Case(model, "train", BATCH_SIZE.value, "", "float32", WIDTH.value).spec()
    else:
        config = {"model": {"name": model, "width": WIDTH.value}, "optim": NETWORKS["vgg16"].config["optim"]}
        spec = {"task": "train", "config": config, "batch_size": BATCH_SIZE.value, "dtype": "float32"}
    with contextlib.ExitStack() as stack:
        workers = {}
        for way, steps in (("calls", STEPS.value), ("loop", 1)):
            workers[way] = stack.enter_context(contextlib.closing(start()))
            run = {"run": {"steps_per_call": steps}}
            workers[way].build(spec | {"config": spec["config"] | run})
        timings = interleave(workers, ROUNDS.value, SECONDS.value)
    return {
        "model": model,
        "batch_size": BATCH_SIZE.value,
        "width": WIDTH.value,
        "seconds_per_step": {way: timing.median for way, timing in timings.items()},
        "speed": speed_ratio(timings["calls"], timings["loop"]),
    }


def _line(result: dict[str, Any]) -> str:
    times = {way: report.figure(1e3 * seconds) for way, seconds in result["seconds_per_step"].items()}
    return f"{result['model']}: {times['calls']} ms/step in calls, {times['loop']} ms/step in the loop"


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement and a table."""
    text = (
        "Milliseconds of a training step where Python starts each step, and where one call makes "
        f"{record['steps_per_call']} (`config.run.steps_per_call`): medians of {record['rounds']} rounds in which the "
        f"two take turns of about {record['seconds']:g} s, each a process of its own that is stopped while it is not "
        "its turn. The ratio is the speed of the calls over that of the loop."
    )
    rows = [
        [
            f"{each['model']}, width {each['width']:g}, batch {each['batch_size']}",
            report.figure(1e3 * each["seconds_per_step"]["loop"]),
            report.figure(1e3 * each["seconds_per_step"]["calls"]),
            f"{each['speed']['median']:.2f} ({each['speed']['lowest']:.2f} to {each['speed']['highest']:.2f})",
        ]
        for each in record["networks"]
    ]
    table = report.table(["network", "loop", "calls", "ratio"], rows)
    return "\n\n".join(["## Many steps in one call", report.describe(record), text, table])


if __name__ == "__main__":
    command.run(main)
