"""Measures a trained network on damaged images, against human votes, and with some images left out."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.data.corruptions import EXTRA, corrupt
from jaxcnn.data.examples import Indices, Pixels
from jaxcnn.text import counted, markdown_table, save_picture
from jaxcnn.train.trained import Trained

CLEAR = 0.9  # share of the votes for the label, from which an image counts as clear
LEAST = 0.25  # agreement of votes and labels, from 0 (as by chance) to 1 (always), below which their order differs


def kept(count: int, leave_out: pathlib.Path | None, examples: int) -> Int[np.ndarray, " m"]:
    """The indices of the images of a split that are used, ascending.

    Args:
      count: number of images in the split.
      leave_out: a text file with the index of an image to leave out in each line; more columns are not read.
      examples: number of the remaining images to use, evenly spaced; 0: all.

    Raises:
      UserError: the file cannot be read, or has lines that do not begin with such an index.
    """
    found = np.arange(count)
    if leave_out is not None:
        try:
            lines = leave_out.read_text(encoding="utf-8").splitlines()
            rows = [line.replace(",", " ").replace(";", " ").split() for line in lines if line.strip()]
            first = [row[0] if row else "" for row in rows]
            first = first[1:] if first and not first[0].isdecimal() else first  # skips the names of columns
            left = np.array([int(each) for each in first], np.int64)
        except (OSError, ValueError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "a line does not begin with an index"
            raise UserError(f"--leave_out={leave_out} cannot be read: {why}") from None
        if len(left) and not 0 <= left.min() <= left.max() < count:
            raise UserError(f"--leave_out={leave_out} has indices up to {left.max()}, but the split has {count} images")
        found = np.setdiff1d(found, left)
    if examples and examples < len(found):
        found = found[np.arange(examples) * len(found) // examples]
    if not len(found):
        raise UserError(f"--leave_out={leave_out} leaves no image")
    return found


def read_votes(path: pathlib.Path, split: Split) -> Float[np.ndarray, "n k"]:
    """The votes for the images of a split.

    Raises:
      UserError: the file is not an array of numbers [n, k], a row has no vote, or votes and labels agree so rarely that
        the images or classes must be in another order; or the task is not classification.
    """
    labels = split.targets
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError("--votes is for runs of config.task.name='classification'")
    try:
        votes = np.load(path, mmap_mode="r", allow_pickle=False)  # a header that claims more than the file has fails
    except Exception as error:  # of a damaged header, NumPy raises errors of any kind
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"--votes={path} cannot be read as an array of NumPy: {reason}") from None
    shape = (len(split), len(split.class_names))
    if not isinstance(votes, np.ndarray) or votes.shape != shape or votes.dtype.kind not in "iuf":
        raise UserError(f"--votes={path} must be numbers of shape {shape}: the votes of each image for each class")
    votes = np.array(votes)
    if not (votes >= 0).all() or not (votes.sum(axis=1) > 0).all() or not np.isfinite(votes).all():
        raise UserError(f"--votes={path} must have numbers of at least 0, and a vote for each image")
    first = votes >= votes.max(axis=1, keepdims=True)
    share = float(first[np.arange(len(labels)), labels].mean())
    by_chance = float(first.mean(axis=0) @ np.bincount(labels, minlength=shape[1])) / len(labels)
    if share < by_chance + LEAST * (1 - by_chance):
        raise UserError(
            f"--votes={path}: the most voted class is the label of only {share:.1%} of the images, by chance of "
            f"{by_chance:.1%}, so its rows or classes have another order than {split.description}; TensorFlow Datasets "
            "have another order than the published files (config.data.source='npz:…' may keep theirs)"
        )
    return votes.astype(np.float64)


def remark_on_order(split: Split) -> str:
    """A line for indices of images in the order of published files, if the split has another order; else empty."""
    if not split.description.startswith("tfds:"):
        return ""
    return (
        "--leave_out counts images in the order of TensorFlow Datasets, which is not that of the published files: "
        "their lists of indices name other images"
    )


class Corrupted:
    """A split whose images are damaged when they are read; each depends only on the seed and on its index."""

    def __init__(self, split: Split, name: str, severity: int, seed: int) -> None:
        self._split, self._how = split, (name, severity, seed)
        self.name, self.targets, self.class_names = split.name, split.targets, split.class_names
        self.image_shape, self.dtype = split.image_shape, split.dtype
        self.host_targets = getattr(split, "host_targets", {})
        self.description = f"{split.description} ({name} {severity})"

    def __len__(self) -> int:
        return len(self._split)

    def read(self, indices: Indices) -> Pixels:
        """The damaged images at these indices."""
        name, severity, seed = self._how
        images = self._split.read(indices)
        damaged = (corrupt(image, name, severity, (seed, int(i))) for image, i in zip(images, indices, strict=True))
        return np.stack(list(damaged))


@dataclasses.dataclass(frozen=True)
class Result:
    """The headline figure and the loss of a network on a split damaged in one way."""

    corruption: str
    severity: int
    value: float
    loss: float


def measure(
    trained: Trained, split: Split, names: Sequence[str], severities: Sequence[int], seed: int, batch_size: int = 0
) -> Iterator[Result]:
    """Evaluate the network on the split, first undamaged (severity 0), then damaged in each way, one after another.

    Raises:
      UserError: images are to be damaged that are not 8-bit, grey or RGB.
    """
    if names and (split.dtype != np.uint8 or split.image_shape[-1] not in (1, 3)):
        raise UserError(
            "jaxcnn.robustness damages images of 8 bits, grey or RGB; this run has others: give --corruptions=none"
        )
    headline = trained.spec.task.evaluation.headline

    def result(of: Split, name: str, severity: int) -> Result:
        figures = trained.evaluate(of, batch_size)
        return Result(name, severity, float(figures[headline.name]), float(figures["loss"]))

    yield result(split, "none", 0)
    for name in names:
        for severity in severities:
            yield result(Corrupted(split, name, severity, seed), name, severity)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The figures by corruption and severity, JSON: each with its mean, and the mean of all but `EXTRA`."""
    clean, *damaged = results
    by_name: dict[str, dict[str, float]] = {}
    for each in damaged:
        by_name.setdefault(each.corruption, {})[str(each.severity)] = each.value
    means = {name: float(np.mean(list(values.values()))) for name, values in by_name.items()}
    counted = [mean for name, mean in means.items() if name not in EXTRA]
    return {
        "clean": clean.value,
        "corruptions": {name: values | {"mean": means[name]} for name, values in by_name.items()},
        "mean": float(np.mean(counted)) if counted else None,
        "of": len(counted),
    }


