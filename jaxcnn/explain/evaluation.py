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
Of = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]  # scores [n] by name, and curves [points, n] by name
SHIFTS, SENSITIVITY_SHIFTS = 8, 3  # perturbed images for infidelity, and for sensitivity, which explains each anew
CELLS, FADED = 7, 0.3  # for "faded": cells each way, and the standard deviation of the share of each that fades
ROAD_PIXELS = 96 * 96  # of an image; its linear systems take long for larger ones
RADIUS = 0.1  # standard deviation of these perturbations, in units of that of the training images
BETTER = {
    "deletion": "lower",
    "insertion": "higher",
    "road": "higher",
    "infidelity": "lower",
    "faded": "lower",
    "sensitivity": "lower",
    "pointing": "higher",
    "overlap": "higher",
}
ABOUT = {
    "deletion": "mean probability (of a regression, output) while the most important pixels get the mean colour",
    "insertion": "mean probability (of a regression, output) while the most important pixels return to a blurred image",
    "road": "mean probability (of a regression, output) without the least important pixels minus that without the most "
    "important ones, which "
    "become the mean of their neighbours",
    "infidelity": "squared error of the predicted change of the output under noise, over the mean squared change",
    "faded": "squared error of the predicted change of the output when cells of the image fade at random, at the best "
    "scale, over the mean squared change: 0 to 1",
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


@dataclasses.dataclass(frozen=True)
class Scores:
    """What methods scored on images.

    Attributes:
      of_each: by method and score, a number for each image [n]; NaN where an image has none.
      curves: by method, and "deletion" or "insertion": the probability of each image [points, n] while more and more
        pixels are changed, from none to all in equal parts.
    """

    of_each: dict[str, dict[str, Float[np.ndarray, " n"]]]
    curves: dict[str, dict[str, Float[np.ndarray, "points n"]]]


def of_part(
    subject: Subject,
    name: str,
    images: Float[np.ndarray, "n h w c"],
    target: Int[np.ndarray, " n"],
    values: np.ndarray,
    maps: Float[np.ndarray, "n h w"],
    explain: Callable[[str, Any, Any], Any],
    masks: Bool[np.ndarray, "n h w"] | None = None,
    road: bool | None = None,
) -> Of:
    """The scores and the curves of a few images by one method.

    Infidelity needs signed values for each channel, so it is computed only for methods that give these. "faded" is
    computed for all methods that say what speaks for an output. The controls have no sensitivity: random maps are the
    same for every image. A map of zeros says nothing, and has no score.

    Args:
      subject: the network.
      name: name of the method.
      images: normalised, at most `Subject.batch`.
      target: the explained output of each.
      values: the method's values for them.
      maps: the values as maps, with one number for each pixel.
      explain: `(name, images, target) -> Explanation` with the same options.
      masks: where the object of each image is, if that is known; images without one have NaN for these scores.
      road: whether `removal.road` is among the scores; None: for images of at most `ROAD_PIXELS`.
    """
    net, probability, method = subject.network, subject.probability, methods.find(name)
    road = images[0, ..., 0].size <= ROAD_PIXELS if road is None else road
    found, curves = {}, {}
    for score in (scores.deletion, scores.insertion):
        found[score.__name__], curves[score.__name__] = score(net, images, target, maps, probability=probability)
    if road:
        found["road"] = removal.road(net, images, target, maps, probability=probability)[0]
    shifts = scores.noise(images.shape, SHIFTS, RADIUS, 0)
    if method.gives == methods.SIGNED and values.ndim == 4:
        found["infidelity"] = scores.infidelity(net, images, target, values, shifts, relative=True)
    if method.gives != methods.SIZE or method.control:
        shares = scores.Noise(images.shape[:3], SHIFTS, FADED, 0, CELLS)
        found["faded"] = scores.faded(net, images, target, maps, shares)
    if not method.control:
        of_shifted = functools.partial(_values, explain, name, target)
        few = dataclasses.replace(shifts, count=SENSITIVITY_SHIFTS)
        found["sensitivity"] = scores.sensitivity(of_shifted, images, values, few)
    if masks is not None:
        there = masks.any((1, 2))
        for on_object in (scores.pointing, scores.overlap):
            found[on_object.__name__] = np.where(there, on_object(maps, masks), np.nan)
    empty = ~np.asarray(maps).any((1, 2))
    return {score: np.where(empty, np.nan, each) for score, each in found.items()}, curves


def joined(parts: Mapping[str, Sequence[Of]]) -> Scores:
    """The scores of all images from those of parts of them, in order, by method."""
    of_each, curves = (
        {
            name: {key: np.concatenate([part[k][key] for part in of], -1) for key in of[0][k]}
            for name, of in parts.items()
        }
        for k in (0, 1)
    )
    return Scores(of_each, curves)


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


def curves_csv(found: Scores) -> str:
    """The curves as CSV: method, curve, share of the pixels that are changed, mean, spread, images."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "curve", "share", "mean", "spread", "images"])
    for method, of_method in found.curves.items():
        for name, curve in of_method.items():
            for share, each in zip(np.linspace(0, 1, len(curve)), curve, strict=True):
                there = each[~np.isnan(each)]
                if len(there):
                    spread = there.std(ddof=1) if len(there) > 1 else 0.0
                    cells = (f"{number:.6g}" for number in (share, there.mean(), spread))
                    writer.writerow([method, name, *cells, len(there)])
    return file.getvalue()


def as_lines(rows: Sequence[Row]) -> list[str]:
    """The rows as lines of a terminal: names, one for each method, and how many images they are of."""
    names = list(dict.fromkeys(row.score for row in rows))
    cells = {(row.method, row.score): row.words for row in rows}
    made = [["method", *(f"{name} ({BETTER[name]})" for name in names)]]
    for method in dict.fromkeys(row.method for row in rows):
        made.append([method, *(cells.get((method, name), "") for name in names)])
    widths = [max(len(row[k]) for row in made) for k in range(len(made[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in made]
    counts = sorted({row.images for row in rows})
    return [
        *lines,
        f"mean ± standard deviation over {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} images",
    ]
