"""The images that a network finds hardest: those of the highest loss, and its most confident mistakes."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Num, UInt8

from jaxcnn.data.batch import Constants, Split
from jaxcnn.data.selection import name_of
from jaxcnn.learn import programs
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.tasks.kept import Kept
from jaxcnn.tasks.task import Facts, Task
from jaxcnn.text import named, save_picture, shorten, shown

FILE = "hardest.png"  # of the test of a finished run
MOST = 24  # images of each kind
NAMES = 3  # classes or numbers of one answer in a caption


BELOW = "Below each image: its label, and in red what the network answered."


@dataclasses.dataclass(frozen=True)
class Example:
    """An image with its label and the answer of the network.

    Attributes:
      index: its place in the split.
      name: its file or record; its index in the set where images have no names.
      image: RGB, as the network reads it, without augmentation.
      label, answer: in words.
      loss: its loss; NaN if there is no label.
    """

    index: int
    name: str
    image: UInt8[np.ndarray, "h w 3"]
    label: str
    answer: str
    loss: float


@dataclasses.dataclass(frozen=True)
class Hardest:
    """The examples of the highest loss, and the most confident mistakes, which only classification has."""

    losses: list[Example]
    mistakes: list[Example] | None
    wrong: int = 0  # examples whose class was not the most probable one

    @property
    def kind(self) -> str:
        """What `pictured` has, in words."""
        return "highest loss" if self.mistakes is None else "most confident mistakes"

    @property
    def pictured(self) -> list[Example]:
        """The examples for a picture: the mistakes where a task has them."""
        return self.losses if self.mistakes is None else self.mistakes


def hardest(
    task: Task,
    split: Split,
    outputs: Num[np.ndarray, "n k"],
    targets: Any,
    of_each: Mapping[str, Num[np.ndarray, " n"]],
    constants: Any,
    fitted: Facts,
) -> Hardest:
    """The hardest examples of a split.

    Args:
      task: the task.
      split: the split.
      outputs, targets: those of all of its examples, in its order.
      of_each: the loss and the metrics of each example (`programs.loss_of_each`).
      constants, fitted: as in `Evaluation.answers`.
    """
    losses = of_each["loss"].astype(np.float64)
    by_loss = np.argsort(-losses, kind="stable")[:MOST]
    mistakes, wrong = None, 0
    if "top1_accuracy" in task.evaluation.metrics:
        missed = np.flatnonzero(of_each["top1_accuracy"] == 0)
        logits = outputs[missed].astype(np.float64)
        with np.errstate(over="ignore"):
            # The probability of the class that was predicted is 1 / the sum of these powers.
            doubt = np.exp(logits - logits.max(-1, keepdims=True)).sum(-1) if len(missed) else np.zeros(0)
        mistakes, wrong = missed[np.argsort(doubt, kind="stable")[:MOST]], len(missed)

    def examples(chosen: np.ndarray) -> list[Example]:
        if not len(chosen):
            return []
        names = tuple(split.class_names)
        pictures = as_rgb(split.read(chosen))
        own = jax.tree.map(lambda leaf: leaf[chosen], targets)
        labels = task.targets.captions(task.targets.whole(own), tuple(map(named, names)), 60)
        found = task.evaluation.answers(outputs[chosen], names, constants, fitted)
        return [
            Example(int(k), name_of(split, int(k)), picture, label, in_words(answer), float(losses[k]))
            for k, picture, label, answer in zip(chosen, pictures, labels, found, strict=True)
        ]

    return Hardest(examples(by_loss), None if mistakes is None else examples(mistakes), wrong)


def in_words(answer: Mapping[str, Any]) -> str:
    """An answer of `predict` in a few words, such as "cat 98.1%"."""
    if "label" in answer:
        return f"{named(answer['label'])} {100 * answer['probability']:.1f}%"
    if "labels" in answer:
        return ", ".join(map(named, answer["labels"])) or "none"
    values = list(answer.get("values", {}).items())
    if len(values) == 1:
        return f"{values[0][1]:.4g}"
    return ", ".join(f"{shown(name)} {value:.4g}" for name, value in values[:NAMES])


def as_rgb(images: Num[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Images of any type and number of channels, for people: the first three channels, or the first as grey.

    Floats are stretched from the lowest to the highest value of all images.
    """
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1].repeat(3, axis=-1)
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind == "u":
        return np.round(images * (255 / np.iinfo(images.dtype).max)).astype(np.uint8)
    low, high = np.nanmin(images), np.nanmax(images)
    scale = 255 / max(high - low, np.finfo(np.float32).tiny)
    return np.round(np.nan_to_num((images - low) * scale)).astype(np.uint8)


