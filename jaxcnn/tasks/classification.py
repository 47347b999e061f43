"""Classification: one class for each image."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float32, Int32

import jaxcnn.config as configuration
from jaxcnn.tasks import averaging, confusion, screening, weights
from jaxcnn.tasks.classes import Mixed
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Facts, OfEach, Outputs, Settings
from jaxcnn.tasks.temperature import best_temperature, temperature_of
from jaxcnn.text import named

CALIBRATION_BINS = 15
MOST_AT_ONCE = 2**22  # float64 probabilities computed at once: examples times classes
MOST_KEPT = 2**25  # logits kept of a split
SMALLEST = 1e-7  # smallest value of 1 - probability, so that its power has a finite gradient
ANSWERS = 5  # classes in the answer for an image


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy in nats; label smoothing, class weights and the other options only count in training.

    Attributes:
      classes: number of classes.
      weighted: whether each class has a weight, in constants["class_weights"].
      focal: whether well-classified examples count less (Lin et al. 2017, arXiv 1708.02002), by
        settings["focal_gamma"].
      adjusted: whether logits are shifted by the logarithm of the class's frequency, times
        settings["logit_adjustment"], so that the network itself favours no frequent class (Menon et al. 2020, arXiv
        2007.07314, equation 10).
      generalized: whether (1 - p^q) / q takes the place of -log p, with q = settings["generalized_q"]: a loss of at
        most 1 / q, which bears labels that are partly wrong (Zhang and Sabuncu 2018, arXiv 1805.07836); q = 1 is the
        distance 1 - p.
    """

    classes: int
    weighted: bool = False
    focal: bool = False
    adjusted: bool = False
    generalized: bool = False

    @property
    def plain(self) -> "CrossEntropy":
        """The cross-entropy without class weights and other options."""
        return CrossEntropy(self.classes)

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings of the options that are used."""
        used = {
            "focal_gamma": self.focal,
            "logit_adjustment": self.adjusted,
            "generalized_q": self.generalized,
        }
        return tuple(name for name, there in used.items() if there)

    def abstract(self) -> dict[str, Any]:
        """The shapes of the class weights and the logarithms of class frequencies, as far as they are used."""
        of_each = jax.ShapeDtypeStruct((self.classes,), jnp.float32)
        used = {"class_weights": self.weighted, "log_frequencies": self.adjusted}
        return {name: of_each for name, there in used.items() if there}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Int32[np.ndarray, " n"] | None
    ) -> dict[str, Any]:
        """The class weights and the logarithms of class frequencies, as far as they are used."""
        if targets is None:
            return {}
        counts = np.bincount(targets, minlength=self.classes)
        found = {}
        if self.weighted:
            found["class_weights"] = weights.class_weights(config, names, counts)
        if self.adjusted:
            found["log_frequencies"] = weights.log_frequencies(counts)
        return found

    def pair(self, outputs: Outputs, target: Mixed, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """The logits, adjusted if the config asks for it, and the smoothed target distributions; both [b, k]."""
        if self.adjusted:
            outputs = outputs + settings["logit_adjustment"] * constants.task["log_frequencies"]
        return outputs, smoothed(target, self.classes, settings["label_smoothing"])

    def losses(self, outputs: Outputs, target: Mixed, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The training loss of each example, with smoothed targets, class weights and all other options."""
        outputs, wanted = self.pair(outputs, target, settings, constants)
        log_probability = jax.nn.log_softmax(outputs)
        q = settings.get("generalized_q")
        terms = wanted * (log_probability if q is None else jnp.expm1(q * log_probability) / q)
        if self.weighted:
            terms = terms * constants.task["class_weights"]
        if self.focal:
            terms = terms * jnp.maximum(-jnp.expm1(log_probability), SMALLEST) ** settings["focal_gamma"]
        return -jnp.sum(terms, axis=-1)

    def reported(self, outputs: Outputs, target: Mixed, constants: Any) -> OfEach:
        """The cross-entropy of each example without smoothing, class weights or other options."""
        return self.plain.losses(outputs, target, {"label_smoothing": jnp.zeros(())}, constants, None)


def smoothed(target: Mixed, classes: int, label_smoothing: Float32[ArrayLike, ""]) -> Float32[Array, "b k"]:
    """The target distributions [b, k]: `share` on `label`, the rest on `other`, mixed with the uniform distribution.

    `label_smoothing` in [0, 1) is the share of the uniform distribution (Szegedy et al. 2015, arXiv 1512.00567).
    """
    share = jnp.asarray(target.share)[:, None]
    one_hot = jax.nn.one_hot(target.label, classes) * share + jax.nn.one_hot(target.other, classes) * (1.0 - share)
    return one_hot * (1.0 - label_smoothing) + label_smoothing / classes


