"""`--mode=eval`: accuracy and other figures of a trained network on a split, and its confusion matrix as a picture."""

import logging
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data import place
from jaxcnn.data.batch import Split
from jaxcnn.data.source import open_splits
from jaxcnn.learn import loss as losses
from jaxcnn.machine import extras
from jaxcnn.text import counted, shown
from jaxcnn.train import confusion, same_data, workdir
from jaxcnn.train.evaluate import Outputs, judge
from jaxcnn.train.trained import Trained, logits_by_part

_log = logging.getLogger("jaxcnn")
CALIBRATION_BINS = 15
TEST = "test.json"
_log = logging.getLogger("jaxcnn")


def assess(trained: Trained, folder: pathlib.Path, split_name: str, data_path: str, batch_size: int) -> dict[str, Any]:
    """Evaluate a split; write `eval-<split>-<step>.json` and its confusion matrix as PNG into the workdir.

    If the workdir cannot be written, a warning says so.

    Args:
      trained: the trained network.
      folder: its workdir.
      split_name: "train", "val" or "test".
      data_path: the path of the data now (`place.at`); empty if it is still where the run had it.
      batch_size: examples per batch; 0: the batch size of training.

    Returns:
      The content of the JSON file; accuracies are fractions in [0, 1]. If the run has test-time augmentation, this
      includes loss and accuracies with it, named tta_….

    Raises:
      UserError: the run has no such split, its data is not there, or the split has other classes or another image size.
    """
    data = place.at(trained.config.data, data_path)
    if not place.is_ready(data):
        raise UserError(
            f"config.data.source={data.source!r}: no data was found there; set --data=<path> to its current path"
        )
    splits = open_splits(data)
    split = getattr(splits, split_name)
    if split is None:
        protocol = trained.config.data.protocol
        raise UserError(f"--split={split_name}: this run has none (config.data.protocol={protocol!r})")
    if split.class_names != trained.class_names or split.image_shape != trained.spec.image_shape:
        raise UserError(f"{split.description} does not have the classes and image size that {folder} was trained with")
    notes = [*splits.notes, *same_data.remarks(workdir.read_data_facts(folder), splits, split)]
    for note in notes:
        _log.warning(note)
    figures = {
        "step": trained.step,
        "weights": trained.weights,
        "split": split.name,
        "data": split.description,
        "notes": notes,
        **figures_of(trained, split, batch_size),
    }
    file = file_of(folder, figures)
    try:
        workdir.write_json(file, figures)
    except OSError as error:
        _log.warning("%s cannot be written (%s): the results are only shown here", folder, error.strerror or error)
    else:
        _draw(figures["confusion_matrix"], trained.class_names, file.with_suffix(".png"))
    return figures


def figures_of(trained: Trained, split: Split, batch_size: int = 0) -> dict[str, Any]:
    """The figures of a split that `assess` writes, without facts of the run."""
    figures = _measure(logits_by_part(trained, split, batch_size), trained.class_names)
    if (tta := trained.config.run.tta) != "none":
        averaged = _accuracies(logits_by_part(trained, split, batch_size, tta))
        figures |= {"tta": tta, **{f"tta_{name}": value for name, value in averaged.items()}}
    return figures


def file_of(folder: pathlib.Path, figures: dict[str, Any]) -> pathlib.Path:
    """The file of the figures from `assess`; its picture lies beside it, with the suffix .png."""
    return folder / f"eval-{figures['split']}-{figures['step']}.json"


def is_kept(folder: pathlib.Path, figures: dict[str, Any]) -> bool:
    """Whether the workdir holds the result of `assess`; it does not if it cannot be written."""
    try:
        return file_of(folder, figures).read_text(encoding="utf-8") == workdir.as_json(figures)
    except OSError:
        return False


