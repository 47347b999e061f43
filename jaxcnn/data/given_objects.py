"""The objects of images that a Python program gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import boxes, checked
from jaxcnn.data.boxes import Objects
from jaxcnn.data.checked import Picture
from jaxcnn.tasks import run_length
from jaxcnn.tasks.box_records import Records

_KEYS = dict.fromkeys(("boxes", "labels", "crowd", "masks"))
_COMMAND = "jaxcnn.doctor(config, data=data)"  # names all bad annotations


def of_mappings(given: Sequence[Mapping[str, Any]], images: np.ndarray, what: str) -> list[Objects]:
    """The objects of each image that a Python program gives; their boxes are checked by `records`.

    Args:
      given: a mapping for each image: "boxes" [k, 4] (left, top, right, bottom in pixels) and "labels" [k], from 0;
        "crowd" [k], bool, if some are regions of many; for instances "masks", uint8 or bool [k, h, w] in which other
        values than 0 are inside, or k outlines in COCO's form, such as run lengths.
      images: images [n, h, w, c].
      what: name of the images in messages.

    Raises:
      UserError: something else is given.
    """
    height, width = images.shape[1:3]
    found = []
    for number, each in enumerate(given):
        if unknown := sorted(map(str, each.keys() - _KEYS)):
            raise UserError(f"{what}[{number}] has the key {unknown[0]!r:.80}; it may have {', '.join(_KEYS)}")
        try:
            corners = np.asarray(each["boxes"], np.float64).reshape(-1, 4)
            labels = np.asarray(each["labels"], np.float64).reshape(-1)
            crowd = np.asarray(each.get("crowd", np.zeros(len(labels))), bool)
            fits = len(corners) == len(labels) == len(crowd)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(f"{what}[{number}] must have 'boxes' [k, 4] and 'labels' [k] of the same length")
        whole = (labels == np.round(labels)) & (np.abs(labels) < 2**31)
        if not whole.all():
            raise UserError(f"{what}[{number}]: label {labels[np.argmin(whole)]:g} is not the number of a class")
        outlines = () if each.get("masks") is None else _outlines(each["masks"], len(labels), (height, width))
        if outlines is None:
            raise UserError(
                f"{what}[{number}]: 'masks' must be integers or bool [{len(labels)}, {height}, {width}], or a list of "
                f"{len(labels)} outlines in COCO's form, such as run lengths"
            )
        with np.errstate(all="ignore"):  # of boxes that are no numbers, which `records` names
            area = boxes.areas(corners)
        found.append(Objects(corners, labels.astype(np.int64), crowd, area, outlines))
    return found


def records(
    objects: Sequence[Objects],
    sides: tuple[int, int],
    what: str,
    classes: Sequence[str],
    data: config.Data,
    mask_side: int = 0,
) -> tuple[Records, list[str]]:
    """The records of the sound objects of images, which are used as they are, and one line for each bad object.

    Args:
      objects: the objects of each image, from `of_mappings`.
      sides: height and width of the images.
      what: name of the images in messages.
      classes: names of the classes.
      data: the group `config.data`.
      mask_side: side of the masks that objects get in addition to boxes; 0: no masks.

    Raises:
      UserError: a bad object, with `data.on_error="raise"`.
    """
    pictures = [
        Picture(f"{what}[{number}]", each, tuple(f"box {place}" for place in range(len(each.labels))))
        for number, each in enumerate(objects)
    ]
    sizes = np.tile(sides, (len(pictures), 1))
    found, problems = checked.all_sound(pictures, sizes, classes, masks=mask_side > 0)
    crops = None
    if mask_side:
        found, crops, without = checked.masked(pictures, found, sizes, mask_side, data)
        problems += without
    checked.refuse("", problems, data, _COMMAND)
    return boxes.records(found, np.tile(boxes.WHOLE, (len(found), 1)), crops), problems


def _outlines(masks: Any, count: int, sides: tuple[int, int]) -> tuple[Any, ...] | None:
    """The outline of each object; None if `masks` are something else."""
    if isinstance(masks, list | tuple) and all(each is None or isinstance(each, dict | list) for each in masks):
        of_each = all(isinstance(each, dict) or not each or isinstance(each[0], list) for each in masks)
        return tuple(masks) if of_each and len(masks) == count else None
    try:
        array = np.asarray(masks)
    except ValueError:  # rows of several lengths
        return None
    if array.shape != (count, *sides) or array.dtype.kind not in "bui":
        return None
    return tuple(run_length.encode(mask) for mask in array)
