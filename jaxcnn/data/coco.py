"""Boxes in COCO's JSON: `coco:<folder>` or `coco:<file>`; Lin et al. 2014, arXiv:1405.0312."""

import collections
import os
from pathlib import Path
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, layout
from jaxcnn.data.boxes import Objects
from jaxcnn.data.checked import Picture
from jaxcnn.data.examples import Source
from jaxcnn.machine import json_text
from jaxcnn.machine.paths import expand
from jaxcnn.tasks import run_length

_DETECTION = config.Task(name="detection")


def open_coco(argument: str, data: config.Data, task: config.Task = _DETECTION) -> Source:
    """Images with boxes from files in COCO's form; for the task "segmentation", with label maps painted from outlines.

    For the task "instances", each box also has a mask, painted from its outline.

    A folder has a file for each split, such as annotations/instances_train2017.json, there or in its folder
    `annotations`; a single file is the training split and divided by itself. Images lie beside them, in a folder
    `images`, or in folders named like the splits. Classes are the categories, in the order of their ids.

    Raises:
      UserError: no such file, no training split, or a file not in COCO's form.
    """
    if not argument:
        raise UserError("config.data.source='coco:' needs a path: coco:<folder> or coco:<file.json>")
    path, title = expand(argument, "config.data.source=coco:"), f"coco:{argument}"
    if path.is_file():
        root, found = path.absolute().parent, {"train": path}
    elif path.is_dir():
        root, found = path, _files(path, title)
    else:
        raise UserError(f"config.data.source={title!r}: this file or folder does not exist")
    trees = {split: _read(file, title) for split, file in found.items()}
    ids = {split: _categories(tree, found[split].name, title) for split, tree in trees.items()}
    if other := next((split for split in ids if ids[split] != ids["train"]), None):
        raise UserError(f"{title}: {found[other].name} has other categories than {found['train'].name}; use the same")
    numbers = {identity: number for number, identity in enumerate(sorted(ids["train"]))}
    names = tuple(ids["train"][identity] for identity in numbers)
    splits, faults, folders = {}, {}, []
    for split, tree in trees.items():
        folders.append(folder := _images(root, found[split], tree))
        splits[split], faults[split] = _pictures(tree, Path(os.path.relpath(folder, root)), numbers)
    maps, side = task.name == "segmentation", task.mask_side if task.name == "instances" else 0
    return annotated.source(title, root, splits, names, data, maps=maps, mask_side=side, beside=folders, faults=faults)


def _files(root: Path, title: str) -> dict[str, Path]:
    """The annotation file of each split."""
    found: dict[str, Path] = {}
    some = sorted(file for folder in (root, root / "annotations") for file in folder.glob("*.json"))
    some = [file for file in some if "instances" in file.name.lower()] or some
    for file in some:
        hints = layout.hints(file.stem)
        if len(hints) == 1:
            (split,) = hints
            if split in found:
                raise UserError(
                    f"{title} has both {found[split].name!r} and {file.name!r} for the {split} split; keep only one"
                )
            found[split] = file
    if len(some) == 1 and not found:
        found = {"train": some[0]}
    if "train" not in found:
        names = ", ".join(file.name for file in some[:5]) or "no JSON file"
        raise UserError(
            f"{title} has no file of the training split, such as instances_train.json; it has {names}; name one file "
            "by coco:<file.json>"
        )
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _read(file: Path, title: str) -> dict[str, Any]:
    try:
        tree = json_text.parse(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{title}: {file.name} is not JSON: {error}") from None
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), list) for key in ("images", "categories")):
        raise UserError(f"{title}: {file.name} is not in COCO's form: it has no lists of images and categories")
    if not isinstance(tree.get("annotations", []), list):
        raise UserError(f"{title}: {file.name} is not in COCO's form: its annotations are no list")
    return tree


def _categories(tree: dict[str, Any], name: str, title: str) -> dict[int, str]:
    """The names of the categories by id."""
    try:
        found = {int(each["id"]): str(each["name"]) for each in tree["categories"]}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{title}: a category of {name} has no id and name") from None
    if not found:
        raise UserError(f"{title}: {name} has no categories")
    if len(found) != len(tree["categories"]):
        raise UserError(f"{title}: two categories of {name} have the same id")
    return found


def _images(root: Path, file: Path, tree: dict[str, Any]) -> Path:
    """The folder of a split's images: the first that has one of the first images; else that of the annotation file."""
    stem = file.stem.removeprefix("instances_")
    first = [str(each.get("file_name", "")) for each in tree["images"][:20] if isinstance(each, dict)]
    first = [name for name in first if name and not os.path.isabs(name)]
    below = (stem, os.path.join("images", stem), "images", "")
    above = below if root.name.lower().startswith("annotation") else below[1:3]  # not any image beside any folder
    places = [root / each for each in below] + [root.parent / each for each in above]
    return next((place for place in places if any((place / name).is_file() for name in first)), root / below[-1])


