"""Regression: one or several numbers for each image."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Facts, OfEach, Outputs, Settings, module_of
from jaxcnn.text import distinct, save_picture, shown

UNLIKE = 10  # ratio of the spreads of two numbers that is worth a remark
MOST_LOST = 0.001  # share of the standard deviation that labels may lose when they become float32
GROUPS = 10  # groups of examples by their first number, for stratified validation

Numbers = Float32[Array, "b k"]
Values = Float32[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True)
class Quantities:
    """Targets that are numbers, float32 [k]."""

    numbers: int

    @property
    def outputs(self) -> int:
        """The number of outputs: one for each number, in standard deviations of the training split from its mean."""
        return self.numbers

    def spec(self) -> jax.ShapeDtypeStruct:
        """The shape and type of a target: all numbers of an example."""
        return jax.ShapeDtypeStruct((self.numbers,), jnp.float32)

    def whole(self, target: Numbers) -> Numbers:
        """The targets unchanged."""
        return module_of(target).asarray(target)

    def mixed(self, target: Numbers, other: Numbers, share: OfEach) -> Numbers:
        """The mean of both targets, weighted by the shares of the images."""
        share = share[:, None]
        return target * share + other * (1.0 - share)

    def read(self, labels: np.ndarray, title: str, base: str) -> Values:
        """The labels, [n] or [n, k], as float32 [n, k]."""
        exact = labels.reshape(len(labels), -1).astype(np.float64)
        values = exact.astype(np.float32)
        if values.shape[1] != self.numbers:
            raise UserError(f"{title} {base}: labels have shape {labels.shape}, not (images, {self.numbers} numbers)")
        wrong = np.argwhere(~np.isfinite(values))
        if len(wrong):
            raise UserError(f"{title} {base}: the label at index {wrong[0][0]} is not a finite number")
        lost = np.abs(values - exact).max(axis=0, initial=0.0) > MOST_LOST * exact.std(axis=0) if len(exact) else []
        for column in np.flatnonzero(lost & (np.ptp(exact, axis=0) > 0) if len(exact) else []):
            mean, spread = float(exact[:, column].mean()), float(np.ptp(exact[:, column]))
            near = round(mean, -math.floor(math.log10(spread)))
            raise UserError(
                f"{title} {base}: labels such as {float(exact[0, column])!r} lose more than {100 * MOST_LOST:g} % of "
                f"their standard deviation as float32; subtract {near:.15g} from all first"
            )
        return values

    def check(self, targets: Values, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if a number is the same in all training examples."""
        for name, spread in zip(names, np.ptp(targets, axis=0), strict=True):
            if spread == 0:
                raise UserError(f"{name!r} is the same number in all examples of {description}: nothing can be learnt")

    def counts(self, targets: Values) -> None:
        """None, because numbers are not counted."""

    def groups(self, targets: Values) -> np.ndarray:
        """The group of each example, from 0 to 9: tenths of the examples by their first number."""
        edges = np.quantile(targets[:, 0], np.linspace(0, 1, GROUPS + 1)[1:-1])
        return np.searchsorted(edges, targets[:, 0], side="right")

    def remark(self, targets: Values, names: Sequence[str]) -> str:
        """Always empty: no split of numbers lacks anything."""
        return ""

    def describe(self, targets: Values, names: Sequence[str]) -> str:
        """The mean, standard deviation and range of each number, as text."""
        return ", ".join(
            f"{shown(name)} {column.mean():.4g} ± {column.std():.4g} ({column.min():.4g} to {column.max():.4g})"
            for name, column in zip(names, targets.T.astype(np.float64), strict=True)
        )

    def captions(self, target: Numbers, names: Sequence[str], width: int) -> list[str]:
        """The numbers of each example, separated by commas."""
        return [", ".join(f"{value:.4g}" for value in row) for row in np.asarray(target)]

    def facts(self, targets: Values) -> Facts:
        """The mean and standard deviation of each number in the training split."""
        values = targets.astype(np.float64)
        return {"mean": values.mean(axis=0).tolist(), "std": values.std(axis=0).tolist()}


