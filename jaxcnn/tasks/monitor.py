"""Another figure than the task's own that decides which weights are best (`config.task.monitor`)."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jaxcnn.config as configuration
from jaxcnn.config import ConfigError, convert
from jaxcnn.tasks import classification, figures, multilabel
from jaxcnn.tasks.by_group import Limited
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Collector, Evaluation, Facts

_OF_ALL = "macro_auroc"  # needs every probability of a split
_OF_HALF = ("micro_f1", "macro_f1")
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
            f"{_meant(name, known)}; choose one of {', '.join(known)}"
        )
    label, less, percent = figures.kind_of(name, config.name, config.monitor_mode)
    within = config.name == "multilabel" and name in _OF_HALF
    kind = _monitored(type(evaluation), Headline(name, label, "lower" if less else "higher", percent), within)
    values = {field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)}
    is_mean = name in (_MEAN, *evaluation.metrics)
    if "collects" in values:
        values["collects"] = values["collects"] or not is_mean
    if "of_groups" in values and not is_mean:
        values["of_groups"] = tuple(dict.fromkeys((*values["of_groups"], name)))
    return kind(**values)


def _meant(name: str, known: Mapping[str, figures.Kind]) -> str:
    """A hint that names the figure that is probably meant; of several, the first, as the headline is."""
    text = name.lower()
    close = (each for each, (label, *_) in known.items() if label.lower() == text or each.endswith(f"_{text}"))
    meant = next(close, "") if text else ""
    return f" (did you mean {meant!r}?)" if meant else convert.nearest(name, known)


def check_size(config: configuration.Task, outputs: int, examples: int) -> None:
    """Refuse a figure that a validation split of this size will not have.

    Raises:
      ConfigError: it needs every probability, and there are too many.
    """
    most = {"classification": classification.MOST_KEPT, "multilabel": multilabel.MOST_KEPT}.get(config.name, math.inf)
    if config.monitor == _OF_ALL and examples * outputs > most:
        others = [name for name in figures.OF_TASKS[config.name] if name != _OF_ALL]
        raise ConfigError(
            f"config.task.monitor={_OF_ALL!r} is known for at most {most:,} probabilities (images times classes), and "
            f"validation has {examples * outputs:,}; choose one of {', '.join(others)}, or validate on fewer images"
        )


@functools.cache
def _monitored(kind: Any, headline: Headline, within: bool) -> Any:
    """A subclass of an evaluation with another headline, which is perhaps one level below the other figures."""
    name = headline.name

    def recorded(self: Any, found: Mapping[str, Any]) -> dict[str, float]:
        """The figures of the task, and the one that decides, if the split has it."""
        value = found.get(name)
        return kind.recorded(self, found) | ({name: float(value)} if value is not None else {})

    def collector(self: Any, constants: Any) -> Collector:
        """A collector whose figures have the one that decides."""
        return _WithinReach(kind.collector(self, constants), name)

    def of_groups(self: Any) -> tuple[str, ...]:
        """The figures that the evaluation gives for groups, and the one that decides."""
        own: tuple[str, ...] = kind.of_groups.fget(self)
        return own if name in (_MEAN, *self.metrics) else tuple(dict.fromkeys((*own, name)))

    parts: dict[str, Any] = {"__module__": kind.__module__, "headline": headline, "recorded": recorded}
    parts["__qualname__"] = f"{kind.__qualname__}[{name}, {headline.better}]"
    if within:
        parts["collector"] = collector
    if isinstance(kind.of_groups, property):  # else it is a field
        parts["of_groups"] = property(of_groups)
    return type(kind.__name__, (kind,), parts)


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
        """The figures of the inner collector, and the one within, unless the user's function gives one of its name."""
        found = self._inner.figures(names, fitted)
        return {self._name: found[_WITHIN][self._name]} | found if _WITHIN in found else found

    def limit(self, most: int) -> None:
        """As in `by_group.Limited`, if the inner collector can."""
        if isinstance(self._inner, Limited):
            self._inner.limit(most)
