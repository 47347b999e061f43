"""Finds the networks that a server has, by name, from its flags."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxcnn.config import UserError
from jaxcnn.machine.paths import expand
from jaxcnn.text import shown

CONFIG = "config.json"  # the file that every run has
MOST_PORT, MOST_BATCH = 65535, 1024
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Place(NamedTuple):
    """A network: its name in addresses, the folder of its run, and a file that answers instead of the run.

    Without a folder, the facts of the file tell what the run would.
    """

    name: str
    folder: pathlib.Path | None
    file: pathlib.Path | None = None


def places(workdir: str, file: str, models: Sequence[str]) -> list[Place]:
    """The networks of --workdir and --file, and of each --model; the first one answers requests that name none.

    Raises:
      UserError: there is no network, or a name is missing, used twice, or not valid in an address.
    """
    found = []
    if workdir:
        folder = pathlib.Path(workdir)
        found.append(Place(name_of(folder.resolve().name), folder, pathlib.Path(file) if file else None))
    elif file:
        found.append(Place(name_of(pathlib.Path(file).stem), None, pathlib.Path(file)))
    elif not models:
        raise UserError("--workdir=<folder of a run> is missing; or give --file=<file of jaxcnn.export>")
    for given in models:
        name, separator, path = given.partition("=")
        if not separator or not path:
            raise UserError(f"--model={shown(given)} has no name and folder; give --model=<name>=<folder of a run>")
        if not NAME.fullmatch(name):
            raise UserError(
                f"--model={shown(given)}: a name has up to 64 letters a-z, A-Z, digits and ._- and begins with a "
                "letter or digit"
            )
        place = expand(path, f"--model={shown(name)}=")
        run = place.parent if (place.parent / CONFIG).is_file() else None
        found.append(Place(name, run, place) if place.is_file() else Place(name, place))
    names = [place.name for place in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two networks have the name {name}; --model gives each its own (--workdir has its folder's)"
            )
    return found


def name_of(text: str) -> str:
    """The name of a folder or file as the name of a network."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:64]
    return name or "network"
