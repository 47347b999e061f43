"""Images in folders: `<path>/<class>/*.jpg`, or `<path>/{train,val,test}/<class>/*.jpg`."""

import collections
from pathlib import Path

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import listing
from jaxcnn.data.encoded import Encoded, open_encoded
from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.files import encoded_files
from jaxcnn.data.layout import LAYOUT, split_folders
from jaxcnn.machine.paths import expand


def open_folder(argument: str, data: config.Data) -> Source:
    """Images of any size at any depth in one sub-folder for each class.

    `<path>/<class>/…` has one base split, train, which is split by itself unless the config has slices of it (see
    `jaxcnn.data.automatic`). `<path>/{train,val,test}/<class>/…` has those that exist (see `split_folders`). The
    classes are those of the training split, numbered in the order of their names. Examples are sorted by a hash of
    their path, so a slice of a split mixes all classes. A new image moves a few others across the bounds of a slice,
    but none across those of a slice "by path" (`jaxcnn.data.slices`). Links are followed. Hidden files and folders are
    skipped; files of other kinds are skipped and counted in the notes (see `list_images`).

    Raises:
      UserError: no such folder, an ambiguous layout, no class, a class without an image in the training split, or a
        class that the training split lacks.
    """
    if not argument:
        raise UserError("config.data.source='folder:' needs a path: folder:<path>")
    root = expand(argument, "config.data.source=folder:")
    title = f"folder:{argument}"
    try:
        is_folder = root.is_dir()
    except OSError as error:
        raise UserError(f"config.data.source={title!r} cannot be read: {error.strerror}") from None
    if not is_folder:
        raise UserError(f"config.data.source={title!r}: this folder does not exist")
    roots, notes = split_folders(root, title)
    classes = {split: listing.sub_folders(folder) for split, folder in roots.items()}
    names = classes["train"]
    if not names:
        raise UserError(f"{title} has no sub-folders in {roots['train']}; {LAYOUT}")
    for split, others in classes.items():
        if unknown := sorted(set(others) - set(names)):
            raise UserError(
                f"{title}: class {unknown[0]!r} is in {split}, but not in train, whose sub-folders are the classes"
            )

    def open_split(split: str) -> Examples:
        arrays = data.dtype != "uint8" or data.channels not in (0, 1, 3)
        listed = _list_images(roots[split], names, f"{title} {split}", learnt=split == "train", arrays=arrays)
        return open_encoded(listed, data)

    return Source(title, tuple(names), tuple(roots), open_split, notes, undivided=roots["train"] == root)


def _list_images(root: Path, names: list[str], title: str, *, learnt: bool = True, arrays: bool = False) -> Encoded:
    """The images of a split.

    In the training split (`learnt`), a class whose folder has only files of other kinds is refused here. With `arrays`,
    `.npy` files are images too.
    """
    paths: list[str] = []  # paths relative to root
    labels: list[int] = []
    others: collections.Counter[str] = collections.Counter()
    empty: dict[str, str] = {}  # classes without an image, and the other files in their folders
    there = set(listing.sub_folders(root))
    for label, name in enumerate(names):
        found = listing.list_images(root, name, arrays) if name in there else listing.Listing()
        paths += found.paths
        labels += [label] * len(found.paths)
        others += found.others
        if not found.paths:
            empty[name] = listing.told(found.others)
    notes = listing.passed_over(others, title)
    if paths and learnt and (other := next((name for name in empty if empty[name]), None)):
        raise UserError(f"{title}: class {other!r} has no images, but {empty[other]}; {LAYOUT}")
    return encoded_files(title, root, paths, labels, notes=tuple(notes))
