"""Annotations of images, checked: bad ones are named, and refused or left out."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import boxes, instance_masks
from jaxcnn.data.boxes import Crops, Objects
from jaxcnn.tasks import run_length
from jaxcnn.text import counted

SLACK = 1.0  # pixels that a box may reach outside its image, since formats round; it is cut off there
NAMED = 3  # most bad annotations that a message names
_ADVICE = "correct them, or set config.data.on_error='skip' to leave them out"
_COMMAND = "python -m jaxcnn.doctor --data"


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file and its annotations, not yet checked.

    Attributes:
      path: relative to the folder of the set, or absolute.
      objects: the boxes, in pixels, or as shares of the sides of the image if they are `relative`.
      names: name of each object in messages, such as "annotation 125062".
      relative: whether boxes are shares of the sides.
      size: height and width by the annotations; None if they have none.
      wrong: faults apart from those of the boxes, such as an id that occurs twice.
    """

    path: str
    objects: Objects
    names: tuple[str, ...]
    relative: bool = False
    size: tuple[int, int] | None = None
    wrong: tuple[str, ...] = ()


def all_sound(
    pictures: Sequence[Picture], sizes: Int[np.ndarray, "n 2"], classes: Sequence[str], *, masks: bool = False
) -> tuple[list[Objects], list[str]]:
    """The sound objects of each image, clipped at its border, and one line for each bad object.

    An image whose size is 0 gives no lines, because it is left out anyway.

    Args:
      pictures: the images.
      sizes: height and width of each in pixels.
      classes: names of the classes.
      masks: whether an object needs an outline that has to do with its box.
    """
    found, problems = [], []
    for picture, (height, width) in zip(pictures, sizes, strict=True):
        objects, wrong = _sound(picture, int(height), int(width), classes, masks)
        found.append(objects)
        problems += wrong
    return found, problems


def masked(
    pictures: Sequence[Picture], found: Sequence[Objects], sizes: Int[np.ndarray, "n 2"], side: int, data: config.Data
) -> tuple[list[Objects], list[Crops], list[str]]:
    """The objects of images that have masks, their masks, and one line for each object without one.

    Args:
      pictures, sizes: the arguments of `all_sound`.
      found: the objects that it returned.
      side: side of the masks.
      data: the group `config.data`.
    """
    kept, crops, without = instance_masks.of_images(found, sizes, side, data.workers)
    return kept, crops, [f"{pictures[place].path}: {line}" for place, line in without]


def refuse(what: str, problems: Sequence[str], data: config.Data, command: str = _COMMAND) -> None:
    """Raise UserError if there are bad annotations and `data.on_error` is "raise".

    Args:
      what: the begin of the message.
      problems: one line for each.
      data: the group `config.data`.
      command: what names all of them.
    """
    if problems and data.on_error == "raise":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{what}{problems[0]}{more}; {_ADVICE}; {command} names all")


def left_out(title: str, problems: Sequence[str]) -> str:
    """A remark on the bad annotations of a set that were left out, which names some of them."""
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return f"left out {counted(len(problems), 'bad annotation')} of {title}: {'; '.join(problems[:NAMED])}{more}"


def _sound(picture: Picture, height: int, width: int, classes: Sequence[str], masks: bool) -> tuple[Objects, list[str]]:
    objects = picture.objects
    if not height or not width:
        return objects.only(np.zeros(len(objects.labels), bool)), []
    if picture.relative:
        objects = _in_pixels(objects, height, width)
    told = [f"{picture.path}: {each}" for each in picture.wrong]
    if picture.size not in (None, (height, width)):
        wanted = "x".join(map(str, picture.size or ()))
        told.append(f"{picture.path}: the annotations say {wanted}, but the image is {height}x{width}")
    wrong = [_fault(objects, place, height, width, classes) for place in range(len(objects.labels))]
    if masks:
        wrong = [fault or _apart(objects, place, height, width) for place, fault in enumerate(wrong)]
    seen: dict[tuple[float, ...], str] = {}
    for place, name in enumerate(picture.names):
        key = (*objects.corners[place].tolist(), float(objects.labels[place]))
        if not wrong[place] and key in seen:
            wrong[place] = f"is the same as {seen[key]}"
        seen.setdefault(key, name)
    told += [f"{picture.path}, {name} {fault}" for name, fault in zip(picture.names, wrong, strict=True) if fault]
    kept: Bool[np.ndarray, " k"] = np.array([not fault for fault in wrong], bool)
    cut = np.clip(objects.corners, 0, np.array([width, height, width, height], np.float64))
    return dataclasses.replace(objects, corners=cut).only(kept), told


def _in_pixels(objects: Objects, height: int, width: int) -> Objects:
    """Objects in pixels, from those in shares of the sides; an area of 0 becomes that of the box."""
    sides = np.array([width, height, width, height], np.float64)
    corners = objects.corners * sides
    area = np.where(objects.area > 0, objects.area * (width * height), boxes.areas(corners))
    outlines = tuple(
        [(np.reshape(ring, (-1, 2)) * sides[:2]).ravel().tolist() for ring in outline or ()]
        for outline in objects.outlines
    )
    return dataclasses.replace(objects, corners=corners, area=area, outlines=outlines)


def _fault(objects: Objects, place: int, height: int, width: int, classes: Sequence[str]) -> str:
    """Says what is wrong with an object, as the end of a sentence; empty if nothing is."""
    left, top, right, bottom = box = objects.corners[place].tolist()
    if not np.isfinite(box).all():
        return "has a box that is no numbers"
    told = _told(box)
    if right < left or bottom < top:
        return f"has the corners of its box swapped: {told} (left, top, right, bottom)"
    if right == left or bottom == top:
        return f"has an empty box: {told}"
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        return f"lies outside the image of {width}x{height}: {told}"
    if left < -SLACK or top < -SLACK or right > width + SLACK or bottom > height + SLACK:
        return f"reaches outside the image of {width}x{height}: {told}"
    if min(right, width) - max(left, 0) <= 0 or min(bottom, height) - max(top, 0) <= 0:
        return f"has an empty box: {told}"
    if not 0 < objects.area[place] < np.inf:
        return f"has an area of {objects.area[place]:g}"
    label = int(objects.labels[place])
    if not 0 <= label < len(classes):
        off = ", off by one" if label == len(classes) else ""
        return f"has class {label}{off}: there are {len(classes)}, from 0 to {len(classes) - 1}"
    return ""


def _told(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _apart(objects: Objects, place: int, height: int, width: int) -> str:
    """Says that the outline of an object lies outside its box, as the end of a sentence; empty if it does not.

    What is no outline, or lies outside the image, is named where the mask is made.
    """
    outline = objects.outlines[place] if place < len(objects.outlines) else None
    try:
        if not outline or (isinstance(outline, dict) and run_length.size(outline) != (height, width)):
            return ""
        ends = run_length.corners(outline)
    except ValueError:
        return ""
    within = _shared(ends, np.array([0, 0, width, height], np.float64))
    box = objects.corners[place]
    if (within <= 0).any() or (_shared(ends, box) > -SLACK).all():
        return ""
    told = f"{_told(ends.tolist())}, but the box is {_told(box.tolist())}"
    return f"has an outline outside its box: {told} (left, top, right, bottom)"


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Width and height of what two boxes share; negative is their distance."""
    return np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
