"""Boxes and outlines in the text files of YOLO: `yolo:<folder>`.

A line is class, x, y (centre), width, height; or class and the corners of a polygon, x1, y1, x2, y2, …. All are shares
of the sides of the image.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, layout, listing
from jaxcnn.data.boxes import Objects
from jaxcnn.data.checked import Picture
from jaxcnn.data.examples import Source

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")
_LARGEST = 2**31 - 1  # class number
_SPLITS = ("train", "val", "test")
_DETECTION = config.Task(name="detection")

Folders = list[tuple[str, str]]  # of images and of their labels, relative to the root


def open_yolo(argument: str, data: config.Data, task: config.Task = _DETECTION) -> Source:
    """Images with boxes from a folder as YOLO programs write it.

    For the task "instances", each box also has a mask, painted from its polygon; for "segmentation" there are label
    maps, painted from the polygons.

    It has images/train and labels/train, or train/images and train/labels, and the same for val and test; without
    splits, images and labels. `data.yaml` may name other folders of images (`path:`, `train:`, `val:`, `test:`); their
    labels are in the folder with "labels" in place of the last "images", or beside the images. The names of the classes
    are in `data.yaml` (`names:`) or in `classes.txt`. An image without a text file, or with an empty one, has no
    objects.

    Raises:
      UserError: no such folder, no names, no training split, or a line of another form.
    """
    root, title = layout.folder_of("yolo", argument)
    file = next((root / name for name in _NAMES if (root / name).is_file()), None)
    if file is None:
        raise UserError(f"{title} has no data.yaml or classes.txt with the names of the classes")
    tree, names = _read(file, f"{title}: {file.name}")
    folders, notes = _folders(root, tree, title, file.name)
    splits, faults = {}, {}
    maps, side = task.name == "segmentation", task.mask_side if task.name == "instances" else 0
    for split, places in folders.items():
        read = [_pictures(root, images, labels, maps or side > 0) for images, labels in places]
        splits[split] = [picture for pictures, _ in read for picture in pictures]
        faults[split] = [line for _, lines in read for line in lines]
    return annotated.source(title, root, splits, names, data, tuple(notes), maps=maps, mask_side=side, faults=faults)


def _folders(root: Path, tree: dict[str, Any], title: str, name: str) -> tuple[dict[str, Folders], list[str]]:
    """The folders of each split, and notes on folders that the file names and that are not used."""
    usual, notes = _usual(root), list[str]()
    found: dict[str, Folders] = {}
    for split in _SPLITS:
        named = tree.get(split)
        places = _named(root, tree.get("path"), named) if named else None
        if named and places is None:
            is_list = str(named).endswith(".txt")
            why = (
                f"{name} names {str(named)!r:.80} for {split}, which is {'no' if not is_list else 'a list, no'} folder"
            )
            if split == "train" and split not in usual:
                raise UserError(f"{title}: {why}; correct it, or put the images into images/train")
            used = f"used {usual[split][0][0]} in its place" if split in usual else f"there is no {split} split"
            notes.append(f"{title}: {why}; {used}")
        if places := places or usual.get(split):
            found[split] = places
    for split in _SPLITS[1:]:
        if split in found and (other := next((each for each in found if found[each] == found[split]), split)) != split:
            del found[split]
            notes.append(f"{title}: {name} names the same images for {other} and {split}; there is no {split} split")
    if "train" not in found:
        raise UserError(f"{title} has no images/train, train/images or images; see yolo: in the docs")
    return found, notes


def _usual(root: Path) -> dict[str, Folders]:
    """The folders of the splits by their usual names."""
    found: dict[str, Folders] = {}
    inside = listing.sub_folders(root / "images") if (root / "images").is_dir() else []
    for name in inside:
        if len(hints := layout.hints(name)) == 1:
            found[hints.pop()] = [(f"images/{name}", f"labels/{name}")]
    for name in listing.sub_folders(root):
        if (split := layout.split_of(name)) and (root / name / "images").is_dir():
            found[split] = [(f"{name}/images", f"{name}/labels")]
    if not found and (root / "images").is_dir():
        found["train"] = [("images", "labels")]
    return found


def _named(root: Path, base: Any, named: Any) -> Folders | None:
    """The folders that an entry of the file means, one or a list of them; None if one does not exist."""
    entries = named if isinstance(named, list) else [named]
    bases = [root / base, root] if isinstance(base, str) else [root]
    found: Folders = []
    for entry in entries:
        texts = [entry, entry.removeprefix("../")] if isinstance(entry, str) else []
        images = next((each / text for text in texts for each in bases if _is_folder(each / text)), None)
        if images is None:
            return None
        relative = os.path.relpath(images, root)
        parts = list(Path(relative).parts)
        if "images" in parts:
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        found.append((relative, str(Path(*parts))))
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _read(file: Path, title: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the file says, if it is YAML, and the names of the classes."""
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    tree, names = _of_yaml(text, title) if file.suffix in (".yaml", ".yml") else ({}, lines)
    if not names:
        raise UserError(f"{title} has no names of classes")
    return tree, tuple(names)