def _pictures(tree: dict[str, Any], folder: Path, numbers: dict[int, int]) -> tuple[list[Picture], list[str]]:
    """The images listed in a file, with their annotations, and one line for each entry that belongs to no image."""
    of_image: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
    wrong: dict[Any, list[str]] = collections.defaultdict(list)
    faults: list[str] = []
    seen: set[Any] = set()
    for annotation in tree.get("annotations", []):
        if not isinstance(annotation, dict) or not _is_id(annotation.get("image_id")):
            faults.append(f"an annotation has no image_id: {annotation!r:.80}")
            continue
        identity, image = annotation.get("id"), annotation["image_id"]
        if identity is not None and not _is_id(identity):
            wrong[image].append(f"the id {identity!r:.80} of an annotation is neither a number nor a text")
            continue
        if identity is not None and identity in seen:
            wrong[image].append(f"the id {identity} of an annotation occurs twice")
            continue
        seen.add(identity)
        of_image[image].append(annotation)
    listed: dict[Any, list[dict[str, Any]]] = {}
    for image in tree["images"]:
        named = isinstance(image, dict) and isinstance(image.get("file_name"), str) and image["file_name"]
        if not named or not _is_id(image.get("id")):
            faults.append(f"an image has no id and file_name: {image!r:.80}")
            continue
        listed.setdefault(image["id"], []).append(image)
    pictures: list[Picture] = []
    for identity, images in listed.items():
        own, names = of_image.pop(identity, []), sorted({image["file_name"] for image in images})
        if len(names) > 1:  # nobody knows of which one the annotations are
            told = " and ".join(repr(name) for name in names[:2])
            faults.append(f"the images {told} have the same id {identity}, and both are left out")
            continue
        size = _size(images[0], wrong[identity])
        objects, of_each = _objects(own, numbers, wrong[identity])
        picture = Picture(
            str(folder / os.path.normpath(names[0])), objects, of_each, size=size, wrong=tuple(wrong[identity])
        )
        pictures += [picture] * len(images)
    if of_image:  # annotations of images that are not listed
        count, first = sum(map(len, of_image.values())), next(iter(of_image))
        faults.append(f"{count} annotations are of images that are not listed, such as image_id {first}")
    return pictures, faults


def _is_id(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _size(image: dict[str, Any], wrong: list[str]) -> tuple[int, int] | None:
    """Height and width that an entry gives; `wrong` gets a line if these are no numbers."""
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        return None
    if not all(type(side) is int or (type(side) is float and side.is_integer()) for side in (height, width)):
        wrong.append(f"its height and width are no whole numbers: {(height, width)!r:.80}")
        return None
    return int(height), int(width)


def _objects(found: list[dict[str, Any]], numbers: dict[int, int], wrong: list[str]) -> tuple[Objects, tuple[str, ...]]:
    """The objects of one image and their names in messages; `wrong` gets a line for each entry that is no object."""
    corners, labels, crowd, area, names, outlines = [], [], [], [], [], []
    lowest, highest = min(numbers), max(numbers)
    for annotation in found:
        name = f"annotation {annotation.get('id', '?')}"
        category = annotation.get("category_id")
        try:
            box = _corners(annotation)
            left, top, right, bottom = box.tolist()  # plain floats subtract infinities without a warning
            size = annotation.get("area")
            covered = float(size) if size is not None else (right - left) * (bottom - top)
        except (TypeError, ValueError, OverflowError) as error:
            wrong.append(f"{name} has no box: {error}")
            continue
        if not _is_id(category) or category not in numbers:
            off = ", off by one" if category in (lowest - 1, highest + 1) else ""
            wrong.append(f"{name} has category_id {category!s:.80}{off}: ids are from {lowest} to {highest}")
            continue
        corners.append(box)
        labels.append(numbers[category])
        crowd.append(bool(annotation.get("iscrowd", 0)))
        area.append(covered)
        names.append(name)
        outlines.append(annotation.get("segmentation"))
    return Objects(
        np.array(corners, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(crowd, bool),
        np.array(area, np.float64),
        tuple(outlines),
    ), tuple(names)


def _corners(annotation: dict[str, Any]) -> np.ndarray:
    """Left, top, right and bottom of an annotation: of its box, or else of its outline.

    Raises:
      ValueError: it has neither.
    """
    if annotation.get("bbox") is None:
        if not annotation.get("segmentation"):
            raise ValueError("it has neither bbox nor segmentation")
        return run_length.corners(annotation["segmentation"])
    box = np.asarray(annotation["bbox"], np.float64)
    if box.shape != (4,):
        raise ValueError("bbox must be x, y, width, height")
    return np.concatenate([box[:2], box[:2] + box[2:]])
