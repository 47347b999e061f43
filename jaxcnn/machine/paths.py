"""Paths given by users, where `~` is a home folder in every place that takes a path."""

import contextlib
import csv
import functools
import logging
import os
import pathlib
import stat
import tempfile

from jaxcnn.config import ConfigError, UserError, convert

_PACKAGE = pathlib.Path(__file__).parents[1]
# Folders of a clone, and what they are inside an installed package.
_INSIDE = {"configs": "configs", "launch": "launch_files", "results/weights": "released_weights"}


def expand(path: str | pathlib.Path, named: str = "") -> pathlib.Path:
    """A path with a leading `~` or `~user` replaced by that home folder; `named` says where the path was given.

    Raises:
      UserError: that home folder is unknown.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        tilde = pathlib.Path(path).parts[0]
        raise UserError(
            f"{named}{path}: there is no home folder {tilde!r} (HOME is not set, or this user does not exist); write "
            "the full path, or ./~ for a folder of that name"
        ) from error


def separate(places: str) -> list[str]:
    """The paths in a comma-separated list.

    A path that contains commas must exist, or be in double quotes, as in CSV. Paths that do not exist are returned
    unchanged.
    """
    if _is_there(places):
        return [places]
    try:
        (parts,) = csv.reader([places], strict=True)
    except (csv.Error, ValueError):
        parts = places.split(",")
    found: list[str] = []
    while parts:
        lengths = range(1, len(parts) + 1)
        for length, name in ((n, name) for n in lengths for name in _ways(",".join(parts[:n]))):
            if _is_there(name):
                found.append(name)
                parts = parts[length:]
                break
        else:
            return found + [part.strip() for part in parts if part.strip()]
    return found


def _ways(name: str) -> tuple[str, str]:
    return name, name.strip()


def _is_there(path: str) -> bool:
    return bool(path) and os.path.exists(os.path.expanduser(path))


def cache_folder() -> pathlib.Path:
    """The user's cache folder for jaxcnn: $JAXCNN_CACHE, else $XDG_CACHE_HOME/jaxcnn, else ~/.cache/jaxcnn.

    Without a home folder, it is one of the system's temporary folders, and this is logged.

    Raises:
      UserError: the `~` in $JAXCNN_CACHE cannot be resolved.
    """
    if folder := os.environ.get("JAXCNN_CACHE"):
        return expand(folder, "JAXCNN_CACHE=")
    try:
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jaxcnn"
    except RuntimeError:  # HOME is not set, and the user id has no entry, as in some containers
        return _temporary_folder()


@functools.cache
def _temporary_folder() -> pathlib.Path:
    """A temporary folder for this user only, reused by later starts if it can be trusted."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"jaxcnn-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxcnn-"))  # the usual one was made by another user
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))  # matplotlib's own caches are in the home folder
    logging.getLogger("jaxcnn").warning(
        "HOME is not set, so caches are kept in %s; JAXCNN_CACHE=<folder> sets another folder", folder
    )
    return folder


def shipped(name: str) -> pathlib.Path:
    """The folder `configs`, `launch` or `results/weights`: beside the package in a clone, else inside it."""
    inside = _PACKAGE / _INSIDE[name]
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_configs() -> list[str]:
    """The names of the configs that ship with jaxcnn, such as "quickstart"."""
    folder = shipped("configs")
    return sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.py"))


def shipped_config(name: str) -> pathlib.Path:
    """The file of a config that ships with jaxcnn.

    Raises:
      ConfigError: no config has that name.
    """
    file = shipped("configs") / f"{name}.py"
    if not file.is_file():
        known = shipped_configs()
        whole = [each for each in known if "/" not in each]
        others = sorted({each.partition("/")[0] for each in known if "/" in each})
        raise ConfigError(
            f"--config={name}: this file does not exist, and jaxcnn has no config of that name"
            f"{convert.nearest(name, known)}; it has: {', '.join(whole)}, and {len(known) - len(whole)} more in "
            f"{' and '.join(others)}"
        )
    return file


def clone() -> pathlib.Path | None:
    """The root of the clone that jaxcnn runs from; None for an installed package."""
    return None if (_PACKAGE / _INSIDE["configs"]).is_dir() else _PACKAGE.parent
