"""Profile a training step on a GPU: `python -m benchmarks.kernels --model=resnet50`.

Measures jaxcnn's step without a peer: its speed, its FLOP/s and bytes/s beside the peaks of the device, and the kernels
that take longest according to JAX's profiler. A CPU has no kernels, so there it measures only the speeds. With --out,
it also writes <out>.json and a section of <out>.md.
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time

import jax
from absl import flags

from benchmarks import jaxcnn_tasks, report, trace
from benchmarks.cases import DTYPES, NETWORKS, Case
from jaxcnn import command
from jaxcnn.train.flops import peak, step_bytes

MODEL = flags.DEFINE_enum("model", "resnet50", list(NETWORKS), "Which network.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "",
    ["", "float32", "bfloat16"],
    "Number format of the computation. Default: float32 on CPU, bfloat16 on GPU.",
)
WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies all channels of the network.", lower_bound=0.01)
STEPS = flags.DEFINE_integer("steps", 100, "Steps in each of three blocks that are timed.", lower_bound=1)
TRACED = flags.DEFINE_integer("traced", 16, "Steps that are profiled afterwards.", lower_bound=1)
OUT = command.define_path("out", "", "The files to write, without .json and .md; empty: only print.")
TOP = flags.DEFINE_integer("top", 25, "Number of kernels to list.", lower_bound=0)

BLOCKS = 3
SECTION = "kernels"


def main() -> int:
    """Measure as the flags say; return the exit code."""
    out = report.check_out(OUT.value) if OUT.value else None
    facts = jaxcnn_tasks.facts()
    device = facts["device_kind"]
    case = Case(MODEL.value, "train", BATCH_SIZE.value, device, DTYPE.value or DTYPES[device], WIDTH.value)
    task = jaxcnn_tasks.build(case.spec())
    assert isinstance(task, jaxcnn_tasks.Train)
    task.run(STEPS.value)
    seconds = statistics.median(_seconds(task, STEPS.value) for _ in range(BLOCKS)) / STEPS.value
    lines = [f"{case.title}, {facts['device']}", _speed(task, case, seconds)]
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            task.run(TRACED.value)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        kernels = trace.kernels_of(jax.profiler.ProfileData.from_file(str(file)).planes)
    if kernels:
        lines.append(trace.describe(kernels, TRACED.value, TOP.value))
    print(*lines, sep="\n")
    if out is not None:
        record = report.provenance("benchmarks.kernels", {"jaxcnn": facts}) | dataclasses.asdict(case)
        record |= {"seconds_per_step": seconds, "flops_per_step": _flops(task, case), "traced": TRACED.value}
        record |= {"bytes_per_step": step_bytes(task.compiled), "kernels": [dataclasses.asdict(k) for k in kernels]}
        report.write(out, SECTION, record, "\n\n".join(["## Kernels of a step", report.describe(record), *lines]))
    return 0


def _seconds(task: jaxcnn_tasks.Train, steps: int) -> float:
    started = time.perf_counter()
    task.run(steps)
    return time.perf_counter() - started


def _flops(task: jaxcnn_tasks.Train, case: Case) -> float:
    return task.facts()["flops_per_image"] * case.batch_size


def _speed(task: jaxcnn_tasks.Train, case: Case, seconds: float) -> str:
    parts = [f"{report.figure(1e3 * seconds)} ms/step", f"{report.figure(case.batch_size / seconds)} images/s"]
    done = {"FLOP/s": _flops(task, case), "B/s": step_bytes(task.compiled)}
    most = peak(jax.devices()[0].device_kind)
    limits = {} if most is None else {"FLOP/s": most.of(case.dtype), "B/s": most.bandwidth}
    for unit, amount in done.items():
        if amount is not None:
            share = f" ({100 * amount / seconds / limits[unit]:.0f} % of peak)" if limits else ""
            parts.append(f"{report.figure(amount / seconds / 1e9)} G{unit}{share}")
    return ", ".join(parts)


if __name__ == "__main__":
    command.run(main)
