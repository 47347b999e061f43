"""`--mode=eval`: what a trained network gets right on a split, in figures and a picture."""

import logging
import pathlib
from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data import place
from jaxcnn.data.source import open_splits
from jaxcnn.learn import loss as losses
from jaxcnn.text import counted, save_picture, shown
from jaxcnn.train import same_data, workdir
from jaxcnn.train.evaluate import Outputs
from jaxcnn.train.trained import Trained, logits_of_split

_log = logging.getLogger("jaxcnn")
CALIBRATION_BINS = 15
TEST = "test.json"
_log = logging.getLogger("jaxcnn")


def assess(trained: Trained, folder: pathlib.Path, split_name: str, data_path: str, batch_size: int) -> dict[str, Any]:
    """Evaluate a split; write `eval-<split>-<step>.json` and its confusion matrix as PNG into the workdir.

    Where that cannot be written, a remark says so.

    Args:
      trained: the network.
      folder: its workdir.
      split_name: train, val or test.
      data_path: where the data lies now (`place.at`); empty: where the run had it.
      batch_size: 0: as in training.

    Returns:
      What the JSON file holds; accuracies are fractions in [0, 1]. Where the run has test-time augmentation, loss and
      accuracies with it are there as well, named tta_….

    Raises:
      UserError: the run has no such split, or its data is not there.
    """
    data = place.at(trained.config.data, data_path)
    if not place.is_there(data):
        raise UserError(
            f"config.data.source={data.source!r}: nothing is there; --data=<path> says where the data lies now"
        )
    splits = open_splits(data)
    split = getattr(splits, split_name)
    if split is None:
        protocol = trained.config.data.protocol
        raise UserError(f"--split={split_name}: this run has none (config.data.protocol={protocol!r})")
    if split.class_names != trained.class_names or split.image_shape != trained.program.image_shape:
        raise UserError(f"{split.description} does not have the classes and image size that {folder} was trained on")
    notes = [*splits.notes, *same_data.remarks(workdir.read_data_facts(folder), splits, split)]
    for note in notes:
        _log.warning(note)
    logits = logits_of_split(trained, split, batch_size)
    figures = {
        "step": trained.step,
        "weights": trained.weights,
        "split": split.name,
        "data": split.description,
        "notes": notes,
        **measure(logits, split.labels, trained.class_names),
    }
    if (tta := trained.config.run.tta) != "none":
        logits = logits_of_split(trained, split, batch_size, tta)
        averaged = {f"tta_{name}": value for name, value in accuracies(logits, split.labels).items()}
        figures |= {"tta": tta, **averaged}
    file = _file(folder, figures)
    try:
        workdir.write_json(file, figures)
        draw_confusion(np.array(figures["confusion_matrix"]), trained.class_names, file.with_suffix(".png"))
    except OSError as error:
        _log.warning("%s cannot be written (%s): the figures are told here only", folder, error.strerror or error)
    return figures


def _file(folder: pathlib.Path, figures: dict[str, Any]) -> pathlib.Path:
    return folder / f"eval-{figures['split']}-{figures['step']}.json"


def is_kept(folder: pathlib.Path, figures: dict[str, Any]) -> bool:
    """Whether the workdir has what `assess` returned, which it has not where it cannot be written."""
    try:
        return _file(folder, figures).read_text(encoding="utf-8") == workdir.as_json(figures)
    except OSError:
        return False


def write_test(
    folder: pathlib.Path, figures: dict[str, Any], outputs: list[Outputs], class_names: tuple[str, ...]
) -> None:
    """Write `test.json` of a finished run: the figures of its test, and of the same logits what needs each example.

    That is the confusion matrix (rows: true class), the accuracy of each class and the calibration error.
    """
    logits, labels = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    workdir.write_sealed(folder / TEST, figures | by_class(logits, labels, class_names))


def measure(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Figures of merit of logits float32 [N, K] for labels int32 [N].

    The calibration error is the expected one of Guo et al. 2017 (arXiv 1706.04599), in 15 bins of equal width.
    """
    return {"examples": len(labels), **accuracies(logits, labels), **by_class(logits, labels, class_names)}


def by_class(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The part of `measure` that JAX has nothing to do with, so that no program is compiled for it."""
    from scipy.special import softmax

    classes = len(class_names)
    probabilities = softmax(logits.astype(np.float64), axis=-1)
    matrix = np.bincount(labels * classes + logits.argmax(-1), minlength=classes**2).reshape(classes, classes)
    totals = matrix.sum(axis=1)
    per_class = [float(hit / total) if total else None for hit, total in zip(matrix.diagonal(), totals, strict=True)]
    return {
        "calibration_error": calibration_error(probabilities, labels),
        "per_class_accuracy": dict(zip(class_names, per_class, strict=True)),
        "confusion_matrix": matrix.tolist(),
    }


def accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean loss and accuracies of logits float32 [N, K] for labels int32 [N]."""
    one = np.ones(len(labels), np.float32)
    loss = np.asarray(losses.cross_entropy(logits, labels, labels, one, np.float32(0)), np.float64)
    return {
        "loss": float(loss.mean()),
        "top1_accuracy": float(np.mean(np.asarray(losses.among_first(logits, labels, 1)))),
        "top5_accuracy": float(np.mean(np.asarray(losses.among_first(logits, labels, 5)))),
    }


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by their examples."""
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == labels
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    which = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(which, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def draw_confusion(matrix: np.ndarray, class_names: tuple[str, ...], path: pathlib.Path) -> None:
    """Draw counts [K, K] (rows: true class) as a picture of row shares.

    Counts are written in for up to 20 classes, names beside the rows for up to 150. The colours are those of the square
    root of a share, so that confusions of a few per cent can be seen.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = min(4 + 0.45 * classes, 22)
    figure = Figure(figsize=(side + 1, side), layout="constrained", dpi=130)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    if classes <= 150:
        size = 9 if classes <= 20 else max(5.5, 9 - classes / 30)
        names = list(map(shown, class_names))
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
    text: dict[str, Any] = {"fontsize": 10 if classes <= 20 else 18}
    axes.set_xlabel("predicted", **text)
    axes.set_ylabel("true", **text)
    accuracy = matrix.trace() / max(matrix.sum(), 1)
    axes.set_title(f"{path.stem}: {100 * accuracy:.2f} % of {matrix.sum()} right", **text)
    if classes <= 20:
        for row, column in np.ndindex(matrix.shape):
            if matrix[row, column]:
                colour = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8, color=colour)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.01, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class", **text)
    save_picture(figure, path)


def describe(figures: dict[str, Any]) -> list[str]:
    """The figures for a person, in a few lines."""
    per_class = sorted(
        (accuracy, name) for name, accuracy in figures["per_class_accuracy"].items() if accuracy is not None
    )
    worst = ", ".join(f"{shown(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[:3])
    best = ", ".join(f"{shown(name)} {100 * accuracy:.1f}%" for accuracy, name in per_class[::-1][:3])
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
        *augmented,
        f"best classes: {best}; worst: {worst}",
    ]
