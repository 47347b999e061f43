"""Images with boxes, in whatever format they are listed: bad annotations are named, and refused or left out."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import boxes, files, instance_masks, label_maps
from jaxcnn.data.boxes import Objects
from jaxcnn.data.encoded import Encoded, open_encoded, sizes_of
from jaxcnn.data.examples import Examples, Source
from jaxcnn.text import counted

SLACK = 1.0  # pixels that a box may reach outside its image, since formats round; it is cut off there
NAMED = 3  # most bad annotations that a message names
_ADVICE = "correct them, or set config.data.on_error='skip' to leave them out; python -m jaxcnn.doctor --data names all"


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


def source(
    title: str,
    root: Path,
    splits: Mapping[str, Sequence[Picture]],
    classes: tuple[str, ...],
    data: config.Data,
    notes: tuple[str, ...] = (),
    *,
    maps: bool = False,
    mask_side: int = 0,
    beside: Sequence[Path] = (),
    faults: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Source:
    """The source of annotated images.

    Args:
      title: name in messages.
      root: the folder of the set.
      splits: the images of each base split; one of them is "train".
      classes: names of the classes.
      data: the group `config.data`.
      notes: remarks for the user.
      maps: whether to give label maps of the outlines of objects, with class 0 where there is none, in place of boxes.
      mask_side: side of the masks that objects get in addition to boxes; 0: no masks.
      beside: folders outside `root` that belong to the set, too; images elsewhere need `data.images_below`.
      faults: bad annotations that belong to no image, by base split.
    """

    def open_split(split: str) -> Examples:
        pictures, repeated = _each_once(splits[split])
        paths = [each.path for each in pictures]
        if strange := files.outside(root, paths, data, beside):
            more = f" ({len(strange)} such images)" if len(strange) > 1 else ""
            raise UserError(f"{title} {split}: {files.refusal(paths[strange[0]], root)}{more}")
        loose = [*faults.get(split, ()), *repeated]
        return _open(f"{title} {split}", root, pictures, classes, data, maps, mask_side, loose)

    classes_of_all = (label_maps.BACKGROUND, *classes) if maps else classes
    return Source(title, classes_of_all, tuple(splits), open_split, notes, undivided=tuple(splits) == ("train",))


def _each_once(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """The images without those that have been listed before, and one line for each of these."""
    first: dict[str, Picture] = {}
    lines = []
    for picture in pictures:
        if picture.path in first:
            lines.append(f"image {picture.path!r} is listed twice; list each image once")
        first.setdefault(picture.path, picture)
    return list(first.values()), lines


def _open(
    title: str,
    root: Path,
    pictures: Sequence[Picture],
    classes: tuple[str, ...],
    data: config.Data,
    maps: bool,
    mask_side: int,
    faults: Sequence[str],
) -> Examples:
    if not pictures:
        raise UserError(f"{title} has no image" + (f": {faults[0]}" if faults else ""))
    paths = [each.path for each in pictures]
    if data.on_error == "raise":
        missing = [path for path in paths if files.state(os.path.join(root, path)) == (-1, -1)]
        if missing:
            more = f" ({len(missing)} such images)" if len(missing) > 1 else ""
            raise UserError(
                f"{title}: image {missing[0]!r} does not exist{more}; correct it, or set config.data.on_error='skip' "
                "to leave such images out"
            )
    encoded = files.encoded_files(title, root, paths, range(len(pictures)))
    return opened(encoded, pictures, classes, data, maps=maps, mask_side=mask_side, faults=faults)


def opened(
    encoded: Encoded,
    pictures: Sequence[Picture],
    classes: tuple[str, ...],
    data: config.Data,
    *,
    maps: bool = False,
    mask_side: int = 0,
    faults: Sequence[str] = (),
) -> Examples:
    """The examples of encoded images and their annotations, which are checked.

    Args:
      encoded: the images; the label of each is the number of its picture.
      pictures: their annotations.
      classes, data, maps, mask_side: as for `source`.
      faults: bad annotations that belong to no image.

    Raises:
      UserError: a bad annotation, with `data.on_error="raise"`, or images of several sizes that are not resized.
    """
    title, sizes = encoded.title, sizes_of(encoded, data)
    check_one_size(title, sizes, data)
    if data.image_size and data.resize == "crop" and not maps:
        raise UserError(f"config.data.resize='crop' would cut boxes of {title} off; set it to 'pad' (or 'stretch')")
    found, problems = [], [*faults]
    for number, (height, width) in zip(encoded.labels, sizes, strict=True):
        objects, wrong = sound(pictures[number], int(height), int(width), classes)
        found.append(objects)
        problems += wrong
    rows: np.ndarray
    if maps:
        unpainted: dict[int, list[str]] = {}

        def painted(place: int, height: int, width: int) -> label_maps.Map:
            made, unpainted[place] = label_maps.painted(found[place], height, width)
            return made

        rows = label_maps.stacked(sizes, data, painted)
        of_places = (pictures[number].path for number in encoded.labels)
        problems += [f"{path}: {each}" for place, path in enumerate(of_places) for each in unpainted.get(place, ())]
    crops: list[boxes.Crops] | None = None
    if mask_side:
        found, crops, without = instance_masks.of_images(found, sizes, mask_side, data.workers)
        problems += [f"{pictures[int(encoded.labels[place])].path}: {each}" for place, each in without]
    if problems and data.on_error == "raise":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{title}: {problems[0]}{more}; {_ADVICE}")
    if not maps:
        frames = [boxes.frame_of(int(h), int(w), data.image_size, data.resize) for h, w in sizes]
        rows = boxes.records(found, np.array(frames, np.float32).reshape(-1, 4), crops)
    notes = [_left_out(title, problems)] if problems else []
    examples = open_encoded(dataclasses.replace(encoded, labels=rows, notes=tuple(notes)), data)
    return dataclasses.replace(examples, problems=tuple(problems))


def check_one_size(title: str, sizes: Int[np.ndarray, "n 2"], data: config.Data) -> None:
    """Raise UserError if images differ in height or width and are not resized; images of size 0 are ignored."""
    present = sizes[sizes.any(axis=1)]
    if not data.image_size and len(present) and (present != present[0]).any():
        raise UserError(
            f"images of {title} differ in size; set config.data.image_size to the side of a square, with "
            "config.data.resize='pad' to keep their proportions"
        )


def _left_out(title: str, problems: Sequence[str]) -> str:
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return f"left out {counted(len(problems), 'bad annotation')} of {title}: {'; '.join(problems[:NAMED])}{more}"


def sound(picture: Picture, height: int, width: int, classes: Sequence[str]) -> tuple[Objects, list[str]]:
    """The sound objects of an image of this size in pixels, clipped at its border, and one line for each bad object.

    An image whose size is 0 gives no lines, because it is left out anyway.
    """
    objects = picture.objects
    if not height or not width:
        return objects.only(np.zeros(len(objects.labels), bool)), []
    if picture.relative:
        sides = np.array([width, height, width, height], np.float64)
        corners = objects.corners * sides
        objects = dataclasses.replace(objects, corners=corners, area=boxes.areas(corners))
    told = [f"{picture.path}: {each}" for each in picture.wrong]
    if picture.size not in (None, (height, width)):
        wanted = "x".join(map(str, picture.size or ()))
        told.append(f"{picture.path}: the annotations say {wanted}, but the image is {height}x{width}")
    wrong = [_fault(objects, place, height, width, classes) for place in range(len(objects.labels))]
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


def _fault(objects: Objects, place: int, height: int, width: int, classes: Sequence[str]) -> str:
    """Says what is wrong with an object, as the end of a sentence; empty if nothing is."""
    left, top, right, bottom = box = objects.corners[place].tolist()
    if not np.isfinite(box).all():
        return "has a box that is no numbers"
    told = "[" + ", ".join(f"{value:g}" for value in box) + "]"
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
