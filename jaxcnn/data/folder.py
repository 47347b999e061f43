"""Images in folders: `<path>/<class>/*.jpg`, or `<path>/{train,val,test}/<class>/*.jpg`."""

import hashlib
import os
from pathlib import Path

import numpy as np

from jaxcnn import config
from jaxcnn.config import UserError
from jaxcnn.data import cache
from jaxcnn.data.encoded import Encoded, open_encoded
from jaxcnn.data.examples import Examples, Source

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_LAYOUT = "a folder has one sub-folder per class with JPEG, PNG or WebP images in it"


def open_folder(argument: str, data: config.Data) -> Source:
    """One sub-folder per class, images of any size in it, at any depth.

    `<path>/<class>/…` has the one base split train; `<path>/{train,val,test}/<class>/…` has those it has. Classes are
    numbered in the order of their names. Examples are in the order of a hash of their path, so a slice of a split is
    mixed of all classes. A new image moves a few others over the bounds of a slice, but none over those of a slice
    "by path" (`jaxcnn.data.slices`). Hidden files and folders, and files of other kinds, are passed over.

    Raises:
      UserError: no such folder, no class in it, or splits that disagree on the classes.
    """
    if not argument:
        raise UserError("config.data.source='folder:' needs a path: folder:<path>")
    root = Path(argument).expanduser()
    if not root.is_dir():
        raise UserError(f"config.data.source='folder:{argument}': there is no such folder")
    title = f"folder:{argument}"
    roots = _split_folders(root, title)
    classes = {split: _sub_folders(folder) for split, folder in roots.items()}
    names = classes["train"]
    if not names:
        raise UserError(f"{title} has no sub-folder in {roots['train']}; {_LAYOUT}")
    for split, others in classes.items():
        if others != names:
            alone = sorted(set(names) ^ set(others))[0]
            where = ("train", split) if alone in names else (split, "train")
            raise UserError(
                f"{title}: class {alone!r} is in {where[0]}, but not in {where[1]}; all splits need the same classes"
            )

    def open_split(split: str) -> Examples:
        return open_encoded(_list_images(roots[split], names, f"{title} {split}"), data)

    return Source(title, tuple(names), tuple(roots), open_split)


def _split_folders(root: Path, title: str) -> dict[str, Path]:
    """The folder of each base split; the root itself is train unless it has a `train` with sub-folders."""
    found: dict[str, Path] = {}
    for name in _sub_folders(root):
        split = _SPLIT_NAMES.get(name.lower())
        if split and _sub_folders(root / name):
            if split in found:
                raise UserError(f"{title} has both {found[split].name!r} and {name!r} for the {split} split; keep one")
            found[split] = root / name
    return found if "train" in found else {"train": root}


def _sub_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        _cannot_list(error)
        raise


def _cannot_list(error: OSError) -> None:
    raise UserError(f"cannot list folder {error.filename}: {error.strerror}") from None


def _list_images(root: Path, names: list[str], title: str) -> Encoded:
    paths: list[str] = []  # relative to root
    labels: list[int] = []
    for label, name in enumerate(names):
        for folder, folders, files in os.walk(root / name, onerror=_cannot_list):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for file in files:
                if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                    paths.append(os.path.relpath(os.path.join(folder, file), root))
                    labels.append(label)
    order = sorted(range(len(paths)), key=lambda i: hashlib.blake2b(os.fsencode(paths[i]), digest_size=16).digest())
    paths = [paths[i] for i in order]

    def load(index: int) -> bytes:
        return (root / paths[index]).read_bytes()

    def fingerprint() -> str:
        return cache.fingerprint([str(root.resolve()), *((path, *_state(root / path)) for path in paths)])

    return Encoded(
        title=title,
        labels=np.array([labels[i] for i in order], np.int32),
        channels=3,
        shape=None,
        name=lambda index: str(root / paths[index]),
        load=load,
        fingerprint=fingerprint,
        sizes=lambda: np.array([_state(root / path)[0] for path in paths], np.int64),
        hashes=lambda: np.array([_path_hash(path) for path in paths], np.uint64),
    )


def _path_hash(path: str) -> int:
    """The first 64 bits of what examples are ordered by."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=16).digest()[:8], "big")


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change, by which another content is known."""
    try:
        stat = path.stat()
    except OSError:  # a link to nowhere: reading it will say so
        return -1, -1
    return stat.st_size, stat.st_mtime_ns