@dataclasses.dataclass(frozen=True)
class StandardizedError:
    """The squared or absolute error, in standard deviations of the training split, averaged over the numbers.

    Attributes:
      numbers: how many numbers an example has.
      kind: "squared" or "absolute".
    """

    numbers: int
    kind: str = "squared"

    @property
    def plain(self) -> "StandardizedError":
        """This loss itself: training uses nothing besides."""
        return self

    @property
    def settings(self) -> tuple[str, ...]:
        """No settings: an empty tuple."""
        return ()

    def abstract(self) -> dict[str, Any]:
        """The shapes of the mean and standard deviation of each number."""
        of_each = jax.ShapeDtypeStruct((self.numbers,), jnp.float32)
        return {"target_mean": of_each, "target_std": of_each}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Values | None
    ) -> dict[str, Any]:
        """The mean and standard deviation of each number in the training split."""
        return {f"target_{name}": np.asarray(facts[name], np.float32) for name in ("mean", "std")}

    def pair(self, outputs: Outputs, target: Numbers, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """Outputs and targets, both in standard deviations of the training split from its mean."""
        return outputs, (target - constants.task["target_mean"]) / constants.task["target_std"]

    def losses(self, outputs: Outputs, target: Numbers, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The error of each example, averaged over its numbers."""
        outputs, wanted = self.pair(outputs, target, settings, constants)
        error = outputs - wanted
        return jnp.mean(jnp.square(error) if self.kind == "squared" else jnp.abs(error), axis=-1)

    def reported(self, outputs: Outputs, target: Numbers, constants: Any) -> OfEach:
        """The training loss of each example, which evaluation reports unchanged."""
        return self.losses(outputs, target, {}, constants, None)


def unlike_units(facts: Facts, names: Sequence[str]) -> str:
    """A remark if one of several numbers has a much larger unit than another; empty without such a number.

    Args:
      facts: from `Quantities.facts`.
      names: names of the numbers.
    """
    spreads = facts["std"]
    least, most = int(np.argmin(spreads)), int(np.argmax(spreads))
    if spreads[most] <= UNLIKE * spreads[least]:
        return ""
    return (
        f"{shown(names[most])} varies {spreads[most] / spreads[least]:.3g} times as much as {shown(names[least])}, so "
        "it rules the mean absolute error, which decides; with config.task.monitor='loss' each number counts by its "
        "own standard deviation"
    )


def in_units(outputs: Any, constants: Any) -> Any:
    """The outputs [n, k] of a network converted to the units of the targets."""
    return outputs * constants.task["target_std"] + constants.task["target_mean"]


@dataclasses.dataclass(frozen=True)
class Errors:
    """The mean absolute and squared error in the units of the targets; for a whole split also R²."""

    headline = Headline("mean_absolute_error", "mean absolute error", better="lower", percent=False)
    metrics: tuple[str, ...] = ("mean_absolute_error", "mean_squared_error")
    of_groups: tuple[str, ...] = ()
    collects: bool = False

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """No figures: validations record only the means over examples."""
        return {}

    def values(self, outputs: Outputs, target: Numbers, constants: Any) -> dict[str, OfEach]:
        """The absolute and the squared error of each example, averaged over its numbers."""
        error = in_units(outputs, constants) - target
        return {
            "mean_absolute_error": jnp.mean(jnp.abs(error), axis=-1),
            "mean_squared_error": jnp.mean(jnp.square(error), axis=-1),
        }

    def collector(self, constants: Any) -> "Predictions":
        """An empty collector of the numbers of all examples."""
        return Predictions(constants)

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """The numbers of each image in their units: `{"values": {name: number}}`."""
        values = np.asarray(in_units(outputs, constants), np.float64)
        return [{"values": dict(zip(names, row, strict=True))} for row in values.tolist()]

    def probabilities(self, outputs: np.ndarray) -> None:
        """None, because numbers have no probabilities."""

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """A column for each number, with its name."""
        return dict(answer["values"])

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with the errors of all numbers together and of each number."""
        lines = [
            f"mean absolute error {figures['mean_absolute_error']:.4g}  root of the mean squared error "
            f"{figures['mean_squared_error'] ** 0.5:.4g}  loss {figures['loss']:.4f}"
        ]
        lines += [
            f"{shown(name)}: mean absolute error {of['mean_absolute_error']:.4g}  root of the mean squared error "
            f"{of['root_mean_squared_error']:.4g}  R² {'unknown' if of['r2'] is None else format(of['r2'], '.4f')}"
            for name, of in figures["by_name"].items()
        ]
        if "tta" in figures:
            error = figures["tta_mean_absolute_error"]
            lines.append(f"with test-time augmentation ({figures['tta']}): mean absolute error {error:.4g}")
        return lines

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw predicted over true numbers for a sample of the examples."""
        from matplotlib.figure import Figure

        of_names = list(figures["by_name"].items())[:6]
        figure = Figure(figsize=(4.6 * len(of_names), 4.6), layout="constrained", dpi=130)
        for axes, (name, of) in zip(np.atleast_1d(figure.subplots(1, len(of_names))), of_names, strict=True):
            true, predicted = np.array(of["sample"]).T
            ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
            axes.plot(ends, ends, color="tab:gray", linewidth=1)
            axes.plot(true, predicted, ".", markersize=4, alpha=0.6)
            axes.set(xlabel=f"{shown(name)}, true", ylabel="predicted", title=path.stem)
        save_picture(figure, path)


class Predictions:
    """Collects the predicted and the true numbers of all examples."""

    SAMPLE = 1000  # examples whose numbers are kept in the figures, for the picture

    def __init__(self, constants: Any) -> None:
        self._constants = constants
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, outputs: np.ndarray, target: np.ndarray) -> None:
        """Add outputs float32 [n, k] and numbers float32 [n, k]."""
        self._parts.append((np.asarray(in_units(outputs, self._constants)), target))

    def fitted(self) -> dict[str, Any]:
        """Nothing is fitted: an empty mapping."""
        return {}

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The errors and R² of each number; R² is None if all true values are equal."""
        predicted, true = (np.concatenate(parts).astype(np.float64) for parts in zip(*self._parts, strict=True))
        shown_rows = np.linspace(0, len(true) - 1, min(len(true), self.SAMPLE)).astype(int)
        by_name = {}
        for name, guess, wanted in zip(distinct(tuple(names)), predicted.T, true.T, strict=True):
            error, spread = guess - wanted, float(np.square(wanted - wanted.mean()).sum())
            by_name[name] = {
                "mean_absolute_error": float(np.abs(error).mean()),
                "root_mean_squared_error": float(np.sqrt(np.square(error).mean())),
                "r2": 1 - float(np.square(error).sum()) / spread if spread else None,
                "sample": np.stack([wanted, guess], axis=1)[shown_rows].tolist(),
            }
        return {"by_name": by_name}
