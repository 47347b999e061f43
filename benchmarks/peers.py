"""Measure jaxcnn and PyTorch in turns: `python -m benchmarks.peers`.

For each network, mode and batch size, one process per peer compiles and warms up; then they take turns, round after
round, each for about --seconds, while the other one stands still. Writes <out>.json and a section of <out>.md.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import peers_report, report
from benchmarks.cases import MATRIX_SIDES, MODES, NETWORKS, PEERS, VARIANTS, Case, make_cases
from benchmarks.measure import Timing, interleave, speed_ratio
from benchmarks.worker import Worker, WorkerFailed, jaxcnn_environment, start_torch
from jaxcnn import command
from jaxcnn.config import UserError

MODELS = flags.DEFINE_list("models", list(NETWORKS), f"Which of {', '.join(NETWORKS)}.")
MODES_FLAG = flags.DEFINE_list("modes", list(MODES), f"Which of {', '.join(MODES)}.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", [], "Batch sizes. Default: those of each network (32,128).")
ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each peer has its turn.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "How long a turn is, about; at least one step.", lower_bound=0.0)
DTYPE = flags.DEFINE_enum(
    "dtype", "", ["", "float32", "bfloat16"], "Of the computation. Default: float32 on CPU, bfloat16 on GPU."
)
DEVICES = flags.DEFINE_list("devices", [], "Which of cpu, gpu. Default: gpu where JAX sees one, else cpu.")
PEERS_FLAG = flags.DEFINE_list("peers", list(PEERS), "jaxcnn, or jaxcnn,torch.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch.")
TORCH_VARIANTS = flags.DEFINE_list(
    "torch_variants", [], "Ways to run PyTorch, of which the fastest counts: eager, compile, max-autotune."
)
WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies all channels of the networks, for trying things out.")
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "peers"
TRIAL_ROUNDS, TRIAL_SECONDS = 2, 1.0  # of the variants of PyTorch, once they are warm
MATRIX_ROUNDS, MATRIX_SECONDS = 3, 1.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
      start: starts a worker of a peer for a device; what it raises is a WorkerFailed or UserError.
      peers: their names, jaxcnn first.
      rounds, seconds: of turns.
      variants: of PyTorch, by device.
    """

    start: Callable[[str, str], Worker]
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    variants: dict[str, tuple[str, ...]]


def main() -> int:
    """Measure what the flags ask for; return the exit code."""
    for flag, known in ((MODELS, NETWORKS), (MODES_FLAG, MODES), (DEVICES, MATRIX_SIDES), (PEERS_FLAG, PEERS)):
        _check_names(flag, known)
    if "jaxcnn" not in PEERS_FLAG.value:
        raise UserError("--peers needs jaxcnn, which the others are held against")
    out = report.check_out(OUT.value)
    plan = Plan(
        start=start,
        peers=tuple(name for name in PEERS if name in PEERS_FLAG.value),
        rounds=ROUNDS.value,
        seconds=SECONDS.value,
        variants={device: tuple(TORCH_VARIANTS.value) or VARIANTS[device] for device in VARIANTS},
    )
    facts = meet(plan)
    devices = DEVICES.value or [facts["jaxcnn"]["device_kind"]]
    cases = make_cases(MODELS.value, MODES_FLAG.value, _batch_sizes(), devices, DTYPE.value, WIDTH.value)
    record = report.provenance("benchmarks.peers", facts) | measure_all(plan, cases, print)
    for path in report.write(out, SECTION, record, peers_report.markdown(record)):
        print(f"wrote {path}")
    if failed := [case for case in record["cases"] if "error" in case]:
        raise UserError(f"{len(failed)} of {len(cases)} cases failed; the first: {failed[0]['error']}")
    return 0


def start(peer: str, device: str) -> Worker:
    """A worker of a peer."""
    if peer == "torch":
        return start_torch("PyTorch", TORCH_PYTHON.value, "benchmarks.torch_tasks")
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_tasks", jaxcnn_environment(device))


def meet(plan: Plan) -> dict[str, dict[str, Any]]:
    """What each peer says of itself; whatever is missing is found missing here."""
    facts = {}
    for peer in plan.peers:
        with contextlib.closing(plan.start(peer, "")) as worker:
            facts[peer] = worker.facts
    return facts


def measure_all(plan: Plan, cases: list[Case], say: Callable[[str], None]) -> dict[str, Any]:
    """Matrix products, all cases, and matrix products again; a case that fails has an "error" instead of figures."""
    kinds = dict.fromkeys((case.device, case.dtype) for case in cases)
    peaks = {kind: matrix_products(plan, *kind) for kind in kinds}
    results = []
    for number, case in enumerate(cases, start=1):
        say(f"{number}/{len(cases)} {case.title}")
        result: dict[str, Any] = dataclasses.asdict(case)
        try:
            result |= measure(plan, case)
            say("  " + peers_report.line(result))
        except WorkerFailed as error:
            result["error"] = f"{case.title}: {error}"
            say(f"  failed: {error}")
        results.append(result)
    after = {kind: matrix_products(plan, *kind) for kind in kinds}
    matrix = []
    for (device, dtype), before in peaks.items():
        flops = max(*before.values(), *after[device, dtype].values())
        matrix.append(
            {
                "device": device,
                "dtype": dtype,
                "side": MATRIX_SIDES[device],
                "before": before,
                "after": after[device, dtype],
                "flops_per_second": flops,
            }
        )
        for result in results:
            if (result["device"], result["dtype"]) == (device, dtype) and "error" not in result:
                for figures in result["peers"].values():
                    figures["fraction_of_matrix_peak"] = figures["flops_per_second"] / flops
    return {"rounds": plan.rounds, "seconds": plan.seconds, "matrix_products": matrix, "cases": results}


