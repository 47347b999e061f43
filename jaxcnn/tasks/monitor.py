"""Another figure than the task's own that decides which weights are best (`config.task.monitor`)."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jaxcnn.config as configuration
from jaxcnn.config import ConfigError, convert
from jaxcnn.tasks import figures
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Collector, Evaluation, Facts

_WITHIN = "at_half"  # the figures of several labels that are one level below, at a threshold of 0.5
_MEAN = "loss"  # a mean over examples, as are the metrics of the task


def deciding(evaluation: Evaluation, config: configuration.Task) -> Evaluation:
    """An evaluation whose headline is the figure of a config, which every validation then records.

    It is an object of a subclass, so what else an evaluation can do stays.

    Raises:
      ConfigError: the task has no such figure, or the evaluation is a class of the user, which has its own headline.
    """
    name = config.monitor
    if not name or (name == evaluation.headline.name and config.monitor_mode == "auto"):
        return evaluation
    if not dataclasses.is_dataclass(evaluation) or type(evaluation).__module__.partition(".")[0] != "jaxcnn":
        raise ConfigError(
            f"config.task.monitor={name!r} is for the figures of a task and of a function; the class in "
            f"config.task.evaluation={config.evaluation!r:.200} has its own headline"
        )
    known = figures.OF_TASKS[config.name]
    if name not in known and not config.evaluation:
        raise ConfigError(
            f"config.task.monitor={name!r:.100} is no figure of config.task.name={config.name!r}"
            f"{convert.nearest(name, known)}; choose one of {', '.join(known)}"
        )
    label, less, percent = figures.kind_of(name, config.name, config.monitor_mode)
    kind = _monitored(type(evaluation), Headline(name, label, "lower" if less else "higher", percent))
    values = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)}
    is_mean = name in (_MEAN, *evaluation.metrics)
    if "collects" in values:
        values["collects"] = values["collects"] or not is_mean
    if "of_groups" in values and not is_mean:
        values["of_groups"] = tuple(dict.fromkeys((*values["of_groups"], name)))
    return kind(**values)


@functools.cache
def _monitored(kind: Any, headline: Headline) -> Any:
    """A subclass of an evaluation with another headline."""
    name = headline.name

    def recorded(self: Any, found: Mapping[str, Any]) -> dict[str, float]:
        """The figures of the task, and the one that decides, if the split has it."""
        value = found.get(name)
        return kind.recorded(self, found) | ({name: float(value)} if value is not None else {})

    def collector(self: Any, constants: Any) -> Collector:
        """A collector whose figures have the one that decides."""
        return _WithinReach(kind.collector(self, constants), name)

    named = {"__module__": kind.__module__, "__qualname__": f"{kind.__qualname__}[{name}, {headline.better}]"}
    of_several = {"collector": collector} if name in ("micro_f1", "macro_f1") and kind.__name__ == "SetFigures" else {}
    return type(kind.__name__, (kind,), {"headline": headline, "recorded": recorded, **of_several, **named})


class _WithinReach:
    """A collector that also gives a figure that is one level below the others."""

    def __init__(self, inner: Collector, name: str) -> None:
        self._inner, self._name = inner, name

    def add(self, outputs: Any, target: Any) -> None:
        """Add the outputs and targets of some examples."""
        self._inner.add(outputs, target)

    def fitted(self) -> dict[str, Any]:
        """As in `Collector`: what the inner collector has fitted."""
        return self._inner.fitted()

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The figures of the inner collector, and the one within."""
        found = self._inner.figures(names, fitted)
        return found | {self._name: found[_WITHIN][self._name]}
