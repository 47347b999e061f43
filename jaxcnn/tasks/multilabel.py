"""Multi-label classification: any number of classes for each image."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.tasks import areas, averaging, weights
from jaxcnn.tasks.binned import Binned, best_threshold, f1_figures
from jaxcnn.tasks.classes import lacks, without_examples
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Facts, OfEach, Outputs, Settings, module_of
from jaxcnn.text import distinct, listed, named, save_picture, shorten, shown

THRESHOLD = 0.5  # probability from which a class counts as predicted, unless thresholds were chosen on validation
FIGURE = "mean_average_precision"
MOST_KEPT = 2**25  # probabilities kept of a split

Hot = UInt8[np.ndarray, "n k"]
Shares = Float32[Array, "b k"]


@dataclasses.dataclass(frozen=True)
class LabelSets:
    """Targets that are sets of classes: uint8 [k], 1 for each class of the image."""

    classes: int

    @property
    def outputs(self) -> int:
        """The number of logits: one for each class."""
        return self.classes

    def spec(self) -> jax.ShapeDtypeStruct:
        """The shape and type of a target: one number for each class."""
        return jax.ShapeDtypeStruct((self.classes,), jnp.uint8)

    def whole(self, target: UInt8[Array, "b k"]) -> Shares:
        """The targets of unmixed images: 1 for each class of the image, else 0."""
        return module_of(target).asarray(target).astype(np.float32)

    def mixed(self, target: UInt8[Array, "b k"], other: UInt8[Array, "b k"], share: OfEach) -> Shares:
        """The targets of mixed images: each class counts as much as the share of its image."""
        share = share[:, None]
        return self.whole(target) * share + self.whole(other) * (1.0 - share)

    def read(self, labels: np.ndarray, title: str, base: str) -> Hot:
        """Labels [n, k] of 0 and 1 as they are; class numbers [n] as one class for each image."""
        if labels.ndim == 1 and self.classes == 1:  # the column of the only label
            labels = labels[:, None]
        if labels.ndim == 1:
            outside = (labels < 0) | (labels >= self.classes)
            if outside.any():
                wrong_label = labels[outside][0]
                raise UserError(f"{title} {base}: label {wrong_label} is out of range for {self.classes} classes")
            return np.eye(self.classes, dtype=np.uint8)[labels]
        if labels.ndim != 2 or labels.shape[1] != self.classes:
            raise UserError(f"{title} {base}: labels have shape {labels.shape}, not (images, {self.classes} classes)")
        wrong = np.argwhere((labels != 0) & (labels != 1))
        if len(wrong):
            row, column = wrong[0]
            raise UserError(f"{title} {base}: label {labels[row, column]} at index {row} is neither 0 nor 1")
        return labels.astype(np.uint8)

    def check(self, targets: Hot, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if a class has no image in the training split."""
        if lacking := without_examples(self.counts(targets), names):
            verb = "has" if len(lacking) == 1 else "have"
            raise UserError(f"{listed(lacking)} {verb} no examples in {description}; every class needs some")

    def counts(self, targets: Hot) -> np.ndarray:
        """The number of images of each class."""
        return targets.sum(axis=0, dtype=np.int64)

    def groups(self, targets: Hot) -> np.ndarray:
        """Group numbers; images with the same set of classes form a group."""
        return np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)

    def remark(self, targets: Hot, names: Sequence[str]) -> str:
        """Says which classes have no example, as the end of a sentence; empty if all have some."""
        return lacks(without_examples(self.counts(targets), names))

    def describe(self, targets: Hot, names: Sequence[str]) -> str:
        """The first class names with their numbers of examples, and the mean number of classes of an image."""
        counts = self.counts(targets)
        told = ", ".join(f"{shown(name)} {count}" for name, count in list(zip(names, counts, strict=True))[:20])
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return f"{told}{more}; {targets.sum(axis=1).mean():.2f} per image"

    def captions(self, target: Shares, names: Sequence[str], width: int) -> list[str]:
        """Captions such as "cat, dog", or "cat 70 %, dog 30 %" for a mixed image."""

        def part(name: str, share: float) -> str:
            return shorten(name, width) if share == 1 else f"{shorten(name, width - 6)} {round(100 * share)} %"

        return [
            ", ".join(part(names[int(k)], float(row[k])) for k in np.flatnonzero(row)) or "none"
            for row in np.asarray(target)
        ]

    def facts(self, targets: Hot) -> Facts:
        """No facts: the number of classes is known from their names."""
        return {}


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Binary cross-entropy of each class in nats, averaged over the classes.

    Attributes:
      classes: number of classes.
      weighted: whether the term for the presence of each class has a weight, in constants["class_weights"].
      focal: whether well-classified classes count less (Lin et al. 2017, arXiv 1708.02002), by settings["focal_gamma"].
    """

    classes: int
    weighted: bool = False
    focal: bool = False

    @property
    def plain(self) -> "BinaryCrossEntropy":
        """The cross-entropy without weights and focal loss."""
        return BinaryCrossEntropy(self.classes)

    @property
    def settings(self) -> tuple[str, ...]:
        """The name of the exponent of the focal loss, if it is used."""
        return ("focal_gamma",) if self.focal else ()

    def abstract(self) -> dict[str, Any]:
        """The shape of the class weights, if there are any."""
        return {"class_weights": jax.ShapeDtypeStruct((self.classes,), jnp.float32)} if self.weighted else {}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Hot | None
    ) -> dict[str, Any]:
        """The class weights, if there are any."""
        if targets is None or not self.weighted:
            return {}
        return {"class_weights": weights.class_weights(config, names, targets.sum(axis=0, dtype=np.int64))}

    def pair(self, outputs: Outputs, target: Shares, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """The logits, and the smoothed targets; both [b, k]."""
        smoothing = settings["label_smoothing"]
        return outputs, target * (1.0 - smoothing) + 0.5 * smoothing

    def losses(self, outputs: Outputs, target: Shares, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The training loss of each example; label smoothing moves the targets towards 1/2."""
        outputs, target = self.pair(outputs, target, settings, constants)
        present, absent = jax.nn.log_sigmoid(outputs), jax.nn.log_sigmoid(-outputs)
        if self.focal:
            gamma = settings["focal_gamma"]
            present, absent = present * jnp.exp(gamma * absent), absent * jnp.exp(gamma * present)
        weight = constants.task["class_weights"] if self.weighted else 1.0
        return -jnp.mean(weight * target * present + (1.0 - target) * absent, axis=-1)

    def reported(self, outputs: Outputs, target: Shares, constants: Any) -> OfEach:
        """The cross-entropy of each example without smoothing, weights or focal loss."""
        return self.plain.losses(outputs, target, {"label_smoothing": jnp.zeros(())}, constants, None)


