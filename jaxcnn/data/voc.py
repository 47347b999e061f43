"""Boxes in the XML files of Pascal VOC: `voc:<folder>`; Everingham et al. 2010, doi 10.1007/s11263-009-0275-4."""

import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, labels, layout
from jaxcnn.data.boxes import Objects
from jaxcnn.data.checked import Picture
from jaxcnn.data.examples import Source
from jaxcnn.machine.paths import expand

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def open_voc(argument: str, data: config.Data) -> Source:
    """Images with boxes from a folder in the form of Pascal VOC.

    It has `Annotations` with an XML file for each image, and `JPEGImages` (or `images`). The lists of images in
    `ImageSets/Main`, train.txt, val.txt and test.txt, are the splits; without them the set is divided by itself.
    Classes are the names that occur, in order. In the files, pixels count from 1, and xmax and ymax are the last
    pixels of a box. An object marked as difficult is neither learnt nor measured.

    Raises:
      UserError: no such folder, or a file of another form.
    """
    if not argument:
        raise UserError("config.data.source='voc:' needs a path: voc:<folder>")
    root, title = expand(argument, "config.data.source=voc:"), f"voc:{argument}"
    folder = root / "Annotations"
    if not folder.is_dir():
        raise UserError(f"config.data.source={title!r}: there is no folder {folder}")
    found = {file.stem: _parse(file, title) for file in sorted(folder.glob("*.xml"))}
    if not found:
        raise UserError(f"{title} has no XML file in {folder}")
    objects = (each for tree in found.values() for each in tree.iter("object"))
    names = tuple(labels.in_order({_text(each, "name") for each in objects} - {""}))
    if not names:
        raise UserError(f"{title} has no object with a name")
    images = next((name for name in ("JPEGImages", "images") if (root / name).is_dir()), ".")
    splits, faults = {}, {}
    for split, stems in _splits(root, found, title).items():
        splits[split] = [_picture(stem, found[stem], images, names) for stem in stems if stem in found]
        faults[split] = [f"{stem!r} of the list has no file in Annotations" for stem in stems if stem not in found]
    return annotated.source(title, root, splits, names, data, faults=faults)


def _splits(root: Path, found: dict[str, ElementTree.Element], title: str) -> dict[str, list[str]]:
    """The names of the images of each split."""
    splits: dict[str, list[str]] = {}
    for file in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        if split := layout.split_of(file.stem):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise UserError(f"{title}: the list {file.name} is not UTF-8; write it again as text") from None
            splits[split] = [line.split()[0] for line in lines if line.strip()]
    if not splits:
        return {"train": list(found)}
    if "train" not in splits:
        raise UserError(f"{title} has no ImageSets/Main/train.txt; it has {', '.join(splits)}")
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _parse(file: Path, title: str) -> ElementTree.Element:
    try:
        text = file.read_bytes()
        if b"<!ENTITY" in text:
            raise UserError(f"{title}: {file.name} defines entities, which annotations do not need; remove them")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: of an unknown encoding
        raise UserError(f"{title}: {file.name} is not XML: {error}") from None


def _text(node: ElementTree.Element, path: str) -> str:
    return (node.findtext(path) or "").strip()


def _picture(stem: str, tree: ElementTree.Element, images: str, names: tuple[str, ...]) -> Picture:
    rows, told, wrong = [], [], list[str]()
    for number, each in enumerate(tree.iter("object"), start=1):
        name = f"object {number}"
        try:
            box = [float(_text(each, f"bndbox/{side}")) for side in _SIDES]
        except ValueError:
            wrong.append(f"{name} has no bndbox of numbers")
            continue
        if (label := _text(each, "name")) not in names:
            wrong.append(f"{name} has no name")
            continue
        rows.append([*box, names.index(label), _text(each, "difficult") == "1"])
        told.append(name)
    table = np.array(rows, np.float64).reshape(-1, 6)
    corners = table[:, :4] - [1, 1, 0, 0]
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    try:
        size = int(_text(tree, "size/height")), int(_text(tree, "size/width"))
    except ValueError:
        size = None
    objects = Objects(corners, table[:, 4].astype(np.int64), table[:, 5] > 0, area)
    path = os.path.join(images, _text(tree, "filename") or f"{stem}.jpg")
    if ".." in Path(path).parts:
        path = os.path.normpath(path)
    return Picture(path, objects, tuple(told), size=size if size and all(size) else None, wrong=tuple(wrong))
