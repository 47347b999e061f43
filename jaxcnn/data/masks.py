"""Images with a class for each pixel, in folders: `masks:<folder>`."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import annotated, files, label_maps, layout, listing
from jaxcnn.data.encoded import Encoded, open_encoded, sizes_of
from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.label_maps import Map
from jaxcnn.tasks.segmentation import VOID
from jaxcnn.text import counted

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label_maps", "annotations", "segmentation")
ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_seg")  # ends of a map's name, after the name of its image
NAMES = ("classes.txt", "labels.txt", "class_names.txt")
_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # modes of Pillow whose values are numbers
_LAYOUT = (
    "masks:<folder> has folders images and masks, in each split (train/images, train/masks), with a folder for each "
    "split in both (images/train, masks/train), or with neither; a map has the name of its image"
)


def open_masks(argument: str, data: config.Data) -> Source:
    """Images with label maps beside them: `images/a.jpg` and `masks/a.png`, or `train/images/a.jpg` and so on.

    The value of a map's pixel is the number of its class, and 255 is none (`segmentation.VOID`); in a split whose maps
    have only the values 0 and 255, 255 is class 1. Names of the classes, in the order of their numbers, are the lines
    of a file `classes.txt` (or `labels.txt`, `class_names.txt`).

    Raises:
      UserError: no such folder, another layout, or an image without a map.
    """
    root, title = layout.folder_of("masks", argument)
    folders = _folders(root, title)
    names = _names(root, title)

    @functools.cache
    def open_split(split: str) -> Examples:
        return _open(f"{title} {split}", root, *folders[split], data)

    labels = () if names else tuple(open_split(split).labels for split in folders)
    return Source(title, names, tuple(folders), open_split, labels=labels, undivided=tuple(folders) == ("train",))


def _folders(root: Path, title: str) -> dict[str, tuple[str, str]]:
    """The folders of the images and of the maps of each split, relative to `root`."""
    images, masks = _one_of(root, IMAGES), _one_of(root, MASKS)
    found: dict[str, tuple[str, str]] = {}
    if images and masks:
        inside, of_masks = (_splits(root / folder) for folder in (images, masks))
        found = {split: (f"{images}/{name}", f"{masks}/{of_masks.get(split, name)}") for split, name in inside.items()}
        found = found or {"train": (images, masks)}
    else:
        for name in listing.sub_folders(root):
            pair = _one_of(root / name, IMAGES), _one_of(root / name, MASKS)
            if (split := layout.split_of(name)) and all(pair):
                found[split] = (f"{name}/{pair[0]}", f"{name}/{pair[1]}")
    if "train" not in found:
        raise UserError(f"{title} has no images and masks of a training split; {_LAYOUT}")
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def _splits(folder: Path) -> dict[str, str]:
    """The sub-folders that are splits, by split."""
    return {split: name for name in listing.sub_folders(folder) if (split := layout.split_of(name))}


def _one_of(folder: Path, names: tuple[str, ...]) -> str:
    there = {name.lower(): name for name in listing.sub_folders(folder)}
    return next((there[name] for name in names if name in there), "")


def _names(root: Path, title: str) -> tuple[str, ...]:
    """The names of the classes from a file; empty without one."""
    for name in NAMES:
        try:
            lines = (root / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            raise UserError(f"{title}: {name} is not text in UTF-8") from None
        return tuple(line.strip() for line in lines if line.strip())
    return ()


def _open(title: str, root: Path, images: str, masks: str, data: config.Data) -> Examples:
    found = listing.list_images(root, images, arrays=data.dtype != "uint8")
    there = listing.list_images(root, masks)
    maps = {os.path.splitext(os.path.relpath(path, masks))[0]: path for path in there.paths}
    pairs, without = [], []
    for path in found.paths:
        stem = os.path.splitext(os.path.relpath(path, images))[0]
        own = next((maps.pop(stem + ending) for ending in ENDINGS if stem + ending in maps), None)
        pairs.append((path, own)) if own else without.append(path)
    if without and (data.on_error == "raise" or not pairs):
        more = f" ({len(without)} such images)" if len(without) > 1 else ""
        raise UserError(f"{title}: image {min(without)!r} has no map in {masks!r}{more}; {_LAYOUT}")
    notes = listing.passed_over(found.others, title)
    if without:
        notes.append(f"left out {counted(len(without), 'image')} of {title} without a map, such as {min(without)!r}")
    if maps:
        notes.append(f"{counted(len(maps), 'map')} of {title} without an image, such as {min(maps.values())!r}")
    places = np.arange(len(pairs))
    encoded = files.encoded_files(title, root, [path for path, _ in pairs], places, notes=tuple(notes))
    sizes = sizes_of(encoded, data)
    annotated.check_one_size(title, sizes, data)
    ordered = [pairs[number][1] for number in encoded.labels]

    def read(place: int, height: int, width: int) -> Map:
        return _read(root / ordered[place], height, width)

    return open_encoded(_binary(dataclasses.replace(encoded, labels=label_maps.stacked(sizes, data, read))), data)


def _binary(encoded: Encoded) -> Encoded:
    """Maps whose values are only 0 and 255, read with class 1 in place of 255."""
    values = np.flatnonzero(np.bincount(encoded.labels.ravel(), minlength=256)).tolist()
    if values != [0, VOID]:
        return encoded
    note = f"maps of {encoded.title} have only the values 0 and {VOID}; {VOID} counts as class 1"
    labels = (encoded.labels != 0).astype(np.uint8)
    return dataclasses.replace(encoded, labels=labels, notes=(*encoded.notes, note))


def _read(path: Path, height: int, width: int) -> Map:
    """The map in a file, which must be of this height and width.

    Raises:
      UserError: it is not, or cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.size != (width, height):
                raise UserError(
                    f"map {path} is {image.size[1]}x{image.size[0]}, but its image is {height}x{width}; each pixel "
                    "needs a class"
                )
            if image.mode not in _GREY:
                raise UserError(f"map {path} has colours; save the numbers of its classes as a grey or palette PNG")
            values = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"map {path} cannot be read: {error}; repair or remove it") from None
    if values.max(initial=0) > VOID or values.min(initial=0) < 0:
        raise UserError(f"map {path} has the value {values.max()}; classes are numbers from 0 to {VOID - 1}")
    return values.astype(np.uint8)
