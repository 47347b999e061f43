"""Cases of `benchmarks.explain`, their turns, and the section that is written of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks import report
from benchmarks.measure import Timing

PEERS = ("jaxcnn", "torch")
IMAGES = {"gradcam": 8, "integrated_gradients": 1}  # images explained together
LAYERS = {"vgg16": ("block4_bn3", "block5_bn3"), "resnet50": ("block4_3", "block4_3")}  # at 32 and at 224 pixels
LARGE = 64  # pixels from which networks have their ImageNet form
LONG = 15.0  # seconds of a turn from which there is one round less
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement; a step is an explanation of all images."""

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
        """The number of images in a call."""
        return IMAGES[self.method]

    def spec(self, torch_rows: int) -> dict[str, Any]:
        """The description from which a worker builds the task; `torch_rows` is Captum's batch for large images."""
        large = self.side >= LARGE
        model = {"name": self.model, "form": "imagenet" if large else "cifar", "width": self.width}
        rows = torch_rows if large else self.points
        fields = {"side": self.side, "images": self.images, "method": self.method, "classes": CLASSES}
        fields |= {"layer": LAYERS[self.model][large], "points": self.points}
        return {"model": model, **fields, "torch_rows": min(rows, self.points)}


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
    """A line of text for a measured case."""
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
