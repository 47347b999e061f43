"""Measure jaxcnn and PyTorch in turns: `python -m benchmarks.peers`.

For each network, mode and batch size, one process of each peer warms up. jaxcnn's process loads programs that another
process compiled before, into a cache that belongs to this command. Then the peers take turns, round after round, each
for about --seconds, while the other process is stopped. Writes <out>.json and a section of <out>.md after each case.
"""

import functools
import pathlib
import sys
import tempfile
from collections.abc import Callable, Collection
from typing import Any

from absl import flags

from benchmarks import contest, peers_report, report
from benchmarks.cases import HUGE_PAGES, LARGE, MATRIX_SIDES, MODES, NETWORKS, PEERS, SMALL, VARIANTS, WAYS, make_cases
from benchmarks.worker import Worker, check_devices, jaxcnn_environment, start_torch
from jaxcnn import command
from jaxcnn.config import UserError

MODELS = flags.DEFINE_list(
    "models", list(SMALL), f"Which of {', '.join(NETWORKS)}. Those that are not a default need torchvision."
)
MODES_FLAG = flags.DEFINE_list("modes", list(MODES), f"Which of {', '.join(MODES)}.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", [], "Batch sizes. Default: those of each network (32,128).")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of turns of each peer.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "Approximate seconds of a turn; at least one step.", lower_bound=0.0)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "",
    ["", "float32", "bfloat16"],
    "Number format of the computation. Default: float32 on CPU, bfloat16 on GPU.",
)
DEVICES = flags.DEFINE_list("devices", [], "cpu or gpu. Default: gpu if JAX finds one, else cpu.")
PEERS_FLAG = flags.DEFINE_list("peers", list(PEERS), "jaxcnn, or jaxcnn,torch.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch.")
TORCH_VARIANTS = flags.DEFINE_list(
    "torch_variants", [], f"Ways to run PyTorch, of which the fastest counts: {', '.join(WAYS)}."
)
SIDE = flags.DEFINE_integer(
    "side", 0, f"Side of the images, pixels; from {LARGE} on, the ImageNet form. Default: 32, or 224 with torchvision.",
    lower_bound=0,
)  # fmt: skip
WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies all channels of the networks, for trying things out.")
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "peers"
KNOWN: tuple[tuple[flags.FlagHolder, Collection[str]], ...] = (
    (MODELS, NETWORKS),
    (MODES_FLAG, MODES),
    (DEVICES, MATRIX_SIDES),
    (PEERS_FLAG, PEERS),
    (TORCH_VARIANTS, WAYS),
)


def main() -> int:
    """Measure as the flags say; return the exit code."""
    for flag, known in KNOWN:
        _check_names(flag, known)
    if "jaxcnn" not in PEERS_FLAG.value:
        raise UserError("--peers must include jaxcnn, with which the others are compared")
    batch_sizes = _batch_sizes()
    out = report.check_out(OUT.value)
    with tempfile.TemporaryDirectory(prefix="jaxcnn-programs-") as cache:
        return _measure(functools.partial(start, cache=cache), batch_sizes, out)


def _measure(start: Callable[[str, str, str], Worker], batch_sizes: list[int], out: pathlib.Path) -> int:
    plan = contest.Plan(
        start=start,
        peers=tuple(name for name in PEERS if name in PEERS_FLAG.value),
        rounds=ROUNDS.value,
        seconds=SECONDS.value,
        variants={device: tuple(TORCH_VARIANTS.value) or VARIANTS[device] for device in VARIANTS},
    )
    facts = contest.meet(plan)
    devices = DEVICES.value or [facts["jaxcnn"]["device_kind"]]
    check_devices(devices, facts)
    chosen = (MODELS.value, MODES_FLAG.value, batch_sizes, devices)
    cases = make_cases(*chosen, DTYPE.value, WIDTH.value, SIDE.value)
    about = report.provenance("benchmarks.peers", facts)

    def write(figures: dict[str, Any]) -> tuple[pathlib.Path, ...]:
        return report.write(out, SECTION, about | figures, peers_report.markdown(about | figures))

    record = contest.measure_all(plan, cases, print, keep=write)
    for path in write(record):
        print(f"wrote {path}")
    if failed := [case for case in record["cases"] if "error" in case]:
        raise UserError(f"{len(failed)} of {len(cases)} cases failed; the first: {failed[0]['error']}")
    return 0


def start(peer: str, device: str, way: str, cache: str) -> Worker:
    """Start a worker of a peer for a device, in variant `way` ("": the usual one); `cache`: folder of the programs."""
    if peer == "torch":
        return start_torch(TORCH_PYTHON.value, "benchmarks.torch_tasks", device, way.endswith(HUGE_PAGES))
    environment = jaxcnn_environment(device) | {"JAX_COMPILATION_CACHE_DIR": cache}
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_tasks", environment)


def _check_names(flag: flags.FlagHolder, known: Collection[str]) -> None:
    for name in flag.value:
        if name not in known:
            raise UserError(f"--{flag.name}: unknown value {name!r}; choose from {', '.join(known)}")


def _batch_sizes() -> list[int]:
    try:
        sizes = [int(size) for size in BATCH_SIZES.value]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise UserError(f"--batch_sizes={','.join(BATCH_SIZES.value)} must be whole numbers of at least 1")
    return sizes


if __name__ == "__main__":
    command.run(main)
