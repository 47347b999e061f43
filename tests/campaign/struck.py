"""What a fault is, and what it did to one start of a run."""

import dataclasses
import pathlib
import random
from collections.abc import Callable
from typing import Any

from tests.campaign import draws
from tests.campaign.draws import Draw
from tests.campaign.watched import Watched

STOPPED, KILLED = {0, 75}, {0, 75, -9}
REFUSED = {0, 2, 75}  # the run may end before it meets what is wrong; of two processes, one learns of it by the other
ABORTED = {0, 1, 2, 75, -6, -11, -9, 127, 134}  # where memory ends, libraries may abort the process


@dataclasses.dataclass
class Struck:
    """What a fault did to one start of a run.

    Attributes:
      watched: the start; it may still run.
      allowed: the exit codes that it may have.
      phase: when it struck.
      hit: whether it came in time.
      may_trace: whether a traceback is no defect, as with a library that finds no memory.
      undo: removes the cause, after the start has ended.
      told: more for the record.
    """

    watched: Watched
    allowed: set[int]
    phase: str
    hit: bool
    may_trace: bool = False
    undo: Callable[[], None] = lambda: None
    told: dict[str, Any] = dataclasses.field(default_factory=dict)


Fault = Callable[[Draw, pathlib.Path, random.Random], Struck]


def start(draw: Draw, workdir: pathlib.Path, devices: int = 0, **environment: str) -> Watched:
    """A start of a run, watched."""
    return Watched(draws.start(draw, workdir, devices, **environment), workdir, draw.validations)
