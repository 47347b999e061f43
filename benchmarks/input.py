"""Measure input pipelines in turns: `python -m benchmarks.input`.

jaxcnn's resident and stream (tf.data) loaders and PyTorch's DataLoader make batches of normalised float32 images,
randomly cropped and flipped: of a set whose pixels lie in memory (CIFAR-10), and of JPEGs of 256 pixels, which this
command makes of the same images. Writes <out>.json and a section of <out>.md.
"""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from benchmarks import report
from benchmarks.measure import interleave, speed_ratio
from benchmarks.worker import Worker, WorkerFailed, jaxcnn_environment, start_torch
from jaxcnn import command
from jaxcnn.config import UserError, from_config_dict

SOURCE = flags.DEFINE_string("source", "tfds:cifar10", "The set, as in config.data.source: tfds:<name> or npz:<path>.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where TFDS sets are; empty: TFDS's own default.")
JPEGS = flags.DEFINE_integer("jpegs", 2000, "How many JPEGs to make of it; 0: none.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
WORKERS = flags.DEFINE_list("workers", ["0", "2"], "Of PyTorch's DataLoader; each number is measured.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "How often each loader has its turn.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "How long a turn is, about; at least one batch.", lower_bound=0.0)
DEVICE = flags.DEFINE_enum("device", "", ["", "cpu", "gpu"], "Where batches go. Default: gpu where JAX sees one.")
PEERS = flags.DEFINE_list("peers", ["jaxcnn", "torch"], "jaxcnn, or jaxcnn,torch.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch.")
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "input"
PADDING = 4  # pixels, of the random crop
JPEG_SIDE, JPEG_QUALITY = 256, 90


@dataclasses.dataclass(frozen=True)
class Loader:
    """What is measured.

    Attributes:
      title: for the table.
      peer: jaxcnn or torch.
      task: what the peer's worker builds.
    """

    title: str
    peer: str
    task: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in the forms that the peers read.

    Attributes:
      title: for the table.
      data: fields of `jaxcnn.config.Data`.
      torch: the keys of `torch_input.Images`.
    """

    title: str
    data: dict[str, Any]
    torch: dict[str, str]


def main() -> int:
    """Measure what the flags ask for; return the exit code."""
    out = report.check_out(OUT.value)
    if "jaxcnn" not in PEERS.value or not set(PEERS.value) <= {"jaxcnn", "torch"}:
        raise UserError(f"--peers={','.join(PEERS.value)} must be jaxcnn or jaxcnn,torch")
    if not all(number.isdigit() for number in WORKERS.value):
        raise UserError(f"--workers={','.join(WORKERS.value)} must be whole numbers")
    facts = {}
    for peer in PEERS.value:
        with contextlib.closing(start(peer)) as worker:
            facts[peer] = worker.facts
    results = []
    with tempfile.TemporaryDirectory(prefix="jaxcnn-input-") as folder:
        for image_set in make_sets(pathlib.Path(folder), SOURCE.value, DATA_DIR.value, JPEGS.value):
            print(image_set.title)
            measured = loaders(image_set, BATCH_SIZE.value, PEERS.value, WORKERS.value)
            result = measure(image_set, measured, start, ROUNDS.value, SECONDS.value)
            for name, figures in result["loaders"].items():
                print(f"  {name}: {report.figure(figures['images_per_second'])} images/s")
            results.append(result)
    record = report.provenance("benchmarks.input", facts)
    record |= {"rounds": ROUNDS.value, "seconds": SECONDS.value, "batch_size": BATCH_SIZE.value, "sets": results}
    for path in report.write(out, SECTION, record, markdown(record)):
        print(f"wrote {path}")
    return 0


def start(peer: str) -> Worker:
    """A worker of a peer."""
    if peer == "torch":
        return start_torch("PyTorch", TORCH_PYTHON.value, "benchmarks.torch_input")
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_input", jaxcnn_environment(DEVICE.value))


def make_sets(folder: pathlib.Path, source: str, data_dir: str, jpegs: int) -> list[ImageSet]:
    """The set itself, its pixels written to `folder` for PyTorch; and so many of its images as JPEGs.

    Raises:
      UserError: the source cannot be read.
    """
    from jaxcnn.data.examples import read_in_order
    from jaxcnn.data.source import open_splits

    fields = {"source": source, "dir": data_dir, "protocol": "full", "test_split": ""}
    split = open_splits(from_config_dict({"data": fields}).data).train
    pixels = np.concatenate(list(read_in_order(split.read, len(split), split.image_shape)))
    if pixels.shape[-1] != 3:
        raise UserError(f"--source={source} has images of {pixels.shape[-1]} channels; colour images are needed")
    np.save(folder / "images.npy", pixels)
    np.save(folder / "labels.npy", split.labels)
    arrays = {"images": str(folder / "images.npy"), "labels": str(folder / "labels.npy")}
    height, width = pixels.shape[1:3]
    sets = [ImageSet(f"{split.description}: {len(pixels):,} images of {height}x{width}", fields, arrays)]
    if jpegs:
        count = min(jpegs, len(pixels))
        write_jpegs(folder / "jpegs", pixels[:count], split.labels[:count])
        # What is decoded is to be decoded by both: no cache of pixels.
        data = {"source": f"folder:{folder / 'jpegs'}", "loader": "stream"}
        title = f"{count:,} of them as JPEGs of {JPEG_SIDE}x{JPEG_SIDE}"
        sets.append(ImageSet(title, data, {"folder": str(folder / "jpegs")}))
    return sets


def write_jpegs(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write uint8 images [N, H, W, 3], enlarged to 256 pixels by bicubic interpolation, to `<folder>/<label>/`."""
    from PIL import Image

    for label in np.unique(labels):
        (folder / f"{label:03}").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        enlarged = Image.fromarray(image).resize((JPEG_SIDE, JPEG_SIDE), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{label:03}" / f"{number:06}.jpg", quality=JPEG_QUALITY)


def loaders(image_set: ImageSet, batch_size: int, peers: list[str], workers: list[str]) -> list[Loader]:
    """What is measured on a set."""
    shared = {"batch_size": batch_size, "padding": PADDING}
    found = [
        Loader(f"jaxcnn {task}", "jaxcnn", {"task": task, "data": image_set.data} | shared)
        for task in ("resident", "stream")
    ]
    if "torch" in peers:
        for number in workers:
            task = {"task": "loader", "workers": int(number)} | image_set.torch | shared
            found.append(Loader(f"DataLoader, {number} workers", "torch", task))
    return found


def measure(
    image_set: ImageSet, measured: list[Loader], start_worker: Callable[[str], Worker], rounds: int, seconds: float
) -> dict[str, Any]:
    """Figures of all loaders of a set, in turns. Raises WorkerFailed where one does not work."""
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for loader in measured:
            worker = stack.enter_context(contextlib.closing(start_worker(loader.peer)))
            try:
                worker.build(loader.task)
            except WorkerFailed as error:
                raise WorkerFailed(f"{image_set.title}: {loader.title}: {error}") from error
            workers[loader.title] = worker
        timings = interleave(workers, rounds, seconds)
        memory = {title: worker.ask("finish")["memory"] for title, worker in workers.items()}
    theirs = [timings[loader.title] for loader in measured if loader.peer == "torch"]
    best = min(theirs, key=lambda timing: timing.median, default=None)
    figures = {}
    for loader in measured:
        timing = timings[loader.title]
        figures[loader.title] = {
            "images_per_second": loader.task["batch_size"] / timing.median,
            "blocks": dataclasses.asdict(timing),
            "memory": memory[loader.title],
        } | ({"ratio": speed_ratio(timing, best)} if best else {})
    return {"title": image_set.title, "loaders": figures}


def markdown(record: dict[str, Any]) -> str:
    """The section: what was done, and a table."""
    text = (
        f"Images per second of batches of {record['batch_size']}, normalised, randomly cropped (padding of {PADDING}) "
        f"and flipped: medians of {record['rounds']} rounds in which the loaders take turns of about "
        f"{record['seconds']:g} s, each a process of its own that is stopped while it is not its turn; what lay ready "
        "from before is not counted. *Resident* holds all decoded pixels on the device. *Stream* and *DataLoader* read "
        "pixels from memory in the first set, and decode every JPEG with Pillow in the second. The JPEGs are small "
        f"images enlarged (bicubic, quality {JPEG_QUALITY}), so they are smoother, and quicker to decode, than "
        "photographs. DataLoader draws with replacement, so that it never waits at the end of an epoch. The ratio is that to the fastest DataLoader."
    )
    rows = []
    for each in record["sets"]:
        for number, (name, figures) in enumerate(each["loaders"].items()):
            row = [each["title"] if number == 0 else "", name, report.figure(figures["images_per_second"])]
            ratio = figures.get("ratio")
            row.append(f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})" if ratio else "-")
            rows.append(row)
    table = report.table(["set", "loader", "images/s", "ratio"], rows)
    return "\n\n".join(["## jaxcnn and PyTorch: input", report.describe(record), text, table])


if __name__ == "__main__":
    command.run(main)
