"""Scores of methods on a set of images: a table with mean, spread and number of images for each."""

import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxcnn.explain import methods, removal, scores
from jaxcnn.explain.subject import Subject

CONTROLS = ("random", "edges")
SHIFTS, SENSITIVITY_SHIFTS = 8, 3  # perturbed images for infidelity, and for sensitivity, which explains each anew
ROAD_PIXELS = 96 * 96  # of an image; its linear systems take long for larger ones
RADIUS = 0.1  # standard deviation of these perturbations, in units of that of the training images
BETTER = {
    "deletion": "lower",
    "insertion": "higher",
    "road": "higher",
    "infidelity": "lower",
    "sensitivity": "lower",
    "pointing": "higher",
    "overlap": "higher",
}
ABOUT = {
    "deletion": "mean probability while the most important pixels get the mean colour",
    "insertion": "mean probability while the most important pixels return to a blurred image",
    "road": "mean probability without the least important pixels minus that without the most important ones, which "
    "become the mean of their neighbours",
    "infidelity": "squared error of the predicted change of the output under noise, over the mean squared change",
    "sensitivity": "largest relative change of the map under small noise",
    "pointing": "share of images whose most important pixel lies on the object",
    "overlap": "share of the positive values on the object",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A score of a method: mean, standard deviation and number of images."""

    method: str
    score: str
    mean: float
    spread: float
    images: int

    @property
    def words(self) -> str:
        """Such as "0.412 ± 0.103"; without spread for one image."""
        return f"{self.mean:.3g}" + (f" ± {self.spread:.2g}" if self.images > 1 else "")


def of_images(
    subject: Subject,
    names: Sequence[str],
    images: Float[np.ndarray, "n h w c"],
    target: Int[np.ndarray, " n"],
    known: Mapping[str, Any],
    explain: Callable[[str, Any, Any], Any],
    masks: Bool[np.ndarray, "n h w"] | None = None,
    road: bool | None = None,
) -> dict[str, dict[str, Float[np.ndarray, " n"]]]:
    """The scores of each image, by method and score.

    Infidelity needs a value for each channel and signed values, so it is told of those methods alone.

    Args:
      subject: the network.
      names: of the methods.
      images: normalised.
      target: the explained output of each.
      known: the `Explanation` of these images by each method.
      explain: `(name, images, target) -> Explanation` with the same options.
      masks: where the object of each image is, if that is known; images without one have NaN for these scores.
      road: whether `removal.road` is among the scores; None: for images of at most `ROAD_PIXELS`.
    """
    road = images[0, ..., 0].size <= ROAD_PIXELS if road is None else road
    found: dict[str, dict[str, Any]] = {}
    shifts = scores.noise(images.shape, SHIFTS, RADIUS, 0)
    changed = subject.network.scores_of(lambda numbers: images - shifts[np.asarray(numbers)], SHIFTS, target)
    change = np.asarray((subject.network.scores(images, target) - changed) ** 2).mean(0)
    for name in names:
        method, values = methods.find(name), known[name].values
        ranked = known[name].maps
        of_method: dict[str, Any] = {}
        for score in (scores.deletion, scores.insertion):
            of_method[score.__name__] = score(subject.network, images, target, ranked, probability=subject.probability)[
                0
            ]
        if road:
            of_method["road"] = removal.road(subject.network, images, target, ranked, probability=subject.probability)[
                0
            ]
        if method.gives == methods.SIGNED and values.ndim == 4:
            raw = scores.infidelity(subject.network, images, target, values, shifts)
            of_method["infidelity"] = raw / np.where(change > 0, change, np.nan)
        if not method.control:
            of_shifted = functools.partial(_values, explain, name, target)
            of_method["sensitivity"] = scores.sensitivity(of_shifted, images, values, shifts[:SENSITIVITY_SHIFTS])
        if masks is not None:
            there = np.asarray(masks).any((1, 2))
            for on_object in (scores.pointing, scores.overlap):
                of_method[on_object.__name__] = np.where(there, on_object(ranked, masks), np.nan)
        found[name] = of_method
    return found


def _values(explain: Callable[[str, Any, Any], Any], name: str, target: Any, images: Any) -> np.ndarray:
    return explain(name, np.asarray(images), target).values


def table(found: Mapping[str, Mapping[str, np.ndarray]]) -> list[Row]:
    """The rows of `of_images`; the spread is the standard deviation over the images that have the score."""
    rows = []
    for name, of_method in found.items():
        for score, of_each in of_method.items():
            each = of_each[~np.isnan(of_each)]
            if len(each):
                spread = float(each.std(ddof=1)) if len(each) > 1 else 0.0
                rows.append(Row(name, score, float(each.mean()), spread, len(each)))
    return rows


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV: method, score, better, mean, spread, images."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "score", "better", "mean", "spread", "images"])
    for row in rows:
        writer.writerow([row.method, row.score, BETTER[row.score], f"{row.mean:.6g}", f"{row.spread:.6g}", row.images])
    return file.getvalue()


def as_lines(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of a terminal, one for each method."""
    names = list(dict.fromkeys(row.score for row in rows))
    cells = {(row.method, row.score): row.words for row in rows}
    made = [["method", *(f"{name} ({BETTER[name]})" for name in names)]]
    for method in dict.fromkeys(row.method for row in rows):
        made.append([method, *(cells.get((method, name), "") for name in names)])
    widths = [max(len(row[k]) for row in made) for k in range(len(made[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in made]