def table(told: dict[str, Any], headline: Any) -> list[str]:
    """The summary as lines of a Markdown table."""
    rows = told["corruptions"]
    clean = f"without corruption: {headline.label} {headline.shown(told['clean'])}"
    if not rows:
        return [clean]
    columns = list(next(iter(rows.values())))
    lines = markdown_table(
        ["corruption", *(name if name == "mean" else f"severity {name}" for name in columns)],
        [[name.replace("_", " "), *(headline.shown(values[key]) for key in columns)] for name, values in rows.items()],
    )
    ends = [clean]
    if told["mean"] is not None:
        ends.append(f"mean of {counted(told['of'], 'corruption')}: {headline.label} {headline.shown(told['mean'])}")
    return [*lines, "", *ends]


def draw(told: dict[str, Any], headline: Any, title: str, path: pathlib.Path) -> None:
    """Draw the headline figure over the severity, one line for each corruption; severity 0 is the undamaged split."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.6), layout="constrained", dpi=130)
    axes = figure.subplots()
    scale = 100 if headline.percent else 1
    styles = ("-", "--", ":")
    for number, (name, values) in enumerate(told["corruptions"].items()):
        severities = [int(key) for key in values if key != "mean"]
        heights = [told["clean"], *(values[str(each)] for each in severities)]
        style = styles[number // 10 % len(styles)]
        axes.plot([0, *severities], [scale * each for each in heights], style, marker=".", label=name.replace("_", " "))
    axes.set(xlabel="severity", ylabel=headline.label + (" in %" if headline.percent else ""), title=title)
    axes.set_xticks(range(6))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=9)
    save_picture(figure, path)


def against_votes(
    logits: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], votes: Float[np.ndarray, "n k"]
) -> dict[str, float]:
    """Compare the probabilities of a classifier with those of human votes (Peterson et al. 2019, arXiv:1908.07086).

    Args:
      logits: logits of each image.
      labels: class of each image in the set.
      votes: number or share of the people who chose each class, for each image.

    Returns:
      cross_entropy of the votes' shares in nats, and its least possible value, their entropy; how often the network's
      class is the most voted one; accuracy on the images with at least `CLEAR` of the votes for their label, and on the
      others ("disputed"), with the number of each.
    """
    from scipy import special

    shares = votes / votes.sum(axis=1, keepdims=True)
    log_probability = special.log_softmax(logits.astype(np.float64), axis=1)
    entropy = special.entr(shares).sum(axis=1)
    right, agreed = logits.argmax(axis=1) == labels, shares.argmax(axis=1) == labels
    clear = agreed & (shares.max(axis=1) >= CLEAR)
    parts = {"clear": clear, "disputed": ~clear}
    told = {
        "cross_entropy": float(-(shares * log_probability).sum(axis=1).mean()),
        "entropy_of_votes": float(entropy.mean()),
        "most_voted_accuracy": float((logits.argmax(axis=1) == shares.argmax(axis=1)).mean()),
    }
    for name, part in parts.items():
        told |= {f"{name}_examples": int(part.sum())} | (
            {f"{name}_accuracy": float(right[part].mean())} if part.any() else {}
        )
    return told


def votes_of(trained: Trained, split: Split, votes: Float[np.ndarray, "n k"], batch_size: int) -> dict[str, float]:
    """The result of `against_votes` for a network.

    Raises:
      UserError: its task is not classification.
    """
    if trained.config.task.name != "classification":
        raise UserError("--votes is for runs of config.task.name='classification'")
    return against_votes(trained.outputs(split, batch_size), split.targets, votes)


def votes_in_words(told: dict[str, float]) -> list[str]:
    """The figures of votes as lines of text."""
    parts = [
        f"{name} images: accuracy {100 * told[f'{name}_accuracy']:.2f}% of {told[f'{name}_examples']}"
        for name in ("clear", "disputed")
        if told[f"{name}_examples"]
    ]
    return [
        f"human votes: cross-entropy {told['cross_entropy']:.4f} (at least {told['entropy_of_votes']:.4f}), "
        f"the most voted class {100 * told['most_voted_accuracy']:.2f}%",
        f"  {'; '.join(parts)}",
    ]
