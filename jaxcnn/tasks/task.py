"""A task is three parts, each with one question: targets, loss and evaluation.

All parts are frozen dataclasses without arrays: the task is a static part of the compiled step. Numbers that depend on
the data, such as class weights, are its `constants`, and numbers that a sweep may vary are its `settings`; both are
inputs of the step.
"""

import dataclasses
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

import jaxcnn.config as configuration
from jaxcnn.tasks.headline import Headline

Outputs = Float32[Any, "b k"]  # outputs of the network
OfEach = Float32[Array, " b"]
Settings = Mapping[str, Float32[Array, ""]]
Tree = Any  # a pytree of arrays whose first dimension is that of the examples
Facts = Mapping[str, Any]  # JSON


def module_of(array: Any) -> Any:
    """The module for an array: NumPy for NumPy arrays, for which nothing has to be compiled; jax.numpy for others."""
    return np if isinstance(array, np.ndarray) else jnp


class Targets(Protocol):
    """Defines the answer for an example, and how answers are mixed when images are mixed."""

    @property
    def outputs(self) -> int:
        """The number of outputs of the network."""
        ...

    def spec(self) -> Tree:
        """The `jax.ShapeDtypeStruct`s of the target of one example."""
        ...

    def whole(self, target: Tree) -> Tree:
        """Targets of unmixed images, as losses and metrics take them; NumPy for NumPy arrays."""
        ...

    def mixed(self, target: Tree, other: Tree, share: OfEach) -> Tree:
        """Targets of images with `share` of their own pixels and the rest of another image, as losses take them."""
        ...

    def read(self, labels: np.ndarray, title: str, base: str) -> Tree:
        """The targets of a base split from the labels that a source gave, as NumPy arrays.

        Args:
          labels: [n, ...], one row for each example.
          title: name of the set, for messages.
          base: name of the base split, for messages.

        Raises:
          UserError: some labels cannot be targets of this kind.
        """
        ...

    def check(self, targets: Tree, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if a network cannot learn from the targets of the training split.

        Args:
          targets: targets of the training split.
          names: names of the outputs.
          title: name of the set, for messages.
          description: description of the split, for messages.
          lowest: the smallest label in the base splits.
        """
        ...

    def counts(self, targets: Tree) -> np.ndarray | None:
        """The number of examples that have each output as their answer, integers [k]; None if this says nothing."""
        ...

    def groups(self, targets: Tree) -> np.ndarray:
        """Group numbers, integers [n]; holding out with `data.stratify` takes an equal share of each group."""
        ...

    def remark(self, targets: Tree, names: Sequence[str]) -> str:
        """Says what a validation or test split lacks, as the end of a sentence; empty if it lacks nothing."""
        ...

    def describe(self, targets: Tree, names: Sequence[str]) -> str:
        """The names of the outputs as text, and how often each occurs if that differs much."""
        ...

    def captions(self, target: Tree, names: Sequence[str], width: int) -> list[str]:
        """Targets from `whole` or `mixed` in words, each name cut to `width` characters."""
        ...

    def facts(self, targets: Tree) -> Facts:
        """The facts about the targets of the training split that a network depends on later, JSON; empty if none."""
        ...


class Loss(Protocol):
    """Defines how wrong an output is."""

    @property
    def plain(self) -> "Loss":
        """The loss without what only training uses; for evaluation and prediction."""
        ...

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the loss settings, except label smoothing."""
        ...

    def abstract(self) -> dict[str, Any]:
        """The shapes of `constants`: a pytree of `jax.ShapeDtypeStruct`s by name."""
        ...

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Tree | None
    ) -> dict[str, Any]:
        """The arrays that the task needs besides the batch, by name; empty if none.

        Args:
          config: the group `config.task`.
          names: names of the outputs.
          facts: from `Targets.facts`.
          targets: targets of the training split; None for a `plain` loss.
        """
        ...

    def pair(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """Outputs and targets of the same shape and meaning, which the loss compares; arguments as in `losses`."""
        ...

    def losses(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The training loss of each example, whose mean over the batch is minimised.

        Args:
          outputs: outputs of the network.
          target: from `Targets.whole` or `Targets.mixed`.
          settings: numbers of the config that are inputs of the step.
          constants: `data.batch.Constants`: the normalisation, and in `task` the arrays of `constants`.
          image: the normalised images, as the network got them.
        """
        ...

    def reported(self, outputs: Outputs, target: Tree, constants: Any) -> OfEach:
        """The loss that evaluation reports: without smoothing, weights or the like."""
        ...


class Collector(Protocol):
    """Collects the outputs of a network for a split, to compute the figures that are not means over examples."""

    def add(self, outputs: np.ndarray, target: Tree) -> None:
        """Add the outputs [n, k] and the targets of some examples."""
        ...

    def fitted(self) -> dict[str, Any]:
        """What is fitted to the examples added, those of the validation split, JSON; empty if nothing is."""
        ...

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The figures of all examples added, JSON.

        Args:
          names: names of the outputs.
          fitted: from `fitted` for the validation split; empty without one.
        """
        ...


class Evaluation(Protocol):
    """Defines which figures are reported, which figure decides, and how an answer is shown."""

    @property
    def headline(self) -> Headline:
        """The figure that decides which weights are best."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the figures that are means over examples, without the loss."""
        ...

    @property
    def collects(self) -> bool:
        """Whether every validation records figures of a collector."""
        ...

    @property
    def of_groups(self) -> tuple[str, ...]:
        """The names of the collector's figures that each group of a split has, too (`jaxcnn.tasks.by_group`)."""
        ...

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """The figures of a collector that every validation records, as numbers by name."""
        ...

    def values(self, outputs: Outputs, target: Tree, constants: Any) -> dict[str, OfEach]:
        """The `metrics` of each example; `target` comes from `Targets.whole` or `Targets.mixed`."""
        ...

    def collector(self, constants: Any) -> Collector:
        """An empty collector; `constants` as in `Loss.losses`."""
        ...

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """The answer for each row of outputs [n, k], JSON; for the arguments see `Collector`."""
        ...

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """The probability of each output; None if the outputs are not classes."""
        ...

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer as columns of a table."""
        ...

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """The figures of a split as a few readable lines."""
        ...

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw the figures of a split as a picture."""
        ...


@runtime_checkable
class Finding(Protocol):
    """An evaluation of outputs among which the answers have to be found first, within the compiled program.

    Collectors and `answers` then get what is found, not the outputs.
    """

    @property
    def found_in_words(self) -> str:
        """A description of what `found` returns, for the users of an exported network."""
        ...

    def found(self, outputs: Any) -> Any:
        """The answers found in the outputs of a batch: an array [b, ...]."""
        ...

    def in_stored(self, answer: dict[str, Any], frame: np.ndarray, sides: tuple[int, int]) -> dict[str, Any]:
        """An answer converted to pixels of the stored image.

        Args:
          answer: from `Evaluation.answers`.
          frame: (scale_x, scale_y, left, top): maps places in the stored image to places in the network's.
          sides: height and width of the stored image.
        """
        ...

    def in_words(self, answer: Mapping[str, Any]) -> str:
        """An answer in one line."""
        ...

    def as_file(self, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
        """The answers for files (each has "file", and "error" or an answer) in a form that other tools read, JSON."""
        ...

    def drawn(self, image: np.ndarray, answer: Mapping[str, Any]) -> np.ndarray:
        """A stored image, uint8 [h, w, 3], with an answer from `in_stored` drawn into it."""
        ...


@runtime_checkable
class FindingBoxes(Finding, Protocol):
    """Finds boxes; each box is the answer of one place in the outputs."""

    def of_places(self, outputs: Any) -> tuple[Any, Any]:
        """The answers of the a places of an image: boxes [b, a, 4], or [b, a, k, 4]; and logits [b, a, k]."""
        ...


@runtime_checkable
class FindingMaps(Finding, Protocol):
    """Finds a map: an answer for each pixel."""

    def over_image(self, outputs: Any) -> Any:
        """One number for each class over the whole image, [b, k], for methods that explain this number."""
        ...


@runtime_checkable
class FindingWithin(Protocol):
    """An evaluation whose answers the network itself finds, because later layers use what is found."""

    @property
    def search(self) -> Mapping[str, Any]:
        """The fields of the network that say how it finds, with their values."""
        ...


@dataclasses.dataclass(frozen=True)
class Task:
    """Defines what the network learns; a static part of the compiled step."""

    targets: Targets
    loss: Loss
    evaluation: Evaluation

    @property
    def finds(self) -> Finding | None:
        """The evaluation, if answers have to be found in the outputs; None if the outputs are the answers."""
        return self.evaluation if isinstance(self.evaluation, Finding) else None

    @property
    def finds_boxes(self) -> FindingBoxes | None:
        """The evaluation, if it finds boxes among the answers of places and not within the network; else None."""
        boxes = isinstance(self.evaluation, FindingBoxes) and not isinstance(self.evaluation, FindingWithin)
        return self.evaluation if boxes else None  # type: ignore[return-value]

    @property
    def finds_maps(self) -> FindingMaps | None:
        """The evaluation, if it finds maps; else None."""
        return self.evaluation if isinstance(self.evaluation, FindingMaps) else None

    @property
    def trained(self) -> "Task":
        """The task of a trained network, whose loss is `plain`."""
        return dataclasses.replace(self, loss=self.loss.plain)

    def figures(
        self,
        outputs: np.ndarray,
        targets: Tree,
        names: Sequence[str],
        constants: Any = None,
        fitted: Facts = types.MappingProxyType({}),
    ) -> dict[str, Any]:
        """The figures for outputs float32 [N, K] and the targets of N examples, computed as for a whole split."""
        whole = self.targets.whole(targets)
        of_each = {"loss": self.loss.reported(outputs, whole, constants)}
        of_each |= self.evaluation.values(outputs, whole, constants)
        means = {name: float(np.asarray(values, np.float64).mean()) for name, values in of_each.items()}
        collector = self.evaluation.collector(constants)
        collector.add(outputs, targets)
        return {"examples": len(outputs), **means, **collector.figures(names, fitted)}
