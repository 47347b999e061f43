"""A map of the features: the images of a split as points in a plane, near each other where the network sees them alike.

`pca` is the plane of the largest variance: distances in it are never larger than in truth, but far apart may look near.
`tsne` (van der Maaten & Hinton 2008, by scikit-learn) keeps neighbours together; its distances between groups, their
sizes and densities mean nothing.
"""

import csv
import dataclasses
import io

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.config import UserError
from jaxcnn.explain import alike
from jaxcnn.explain.given import full_name
from jaxcnn.explain.subject import Subject
from jaxcnn.machine.extras import need
from jaxcnn.train import features, predict

KINDS = ("pca", "tsne")
PERPLEXITY = 30  # about how many neighbours t-SNE looks at, as scikit-learn's default


@dataclasses.dataclass(frozen=True)
class Points:
    """Images as points.

    Attributes:
      kind: one of `KINDS`.
      split: whose images they are, in words.
      names: name of each image.
      places: across and up, [n, 2].
      labels: the true classes.
      answers: the classes that the network answers.
      kept: the share of the variance that PCA keeps in the plane; None for t-SNE.
    """

    kind: str
    split: str
    names: tuple[str, ...]
    places: Float[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"]
    answers: Int[np.ndarray, " n"]
    kept: float | None

    @property
    def wrong(self) -> np.ndarray:
        """Which answers are mistakes."""
        return self.answers != self.labels


def of_split(subject: Subject, name: str, kind: str, most: int, seed: int) -> Points:
    """The map of a split of the run's data.

    Args:
      subject: the network.
      name: name of the split.
      kind: one of `KINDS`.
      most: most images; random ones if the split has more.
      seed: seed of this random choice, and of t-SNE.

    Raises:
      UserError: the task is not classification, the split is not there, or scikit-learn is not installed.
    """
    check(subject, kind)
    split, trained = getattr(subject.splits, name), subject.trained
    if split is None:
        raise UserError(f"--feature_map: this run has no split {name!r}")
    chosen = np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(len(split))[:most])
    if len(chosen) < 3:
        raise UserError(f"--feature_map: {split.description} has {len(chosen)} images; a map needs 3")
    if trained.spec.optim.quantized:  # whose answers are rounded, and features are not
        starts = range(0, len(chosen), predict.BATCH)
        parts = [predict.outputs_of(trained, split.read(chosen[k : k + predict.BATCH])) for k in starts]
        seen, outputs = features.of_split(trained, split, places=chosen).values, np.concatenate(parts)
    else:
        seen, outputs = features.and_outputs(trained, split, chosen)
    values = seen.astype(np.float64)
    places, kept = pca(values) if kind == "pca" else (tsne(values, seed), None)
    names = tuple(full_name(split, int(k)) for k in chosen)
    labels = np.asarray(split.targets)[chosen]
    return Points(kind, f"{split.name} split", names, places, labels, outputs.argmax(1), kept)


def check(subject: Subject, kind: str) -> None:
    """Refuse what cannot be drawn, before any work is done."""
    alike.check(subject, "--feature_map")
    if subject.trained.config.task.name != "classification":
        raise UserError(
            f"--feature_map: config.task.name={subject.trained.config.task.name!r} has no classes to colour"
        )
    if kind == "tsne":
        need("explain", "--feature_map=tsne", "sklearn")


def pca(values: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n 2"], float]:
    """The two principal components of each row, and the share of the variance that they have.

    The sign of a component is that which makes its largest weight positive, so a map does not turn over.
    """
    centred = values - values.mean(0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(1)[:, None], 1))
    total = (lengths**2).sum()
    found = centred @ axes.T
    found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
    return found, float((lengths[:2] ** 2).sum() / total) if total else 1.0


def tsne(values: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    """The rows in a plane by t-SNE, starting from their principal components.

    One thread adds in the same order each time; several also wait for each other where other programs run.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    made = TSNE(2, perplexity=min(PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed)
    with threadpool_limits(1):
        return made.fit_transform(values).astype(np.float64)


def as_csv(points: Points, class_names: tuple[str, ...]) -> str:
    """The points as CSV: name, label, answer, x, y."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "label", "answer", "x", "y"])
    for name, label, answer, (x, y) in zip(points.names, points.labels, points.answers, points.places, strict=True):
        writer.writerow([name, class_names[label], class_names[answer], f"{x:.6g}", f"{y:.6g}"])
    return file.getvalue()
