"""The images that are hardest for a network: those of the highest loss, and its most confident mistakes."""

import dataclasses
import pathlib
import textwrap
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
from jaxcnn.tasks import faults
from jaxcnn.tasks.faults import Faulty
from jaxcnn.tasks.kept import Faults, Kept
from jaxcnn.tasks.task import Facts, Task
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.text import named, save_picture, shorten, shown

FILE = "hardest.png"  # picture of the test of a finished run
MOST = 24  # images of each kind
MOST_PAIRS = 12  # pairs of pictures in a sheet
NAMES = 3  # classes or numbers of one answer in a caption


BELOW = "Below each image: its label, and in red what the network answered."
PAIR_GAP = 6  # pixels between the two pictures of an image with its faults
PAIR_SIDE = 480  # pixels of both of them in a sheet


@dataclasses.dataclass(frozen=True)
class Example:
    """An image with its label and the answer of the network.

    Attributes:
      index: its index in the split.
      name: its file or record; its index in the set where images have no names.
      image: RGB, as the network reads it, without augmentation.
      label, answer: as text.
      loss: its loss; NaN if there is no label.
      pair: whether the image is two pictures side by side, as it is annotated and as it was found.
    """

    index: int
    name: str
    image: UInt8[np.ndarray, "h w 3"]
    label: str
    answer: str
    loss: float
    pair: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """Examples of a page, with a title and a note."""

    title: str
    note: str
    examples: Sequence[Example]


@dataclasses.dataclass(frozen=True)
class Worst:
    """The images with the most faults of each kind, for a task that finds something in images."""

    sections: list[Section]
    legend: str

    @property
    def kind(self) -> str:
        """A description of the images in `pictured`."""
        return ", ".join(section.title.lower() for section in self.sections if section.examples)

    @property
    def pictured(self) -> list[Example]:
        """The first examples of each kind, each image once."""
        there = [section.examples for section in self.sections if section.examples]
        first = [example for examples in there for example in examples[: MOST_PAIRS // len(there)]]
        return list({example.index: example for example in first}.values())


@dataclasses.dataclass(frozen=True)
class Hardest:
    """The examples of the highest loss, and the most confident mistakes, which only classification has."""

    losses: list[Example]
    mistakes: list[Example] | None
    wrong: int = 0  # examples whose class was not the most probable one

    @property
    def kind(self) -> str:
        """A description of the images in `pictured`."""
        return "highest loss" if self.mistakes is None else "most confident mistakes"

    @property
    def legend(self) -> str:
        """A sentence on how to read the images."""
        return BELOW

    @property
    def sections(self) -> list[Section]:
        """The sections of the page: the mistakes, if the task has them, and the highest losses."""
        losses = Section("Highest loss", "The highest first.", self.losses)
        if self.mistakes is None:
            return [losses]
        note = f"{len(self.mistakes)} of {self.wrong} wrong answers, the most probable first." if self.wrong else ""
        return [Section("Most confident mistakes", note or "There is no mistake.", self.mistakes), losses]

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
      outputs, targets: outputs and targets of all its examples, in its order.
      of_each: the loss and the metrics of each example (`programs.loss_of_each`).
      constants, fitted: as in `Evaluation.answers`.
    """
    losses = of_each["loss"].astype(np.float64)
    by_loss = np.argsort(-losses, kind="stable")[:MOST]
    mistakes, wrong = None, 0
    if (right := faults.right(task.evaluation)) is not None:
        missed = np.flatnonzero(of_each[right] == 0)
        logits = outputs[missed].astype(np.float64) / temperature_of(fitted)
        with np.errstate(over="ignore"):
            # The probability of the predicted class is 1 / the sum of these powers.
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


def worst(split: Split, kept: Faults) -> Worst:
    """The images of a split with the most faults of each kind, beside their annotations."""
    evaluation = kept.evaluation
    names = tuple(split.class_names)

    def example(faulty: Faulty, image: Num[np.ndarray, "h w c"]) -> Example:
        both = evaluation.compared(as_rgb(image[None])[0], faulty.outputs, faulty.target, names)
        gap = np.full((both.found.shape[0], PAIR_GAP, 3), 255, np.uint8)
        image = np.concatenate([both.annotated, gap, both.found], axis=1)
        name = name_of(split, faulty.index)
        return Example(faulty.index, name, image, both.label, both.answer, float("nan"), pair=True)

    def section(title: str, most: list[Faulty]) -> Section:
        images = split.read(np.array([each.index for each in most])) if most else ()
        examples = [example(each, image) for each, image in zip(most, images, strict=True)]
        return Section(title, "The most first." if most else "There is none.", examples)

    return Worst([section(title, kept.most[kind]) for kind, title in evaluation.faults.items()], evaluation.legend)


def in_words(answer: Mapping[str, Any]) -> str:
    """An answer of `predict` as a short text, such as "cat 98.1%"."""
    if "label" in answer:
        return f"{named(answer['label'])} {100 * answer['probability']:.1f}%"
    if "labels" in answer:
        return ", ".join(map(named, answer["labels"])) or "none"
    values = list(answer.get("values", {}).items())
    if len(values) == 1:
        return f"{values[0][1]:.4g}"
    return ", ".join(f"{shown(name)} {value:.4g}" for name, value in values[:NAMES])


def as_rgb(images: Num[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Images of any type and number of channels as RGB: the first three channels, or the first one as grey.

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
    """Draw the hardest images of the test of a run as `FILE` in its workdir; draw nothing if they are not known."""
    title = f"{shown(folder.resolve().name)}: {split.name}"
    if isinstance(kept, Faults):
        draw(worst(split, kept), title, folder / FILE)
    elif (whole := kept.whole()) is not None:
        of_each = programs.loss_of_each(spec, mesh, *whole, constants)
        found = hardest(spec.task, split, *whole, of_each, constants, fitted)
        draw(found, title, folder / FILE)


def draw(found: Hardest | Worst, title: str, path: pathlib.Path) -> None:
    """Draw the most confident mistakes, the highest losses, or the most faults as PNG; nothing if there are none."""
    if found.pictured:
        pairs = found.pictured[0].pair
        size: dict[str, Any] = {"columns": 3, "largest": PAIR_SIDE} if pairs else {}
        figure = sheet(found.pictured, [f"{title}: {found.kind}", *textwrap.wrap(found.legend, 100)], **size)
        save_picture(figure, path, format="png", dpi=DPI)


CELL = 120  # approximate pixels of an image's side in a sheet
LARGEST = 240  # pixels; larger images are shrunk
MARGIN, GAP, LINE = 20, 12, 16  # pixels
LETTER = 7.0  # pixels of a letter of average width
DPI = 100


def sheet(
    examples: Sequence[Example], title: Sequence[str], columns: int = 6, colour: str = "#b00020", largest: int = 0
) -> Any:
    """A `matplotlib.figure.Figure` of images; below each its label, and in a colour the answer.

    Images larger than `largest` pixels (`LARGEST` if 0) are shrunk.
    """
    from matplotlib.figure import Figure

    cells = [_cell(example.image, largest or LARGEST) for example in examples]
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


def _cell(image: UInt8[np.ndarray, "h w 3"], largest: int) -> UInt8[np.ndarray, "H W 3"]:
    """An image enlarged by a whole factor to about `CELL`, or shrunk to `largest`."""
    longest = max(image.shape[:2])
    if longest <= largest:
        zoom = max(1, round(CELL / longest))
        return image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    from PIL import Image

    small = [max(1, side * largest // longest) for side in image.shape[:2]]
    return np.asarray(Image.fromarray(image).resize((small[1], small[0]), Image.Resampling.BOX))