def in_top_k(logits: Float32[ArrayLike, "b classes"], label: Int32[ArrayLike, " b"], k: int) -> Bool[Array, " b"]:
    """Whether `label` is among the k largest logits; equal logits of other classes rank first, NaN never counts."""
    logits, label = jnp.asarray(logits), jnp.asarray(label)
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    ahead = jnp.sum((logits >= own) & (jnp.arange(logits.shape[-1]) != label[:, None]), axis=-1)
    return (ahead < k) & jnp.isfinite(own[:, 0])


def hits(logits: Outputs, target: Mixed, k: int) -> OfEach:
    """The total share of each example's labels that are among the k largest logits."""
    first = in_top_k(logits, target.label, k) * target.share
    return first + in_top_k(logits, target.other, k) * (1.0 - target.share)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy; for a whole split also the confusion matrix, figures of each class, and calibration.

    Attributes:
      specificity: if above 0, the figures of `screening` are also reported, with the sensitivity at this specificity.
    """

    specificity: float = 0.0
    headline = Headline("top1_accuracy", "accuracy")
    metrics: tuple[str, ...] = ("top1_accuracy", "top5_accuracy")
    right = "top1_accuracy"
    collects: bool = False

    @property
    def of_groups(self) -> tuple[str, ...]:
        """The figures of groups that are not means over their examples."""
        return (
            "balanced_accuracy",
            "macro_auroc",
            *(("screening", "macro_auroc_interval") if self.specificity else ()),
        )

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """No figures: validations record only the means over examples."""
        return {}

    def values(self, outputs: Outputs, target: Mixed, constants: Any) -> dict[str, OfEach]:
        """Whether each example's class is the most probable one, and whether it is among the first five."""
        return {name: hits(outputs, target, k) for name, k in zip(self.metrics, (1, 5), strict=True)}

    def collector(self, constants: Any) -> "Guesses":
        """A collector of each example's predicted class and probability; and of the logits if they are not too many."""
        return Guesses(self.specificity)

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """The most probable classes of each image: `{"label", "probability", "top": [{"label", "probability"}, …]}`.

        The logits are divided by the temperature of `fitted` (`temperature_of`).
        """
        found = []
        for row in self.probabilities(outputs / np.float32(temperature_of(fitted))):
            order = np.argsort(-row, kind="stable")[:ANSWERS]
            top = [{"label": names[k], "probability": float(row[k])} for k in order]
            found.append({**top[0], "top": top})
        return found

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """The softmax of the logits, computed by NumPy because the number of images may be any."""
        from scipy.special import softmax

        return softmax(outputs.astype(np.float64), axis=-1).astype(np.float32)

    def averaged(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The logits whose softmax is the mean softmax of several logits."""
        return averaging.of_softmax(outputs)

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The columns label, probability, label_2, probability_2, …"""
        row: dict[str, Any] = {}
        for number, one in enumerate(answer["top"], start=1):
            end = f"_{number}" if number > 1 else ""
            row |= {f"label{end}": one["label"], f"probability{end}": one["probability"]}
        return row

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with accuracies, calibration, means over classes, and the best and worst classes."""
        return describe(figures)

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw the confusion matrix."""
        confusion.draw(confusion.Confusion.from_json(figures["confusion_matrix"]), names, path)


class Guesses:
    """Collects each example's predicted class (int64), its probability (float64), and the true label (int32).

    Logits, float32 [n, K], are kept as long as they are at most `MOST_KEPT` numbers. With a `specificity` above 0, the
    figures of `screening` are among those of the split.
    """

    def __init__(self, specificity: float = 0.0) -> None:
        self._specificity = specificity
        self._most: int | None = None  # from `limit`
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._logits: list[np.ndarray] | None = []

    def add(self, outputs: np.ndarray, target: np.ndarray) -> None:
        """Add logits float32 [n, K] and labels int32 [n]."""
        self._parts.append((*judge(outputs), target))
        if self._logits is not None:
            self._logits.append(outputs)
            if sum(part.size for part in self._logits) > (self._most or MOST_KEPT):
                self._logits = None

    def limit(self, most: int) -> None:
        """As in `by_group.Limited`: at most `most` logits are kept."""
        self._most = max(1, most)

    def fitted(self) -> dict[str, Any]:
        """The temperature that divides logits for the lowest cross-entropy (Guo et al. 2017, arXiv 1706.04599).

        With a specificity, also the threshold of each class that reaches it.
        """
        if self._logits is None:
            return {}
        labels = np.concatenate([part[2] for part in self._parts])
        logits = np.concatenate(self._logits)
        found: dict[str, Any] = {"temperature": best_temperature(logits, labels)}
        if self._specificity:
            found["thresholds"] = screening.thresholds(probabilities(logits), labels, self._specificity)
        return found

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """Confusion matrix (rows: true class), figures of each class, calibration error, and area under the ROC curve.

        The calibration error is the expected one of Guo et al. 2017, with 15 bins of equal width; after temperature
        scaling, if a temperature was fitted, it is "calibrated_error".
        """
        guess, confidence, labels = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        matrix = confusion.Confusion.of(labels, guess, len(names))
        figures: dict[str, Any] = {"calibration_error": calibration_error(confidence, guess == labels)}
        if self._logits is not None:
            logits = np.concatenate(self._logits)
            if "temperature" in fitted:
                figures["temperature"] = fitted["temperature"]
                _, scaled = judge(logits / fitted["temperature"])
                figures["calibrated_error"] = calibration_error(scaled, guess == labels)
            figures["macro_auroc"] = macro_auroc(logits, labels)
            if self._specificity:
                figures |= screening.figures(probabilities(logits), labels, names, fitted.get("thresholds", ()))
        return {**figures, **confusion.by_class(matrix, names)}


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax, float64 [n, K], of logits float32 [n, K]."""
    from scipy.special import softmax

    found: np.ndarray = softmax(logits.astype(np.float64), axis=-1)
    return found


def judge(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The predicted class, int64 [n], and its probability, float64 [n], from logits float32 [n, K]."""
    from scipy.special import softmax

    rows = max(1, MOST_AT_ONCE // logits.shape[-1])
    confidences = [np.empty(0)]
    for first in range(0, len(logits), rows):
        confidences.append(softmax(logits[first : first + rows].astype(np.float64), axis=-1).max(axis=-1))
    return logits.argmax(-1), np.concatenate(confidences)


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The area under the ROC curve of each class against the rest, averaged over classes.

    Classes that have no example, or all of them, are left out; None if that leaves none.

    Args:
      logits: float32 [n, K].
      labels: int32 [n].
    """
    areas = []
    for k, scores in enumerate(probabilities(logits).T):
        of_class, others = scores[labels == k], np.sort(scores[labels != k])
        if len(of_class) and len(others):
            # Of all pairs, those where the example of the class has the higher score; equal scores count half.
            below, up_to = (np.searchsorted(others, of_class, side).sum() for side in ("left", "right"))
            areas.append((below + up_to) / (2 * len(of_class) * len(others)))
    return float(np.mean(areas)) if areas else None


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The mean distance between confidence [N] and accuracy over bins of confidence, weighted by their examples.

    `right` says for each example whether its guess is right, bool [N].
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    which = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def describe(figures: Mapping[str, Any]) -> list[str]:
    """The figures of a split as a few readable lines."""
    per_class = sorted(
        (accuracy, name) for name, accuracy in figures["per_class_accuracy"].items() if accuracy is not None
    )
    worst = ", ".join(f"{named(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[:3])
    best = ", ".join(f"{named(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[::-1][:3])
    absent = sum(accuracy is None for accuracy in figures["per_class_accuracy"].values())
    without = f", except {absent} without examples in this split" if absent else ""
    scaled = ""
    if "calibrated_error" in figures:
        error, temperature = 100 * figures["calibrated_error"], figures["temperature"]
        scaled = f" ({error:.2f}% with the temperature {temperature:.2f}, fitted on validation)"
    area = "" if figures.get("macro_auroc") is None else f"  AUROC {100 * figures['macro_auroc']:.2f}%"
    augmented = []
    if "tta" in figures:
        augmented.append(
            f"with test-time augmentation ({figures['tta']}): top-1 {100 * figures['tta_top1_accuracy']:.2f}%  "
            f"top-5 {100 * figures['tta_top5_accuracy']:.2f}%  loss {figures['tta_loss']:.4f}"
        )
    return [
        f"top-1 {100 * figures['top1_accuracy']:.2f}%  top-5 {100 * figures['top5_accuracy']:.2f}%  "
        f"loss {figures['loss']:.4f}  calibration error {100 * figures['calibration_error']:.2f}%{scaled}",
        f"balanced accuracy {100 * figures['balanced_accuracy']:.2f}%  "
        + "  ".join(f"{name} {100 * figures[f'macro_{name}']:.2f}%" for name in ("precision", "recall", "f1"))
        + f"{area} (means over classes{without})",
        *screening.describe(figures),
        *augmented,
        f"recall of the best classes: {best}; of the worst: {worst}",
    ]
