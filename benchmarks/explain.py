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
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from benchmarks import contest, report
from benchmarks.cases import HUGE_PAGES, WAYS
from benchmarks.measure import Timing
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

PEERS = ("jaxcnn", "torch")
SECTION = "explain"
IMAGES = {"gradcam": 8, "integrated_gradients": 1}  # explained together
LAYERS = {"vgg16": ("block4_bn3", "block5_bn3"), "resnet50": ("block4_3", "block4_3")}  # at 32 pixels; at 224
LARGE = 64  # pixels, from which on networks have their ImageNet form
LONG = 15.0  # seconds of a turn, from which on there is one round less
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement; a step is an explanation of all images."""

    model: str
    side: int
    method: str
    points: int
    width: float = 1.0

    @property
    def title(self) -> str:
        """A title such as "vgg16 at 32 pixels, integrated_gradients of 50 points"."""
        points = f" of {self.points} points" if self.method == "integrated_gradients" else ""
        return f"{self.model} at {self.side} pixels, {self.method}{points}"

    @property
    def images(self) -> int:
        """Images of one call."""
        return IMAGES[self.method]

    def spec(self, torch_rows: int) -> dict[str, Any]:
        """The description from which a worker builds the task; `torch_rows` is Captum's batch for large images."""
        large = self.side >= LARGE
        model = {"name": self.model, "form": "imagenet" if large else "cifar", "width": self.width}
        rows = torch_rows if large else self.points
        fields = {"side": self.side, "images": self.images, "method": self.method, "classes": CLASSES}
        fields |= {"layer": LAYERS[self.model][large], "points": self.points}
        return {"model": model, **fields, "torch_rows": min(rows, self.points)}


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
    """All combinations of the flags, quick ones first. Raises UserError for an unknown value."""
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


def turns(workers: Mapping[str, Any], rounds: int, seconds: float) -> dict[str, Timing]:
    """Seconds of an explanation by each peer: in every round, one after the other explains for about `seconds`.

    Each turn begins with one part of the points that is not counted (`Task.settle`).
    """
    took = {name: worker.run(1) for name, worker in workers.items()}
    calls = {name: max(1, round(seconds / of_call)) for name, of_call in took.items()}
    rounds = max(1, rounds - 1) if max(took.values()) > LONG else rounds
    known = max(calls.values()) == 1  # then the first call was a whole turn
    times = {name: [of_call] * known for name, of_call in took.items()}
    for _ in range(rounds - known):
        for name, worker in workers.items():
            times[name].append(worker.run(calls[name]) / calls[name])
    return {name: Timing(calls[name], tuple(times[name])) for name in workers}


def line(result: dict[str, Any]) -> str:
    """One line of text for a measured case."""
    ours, theirs = (result["peers"][peer]["seconds_per_image"] for peer in PEERS)
    return (
        f"jaxcnn {report.figure(1e3 * ours)} ms, Captum {report.figure(1e3 * theirs)} ms an image "
        f"({result['peers']['torch']['variant']}): {result['ratios']['speed']['median']:.2f} times as fast, "
        f"{result['ratios']['memory']['peak_of_steps']:.2f} of its memory"
    )


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement and a table."""
    captum = record["peers"]["torch"].get("captum")
    text = (
        f"Milliseconds for an image by jaxcnn and by Captum {captum}, on networks of random weights, float32: medians "
        f"of rounds in which the peers take turns of about {record['seconds']:g} s, each a process of its own that is "
        "stopped while it is not its turn. Grad-CAM explains 8 images together, integrated gradients one. jaxcnn "
        "chooses by itself how many points of the way go through the network together; Captum gets all of them for "
        "small images, and 8 for large ones. PyTorch runs channels_last, without gradients of weights, in the fastest "
        "of the ways that were tried. Memory is the peak of the process over the measured calls; *first start* is the "
        "time to compile without a cache."
    )
    head = ["network, method", "jaxcnn ms", "together", "Captum ms", "together", "way", "jaxcnn / Captum", "rounds"]
    head += ["jaxcnn MiB", "Captum MiB", "memory ratio", "first start s"]
    rows = []
    for case in record["cases"]:
        if "error" in case:
            continue
        ours, theirs = (case["peers"][peer] for peer in PEERS)
        speed, mib = case["ratios"]["speed"], 2**20
        rows.append([
            Case(case["model"], case["side"], case["method"], case["points"]).title,
            report.figure(1e3 * ours["seconds_per_image"]), str(ours["facts"].get("rows", "-")),
            report.figure(1e3 * theirs["seconds_per_image"]), str(theirs["facts"].get("rows", "-")), theirs["variant"],
            f"**{speed['median']:.2f}** ({speed['lowest']:.2f} to {speed['highest']:.2f})",
            str(len(ours["blocks"]["seconds_per_step"])),
            *(report.figure(each["memory"]["peak_of_steps_bytes"] / mib) for each in (ours, theirs)),
            f"{case['ratios']['memory']['peak_of_steps']:.2f}", report.figure(ours["first_build_seconds"]),
        ])  # fmt: skip
    failed = [f"Failed: {case['error']}" for case in record["cases"] if "error" in case]
    return "\n\n".join(["## Explanations", report.describe(record), text, report.table(head, rows), *failed])


if __name__ == "__main__":
    command.run(main)
