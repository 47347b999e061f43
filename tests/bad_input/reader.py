"""Sound files of one kind, and how they are read."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from tests.bad_input import mutations


@dataclasses.dataclass(frozen=True)
class Reader:
    """Files of one kind.

    Attributes:
      files: which are damaged, in a folder that is read as a whole.
      read: reads the folder, anew each time.
      share: how many cases it gets, where others get 1.
      lines: whether a refusal has a line for each mistake.
      how: the ways in which a file is damaged.
    """

    files: tuple[pathlib.Path, ...]
    read: Callable[[], Any]
    share: float = 1.0
    lines: bool = False
    how: tuple[str, ...] = mutations.HOW


Maker = Callable[[pathlib.Path, pathlib.Path | None], list[Reader]]
