"""What a caller that makes many runs in one process has a hand in: their output, what they share, when they end."""

import dataclasses
from collections.abc import Callable
from typing import Any, TextIO

import jax

from jaxcnn import config
from jaxcnn.data import resident
from jaxcnn.data.batch import Split
from jaxcnn.data.image_statistics import image_statistics
from jaxcnn.data.source import Splits, open_splits
from jaxcnn.learn.step_spec import StepSpec


class Shared:
    """The data of the newest run, for the next one that has the same: opened splits, their arrays, their statistics.

    One set is kept, so that a sweep over data sets holds no more memory than each of its runs.

    Attributes:
      compile_seconds: how long the programs of a run took to come, by `StepSpec`, when they first did in this process.
    """

    def __init__(self) -> None:
        self.compile_seconds: dict[StepSpec, float] = {}
        self._data: config.Data | None = None
        self._splits: Splits | None = None
        self._resident: dict[Any, resident.Resident] = {}
        self._statistics: dict[str, Any] = {}

    def splits(self, data: config.Data) -> Splits:
        """The opened splits; errors as of `open_splits`."""
        if self._splits is None or data != self._data:
            self._data, self._splits = None, None
            self._resident.clear()
            self._statistics.clear()
            self._splits = open_splits(data)
            self._data = data
        return self._splits

    def resident(self, split: Split, sharding: jax.sharding.NamedSharding) -> resident.Resident:
        """A split on the devices."""
        if not self._has(split):
            return resident.load(split, sharding)
        key = (split.name, sharding)
        if key not in self._resident:
            self._resident[key] = resident.load(split, sharding)
        return self._resident[key]

    def statistics(self, split: Split) -> Any:
        """Mean and standard deviation of a split's channels, as of `image_statistics`."""
        if not self._has(split):
            return image_statistics(split)
        if split.name not in self._statistics:
            self._statistics[split.name] = image_statistics(split)
        return self._statistics[split.name]

    def _has(self, split: Split) -> bool:
        kept = self._splits
        return kept is not None and any(split is each for each in (kept.train, kept.val, kept.test))


def _go_on(step: int, accuracy: float) -> None:
    """The hook of a run that nobody watches."""


@dataclasses.dataclass
class Hooks:
    """How a run is tied to what called it.

    Attributes:
      output: where its lines go; None: standard output.
      where: how a run stopped by a signal goes on, for the message; empty: by its own workdir.
      evaluated: called with step and validation accuracy after every evaluation, once what is due is being saved, and
        on resume with those of the last one. What it raises ends the run, which the same config resumes later.
      leaving: called if a signal ends the process where there is nothing to save, such as while it compiles.
      shared: what this run and the next may have in common.
    """

    output: TextIO | None = None
    where: str = ""
    evaluated: Callable[[int, float], None] = _go_on
    leaving: Callable[[], None] | None = None
    shared: Shared = dataclasses.field(default_factory=Shared)
