"""Refuses places for files and folders at which nothing can be written, before any work is done."""

import os
import pathlib

from jaxcnn.config import UserError


def check_file(out: pathlib.Path, flag: str = "out") -> None:
    """Refuse a path at which no file can be written.

    Args:
      out: the path of a file that is written later.
      flag: name of the flag that gave it.

    Raises:
      UserError: it is a folder, or its folder does not exist or may not be written to.
    """
    if out.is_dir():
        raise UserError(f"--{flag}={out} is a folder; name a file in a folder that exists")
    if not out.parent.is_dir():
        raise UserError(f"--{flag}={out} cannot be written: there is no folder {out.parent}; make it, or name another")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--{flag}={out} cannot be written: you may not write to {out.parent}; choose another folder")


def check_folder(folder: pathlib.Path, kind: str, mark: str, held: str) -> None:
    """Refuse an --out where the folder of a format cannot be, or that holds anything but an earlier such folder.

    Args:
      folder: --out.
      kind: the format.
      mark: a file that every such folder has.
      held: what such a folder holds, in words.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out={folder} is a file; --format={kind} writes a folder")
    if not folder.resolve().parent.is_dir():
        raise UserError(f"--out={folder} cannot be written: {folder.parent} is no folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise UserError(f"--out={folder} is not empty, and holds no {held}; give a folder that is new or empty")


def make_folder(out: pathlib.Path) -> None:
    """Create the folder of --out, with its parents, if it does not exist.

    Raises:
      UserError: it cannot be created, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out} is not a folder; choose another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be created: {error.strerror}") from None
