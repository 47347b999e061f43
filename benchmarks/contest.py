"""The comparison of peers on networks: which peers take part, in which order, and the resulting figures."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks import peers_report
from benchmarks.cases import HUGE_PAGES, MATRIX_SIDES, Case
from benchmarks.measure import Timing, interleave, speed_ratio
from benchmarks.worker import Worker, WorkerFailed

TRIAL_ROUNDS, TRIAL_SECONDS = 2, 1.0  # for each variant of PyTorch, after its warm-up
MATRIX_ROUNDS, MATRIX_SECONDS = 3, 1.0

Products = dict[tuple[str, str], dict[str, float]]  # FLOP/s of each peer, by device and dtype


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of the measurement.

    Attributes:
      start: starts a worker of a peer for a device, in a variant ("" for the usual one); raises UserError.
      peers: the names of the peers, jaxcnn first.
      rounds, seconds: the number of rounds, and the length of a turn.
      variants: the variants of PyTorch to try, by device.
    """

    start: Callable[[str, str, str], Worker]
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    variants: dict[str, tuple[str, ...]]


def meet(plan: Plan) -> dict[str, dict[str, Any]]:
    """The facts of each peer; a package that is not installed is found here."""
    facts = {}
    for peer in reversed(plan.peers):  # PyTorch first, because it is more likely to be missing
        with contextlib.closing(plan.start(peer, "", "")) as worker:
            facts[peer] = worker.facts
    return facts


def measure_all(
    plan: Plan, cases: list[Case], say: Callable[[str], None], keep: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Measure matrix products, all cases, and matrix products again; a failed case has an "error" instead of figures.

    `keep` gets the record so far after each case, so an hour of measuring can be stopped early.
    """
    kinds = dict.fromkeys((case.device, case.dtype) for case in cases)
    before = {kind: matrix_products(plan, *kind) for kind in kinds}
    results: list[dict[str, Any]] = []
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
        keep(_record(plan, before, {}, results))
    return _record(plan, before, {kind: matrix_products(plan, *kind) for kind in kinds}, results)


def _record(plan: Plan, before: Products, after: Products, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The results so far, each with its fraction of the machine's matrix-product speed."""
    matrix = []
    for kind, first in before.items():
        (device, dtype), last = kind, after.get(kind, {})
        flops = max([*first.values(), *last.values()])
        figures = {"before": first, "after": last, "flops_per_second": flops}
        matrix.append({"device": device, "dtype": dtype, "side": MATRIX_SIDES[device], **figures})
        for result in results:
            if (result["device"], result["dtype"]) == kind and "error" not in result:
                for of_peer in result["peers"].values():
                    of_peer["fraction_of_matrix_peak"] = of_peer["flops_per_second"] / flops
    return {"rounds": plan.rounds, "seconds": plan.seconds, "matrix_products": matrix, "cases": list(results)}


def matrix_products(plan: Plan, device: str, dtype: str) -> dict[str, float]:
    """FLOP/s of the fastest block of square matrix products, for each peer."""
    side = MATRIX_SIDES[device]
    with contextlib.ExitStack() as stack:
        workers = {peer: stack.enter_context(contextlib.closing(plan.start(peer, device, ""))) for peer in plan.peers}
        for worker in workers.values():
            worker.build({"task": "matrix_product", "size": side, "dtype": dtype, "device": device})
        timings = interleave(workers, MATRIX_ROUNDS, min(MATRIX_SECONDS, plan.seconds))
    return {peer: 2 * side**3 / min(timing.seconds_per_step) for peer, timing in timings.items()}


def measure(plan: Plan, case: Case) -> dict[str, Any]:
    """Measure all figures of a case; at most two workers are alive at a time."""
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        builds: dict[str, float] = {}
        tried: dict[str, Any] = {}
        if "torch" in plan.peers:
            workers["torch"], tried = best_variant(plan, case)
            stack.callback(workers["torch"].close)
            builds["torch"] = tried["build_seconds"]
        first = first_start(plan, case)
        workers["jaxcnn"] = stack.enter_context(contextlib.closing(plan.start("jaxcnn", case.device, "")))
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
    figures["jaxcnn"]["first_start"] = first
    result: dict[str, Any] = {"flops_per_image": flops, "peers": figures}
    if "torch" in plan.peers:
        figures["torch"] |= {"variant": tried["variant"], "variants": tried["variants"]}
        result["ratios"] = ratios(timings, {peer: end["memory"] for peer, end in ends.items()})
    return result


def first_start(plan: Plan, case: Case) -> dict[str, Any]:
    """Let jaxcnn compile a case into the program cache, for later starts; return its time and memory."""
    with contextlib.closing(plan.start("jaxcnn", case.device, "")) as worker:
        seconds = worker.build(case.spec())
        return {"build_seconds": seconds, "peak_bytes": worker.ask("finish")["memory"]["peak_bytes"]}


def ratios(timings: dict[str, Timing], memory: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """jaxcnn's speed and memory relative to PyTorch's: above 1 means faster, and more memory."""
    ours, theirs = memory["jaxcnn"], memory["torch"]
    of_memory = {"peak": ours["peak_bytes"] / theirs["peak_bytes"]}
    if ours.get("peak_of_steps_bytes") and theirs.get("peak_of_steps_bytes"):
        of_memory["peak_of_steps"] = ours["peak_of_steps_bytes"] / theirs["peak_of_steps_bytes"]
    of_memory["peak_above_import"] = (ours["peak_bytes"] - ours["baseline_bytes"]) / max(
        1, theirs["peak_bytes"] - theirs["baseline_bytes"]
    )
    if ours["device_peak_bytes"] and theirs["device_peak_bytes"]:
        of_memory["device_peak"] = ours["device_peak_bytes"] / theirs["device_peak_bytes"]
    return {"speed": speed_ratio(timings["jaxcnn"], timings["torch"]), "memory": of_memory}


def best_variant(plan: Plan, case: Case) -> tuple[Worker, dict[str, Any]]:
    """A worker of the fastest variant of PyTorch, and the times of all variants, each measured in a separate process.

    Raises:
      WorkerFailed: no variant works.
    """
    best: Worker | None = None
    tried: dict[str, Any] = {"variants": {}}
    for variant in plan.variants[case.device]:
        worker = plan.start("torch", case.device, variant)
        try:
            seconds = worker.build(case.spec() | {"variant": variant.removesuffix(HUGE_PAGES)})
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
