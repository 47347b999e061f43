"""Weights that come with jaxcnn, for `config.init.source=jaxcnn:<name>`: small files, each with a model card.

`results/weights/README.md` says how one is added.
"""

import hashlib
import pathlib

from jaxcnn.config import UserError, convert
from jaxcnn.machine import paths
from jaxcnn.text import shown
from jaxcnn.weights.compressed import SUFFIX

SUMS = "SHA256SUMS"


def names(folder: pathlib.Path | None = None) -> list[str]:
    """The names of the weights in a folder; None: those that come with jaxcnn."""
    return sorted(file.stem for file in (folder or paths.shipped("results/weights")).glob(f"*{SUFFIX}"))


def find(name: str, folder: pathlib.Path | None = None) -> pathlib.Path:
    """The file of weights of this name.

    Args:
      name: such as "cnn_digits".
      folder: where the files lie; None: where those that come with jaxcnn do.

    Raises:
      UserError: there are none of this name, or the file is not the released one.
    """
    folder = folder or paths.shipped("results/weights")
    known = names(folder)
    if name not in known:
        raise UserError(
            f"config.init.source='jaxcnn:{shown(name)}': jaxcnn comes with no weights of this name"
            f"{convert.nearest(name, known)}; it has: {', '.join(known)}"
        )
    file = folder / f"{name}{SUFFIX}"
    sums = dict(line.split()[::-1] for line in (folder / SUMS).read_text().splitlines())
    if hashlib.sha256(file.read_bytes()).hexdigest() != sums.get(file.name):
        raise UserError(f"{shown(str(file))} is not the file that was released (its SHA-256 differs); get it again")
    return file