@dataclasses.dataclass(frozen=True)
class SetFigures:
    """Mean average precision, AUROC, F1 over classes, decisions and images, and exact matches."""

    headline = Headline(FIGURE, "mean average precision")
    metrics: tuple[str, ...] = ("sample_f1", "exact_match")
    of_groups: tuple[str, ...] = (FIGURE, *areas.NAMES)
    collects: bool = True

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """The mean average precision, by name."""
        return {FIGURE: figures[FIGURE]}

    def values(self, outputs: Outputs, target: Shares, constants: Any) -> dict[str, OfEach]:
        """The F1 of each image, and whether its set of classes is predicted exactly, at a threshold of 0.5."""
        guess, wanted = jnp.asarray(outputs) >= 0, jnp.asarray(target) >= 0.5
        right, total = jnp.sum(guess & wanted, -1), jnp.sum(guess, -1) + jnp.sum(wanted, -1)
        f1 = jnp.where(total > 0, 2.0 * right / jnp.maximum(total, 1), 1.0)
        return {"sample_f1": f1, "exact_match": jnp.all(guess == wanted, axis=-1).astype(jnp.float32)}

    def collector(self, constants: Any) -> "Probabilities":
        """An empty collector of the probabilities and the sets of all images."""
        return Probabilities()

    def answers(
        self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The predicted classes and all probabilities: `{"labels": [...], "probabilities": {name: probability}}`."""
        thresholds = np.asarray(fitted.get("thresholds", [THRESHOLD] * len(names)))
        return [
            {
                "labels": [name for name, value, least in zip(names, row, thresholds, strict=True) if value >= least],
                "probabilities": {name: float(value) for name, value in zip(names, row, strict=True)},
            }
            for row in sigmoid(outputs)
        ]

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """The sigmoid of the logits."""
        return sigmoid(outputs)

    def averaged(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The logits whose sigmoid is the mean sigmoid of several logits."""
        return averaging.of_sigmoid(outputs)

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The predicted classes, separated by ";", and a column for the probability of each class."""
        return {"labels": ";".join(answer["labels"])} | dict(answer["probabilities"])

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with mean average precision, AUROC, F1, and the best and worst classes."""
        ranked = sorted((ap, name) for name, ap in figures["average_precision"].items() if ap is not None)
        lines = [
            f"mean average precision {100 * figures[FIGURE]:.2f}%  loss {figures['loss']:.4f}  "
            f"exact match {100 * figures['exact_match']:.2f}%",
            *areas.describe(figures),
            "F1 at 0.5: " + _f1s(figures["at_half"]),
        ]
        if "at_thresholds" in figures:
            lines.append("F1 at thresholds chosen on validation: " + _f1s(figures["at_thresholds"]))
        if "tta" in figures:
            lines.append(f"with test-time augmentation ({figures['tta']}): loss {figures['tta_loss']:.4f}")
        told = [f"{named(name)} {100 * ap:.1f}%" for ap, name in ranked]
        return [*lines, f"best classes: {', '.join(told[::-1][:3])}; worst: {', '.join(told[:3])}"]

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw a bar for the average precision of each class."""
        from matplotlib.figure import Figure

        known = [(name, ap) for name, ap in figures["average_precision"].items() if ap is not None]
        known.sort(key=lambda pair: pair[1])
        known = known if len(known) <= 60 else known[:30] + known[-30:]
        figure = Figure(figsize=(7, 1.2 + 0.24 * len(known)), layout="constrained", dpi=130)
        axes = figure.subplots()
        bars = axes.barh([shorten(shown(name), 40) for name, _ in known], [100 * ap for _, ap in known])
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axes.axvline(100 * figures[FIGURE], color="tab:red", linewidth=1, linestyle="--")
        axes.set(xlim=(0, 108), xlabel=f"average precision (%); mean {100 * figures[FIGURE]:.2f}", title=path.stem)
        axes.margins(y=0.01)
        save_picture(figure, path)


class Probabilities:
    """Collects the probabilities float32 [n, k] of all images, and their sets uint8 [n, k].

    Of more than `MOST_KEPT` probabilities, only counts are kept (`jaxcnn.tasks.binned`); of more than `limit` allows,
    counts if they are fewer, and else nothing.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] | None = []
        self._most: int | None = None  # from `limit`
        self._binned: Binned | None = None

    def add(self, outputs: np.ndarray, target: np.ndarray) -> None:
        """Add logits float32 [n, k] and sets uint8 [n, k]."""
        if self._parts is None:
            return
        self._parts.append((sigmoid(outputs), target))
        if self._binned is None and sum(part.size for part, _ in self._parts) > (self._most or MOST_KEPT):
            if self._most is not None and Binned.numbers(outputs.shape[1]) > self._most:
                self._parts = None
                return
            self._binned = Binned(outputs.shape[1])
        if self._binned is not None:
            for probabilities, wanted in self._parts:
                self._binned.add(probabilities, wanted.astype(bool), THRESHOLD)
            self._parts = []

    def limit(self, most: int) -> None:
        """As in `by_group.Limited`: at most `most` probabilities or counts are kept."""
        self._most = max(1, most)

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        assert self._parts  # of a whole split, or within the limit
        probabilities, wanted = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return probabilities, wanted.astype(bool)

    def fitted(self) -> dict[str, Any]:
        """The threshold of each class that has the best F1; used for the validation split."""
        if self._binned is not None:
            return {"thresholds": self._binned.thresholds(THRESHOLD)}
        probabilities, wanted = self._all()
        return {"thresholds": [best_threshold(p, w) for p, w in zip(probabilities.T, wanted.T, strict=True)]}

    def figures(self, names: Sequence[str], fitted: Mapping[str, Any]) -> dict[str, Any]:
        """Average precision and AUROC of each class (None without an example), their means, and three kinds of F1.

        An empty mapping if nothing was kept.
        """
        if self._parts is None:
            return {}
        names = distinct(tuple(names))
        if self._binned is not None:
            return _means(names, self._binned.average_precisions(), self._binned.f1_figures(THRESHOLD))
        probabilities, wanted = self._all()
        of_each = [average_precision(p, w) if w.any() else None for p, w in zip(probabilities.T, wanted.T, strict=True)]
        figures = _means(names, of_each, f1_figures(probabilities >= THRESHOLD, wanted))
        figures |= areas.figures(probabilities, wanted, names)
        if "thresholds" in fitted:
            thresholds = np.asarray(fitted["thresholds"], np.float32)
            figures |= {"thresholds": dict(zip(names, fitted["thresholds"], strict=True))}
            figures |= {"at_thresholds": f1_figures(probabilities >= thresholds, wanted)}
        return figures


def _means(names: Sequence[str], of_each: Sequence[float | None], at_half: Mapping[str, float]) -> dict[str, Any]:
    known = [value for value in of_each if value is not None]
    return {
        FIGURE: float(np.mean(known)) if known else 0.0,
        "average_precision": dict(zip(names, of_each, strict=True)),
        "at_half": dict(at_half),
    }


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits, float32."""
    from scipy.special import expit

    return expit(np.asarray(logits, np.float32))


def average_precision(scores: np.ndarray, wanted: np.ndarray) -> float:
    """The area under precision over recall, as a sum of steps; equal scores are one step.

    Args:
      scores: [n], larger for more probable.
      wanted: bool [n], some of them True.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each run of equal scores
    right = np.cumsum(wanted[order])[last]
    precision, recall = right / (last + 1), right / right[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _f1s(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{kind} {100 * figures[f'{kind}_f1']:.2f}%" for kind in ("micro", "macro", "sample"))
