"""Hooks and shared data for callers that make many runs in one process, such as a sweep."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TextIO

import jax

import jaxcnn.config as config
from jaxcnn.data import resident
from jaxcnn.data.batch import Split
from jaxcnn.data.image_statistics import image_statistics
from jaxcnn.data.source import Splits, open_splits
from jaxcnn.learn.metrics import means_of
from jaxcnn.learn.step import StepMetrics
from jaxcnn.learn.step_spec import StepSpec


class Shared:
    """The data of the latest run, reused if the next run has the same: opened splits, their arrays, their statistics.

    Only one data set is kept, so a sweep over data sets needs no more memory than each of its runs.

    Attributes:
      compile_seconds: seconds to compile or load the programs of a run, by `StepSpec`, the first time in this process.
    """

    def __init__(self) -> None:
        self.compile_seconds: dict[StepSpec, float] = {}
        self._data: tuple[config.Data, config.Task] | None = None
        self._splits: Splits | None = None
        self._resident: dict[Any, resident.Resident] = {}
        self._statistics: dict[str, Any] = {}

    def splits(self, data: config.Data, task: config.Task) -> Splits:
        """The opened splits.

        Raises:
          UserError: as in `open_splits`.
        """
        if self._splits is None or (data, task) != self._data:
            self._data, self._splits = None, None
            self._resident.clear()
            self._statistics.clear()
            self._splits = open_splits(data, task)
            self._data = data, task
        return self._splits

    def resident(self, split: Split, sharding: jax.sharding.NamedSharding) -> resident.Resident:
        """A split, placed on the devices."""
        if not self._has(split):
            return resident.load(split, sharding)
        key = (split.name, sharding)
        if key not in self._resident:
            self._resident[key] = resident.load(split, sharding)
        return self._resident[key]

    def statistics(self, split: Split) -> Any:
        """Mean and standard deviation of a split's channels, from `image_statistics`."""
        if not self._has(split):
            return image_statistics(split)
        if split.name not in self._statistics:
            self._statistics[split.name] = image_statistics(split)
        return self._statistics[split.name]

    def _has(self, split: Split) -> bool:
        kept = self._splits
        return kept is not None and any(split is each for each in (kept.train, kept.val, kept.test))


@dataclasses.dataclass(frozen=True)
class Step:
    """A training step that has been made.

    Attributes:
      step: number of the step, counted from 1.
      total_steps: number of steps of the run.
      epoch: epochs seen after this step.
      seconds: the time it took; steps that were made in one call share the time of the call equally.
    """

    step: int
    total_steps: int
    epoch: float
    seconds: float
    _metrics: StepMetrics = dataclasses.field(repr=False)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Loss, metrics, gradient norm and learning rate of the step; converted when first asked for."""
        return {
            **means_of({name: float(total) for name, total in self._metrics.sums.items()}),
            "grad_norm": float(self._metrics.grad_norm),
            "learning_rate": float(self._metrics.learning_rate),
        }


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of the validation split during training.

    Attributes:
      step, total_steps, epoch: as in `Step`, for the last step before the evaluation.
      figures: loss and metrics of the split, as in the "val" records of `metrics.jsonl`.
      is_best: whether the headline figure is the best one so far.
    """

    step: int
    total_steps: int
    epoch: float
    figures: dict[str, Any]
    is_best: bool


def _go_on(step: int, score: float) -> None:
    """Do nothing; the default of `Hooks.evaluated`."""


@dataclasses.dataclass
class Hooks:
    """The connections of a run to its caller.

    Attributes:
      output: stream for the lines of the run; None: standard output.
      progress_lines: whether the run prints a line of its progress now and then; False for a caller that shows it.
      where: how to resume a run that a signal stopped, for the message; empty: by its own workdir.
      evaluated: called with step and score (`tasks.Headline.score`) after every validation, once a due save has
        started, and on resume with those of the last one. Its exceptions end the run, which the same config resumes.
      after_step: called after each step, in order, once its metrics are known; the next steps are running then. Its
        exceptions end the run, too.
      after_evaluation: called with the figures of every evaluation of this start, just before `evaluated`.
      leaving: called if a signal ends the process while nothing needs saving, such as during compilation.
      shared: data that this run may share with the next one.
    """

    output: TextIO | None = None
    progress_lines: bool = True
    where: str = ""
    evaluated: Callable[[int, float], None] = _go_on
    after_step: Callable[[Step], None] | None = None
    after_evaluation: Callable[[Evaluation], None] | None = None
    leaving: Callable[[], None] | None = None
    shared: Shared = dataclasses.field(default_factory=Shared)