def matrix_products(plan: Plan, device: str, dtype: str) -> dict[str, float]:
    """FLOP/s of each peer's best block of square matrix products."""
    side = MATRIX_SIDES[device]
    with contextlib.ExitStack() as stack:
        workers = {peer: stack.enter_context(contextlib.closing(plan.start(peer, device))) for peer in plan.peers}
        for worker in workers.values():
            worker.build({"task": "matrix_product", "size": side, "dtype": dtype, "device": device})
        timings = interleave(workers, MATRIX_ROUNDS, min(MATRIX_SECONDS, plan.seconds))
    return {peer: 2 * side**3 / min(timing.seconds_per_step) for peer, timing in timings.items()}


def measure(plan: Plan, case: Case) -> dict[str, Any]:
    """All figures of a case; two workers are alive at a time."""
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        builds: dict[str, float] = {}
        tried: dict[str, Any] = {}
        if "torch" in plan.peers:
            workers["torch"], tried = best_variant(plan, case)
            stack.callback(workers["torch"].close)
            builds["torch"] = tried["build_seconds"]
        workers["jaxcnn"] = stack.enter_context(contextlib.closing(plan.start("jaxcnn", case.device)))
        builds["jaxcnn"] = workers["jaxcnn"].build(case.spec())
        timings = interleave({peer: workers[peer] for peer in plan.peers}, plan.rounds, plan.seconds)
        ends = {peer: workers[peer].ask("finish") for peer in plan.peers}
    flops = ends["jaxcnn"]["facts"]["flops_per_image"]
    figures = {
        peer: {
            "seconds_per_step": timings[peer].median,
            "images_per_second": case.batch_size / timings[peer].median,
            "flops_per_second": flops * case.batch_size / timings[peer].median,
            "blocks": dataclasses.asdict(timings[peer]),
            "build_seconds": builds[peer],
            "memory": ends[peer]["memory"],
            "facts": ends[peer]["facts"],
        }
        for peer in plan.peers
    }
    result: dict[str, Any] = {"flops_per_image": flops, "peers": figures}
    if "torch" in plan.peers:
        figures["torch"] |= {"variant": tried["variant"], "variants": tried["variants"]}
        result["ratios"] = ratios(timings, {peer: end["memory"] for peer, end in ends.items()})
    return result


def ratios(timings: dict[str, Timing], memory: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """jaxcnn's speed and memory over PyTorch's: above 1 is faster, and more memory."""
    ours, theirs = memory["jaxcnn"], memory["torch"]
    of_memory = {"peak": ours["peak_bytes"] / theirs["peak_bytes"]}
    of_memory["peak_above_import"] = (ours["peak_bytes"] - ours["baseline_bytes"]) / max(
        1, theirs["peak_bytes"] - theirs["baseline_bytes"]
    )
    if ours["device_peak_bytes"] and theirs["device_peak_bytes"]:
        of_memory["device_peak"] = ours["device_peak_bytes"] / theirs["device_peak_bytes"]
    return {"speed": speed_ratio(timings["jaxcnn"], timings["torch"]), "memory": of_memory}


def best_variant(plan: Plan, case: Case) -> tuple[Worker, dict[str, Any]]:
    """PyTorch run in the way that is fastest here, each way in a process of its own, and how all of them fared.

    Raises:
      WorkerFailed: none of them works.
    """
    best: Worker | None = None
    tried: dict[str, Any] = {"variants": {}}
    for variant in plan.variants[case.device]:
        worker = plan.start("torch", case.device)
        try:
            seconds = worker.build(case.spec() | {"variant": variant})
            rivals = {variant: worker} if best is None else {tried["variant"]: best, variant: worker}
            trial = interleave(rivals, TRIAL_ROUNDS, min(TRIAL_SECONDS, plan.seconds))
        except WorkerFailed as error:
            worker.close()
            tried["variants"][variant] = f"failed: {error}"
            continue
        except BaseException:
            for each in filter(None, (worker, best)):
                each.close()
            raise
        tried["variants"] |= {name: timing.median for name, timing in trial.items()}
        if best is not None and trial[tried["variant"]].median <= trial[variant].median:
            worker.close()
            continue
        if best is not None:
            best.close()
        best = worker
        tried |= {"variant": variant, "build_seconds": seconds}
    if best is None:
        raise WorkerFailed("; ".join(f"{name} {why}" for name, why in tried["variants"].items()))
    return best, tried


def _check_names(flag: Any, known: Any) -> None:
    for name in flag.value:
        if name not in known:
            raise UserError(f"--{flag.name}: there is no {name!r}; known are {', '.join(known)}")


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