def _of_yaml(text: str, title: str) -> tuple[dict[str, Any], list[str]]:
    """The mapping, and the class names after `names:`, a list or a mapping from numbers."""
    import yaml

    try:
        tree = yaml.load(text, yaml.BaseLoader)  # creates only texts, lists and mappings
        tree = tree if isinstance(tree, dict) else {}
        names = tree.get("names")
        if isinstance(names, dict):
            names = [name for _, name in sorted((int(number), name) for number, name in names.items())]
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{title}: the names of the classes cannot be read: {' '.join(str(error).split())}") from None
    return tree, [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _pictures(root: Path, images: str, labels: str, outlined: bool) -> tuple[list[Picture], list[str]]:
    """The images in a folder, and one line for each file of labels that belongs to none of them."""
    paths = sorted(listing.list_images(root, images).paths)
    of_image = {path: root / labels / Path(path).relative_to(images).with_suffix(".txt") for path in paths}
    others = sorted({*(root / labels).rglob("*.txt")} - {*of_image.values()})
    lines = [f"{os.path.relpath(file, root)} has no image" for file in others if _has_labels(file)]
    return [_picture(path, file, outlined) for path, file in of_image.items()], lines


def _has_labels(file: Path) -> bool:
    """Whether a text file has labels, unlike lists of names or of images."""
    if file.name in _NAMES or not file.is_file():
        return False
    first = next((line for line in _lines(file) if line.strip()), "0 0 0 0 0")
    try:
        return len([float(each) for each in first.split()]) > 4
    except ValueError:
        return False


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines()


def _picture(path: str, file: Path, outlined: bool) -> Picture:
    """The image with the objects of its file, which have outlines and their areas only if they are `outlined`."""
    lines = _lines(file) if file.is_file() else []
    rows, names, outlines, areas, wrong = [], [], [], [], list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, *values = map(float, line.split())
            box = _box(values)
        except ValueError:
            wrong.append(f"line {number} of {file.name} is not class, x, y, width, height, nor class and a polygon")
            continue
        if not label.is_integer() or abs(label) > _LARGEST:
            wrong.append(f"line {number} of {file.name} has class {label:g}, which is no whole number")
            continue
        rows.append([label, *box])
        names.append(f"line {number} of {file.name}")
        ring = values if outlined and len(values) > 4 else []
        outlines.append([ring] if ring else [])
        areas.append(_area(ring))
    table = np.array(rows, np.float64).reshape(-1, 5)
    labels, crowd, area = table[:, 0].astype(np.int64), np.zeros(len(table), bool), np.array(areas, np.float64)
    objects = Objects(table[:, 1:], labels, crowd, area, tuple(outlines) if outlined else ())
    return Picture(path, objects, tuple(names), relative=True, wrong=tuple(wrong))


def _area(ring: list[float]) -> float:
    """The area of a polygon x1, y1, x2, y2, …; 0 without any."""
    x, y = np.array(ring[::2]), np.array(ring[1::2])
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _box(values: list[float]) -> list[float]:
    """Left, top, right and bottom of a box from x, y, width, height, or from a polygon x1, y1, x2, y2, …."""
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(values) < 6 or len(values) % 2:
        raise ValueError
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
