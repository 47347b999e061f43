"""Where a set lies: what may change without making it another one."""

import dataclasses
import os

from jaxcnn.config import Data, UserError
from jaxcnn.machine.paths import expand

PLACED = ("npz", "folder")  # sources that are named by a path


def kind(source: str) -> str:
    """The part of `config.data.source` before the colon."""
    return source.partition(":")[0]


def absolute(data: Data) -> Data:
    """The same with paths that hold in any current folder."""
    name, _, path = data.source.partition(":")
    source = f"{name}:{_absolute(path)}" if name in PLACED and path else data.source
    return dataclasses.replace(data, source=source, dir=_absolute(data.dir) if data.dir else "")


def absolute_source(source: str) -> str:
    """`config.data.source` with a path that holds in any current folder."""
    return absolute(Data(source=source)).source


def at(data: Data, path: str) -> Data:
    """The same set at another path, as `--data` gives it: a file, a folder, or the data_dir of TFDS.

    Raises:
      UserError: the source lies nowhere.
    """
    name = kind(data.source)
    if not path:
        return data
    if name in PLACED:
        return dataclasses.replace(data, source=f"{name}:{path}")
    if name == "tfds":
        return dataclasses.replace(data, dir=path)
    raise UserError(f"--data={path}: config.data.source={data.source!r} is read from no file; leave --data out")


def is_ready(data: Data) -> bool:
    """Whether something lies at the path that the source names, if it names one."""
    name, _, path = data.source.partition(":")
    return name not in PLACED or os.path.exists(os.path.expanduser(path))


def without_place(description: str) -> str:
    """The description of a split as far as it says the same wherever the set lies.

    That is nothing where it begins with a path: slices are in the config, and checksums say what they hold.
    """
    return "" if kind(description) in PLACED else description


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(expand(path, "config.data: "))
