"""The figures of each group of a split, such as each patient or site; which group is the worst, and how they spread."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Collector, Facts, Task, Tree
from jaxcnn.text import counted, named

LOSS = "loss"
MOST = 2**25  # numbers that the collectors of all groups together keep of outputs


@runtime_checkable
class Limited(Protocol):
    """A collector that keeps outputs, and can do with fewer."""

    def limit(self, most: int) -> None:
        """Keep at most `most` numbers of outputs, or of counts in their place; figures that need more are left out."""
        ...


class Grouped:
    """A collector that adds the figures of each group to those of an inner collector.

    The examples have to be added in the order of the split. "per_group" has for each group its number of examples, its
    loss, the task's means over examples and those figures of a whole split that the task gives for groups (such as the
    AUROC), unless the split has too many outputs to keep (`MOST`); "groups" says which group is the worst by the figure
    that decides, and how it spreads over groups, each of which counts once.
    """

    def __init__(self, inner: Collector, task: Task, constants: Any, groups: np.ndarray, by: str) -> None:
        """`groups` are the names of each example's group, text [n]; `by` says what they are, such as "patient"."""
        self._inner, self._task, self._constants, self._by = inner, task, constants, by
        self._names, self._group = np.unique(groups, return_inverse=True)
        self._added = 0
        self._values: list[dict[str, np.ndarray]] = []
        wanted = task.evaluation.of_groups
        self._collectors = [task.evaluation.collector(constants) for _ in self._names] if wanted else []
        if len(groups) * task.targets.outputs > MOST:  # then each group has the share of its examples
            for collector, size in zip(self._collectors, np.bincount(self._group), strict=False):
                if isinstance(collector, Limited):
                    collector.limit(int(MOST * size / len(groups)))

    def add(self, outputs: np.ndarray, target: Tree) -> None:
        """Add the outputs [n, k] and the targets of some examples."""
        self._inner.add(outputs, target)
        group = self._group[self._added : self._added + len(outputs)]
        self._added += len(outputs)
        if self._task.finds is None:
            self._values.append(of_each(self._task, outputs, target, self._constants))
        if self._collectors:
            for number in np.unique(group):
                rows = group == number
                self._collectors[number].add(outputs[rows], jax.tree.map(lambda leaf, rows=rows: leaf[rows], target))

    def fitted(self) -> dict[str, Any]:
        """As in `Collector`: what the inner collector has fitted."""
        return self._inner.fitted()

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The figures of the inner collector, and those of each group."""
        headline = self._task.evaluation.headline
        counts = np.bincount(self._group)
        rows: list[dict[str, Any]] = [{"examples": int(count)} for count in counts]
        for name in self._values[0] if self._values else ():
            sums = np.bincount(self._group, np.concatenate([values[name] for values in self._values]))
            for row, mean in zip(rows, sums / counts, strict=True):
                row[name] = float(mean)
        for row, collector in zip(rows, self._collectors, strict=False):
            of_whole = collector.figures(names, fitted)
            row |= {name: _sound(of_whole.get(name)) for name in self._task.evaluation.of_groups}
        per_group = dict(zip(self._names.tolist(), rows, strict=True))
        return self._inner.figures(names, fitted) | {
            "groups": {"by": self._by, **summary(per_group, headline)},
            "per_group": per_group,
        }


def of_each(task: Task, outputs: np.ndarray, target: Tree, constants: Any) -> dict[str, np.ndarray]:
    """The loss of each example and the task's metrics that are means over examples, float64 [n], by name."""
    whole = task.targets.whole(target)
    found = {LOSS: task.loss.reported(outputs, whole, constants)}
    found |= task.evaluation.values(outputs, whole, constants)
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def grouped(collector: Collector, task: Task, constants: Any, groups: np.ndarray | None, by: str) -> Collector:
    """A collector that also computes the figures of groups (`Grouped`); `collector` itself without groups."""
    return collector if groups is None else Grouped(collector, task, constants, groups, by)


def _sound(value: Any) -> Any:
    """A figure as float, a mapping or an interval as it is; None where the group has no value, as a mean of nothing."""
    if isinstance(value, Mapping | list):
        return value
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else None


def summary(per_group: Mapping[str, Mapping[str, Any]], headline: Headline) -> dict[str, Any]:
    """The worst and best group by the headline figure, and its mean and standard deviation over groups."""
    of = {name: row[headline.name] for name, row in per_group.items() if row.get(headline.name) is not None}
    found: dict[str, Any] = {"count": len(per_group), "figure": headline.name}
    if not of:
        return found
    worst = min(of, key=lambda name: (headline.score(of[name]), -per_group[name]["examples"]))  # the largest of equals
    values = list(of.values())
    return found | {
        "worst": worst,
        "worst_value": of[worst],
        "best_value": headline.value(max(map(headline.score, values))),
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def describe(figures: Mapping[str, Any], headline: Headline) -> list[str]:
    """The figures of groups as one line of text; no line if the split has no groups."""
    found = figures.get("groups")
    if not found or "worst" not in found:
        return []
    examples = figures["per_group"][found["worst"]]["examples"]
    spread = "" if found["std"] is None else f", standard deviation {headline.shown(found['std'])}"
    return [
        f"{headline.label} by {named(found['by'])} ({counted(found['count'], 'group')}): worst "
        f"{headline.shown(found['worst_value'])} ({found['worst']!r}, {counted(examples, 'example')}), best "
        f"{headline.shown(found['best_value'])}, mean of the groups {headline.shown(found['mean'])}{spread}"
    ]
