"""Image files on a disk, named by their paths, as the encoded images of a base split."""

import functools
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped, UInt64

import jaxcnn.config as config
from jaxcnn.data import cache
from jaxcnn.data.encoded import Encoded
from jaxcnn.data.examples import Groups
from jaxcnn.machine.paths import expand

State = tuple[int, int]


def encoded_files(
    title: str,
    root: Path,
    paths: Sequence[str],
    labels: Sequence[int] | Shaped[np.ndarray, "n ..."],
    *,
    weights: Float32[np.ndarray, " n"] | None = None,
    notes: tuple[str, ...] = (),
    groups: Groups | None = None,
) -> Encoded:
    """Image files, sorted by a hash of their path, so that a slice of a split mixes all classes.

    Args:
      title: name of the split in messages.
      root: the folder of the set.
      paths: path of each image, relative to `root` or absolute; it decides the place of the image in the split.
      labels: class number of each image, or a row of numbers.
      weights: weight of each image; None if they have none.
      notes: remarks for the user.
      groups: the name of each image's group; None if they have none.
    """
    halves = hashes_of(paths)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    hashes = halves[order, 0].astype(np.uint64)
    paths = [paths[i] for i in order]

    @functools.cache
    def states() -> list[State]:
        return [state(os.path.join(root, path)) for path in paths]

    def fingerprint() -> str:
        named = ((path, *state) for path, state in zip(paths, states(), strict=True))
        return cache.fingerprint([str(root.resolve()), *named])

    def load(index: int) -> bytes:
        return (root / paths[index]).read_bytes()

    return Encoded(
        title=title,
        labels=(labels if isinstance(labels, np.ndarray) else np.array(labels, np.int32))[order],
        channels=3,
        shape=None,
        name=lambda index: str(root / paths[index]),
        load=load,
        fingerprint=functools.cache(fingerprint),
        sizes=lambda: np.array([size for size, _ in states()], np.int64),
        hashes=lambda: hashes,
        weights=None if weights is None else weights[order],
        notes=notes,
        groups=None if groups is None else groups[order],
    )


def outside(root: Path, paths: Sequence[str], data: config.Data, beside: Sequence[Path] = ()) -> list[int]:
    """The places of paths that lead out of the folder of a set, and are not below `data.images_below` either.

    Links are not resolved: one within the folder was made by the owner of the folder.

    Args:
      root: the folder of the set.
      paths: normal paths, relative to `root` or absolute.
      data: the group `config.data`.
      beside: other folders of the set.
    """
    folders = [root, *beside, *([expand(data.images_below, "config.data.images_below=")] if data.images_below else [])]
    below = tuple(os.path.join(os.path.abspath(folder), "") for folder in folders)
    really = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)

    def leaves(path: str) -> bool:
        full = os.path.abspath(os.path.join(root, path))
        try:
            return not (full.startswith(below) or os.path.realpath(full).startswith(really))
        except ValueError:  # a character that no path has
            return True

    return [place for place, path in enumerate(paths) if leaves(path)]


def refusal(path: str, root: Path) -> str:
    """Says that an image lies outside the folder of its set, and what to do, as the end of a sentence."""
    return (
        f"image {path!r:.200} is outside {str(root)!r:.120}; correct it, or name a folder above it by "
        "config.data.images_below"
    )


def state(path: str) -> State:
    """Size and modification time, which show whether the content has changed; both -1 if there is no such file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # for example a broken link: reading it reports the error
        return -1, -1
    return found.st_size, found.st_mtime_ns


def hashes_of(paths: Sequence[str]) -> UInt64[np.ndarray, "n 2"]:
    """The two halves of a hash of each path, or of any text."""
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as os.fsencode, but faster
    hashes = b"".join(hashlib.blake2b(path.encode(encoding, errors), digest_size=16).digest() for path in paths)
    return np.frombuffer(hashes, ">u8").reshape(-1, 2)
