"""The folder of --out, and the list of the files that were written there: nothing else is ever replaced or removed."""

import pathlib
import re
from collections.abc import Iterable

from jaxcnn.config import UserError
from jaxcnn.explain import methods
from jaxcnn.text import shown

MAPS, SCORES, RANDOMISED, PAGE = "maps.npz", "scores.csv", "randomisation.csv", "index.html"
ALONE = "randomisation_independent.csv"
FEATURES, CURVES, FIGURE = "features.csv", "curves.csv", "figure.png"
DRAWN = "maps"  # the folder of the pictures
TABLES = (SCORES, CURVES, RANDOMISED, ALONE, FEATURES)
LIST = "written"  # the file with the list
_HEAD = "# files of python -m jaxcnn.explain in this folder; its next call replaces them\n"


def picture(number: int, count: int, method: str) -> str:
    """The name of the picture of image `number` among `count`, by a method."""
    return f"{DRAWN}/{number:0{len(str(count - 1))}d}-{method}.png"


def tables(names: Iterable[str]) -> list[str]:
    """Tables and their figures."""
    return [each for name in names for each in (name, name.removesuffix(".csv") + ".png")]


def _is_ours(name: str) -> bool:
    """Whether a name is one that can be in a list: a damaged list must not lead out of the folder."""
    fixed = {MAPS, MAPS + ".part", PAGE, FIGURE, FIGURE.removesuffix(".png") + ".pdf", *tables(TABLES)}
    pictures_of = "|".join(map(re.escape, methods.METHODS))
    return name in fixed or bool(re.fullmatch(rf"{DRAWN}/\d+-({pictures_of})\.png", name))


class Out:
    """A folder to write to, in place of what was written there before.

    Attributes:
      folder: the folder.
    """

    def __init__(self, folder: pathlib.Path, names: Iterable[str]) -> None:
        """Refuse a folder in which a file of one of these names exists that is not in the list.

        Raises:
          UserError: there is such a file.
        """
        self.folder = folder
        try:
            lines = (folder / LIST).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        self._known = [line for line in lines[1:] if _is_ours(line)] if lines[:1] == [_HEAD.strip()] else []
        known = {*self._known, *([LIST] if self._known or lines[:1] == [_HEAD.strip()] else [])}
        for name in (LIST, *names):
            if name not in known and (folder / name).exists():
                raise UserError(
                    f"--out={shown(str(folder))}: {name} is there, and is not of python -m jaxcnn.explain (its list "
                    f"{LIST!r} lacks it); give a folder that is new or empty"
                )

    def clear(self) -> None:
        """Remove the files of the list, and begin a new one."""
        for name in self._known:
            (self.folder / name).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known = []
        (self.folder / LIST).write_text(_HEAD, encoding="utf-8")

    def path(self, name: str) -> pathlib.Path:
        """The place of a file that is written next; it is in the list before it is there."""
        if not _is_ours(name):
            raise ValueError(name)
        if name not in self._known:
            self._known.append(name)
            with (self.folder / LIST).open("a", encoding="utf-8") as file:
                file.write(name + "\n")
        place = self.folder / name
        place.parent.mkdir(exist_ok=True)
        return place
