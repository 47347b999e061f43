"""Losses and figures that users write, which replace those of a task or are added to them."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.machine import plugins
from jaxcnn.tasks import averaging
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.kept import Kept
from jaxcnn.tasks.task import Collector, Evaluation, Facts, Loss, OfEach, Outputs, Settings, Targets, Tree
from jaxcnn.tasks.wrapped import Wrapped


@dataclasses.dataclass(frozen=True)
class OwnLoss(Wrapped):
    """A loss that is a function of outputs and targets, float32 [B, K] both, and gives a loss for each example [B].

    For classification, targets are distributions over the classes, mixed and smoothed as the config wants; for several
    labels, shares of presence; for regression, outputs and targets are in standard deviations of the training split.

    Attributes:
      name: the open name of the function.
      inner: the loss of the task.
    """

    name: str

    @property
    def plain(self) -> "OwnLoss":
        """The same loss with unsmoothed targets."""
        return OwnLoss(self.inner.plain, self.name)

    def losses(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The losses that the user's function returns.

        Raises:
          UserError: the result is not one number for each example.
        """
        pair = self.pair(outputs, target, settings, constants)
        losses = plugins.load("losses", self.name).function(*pair)
        if getattr(losses, "shape", None) != (len(outputs),):
            shape = getattr(losses, "shape", type(losses).__name__)
            raise UserError(
                f"config.task.loss={self.name!r} gives {shape} for {len(outputs)} examples; it must give one loss for "
                f"each, ({len(outputs)},)"
            )
        return losses.astype(jnp.float32)

    def reported(self, outputs: Outputs, target: Tree, constants: Any) -> OfEach:
        """The user's loss of each example, with unsmoothed targets."""
        return self.plain.losses(jnp.asarray(outputs), target, {"label_smoothing": jnp.zeros(())}, constants, None)


@dataclasses.dataclass(frozen=True)
class MoreFigures:
    """The figures of a task, and those that a user's function computes from outputs and targets of a whole split.

    The function gets two NumPy arrays [N, K], as a loss does (`OwnLoss`), and gives a mapping from names to numbers.

    Attributes:
      name: the open name of the function.
      inner: the evaluation of the task.
      loss: the loss of the task, which knows what its outputs mean.
      targets: the kind of its targets.
    """

    name: str
    inner: Evaluation
    loss: Loss
    targets: Targets

    @property
    def headline(self) -> Headline:
        """As in `Evaluation`: the headline figure of the inner evaluation."""
        return self.inner.headline

    @property
    def metrics(self) -> tuple[str, ...]:
        """As in `Evaluation`: the names of the mean figures of the inner evaluation."""
        return self.inner.metrics

    @property
    def right(self) -> str | None:
        """That of the task, if its answers are classes."""
        return getattr(self.inner, "right", None)

    @property
    def averaged(self) -> averaging.Averaged | None:
        """That of the task, if its outputs give probabilities."""
        return averaging.of(self.inner)

    @property
    def of_groups(self) -> tuple[str, ...]:
        """As in `Evaluation`: the names of the inner evaluation's figures that each group of a split has, too."""
        return self.inner.of_groups

    @property
    def collects(self) -> bool:
        """Always True, because the function needs all outputs of a split."""
        return True

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """The recorded figures of the inner evaluation, and all figures of the user's function."""
        return self.inner.recorded(figures) | {name: figures[name] for name in figures["own_figures"]}

    def values(self, outputs: Outputs, target: Tree, constants: Any) -> dict[str, OfEach]:
        """As in `Evaluation`: the metrics of each example in the inner evaluation."""
        return self.inner.values(outputs, target, constants)

    def collector(self, constants: Any) -> Collector:
        """An empty collector that keeps all outputs and targets."""
        return _WithFigures(self, constants)

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """As in `Evaluation`: the answers of the inner evaluation."""
        return self.inner.answers(outputs, names, constants, fitted)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """As in `Evaluation`: the probabilities of the inner evaluation."""
        return self.inner.probabilities(outputs)

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """As in `Evaluation`: the table columns of the inner evaluation."""
        return self.inner.columns(answer)

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """The lines of the inner evaluation, and one line with the figures of the user's function."""
        told = ", ".join(f"{name} {figures[name]:.4g}" for name in figures["own_figures"])
        return [*self.inner.describe(figures), f"{self.name}: {told}"]

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw the picture of the inner evaluation."""
        self.inner.draw(figures, names, path)


class _WithFigures(Kept):
    """The collector of a task that also keeps all outputs, from which the user's function computes its figures."""

    def __init__(self, evaluation: MoreFigures, constants: Any) -> None:
        super().__init__(evaluation.inner.collector(constants), most=math.inf)
        self._evaluation, self._constants = evaluation, constants

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The figures of the task and those of the user's function, whose names are in "own_figures"."""
        of_task, own = super().figures(names, fitted), self._own()
        if twice := sorted(own.keys() & {*of_task, *self._evaluation.metrics, "loss", "examples"}):
            name = self._evaluation.name
            raise UserError(f"config.task.evaluation={name!r}: the task has a figure {twice[0]!r}, too")
        return of_task | own | {"own_figures": list(own)}

    def _own(self) -> dict[str, float]:
        name = self._evaluation.name
        kept = self.whole()
        assert kept is not None  # a split has examples
        outputs, targets = kept
        whole = self._evaluation.targets.whole(targets)
        smoothing = {"label_smoothing": jnp.zeros(())}
        pair = self._evaluation.loss.plain.pair(jnp.asarray(outputs), whole, smoothing, self._constants)
        figures = plugins.load("evaluations", name).function(*map(np.asarray, pair))
        try:
            return {str(key): float(value) for key, value in figures.items()}
        except (AttributeError, TypeError, ValueError):
            raise UserError(
                f"config.task.evaluation={name!r} gives {figures!r:.200}; it must give a mapping from names to numbers"
            ) from None


def loss(name: str, of_task: Loss, outputs: int) -> Loss:
    """The loss with an open name: a loss class that the user wrote, or a function of outputs and targets."""
    loaded = plugins.load("losses", name)
    if isinstance(loaded.target, type):
        return loaded.with_those({"outputs": outputs, "inner": of_task})()
    return OwnLoss(of_task, name)


def evaluation(name: str, of_task: Evaluation, loss: Loss, targets: Targets) -> Evaluation:
    """The evaluation with an open name: a class that the user wrote, or a function that adds figures to the task's."""
    loaded = plugins.load("evaluations", name)
    if isinstance(loaded.target, type):
        return loaded.function()
    return MoreFigures(name, of_task, loss, targets)
