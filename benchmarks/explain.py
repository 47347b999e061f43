"""Measure explanations by jaxcnn and by Captum in turns: `python -m benchmarks.explain`.

For each network, size of image and method, one process of each peer explains as many images with networks of the same
layers. jaxcnn's process loads programs that another process compiled before. PyTorch's variants are tried on a part of
the work, and the fastest is measured. Then the peers take turns, while the other process is stopped.
Writes <out>.json and <out>.md after each case.
"""

import contextlib
import dataclasses
import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import contest, report
from benchmarks.cases import HUGE_PAGES, WAYS
from benchmarks.explain_cases import IMAGES, LAYERS, PEERS, Case, line, markdown, turns
from benchmarks.worker import Worker, WorkerFailed, jaxcnn_environment, start_torch
from jaxcnn import command
from jaxcnn.config import UserError

MODELS = flags.DEFINE_list("models", ["vgg16", "resnet50"], "Which of vgg16 and resnet50.")
SIDES = flags.DEFINE_list("sides", ["32", "224"], "Sides of the images, pixels; from 64 on, the ImageNet form.")
METHODS = flags.DEFINE_list("methods", ["gradcam", "integrated_gradients"], "Which methods.")
STEPS = flags.DEFINE_integer("steps", 50, "Points of integrated gradients.", lower_bound=1)
ROUNDS = flags.DEFINE_integer(
    "rounds", 3, "Number of turns of each peer; one less where a turn is long.", lower_bound=1
)
SECONDS = flags.DEFINE_float("seconds", 3.0, "Approximate seconds of a turn; at least one call.", lower_bound=0.0)
WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies all channels of the networks, for trying things out.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch and Captum.")
TORCH_VARIANTS = flags.DEFINE_list(
    "torch_variants", ["eager", "eager" + HUGE_PAGES], f"Ways to run PyTorch, the fastest counts: {', '.join(WAYS)}."
)
TORCH_ROWS = flags.DEFINE_integer(
    "torch_rows", 8, "Captum's internal_batch_size for images of 64 pixels or more; smaller ones go in one batch."
)
OUT = flags.DEFINE_string("out", "results/explain", "The files to write, without .json and .md.")

SECTION = "explain"
Start = Callable[[str, str], Worker]  # (peer, variant) -> its worker


def main() -> int:
    """Measure as the flags say; return the exit code."""
    chosen = cases()
    out = report.check_out(OUT.value)
    with tempfile.TemporaryDirectory(prefix="jaxcnn-programs-") as cache:
        begin = functools.partial(start, cache=cache)
        facts = {}
        for peer in reversed(PEERS):  # PyTorch first, because it is more likely to be missing
            with contextlib.closing(begin(peer, "")) as worker:
                facts[peer] = worker.facts
        record = report.provenance("benchmarks.explain", facts) | {"seconds": SECONDS.value, "cases": []}
        for case in chosen:
            result: dict[str, Any] = dataclasses.asdict(case) | {"images": case.images}
            try:
                result |= measure(begin, case)
                print(f"{case.title}: {line(result)}")
            except WorkerFailed as error:
                result["error"] = f"{case.title}: {error}"
                print(f"failed: {result['error']}")
            record["cases"].append(result)
            written = report.write(out, SECTION, record, markdown(record))
    for path in written:
        print(f"wrote {path}")
    if failed := [case for case in record["cases"] if "error" in case]:
        raise UserError(f"{len(failed)} of {len(chosen)} cases failed; the first: {failed[0]['error']}")
    return 0


def cases() -> list[Case]:
    """The combinations of the flags, quick ones first.

    Raises:
      UserError: a flag has an unknown value.
    """
    for flag, known in ((MODELS, LAYERS), (METHODS, IMAGES), (TORCH_VARIANTS, WAYS)):
        for name in flag.value:
            if name not in known:
                raise UserError(f"--{flag.name}: unknown value {name!r}; choose from {', '.join(known)}")
    sides = [int(side) if side.isdecimal() else 0 for side in SIDES.value]
    if not sides or min(sides) < 32 or any(side % 32 for side in sides):
        raise UserError(f"--sides={','.join(SIDES.value)} must be multiples of 32")
    if not (MODELS.value and METHODS.value and TORCH_VARIANTS.value):
        raise UserError("--models, --methods and --torch_variants must not be empty")
    every = [Case(m, s, how, STEPS.value, WIDTH.value) for how in METHODS.value for s in sides for m in MODELS.value]
    return sorted(every, key=lambda case: (case.method, case.side))


def start(peer: str, variant: str, cache: str) -> Worker:
    """Start a worker of a peer; `cache`: folder of the programs of jaxcnn."""
    if peer == "torch":
        return start_torch(TORCH_PYTHON.value, "benchmarks.torch_explain", "cpu", variant.endswith(HUGE_PAGES))
    environment = jaxcnn_environment("cpu") | {"JAX_COMPILATION_CACHE_DIR": cache}
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_explain", environment)


def measure(begin: Start, case: Case) -> dict[str, Any]:
    """Measure all figures of a case; at most two workers are alive at a time."""
    spec, builds = case.spec(TORCH_ROWS.value), {}
    variant, variants = best_variant(begin, spec)
    with contextlib.closing(begin("jaxcnn", "")) as worker:  # compiles into the cache
        first = worker.build(spec)
    with contextlib.ExitStack() as stack:
        workers = {}
        for peer in PEERS:
            workers[peer] = stack.enter_context(contextlib.closing(begin(peer, variant if peer == "torch" else "")))
            builds[peer] = workers[peer].build(spec | {"variant": variant.removesuffix(HUGE_PAGES)})
        timings = turns(workers, ROUNDS.value, SECONDS.value)
        ends = {peer: worker.ask("finish") for peer, worker in workers.items()}
    figures = {
        peer: {
            "seconds_per_image": timings[peer].median / case.images,
            "blocks": dataclasses.asdict(timings[peer]),
            "build_seconds": builds[peer],
            "memory": ends[peer]["memory"],
            "facts": ends[peer]["facts"],
        }
        for peer in PEERS
    }
    figures["jaxcnn"]["first_build_seconds"] = first
    figures["torch"] |= {"variant": variant, "variants": variants}
    return {"peers": figures, "ratios": contest.ratios(timings, {peer: end["memory"] for peer, end in ends.items()})}


def best_variant(begin: Start, spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The variant of PyTorch that computes one part of the points most quickly, and the seconds of all.

    Raises:
      WorkerFailed: no variant works.
    """
    tried: dict[str, Any] = {}
    for variant in TORCH_VARIANTS.value:
        try:
            with contextlib.closing(begin("torch", variant)) as worker:
                worker.build(spec | {"variant": variant.removesuffix(HUGE_PAGES), "points": spec["torch_rows"]})
                tried[variant] = statistics.median(worker.run(1) for _ in range(3))
        except WorkerFailed as error:
            tried[variant] = f"failed: {error}"
    working = {name: took for name, took in tried.items() if isinstance(took, float)}
    if not working:
        raise WorkerFailed("; ".join(f"{name} {why}" for name, why in tried.items()))
    return min(working, key=working.__getitem__), tried


if __name__ == "__main__":
    command.run(main)
