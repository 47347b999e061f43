"""Images with boxes, in whatever format they are listed: bad annotations are named, and refused or left out."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Int

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import boxes, checked, files, label_maps
from jaxcnn.data.boxes import Crops
from jaxcnn.data.checked import Picture
from jaxcnn.data.encoded import Encoded, open_encoded, sizes_of
from jaxcnn.data.examples import Examples, Source


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
    listed = [pictures[number] for number in encoded.labels]
    found, wrong = checked.all_sound(listed, sizes, classes, masks=mask_side > 0)
    problems = [*faults, *wrong]
    rows: np.ndarray
    if maps:
        unpainted: dict[int, list[str]] = {}

        def painted(place: int, height: int, width: int) -> label_maps.Map:
            made, unpainted[place] = label_maps.painted(found[place], height, width)
            return made

        rows = label_maps.stacked(sizes, data, painted)
        problems += [f"{each.path}: {line}" for place, each in enumerate(listed) for line in unpainted.get(place, ())]
    crops: list[Crops] | None = None
    if mask_side:
        found, crops, without = checked.masked(listed, found, sizes, mask_side, data)
        problems += without
    checked.refuse(f"{title}: ", problems, data)
    if not maps:
        frames = [boxes.frame_of(int(h), int(w), data.image_size, data.resize) for h, w in sizes]
        rows = boxes.records(found, np.array(frames, np.float32).reshape(-1, 4), crops)
    notes = [checked.left_out(title, problems)] if problems else []
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
