"""The outputs and targets of a whole split, or of its images with the most faults."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.tasks import by_group
from jaxcnn.tasks.faults import Comparing, Faulty
from jaxcnn.tasks.task import Collector, Facts, Task

MOST = 2**25  # outputs kept of a split
MOST_FAULTY = 24  # images kept of each kind of fault, where answers are found first


def fits(task: Task, examples: int, most: float = MOST) -> bool:
    """Whether the outputs of that many examples are kept: at most `most` numbers, and no answers that must be found."""
    return task.finds is None and examples * task.targets.outputs <= most


def of(task: Task, constants: Any, groups: np.ndarray | None = None, by: str = "") -> "Kept":
    """A collector of the task that also keeps the outputs; where answers must be found first, the worst answers.

    If `groups` has the names of each example's group (`by_group.Grouped`), the figures of groups are among its figures.
    """
    collector = task.evaluation.collector(constants)
    inner = by_group.grouped(collector, task, constants, groups, by)
    if isinstance(task.evaluation, Comparing):
        return Faults(inner, task.evaluation, collector)
    return Kept(inner, MOST if task.finds is None else 0)


class Kept:
    """A collector that also keeps the outputs and targets of a split, unless there are more than `most` outputs."""

    def __init__(self, inner: Collector, most: float = MOST) -> None:
        self._inner, self._most = inner, most
        self._parts: list[tuple[np.ndarray, Any]] | None = []

    def add(self, outputs: np.ndarray, target: Any) -> None:
        """Add the outputs [n, k] and the targets of some examples."""
        self._inner.add(outputs, target)
        if self._parts is not None:
            self._parts.append((outputs, target))
            if sum(part.size for part, _ in self._parts) > self._most:
                self._parts = None

    def fitted(self) -> dict[str, Any]:
        """As in `Collector`: what the inner collector has fitted."""
        return self._inner.fitted()

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """As in `Collector`: the figures of the inner collector."""
        return self._inner.figures(names, fitted)

    def whole(self) -> tuple[np.ndarray, Any] | None:
        """The outputs [N, k] and targets of all examples, in the order of the split; None if there were too many."""
        if not self._parts:
            return None
        outputs, targets = zip(*self._parts, strict=True)
        return np.concatenate(outputs), jax.tree.map(lambda *leaves: np.concatenate(leaves), *targets)


class Faults(Kept):
    """A collector that keeps only the images with the most faults of each kind."""

    def __init__(self, inner: Collector, evaluation: Comparing, collector: Collector | None = None) -> None:
        """`collector` is that of the evaluation within `inner`, which it may use for the faults as well."""
        super().__init__(inner, most=0)
        self._collector = collector
        self.evaluation, self._added = evaluation, 0
        self.most: dict[str, list[Faulty]] = {name: [] for name in evaluation.faults}

    def add(self, outputs: np.ndarray, target: Any) -> None:
        """Add what was found in some images, and the targets of these images."""
        super().add(outputs, target)
        for name, faults in self.evaluation.faults_of(outputs, target, self._collector).items():
            first = np.argsort(-faults, kind="stable")[:MOST_FAULTY]
            new = [
                Faulty(
                    self._added + int(k),
                    float(faults[k]),
                    outputs[k].copy(),
                    jax.tree.map(lambda leaf, k=k: leaf[k].copy(), target),
                )
                for k in first
                if faults[k] > 0
            ]
            both = sorted([*self.most[name], *new], key=lambda each: (-each.faults, each.index))
            self.most[name] = both[:MOST_FAULTY]
        self._added += len(outputs)
