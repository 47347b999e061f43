"""Finds the images below a folder, by the same rule for a data set and for `--mode=predict`."""

import collections
import dataclasses
import os
import stat

from jaxcnn.config import UserError
from jaxcnn.data import decode

_EXTENSIONS = [extension for each in decode.EXTENSIONS.values() for extension in each]
KNOWN = ", ".join(_EXTENSIONS)
_IMAGES = frozenset(_EXTENSIONS)
_KINDS_TOLD = 5
_LINK_BACK = "link to a folder that is already listed"


@dataclasses.dataclass
class Listing:
    """The images below a folder, and counts of other files.

    Attributes:
      paths: paths of the images, relative to the folder, in no order.
      others: number of files of each other kind, such as ".txt" or "FIFO".
      images: extensions of files that count as images.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    images: frozenset[str] = _IMAGES


def list_images(root: str | os.PathLike[str], start: str = "", arrays: bool = False) -> Listing:
    """The images in folder `start` of `root`, at any depth, with paths relative to `root`.

    Links to files and folders are followed, except links to a folder that is already listed or that contains `root`.
    Hidden files and folders are skipped. A broken link with the name of an image counts as an image, so that reading it
    reports the error. With `arrays`, `.npy` files count as images.

    Raises:
      UserError: a folder cannot be listed.
    """
    listing = Listing(images=_IMAGES | {".npy"} if arrays else _IMAGES)
    top = os.path.join(root, start) if start else str(root)
    if start and os.path.islink(top) and _identity(top) in _with_parents(root):
        raise UserError(f"{top} is a link to a folder that contains it; remove it")
    folders, links = _walk(root, start, listing)
    if not links:
        return listing
    seen = _with_parents(root).union(_identity(os.path.join(root, folder)) for folder in folders)
    while links:  # in order of level and name, so that the links followed do not depend on the disk's order
        found: list[str] = []
        for link in sorted(links):
            if _identity(os.path.join(root, link)) in seen:
                listing.others[_LINK_BACK] += 1
                continue
            folders, more = _walk(root, link, listing)
            seen.update(_identity(os.path.join(root, folder)) for folder in folders)
            found += more
        links = found
    return listing


def sub_folders(folder: str | os.PathLike[str]) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones. Raises UserError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))
    except OSError as error:
        raise _cannot_list(error, folder) from None


def loose_images(folder: str | os.PathLike[str]) -> int:
    """The number of images directly in a folder. Raises UserError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sum(
                not entry.name.startswith(".") and _extension(entry.name) in _IMAGES and not _is_folder(entry)
                for entry in entries
            )
    except OSError as error:
        raise _cannot_list(error, folder) from None


def told(others: collections.Counter[str]) -> str:
    """Kinds of files with their counts as text, such as ".txt (12), .bin (1)"; empty if there are none."""
    kinds = [f"{kind} ({count})" for kind, count in sorted(others.items(), key=lambda item: (-item[1], item[0]))]
    more = len(kinds) - _KINDS_TOLD
    return ", ".join(kinds[:_KINDS_TOLD]) + (f" and {more} more kind{'s' if more > 1 else ''}" if more > 0 else "")


def passed_over(others: collections.Counter[str], where: str) -> list[str]:
    """A note for the user on files of other kinds; an empty list if there are none."""
    count = others.total()
    what = "1 file of another kind" if count == 1 else f"{count} files of other kinds"
    return [f"skipped {what} in {where}: {told(others)}"] if count else []


def _walk(root: str | os.PathLike[str], start: str, listing: Listing) -> tuple[list[str], list[str]]:
    """Add the files below `start` to `listing`; return `start` with the folders below it, and the links to folders."""
    folders, links = [start], []
    for folder in folders:  # the list grows in the loop
        before = f"{folder}/" if folder else ""
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(before + name)
                    elif entry.is_symlink() and _is_folder(entry):
                        links.append(before + name)
                    elif (kind := _kind(entry, listing.images)) in listing.images:
                        listing.paths.append(before + name)
                    else:
                        listing.others[kind] += 1
        except OSError as error:
            raise _cannot_list(error, os.path.join(root, folder)) from None
    return folders, links


def _kind(entry: os.DirEntry[str], images: frozenset[str]) -> str:
    """The extension of a file, or its kind. Names of images are checked for the kind, as reading a FIFO would hang."""
    extension = _extension(entry.name)
    if extension not in images:
        return extension if extension[1:].isalnum() and len(extension) <= 10 else "unknown extension"
    try:
        if entry.is_file(follow_symlinks=False) or entry.is_file():
            return extension
        mode = entry.stat().st_mode
    except OSError:  # a broken link
        return extension
    return "FIFO" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def _extension(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _cannot_list(error, folder) from None
    return found.st_dev, found.st_ino


def _with_parents(folder: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """Identities of a folder and of all folders that contain it."""
    parents = [os.path.realpath(folder)]
    while (parent := os.path.dirname(parents[-1])) != parents[-1]:
        parents.append(parent)
    return {_identity(each) for each in parents}


def _cannot_list(error: OSError, folder: str | os.PathLike[str]) -> UserError:
    return UserError(f"cannot list folder {error.filename or folder}: {error.strerror}")