def _draw(matrix: Any, class_names: tuple[str, ...], path: pathlib.Path) -> None:
    """Draw the confusion matrix; a failure is only a warning, so that the figures are not lost."""
    try:
        path.unlink(missing_ok=True)  # left by an earlier evaluation
        confusion.draw(confusion.Confusion.from_json(matrix), class_names, path)
    except Exception as error:
        error = extras.missing(error, str(path))
        if isinstance(error, extras.MissingExtra):
            _log.warning("%s", error)
        else:
            name, why = type(error).__name__, " ".join(str(error).split())[:300]
            _log.warning("%s could not be drawn: %s: %s", path, name, why)


def write_test(
    folder: pathlib.Path, figures: dict[str, Any], outputs: list[Outputs], class_names: tuple[str, ...]
) -> None:
    """Write `test.json` of a finished run: the figures of its test, and those computed from single examples.

    The latter come from the same logits: confusion matrix (rows: true class), figures of each class, calibration error.
    """
    guess, confidence, labels = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    workdir.write_sealed(folder / TEST, figures | _of_guesses(guess, confidence, labels, class_names))


def damage(folder: pathlib.Path) -> str:
    """One line if the `test.json` of a finished run is not what was written; else an empty string."""
    try:
        if (folder / TEST).exists():
            workdir.read_sealed(folder / TEST)
    except UserError as error:
        return f"{str(error).partition(';')[0]}; --mode=eval --workdir={folder} measures the test split again"
    return ""


def measure(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The metrics of logits float32 [N, K] for labels int32 [N].

    The calibration error is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599), with 15 bins of equal
    width.
    """
    return _measure([(logits, labels)], class_names)


def _measure(parts: Iterable[tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...]) -> dict[str, Any]:
    """`measure` for logits and labels that arrive in parts."""
    judged = [(labels, *_losses(logits, labels), *judge(logits)) for logits, labels in parts]
    labels, loss, top1, top5, guess, confidence = (np.concatenate(each) for each in zip(*judged, strict=True))
    figures = {"examples": len(labels), **_means(loss, top1, top5)}
    return figures | _of_guesses(guess, confidence, labels, class_names)


def _of_guesses(
    guess: np.ndarray, confidence: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """The part of `measure` that does not use JAX, so no program is compiled for it."""
    matrix = confusion.Confusion.of(labels, guess, len(class_names))
    error = calibration_error(confidence, guess == labels)
    return {"calibration_error": error, **confusion.by_class(matrix, class_names)}


def _accuracies(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Mean loss and accuracies of logits float32 [n, K] and labels int32 [n] that arrive in parts."""
    of_each = zip(*(_losses(logits, labels) for logits, labels in parts), strict=True)
    return _means(*(np.concatenate(each) for each in of_each))


def _losses(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each example: its loss, and whether its class is the most probable one or among the five most probable."""
    one = np.ones(len(labels), np.float32)
    loss = np.asarray(losses.cross_entropy(logits, labels, labels, one, np.float32(0)), np.float64)
    return loss, *(np.asarray(losses.in_top_k(logits, labels, k)) for k in (1, 5))


def _means(loss: np.ndarray, top1: np.ndarray, top5: np.ndarray) -> dict[str, float]:
    return {
        "loss": float(loss.mean()),
        "top1_accuracy": float(np.mean(top1)),
        "top5_accuracy": float(np.mean(top5)),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean distance between confidence [N] and accuracy over bins of confidence, weighted by their examples.

    `right` says for each example whether its guess is right, bool [N].
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    which = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))


def describe(figures: dict[str, Any]) -> list[str]:
    """The figures as a few readable lines."""
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
        f"{shown(figures['data'])}: {counted(figures['examples'], 'example')}, "
        f"checkpoint {figures['step']}, {figures['weights']} weights",
        f"top-1 {100 * figures['top1_accuracy']:.2f}%  top-5 {100 * figures['top5_accuracy']:.2f}%  "
        f"loss {figures['loss']:.4f}  calibration error {100 * figures['calibration_error']:.2f}%",
        f"balanced accuracy {100 * figures['balanced_accuracy']:.2f}%  "
        + "  ".join(f"{name} {100 * figures[f'macro_{name}']:.2f}%" for name in ("precision", "recall", "f1"))
        + f" (means over classes{without})",
        *augmented,
        f"best classes: {best}; worst: {worst}",
    ]
