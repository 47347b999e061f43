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

from jaxcnn.tasks import confusion
from jaxcnn.tasks.classes import Mixed
from jaxcnn.tasks.task import Facts, Headline, OfEach, Outputs, Settings
from jaxcnn.text import shown

CALIBRATION_BINS = 15
MOST_AT_ONCE = 2**22  # float64 probabilities computed at once: examples times classes
ANSWERS = 5  # classes in the answer for an image


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy in nats, with label smoothing in training."""

    @property
    def plain(self) -> "CrossEntropy":
        """The same."""
        return self

    def abstract(self) -> dict[str, Any]:
        """No constants."""
        return {}

    def constants(self, facts: Facts, targets: Int32[np.ndarray, " n"] | None) -> dict[str, Any]:
        """None."""
        return {}

    def losses(self, outputs: Outputs, target: Mixed, settings: Settings, constants: Any, image: Any) -> OfEach:
        """Cross-entropy with the smoothed target."""
        return cross_entropy(outputs, target, settings["label_smoothing"])

    def reported(self, outputs: Outputs, target: Mixed, constants: Any) -> OfEach:
        """Cross-entropy without smoothing."""
        return cross_entropy(outputs, target, jnp.zeros(()))


def cross_entropy(
    logits: Float32[ArrayLike, "b k"], target: Mixed, label_smoothing: Float32[ArrayLike, ""]
) -> Float32[Array, " b"]:
    """Cross-entropy of each example with a mixed and smoothed target.

    The target is `share` on `label` and the rest on `other`, then mixed with the uniform distribution by
    `label_smoothing` (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
      logits: the logits of each example.
      target: numbers of the classes, and the share of the first.
      label_smoothing: in [0, 1).
    """
    log_probability = jax.nn.log_softmax(logits)
    classes = log_probability.shape[-1]
    share = jnp.asarray(target.share)[:, None]
    one_hot = jax.nn.one_hot(target.label, classes) * share + jax.nn.one_hot(target.other, classes) * (1.0 - share)
    smooth = one_hot * (1.0 - label_smoothing) + label_smoothing / classes
    return -jnp.sum(smooth * log_probability, axis=-1)


def in_top_k(logits: Float32[ArrayLike, "b classes"], label: Int32[ArrayLike, " b"], k: int) -> Bool[Array, " b"]:
    """Whether `label` is among the k largest logits; ties count against, NaN never counts."""
    logits, label = jnp.asarray(logits), jnp.asarray(label)
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    ahead = jnp.sum((logits >= own) & (jnp.arange(logits.shape[-1]) != label[:, None]), axis=-1)
    return (ahead < k) & jnp.isfinite(own[:, 0])


def hits(logits: Outputs, target: Mixed, k: int) -> OfEach:
    """The shares of those labels of each example that are among the k largest logits."""
    first = in_top_k(logits, target.label, k) * target.share
    return first + in_top_k(logits, target.other, k) * (1.0 - target.share)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Top-1 and top-5 accuracy; confusion matrix, figures of each class and calibration of a whole split."""

    headline = Headline("top1_accuracy", "accuracy")
    metrics: tuple[str, ...] = ("top1_accuracy", "top5_accuracy")
    collected: tuple[str, ...] = ()

    def values(self, outputs: Outputs, target: Mixed, constants: Any) -> dict[str, OfEach]:
        """Whether the class is the most probable one, or among the five most probable."""
        return {name: hits(outputs, target, k) for name, k in zip(self.metrics, (1, 5), strict=True)}

    def collector(self, examples: int, constants: Any) -> "Guesses":
        """Collects the predicted class of each example and its probability."""
        return Guesses()

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any) -> list[dict[str, Any]]:
        """The most probable classes: `{"label", "probability", "top": [{"label", "probability"}, …]}`."""
        found = []
        for row in np.asarray(jax.nn.softmax(outputs)):
            order = np.argsort(-row, kind="stable")[:ANSWERS]
            top = [{"label": names[k], "probability": float(row[k])} for k in order]
            found.append({**top[0], "top": top})
        return found

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Accuracies, calibration, means over classes, and the best and worst classes."""
        return describe(figures)

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """The confusion matrix."""
        confusion.draw(confusion.Confusion.from_json(figures["confusion_matrix"]), names, path)


class Guesses:
    """The predicted class of each example, int64, its probability, float64, and its label, int32."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, outputs: np.ndarray, target: np.ndarray) -> None:
        """Add logits float32 [n, K] and labels int32 [n]."""
        self._parts.append((*judge(outputs), target))

    def figures(self, names: Sequence[str]) -> dict[str, Any]:
        """Confusion matrix (rows: true class), figures of each class, and calibration error.

        The latter is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599), with 15 bins of equal width.
        """
        guess, confidence, labels = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        matrix = confusion.Confusion.of(labels, guess, len(names))
        error = calibration_error(confidence, guess == labels)
        return {"calibration_error": error, **confusion.by_class(matrix, names)}


def judge(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class predicted by logits float32 [n, K], int64 [n], and its probability, float64 [n]."""
    from scipy.special import softmax

    rows = max(1, MOST_AT_ONCE // logits.shape[-1])
    confidences = [np.empty(0)]
    for first in range(0, len(logits), rows):
        confidences.append(softmax(logits[first : first + rows].astype(np.float64), axis=-1).max(axis=-1))
    return logits.argmax(-1), np.concatenate(confidences)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean distance between confidence [N] and accuracy over bins of confidence, weighted by their examples.

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
    worst = ", ".join(f"{shown(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[:3])
    best = ", ".join(f"{shown(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[::-1][:3])
    absent = sum(accuracy is None for accuracy in figures["per_class_accuracy"].values())
    without = f", except {absent} without examples in this split" if absent else ""
    augmented = []
    if "tta" in figures:
        augmented.append(
            f"with test-time augmentation ({figures['tta']}): top-1 {100 * figures['tta_top1_accuracy']:.2f}%  "
            f"top-5 {100 * figures['tta_top5_accuracy']:.2f}%  loss {figures['tta_loss']:.4f}"
        )
    return [
        f"top-1 {100 * figures['top1_accuracy']:.2f}%  top-5 {100 * figures['top5_accuracy']:.2f}%  "
        f"loss {figures['loss']:.4f}  calibration error {100 * figures['calibration_error']:.2f}%",
        f"balanced accuracy {100 * figures['balanced_accuracy']:.2f}%  "
        + "  ".join(f"{name} {100 * figures[f'macro_{name}']:.2f}%" for name in ("precision", "recall", "f1"))
        + f" (means over classes{without})",
        *augmented,
        f"best classes: {best}; worst: {worst}",
    ]