def draw_test(
    folder: pathlib.Path, spec: StepSpec, mesh: Mesh, split: Split, kept: Kept, constants: Constants, fitted: Facts
) -> None:
    """Draw the hardest images of the one test of a run, as `FILE` in its workdir; nothing if they are not known."""
    if (whole := kept.whole()) is not None:
        title = f"{shown(folder.resolve().name)}: {split.name}"
        of_each = programs.loss_of_each(spec, mesh, *whole, constants)
        found = hardest(spec.task, split, *whole, of_each, constants, fitted)
        draw(found, title, folder / FILE)


def draw(found: Hardest, title: str, path: pathlib.Path) -> None:
    """Draw the most confident mistakes, or else the images of the highest loss, as PNG; nothing if there are none."""
    if found.pictured:
        figure = sheet(found.pictured, [f"{title}: {found.kind}", BELOW])
        save_picture(figure, path, format="png", dpi=DPI)


CELL = 120  # pixels, about, of an image's side in a sheet
LARGEST = 240  # pixels; larger images are shrunk
MARGIN, GAP, LINE = 20, 12, 16  # pixels
LETTER = 7.0  # pixels of an average letter
DPI = 100


def sheet(examples: Sequence[Example], title: Sequence[str], columns: int = 6, colour: str = "#b00020") -> Any:
    """A `matplotlib.figure.Figure` of images; below each its label, and in a colour the answer."""
    from matplotlib.figure import Figure

    cells = [_cell(example.image) for example in examples]
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    pitch, across = height + LINE * 2 + GAP, max(width, CELL) + GAP
    columns = min(columns, len(cells))
    top = MARGIN + LINE * (len(title) + 1)
    page_width = max(2 * MARGIN + across * columns - GAP, round(2 * MARGIN + LETTER * max(map(len, title))))
    page_height = top + pitch * -(-len(cells) // columns) + MARGIN - GAP
    page = np.full((page_height, page_width, 3), 255, np.uint8)
    figure = Figure(figsize=(page_width / DPI, page_height / DPI), dpi=DPI)
    write = _writer(figure, page_width, page_height)
    for number, line in enumerate(title):
        write(MARGIN, MARGIN + LINE * number, line, weight="bold" if number == 0 else "normal")
    letters = int((across - 4) / LETTER)
    for number, (example, cell) in enumerate(zip(examples, cells, strict=True)):
        x, y = MARGIN + across * (number % columns), top + pitch * (number // columns)
        page[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        below = y + height + 3
        write(x, below, shorten(example.label, letters))
        write(x, below + LINE, shorten(example.answer, letters), color=colour)
    figure.figimage(page, 0, 0, origin="upper", zorder=-1)
    return figure


def _writer(figure: Any, page_width: int, page_height: int) -> Callable[..., None]:
    """A function that writes a text with its upper left corner at a pixel."""

    def write(x: float, y: float, text: str, **style: Any) -> None:
        style = dict[str, Any](va="top", fontsize=8.5, color="#222222", parse_math=False) | style
        figure.text(x / page_width, 1 - y / page_height, text, **style)

    return write


def _cell(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image enlarged by a whole factor to about `CELL`, or shrunk to `LARGEST`."""
    longest = max(image.shape[:2])
    if longest <= LARGEST:
        zoom = max(1, round(CELL / longest))
        return image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    from PIL import Image

    small = [max(1, side * LARGEST // longest) for side in image.shape[:2]]
    return np.asarray(Image.fromarray(image).resize((small[1], small[0]), Image.Resampling.BOX))
