"""Boxes in the text files of YOLO: `yolo:<folder>`. A line is class, x, y (centre), width, height, as shares of 1."""

from pathlib import Path

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, layout, listing
from jaxcnn.data.annotated import Picture
from jaxcnn.data.boxes import Objects
from jaxcnn.data.examples import Source

_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names")


def open_yolo(argument: str, data: config.Data) -> Source:
    """Images with boxes from a folder as YOLO programs write it.

    It has images/train and labels/train, or train/images and train/labels, and the same for val and test; without
    splits, images and labels. The names of the classes are in `data.yaml` (`names:`) or in `classes.txt`. An image
    without a text file, or with an empty one, has no objects.

    Raises:
      UserError: no such folder, no names, no training split, or a line of another form.
    """
    root, title = layout.folder_of("yolo", argument)
    names = _names(root, title)
    splits = {
        split: _pictures(root, images, labels, title) for split, (images, labels) in _folders(root, title).items()
    }
    return annotated.source(title, root, splits, names, data)


def _folders(root: Path, title: str) -> dict[str, tuple[str, str]]:
    """The folders of images and labels of each split, relative to the root."""
    found: dict[str, tuple[str, str]] = {}
    inside = listing.sub_folders(root / "images") if (root / "images").is_dir() else []
    for name in inside:
        if len(hints := layout.hints(name)) == 1:
            found[hints.pop()] = (f"images/{name}", f"labels/{name}")
    for name in listing.sub_folders(root):
        if (split := layout.split_of(name)) and (root / name / "images").is_dir():
            found[split] = (f"{name}/images", f"{name}/labels")
    if not found and (root / "images").is_dir():
        found["train"] = ("images", "labels")
    if "train" not in found:
        raise UserError(f"{title} has no images/train, train/images or images; see yolo: in the docs")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _names(root: Path, title: str) -> tuple[str, ...]:
    file = next((root / name for name in _NAMES if (root / name).is_file()), None)
    if file is None:
        raise UserError(f"{title} has no data.yaml or classes.txt with the names of the classes")
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = _of_yaml(text, f"{title}: {file.name}") if file.suffix in (".yaml", ".yml") else lines
    if not names:
        raise UserError(f"{title}: {file.name} has no names of classes")
    return tuple(names)


def _of_yaml(text: str, title: str) -> list[str]:
    """The class names after `names:`, a list or a mapping from numbers."""
    import yaml

    try:
        tree = yaml.load(text, yaml.BaseLoader)  # creates only texts, lists and mappings
        names = tree.get("names") if isinstance(tree, dict) else None
        if isinstance(names, dict):
            names = [name for _, name in sorted((int(number), name) for number, name in names.items())]
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{title}: the names of the classes cannot be read: {' '.join(str(error).split())}") from None
    return [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _pictures(root: Path, images: str, labels: str, title: str) -> list[Picture]:
    found = listing.list_images(root, images).paths
    return [_picture(root, path, root / labels / Path(path).relative_to(images).with_suffix(".txt"), title)
            for path in sorted(found)]  # fmt: skip


def _picture(root: Path, path: str, file: Path, title: str) -> Picture:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    rows, names, wrong = [], [], list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            label, *values = map(float, line.split())
            box = _box(values)
        except ValueError:
            wrong.append(f"line {number} of {file.name} is not class, x, y, width, height")
            continue
        rows.append([label, *box])
        names.append(f"line {number} of {file.name}")
    table = np.array(rows, np.float64).reshape(-1, 5)
    count = len(table)
    objects = Objects(table[:, 1:], table[:, 0].astype(np.int64), np.zeros(count, bool), np.zeros(count))
    return Picture(path, objects, tuple(names), relative=True, wrong=tuple(wrong))


def _box(values: list[float]) -> list[float]:
    """Left, top, right and bottom of a box from x, y, width, height, or from a polygon x1, y1, x2, y2, …."""
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(values) < 6 or len(values) % 2:
        raise ValueError
    return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
