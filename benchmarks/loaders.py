"""The comparison of loaders: the sets in the form that each loader reads, and the resulting figures."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.measure import interleave, speed_ratio
from benchmarks.worker import Worker, WorkerFailed
from jaxcnn.config import UserError, from_config_dict

PADDING = 4  # padding of the random crop, pixels
JPEG_SIDE, JPEG_QUALITY = 256, 90


@dataclasses.dataclass(frozen=True)
class Loader:
    """A loader that is measured.

    Attributes:
      title: name in the table.
      peer: jaxcnn or torch.
      task: the description from which the worker of the peer builds it.
    """

    title: str
    peer: str
    task: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images in the forms that the peers read.

    Attributes:
      title: name in the table.
      data: fields of `jaxcnn.config.Data`.
      torch: keys of the spec of `torch_input.Images`.
      tasks: jaxcnn's loaders that are measured: `jaxcnn_input.TASKS`, by their names in the table.
    """

    title: str
    data: dict[str, Any]
    torch: dict[str, Any]
    tasks: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"jaxcnn resident": "resident", "jaxcnn stream": "stream"}
    )


def make_sets(folder: pathlib.Path, source: str, data_dir: str, jpegs: int) -> list[ImageSet]:
    """The source as pixels, written to `folder` for PyTorch; and `jpegs` of its images as JPEG files.

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
    np.save(folder / "labels.npy", split.targets)
    arrays = {"images": str(folder / "images.npy"), "labels": str(folder / "labels.npy")}
    height, width = pixels.shape[1:3]
    sets = [ImageSet(f"{split.description}: {len(pixels):,} images of {height}x{width}", fields, arrays)]
    if jpegs:
        count = min(jpegs, len(pixels))
        write_jpegs(folder / "jpegs", pixels[:count], split.targets[:count])
        # Both peers must decode the images, so there is no cache of pixels.
        data = {"source": f"folder:{folder / 'jpegs'}", "loader": "stream"}
        title = f"{count:,} of them as JPEGs of {JPEG_SIDE}x{JPEG_SIDE}"
        sets.append(ImageSet(title, data, {"folder": str(folder / "jpegs")}))
    return sets


def host_sets(folder: pathlib.Path, jpegs: ImageSet, torch: bool) -> list[ImageSet]:
    """The JPEGs of `make_sets` as batches of pixels for a device: decoded as they are read, and decoded before.

    With `torch`, all decoded pixels are also written to `folder`, where PyTorch reads them by memory map.
    """
    import jaxcnn.data.source as sources
    from jaxcnn.data.examples import index_chunks

    decoded = {"images": str(folder / "decoded.npy"), "labels": str(folder / "decoded_labels.npy")}
    if torch:
        split = sources.open_splits(from_config_dict({"data": host_data(jpegs.data)}).data).train
        np.save(decoded["labels"], split.targets)
        pixels = np.lib.format.open_memmap(decoded["images"], "w+", np.uint8, (len(split), *split.image_shape))
        for chunk in index_chunks(len(split), split.image_shape):
            pixels[chunk] = split.read(chunk)
    kept = jpegs.data | {"cache": str(folder / "kept")}
    plain = {"raw": True}
    what = f"batches of uint8 from the JPEGs of {JPEG_SIDE}x{JPEG_SIDE}"
    return [
        ImageSet(
            f"{what}, decoded as they are read",
            kept,
            jpegs.torch | plain,
            {
                "jaxcnn, kept nowhere": "decoded",
                "jaxcnn, kept nowhere, Pillow alone": "pillow",
                "jaxcnn, first epoch with data.cache": "first",
            },
        ),
        ImageSet(f"{what}, decoded before", kept, decoded | plain, {"jaxcnn, later epochs with data.cache": "later"}),
    ]


def host_data(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of `jaxcnn.config.Data` with which a set of JPEGs is one split."""
    return data | {"protocol": "full", "test_split": "", "train_split": "train"}


def write_jpegs(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write uint8 images [N, H, W, 3], enlarged to 256 pixels by bicubic interpolation, to `<folder>/<label>/`."""
    from PIL import Image

    for label in np.unique(labels):
        (folder / f"{label:03}").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        enlarged = Image.fromarray(image).resize((JPEG_SIDE, JPEG_SIDE), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{label:03}" / f"{number:06}.jpg", quality=JPEG_QUALITY)


def loaders_of(image_set: ImageSet, batch_size: int, peers: list[str], workers: list[str]) -> list[Loader]:
    """The loaders that are measured on a set."""
    shared = {"batch_size": batch_size, "padding": PADDING}
    found = [
        Loader(title, "jaxcnn", {"task": task, "data": image_set.data} | shared)
        for title, task in image_set.tasks.items()
    ]
    if "torch" in peers:
        for number in workers:
            task = {"task": "loader", "workers": int(number)} | image_set.torch | shared
            found.append(Loader(f"DataLoader, {number} workers", "torch", task))
    return found


def measure(
    image_set: ImageSet, measured: list[Loader], start_worker: Callable[[str], Worker], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure all loaders of a set in turns; a loader that cannot be built has an "error" instead of figures."""
    from jaxcnn.data.examples import worker_count

    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for loader in measured:
            worker = stack.enter_context(contextlib.closing(start_worker(loader.peer)))
            try:
                worker.build(loader.task)
            except WorkerFailed as error:
                failed[loader.title] = f"{loader.title} on {image_set.title}: {error}"
                continue
            workers[loader.title] = worker
        timings = interleave(workers, rounds, seconds)
        memory = {title: worker.ask("finish")["memory"] for title, worker in workers.items()}
    theirs = [timings[loader.title] for loader in measured if loader.peer == "torch" and loader.title in timings]
    best = min(theirs, key=lambda timing: timing.median, default=None)
    figures: dict[str, Any] = {title: {"error": error} for title, error in failed.items()}
    for title, timing in timings.items():
        figures[title] = {
            "images_per_second": measured[0].task["batch_size"] / timing.median,
            "blocks": dataclasses.asdict(timing),
            "memory": memory[title],
        } | ({"ratio": speed_ratio(timing, best)} if best else {})
    return {
        "title": image_set.title,
        "cores": worker_count(),
        "loaders": {loader.title: figures[loader.title] for loader in measured},
    }
