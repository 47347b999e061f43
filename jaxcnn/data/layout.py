"""Decides whether the sub-folders of an image folder are classes, or splits that contain the classes."""

from pathlib import Path

from jaxcnn.config import UserError
from jaxcnn.data.listing import list_images, loose_images, sub_folders
from jaxcnn.machine.paths import expand

LAYOUT = "a folder has one sub-folder per class with images in it (JPEG, PNG, WebP, GIF, BMP, TIFF)"
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_ORDINARY_WORDS = ("train", "training", "valid")  # may also be class names, if there are no classes inside


def folder_of(kind: str, argument: str) -> tuple[Path, str]:
    """The folder of a source `<kind>:<argument>`, and the source's name in messages. Raises UserError."""
    if not argument:
        raise UserError(f"config.data.source='{kind}:' needs a path: {kind}:<folder>")
    root, title = expand(argument, f"config.data.source={kind}:"), f"{kind}:{argument}"
    if not root.is_dir():
        raise UserError(f"config.data.source={title!r}: this folder does not exist")
    return root, title


def split_folders(root: Path, title: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each base split, and notes on images outside them.

    A sub-folder that has sub-folders and the name of a split ("train", "Training", "train_set", "testing", "dev", …) is
    that split, provided that one of them is for training; otherwise the root itself is train.

    Raises:
      UserError: the layout is ambiguous.
    """
    names = sub_folders(root)
    inside = {name: sub_folders(root / name) for name in names if split_of(name) or hints(name)}
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split and inside[name]:
            if split in found:
                raise UserError(f"{title} has both {found[split]!r} and {name!r} for the {split} split; keep only one")
            found[split] = name
    notes = _loose(root, title)
    if "train" not in found:
        _check_classes(root, title, names, found, inside)
        return {"train": root}, tuple(notes)
    for name in names:
        if name not in found.values() and (count := len(list_images(root, name).paths)):
            if not split_of(name) and len(found) == 1:
                raise UserError(
                    f"{title}: {found['train']!r} has sub-folders, like a training split with its classes, but "
                    f"{name!r} beside it contains images as well; rename {found['train']!r} if it is a class, or else "
                    f"move {name!r} away"
                )
            why = "has no class folders in it" if split_of(name) else "is not one of its splits"
            notes.append(f"skipped {_images(count)} in folder {name!r} of {title}, which {why}")
    folders = {split: root / name for split, name in found.items()}
    for folder in folders.values():
        notes += _loose(folder, f"{title} {folder.name}")
    return folders, tuple(notes)


def _check_classes(
    root: Path, title: str, names: list[str], found: dict[str, str], inside: dict[str, list[str]]
) -> None:
    """Refuse class names that look like the names of splits."""
    if found:
        name = next(iter(found.values()))
        raise UserError(
            f"{title}: {name!r} has sub-folders, like a split with its classes, but there is no 'train' folder beside "
            f"it; name the folder of the training split 'train' (a link is enough), or rename {name!r} if it is a class"
        )
    for name in names:
        if split_of(name) and _plain(name) not in _ORDINARY_WORDS and (count := loose_images(root / name)):
            raise UserError(
                f"{title}: {name!r} is the name of a split, but contains {_images(count)} and no class folders; move "
                "it away (--mode=predict labels such images), or rename it if it is a class"
            )
    hinted = {name: hints(name) for name in names if len(hints(name)) == 1 and inside[name]}
    for train in (name for name, hints in hinted.items() if hints == {"train"}):
        for other in (name for name, hints in hinted.items() if hints != {"train"}):
            if set(inside[train]) & set(inside[other]):
                (split,) = hinted[other]
                raise UserError(
                    f"{title}: {train!r} and {other!r} have the same sub-folders, like splits; name them 'train' and "
                    f"{split!r} (links are enough), or use one of them as the folder of config.data.source"
                )


def split_of(name: str) -> str | None:
    """The split that a folder's name denotes, such as test for "Test_Set"."""
    return next((split for split, words in _SPLITS.items() if _plain(name) in words), None)


def _plain(name: str) -> str:
    plain = "_".join(_words(name))
    return plain.removesuffix("_set")


def hints(name: str) -> set[str]:
    """The splits that words in a name suggest, such as train for "seg_train" and "train2017"."""
    words = {word.rstrip("0123456789") for word in _words(name)}
    return {split for split, known in _SPLITS.items() if words.intersection(known)}


def _words(name: str) -> list[str]:
    return name.lower().replace("-", " ").replace("_", " ").replace(".", " ").split()


def _loose(folder: Path, title: str) -> list[str]:
    count = loose_images(folder)
    return [f"skipped {_images(count)} in {title} itself, outside the class folders"] if count else []


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"
