"""The location of a data set, which may change while the set stays the same."""

import dataclasses
import os
import pathlib
import re

from jaxcnn.config import Data, UserError
from jaxcnn.data import table
from jaxcnn.machine.paths import expand

PLACED = ("npz", "folder", "csv", "coco", "yolo", "voc")  # sources whose name contains a path
_TERM = r"[\w.-]+(?:\[[^\]]*\])?"  # of a slice expression
_ENDINGS = r"protocol=full|balanced: |minus |\d+ held out|fold \d|without fold \d"
_CUT = re.compile(rf".*? (?P<cut>{_TERM}(?:\s*\+\s*{_TERM})*(?: \((?:{_ENDINGS}).*\))?)", re.DOTALL)
BY_CONTENT = (*PLACED, "arrays")  # sources whose content `data.json` identifies, whatever their name


def kind(source: str) -> str:
    """The part of `config.data.source` before the colon."""
    return source.partition(":")[0]


def absolute(data: Data) -> Data:
    """`data` with absolute paths, valid in any current folder."""
    name, _, path = data.source.partition(":")
    source = f"{name}:{_absolute(path)}" if name in PLACED and path else data.source
    return dataclasses.replace(data, source=source, dir=_absolute(data.dir) if data.dir else "")


def absolute_source(source: str) -> str:
    """`config.data.source` with an absolute path, valid in any current folder."""
    return absolute(Data(source=source)).source


def at(data: Data, path: str) -> Data:
    """The same set at another path, which `--data` gives: a file, a folder, or the data_dir of TFDS.

    Raises:
      UserError: the source is not read from files.
    """
    name = kind(data.source)
    if not path:
        return data
    if name in PLACED:
        return dataclasses.replace(data, source=f"{name}:{path}")
    if name == "tfds":
        return dataclasses.replace(data, dir=path)
    raise UserError(f"--data={path}: config.data.source={data.source!r} is not read from a file; leave --data out")


def is_ready(data: Data) -> bool:
    """Whether the path in the source exists; True for sources without a path."""
    name, _, path = data.source.partition(":")
    return name not in PLACED or os.path.exists(os.path.expanduser(path))


def meant(source: str) -> str:
    """The source that reads a folder or a file, if `source` is only its path; empty if none does."""
    path = pathlib.Path(os.path.expanduser(source))
    if path.is_dir():
        return f"folder:{source}"
    of_file = "npz" if path.suffix == ".npz" else "csv" if path.suffix.lower() in table.SUFFIXES else ""
    return f"{of_file}:{source}" if of_file else ""


def without_place(description: str) -> str:
    """The part of a split's description that does not depend on the location of the set.

    Empty if the description begins with a path: the config has the slices, and checksums identify their contents.
    """
    return "" if kind(description) in PLACED else description


def cut(description: str) -> str:
    """What a split's description says of how it was cut from its set, whatever the location of the set.

    If the description begins with a path, this is what follows it: the slices, and what was held out and how, such as
    "train (fold 0 of 5 by split_seed=0)"; else the whole description.
    """
    found = _CUT.fullmatch(description)
    return description if kind(description) not in PLACED or found is None else found["cut"]


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(expand(path, "config.data: "))
