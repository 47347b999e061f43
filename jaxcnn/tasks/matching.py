"""Matches found objects to annotated ones, and counts what was missed and what is false.

There are two ways, for two questions. `judge` matches objects regardless of their class, the pairs with the largest
overlap first, so it shows confused classes: it is for the confusion matrix and for pictures. `hits` matches within a
class, the highest scores first, as COCO's average precision does: it is for precision and recall at any score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from jaxcnn.tasks.binned import best_threshold
from jaxcnn.tasks.confusion import Confusion, each_class
from jaxcnn.text import distinct

OVERLAP = 0.5  # least overlap of a found object with the annotated object to which it is matched
SCORE = 0.25  # from this score a found object counts in the confusion matrix, as in Ultralytics (`ConfusionMatrix`)
BACKGROUND = "background"
MEANS = {"precision": "precision", "recall": "recall", "f1": "F1"}  # means over the classes
NONE, IGNORED = -1, -2  # in place of a partner's number: no partner; neither right nor wrong


@dataclasses.dataclass(frozen=True)
class Objects:
    """The found and the annotated objects of an image.

    Attributes:
      score, found: the score and the class of each found object, by falling score.
      true, crowd: the class of each annotated object, and whether it is a crowd.
      overlap: intersection over union of each found with each annotated object; with a crowd, the share of the found
        object that lies in it.
    """

    score: Float32[np.ndarray, " f"]
    found: Int64[np.ndarray, " f"]
    true: Int64[np.ndarray, " t"]
    crowd: Bool[np.ndarray, " t"]
    overlap: Float64[np.ndarray, "f t"]

    def surer(self, score: float) -> "Objects":
        """The objects without the found ones whose score is below `score`."""
        kept = self.score >= score
        return dataclasses.replace(self, score=self.score[kept], found=self.found[kept], overlap=self.overlap[kept])


@dataclasses.dataclass(frozen=True)
class Judged:
    """The match of each found and each annotated object.

    Attributes:
      of_found: number of the annotated object of each found one; NONE if it is false, IGNORED if it lies in a crowd of
        its class.
      of_true: number of the found object of each annotated one; NONE if it was missed, IGNORED if it is a crowd.
    """

    of_found: Int64[np.ndarray, " f"]
    of_true: Int64[np.ndarray, " t"]

    @property
    def missed(self) -> int:
        """The number of annotated objects that were not found."""
        return int((self.of_true == NONE).sum())

    @property
    def false(self) -> int:
        """The number of found objects without an annotated one."""
        return int((self.of_found == NONE).sum())


def judge(objects: Objects, least: float = OVERLAP) -> Judged:
    """Match objects regardless of class: the pairs of the largest overlap first, each object once.

    Of equal overlaps the higher score comes first, then the annotated object of the smaller number.
    """
    of_found, of_true = (np.full(len(each), NONE) for each in (objects.found, objects.true))
    of_true[objects.crowd] = IGNORED
    found, true = np.nonzero((objects.overlap >= least) & ~objects.crowd)
    for pair in np.lexsort((true, found, -objects.overlap[found, true])):
        if of_found[found[pair]] == NONE and of_true[true[pair]] == NONE:
            of_found[found[pair]], of_true[true[pair]] = true[pair], found[pair]
    same = objects.found[:, None] == objects.true[None]
    in_crowd = ((objects.overlap >= least) & objects.crowd & same).any(axis=1)
    of_found[in_crowd & (of_found == NONE)] = IGNORED
    return Judged(of_found, of_true)


def confusion(images: Sequence[Objects], classes: int, score: float = SCORE, least: float = OVERLAP) -> Confusion:
    """The confusion matrix whose last row and column are the background: false and missed objects."""
    true: list[np.ndarray] = [np.zeros(0, np.int64)]
    found: list[np.ndarray] = [np.zeros(0, np.int64)]
    for image in images:
        image = image.surer(score)
        judged = judge(image, least)
        paired, missed, false = judged.of_true >= 0, judged.of_true == NONE, judged.of_found == NONE
        true += [image.true[paired], image.true[missed], np.full(false.sum(), classes)]
        found += [image.found[judged.of_true[paired]], np.full(missed.sum(), classes), image.found[false]]
    return Confusion.of(np.concatenate(true), np.concatenate(found), classes + 1)


def hits(image: Objects, label: int, least: float = OVERLAP) -> tuple[np.ndarray, np.ndarray, int]:
    """The scores of the found objects of a class, falling; whether each is a hit; and the number of annotated objects.

    As in COCO, a found object takes the free annotated object of the largest overlap; without one, it does not count if
    it lies in a crowd. The matches of a score do not depend on lower ones, so they hold for every threshold.
    """
    own, there = image.found == label, image.true == label
    scores, overlap, crowd = image.score[own], image.overlap[own][:, there], image.crowd[there]
    free = ~crowd
    hit, counts = np.zeros(len(scores), bool), np.ones(len(scores), bool)
    for k in range(len(scores)):
        of_free = np.where(free, overlap[k], -1.0)
        if len(of_free) and of_free.max() >= least:
            free[len(of_free) - 1 - int(of_free[::-1].argmax())] = False  # of equals the last one, as in COCO's code
            hit[k] = True
        elif (crowd & (overlap[k] >= least)).any():
            counts[k] = False
    return scores[counts], hit[counts], int((~crowd).sum())


def all_hits(images: Sequence[Objects], label: int, least: float = OVERLAP) -> tuple[np.ndarray, np.ndarray, int]:
    """The results of `hits` for several images, by falling score; equal scores keep the order of the images."""
    there = [image for image in images if (image.found == label).any() or (image.true == label).any()]
    if not there:
        return np.zeros(0, np.float32), np.zeros(0, bool), 0
    scores, hit, number = zip(*(hits(image, label, least) for image in there), strict=True)
    scores, hit = np.concatenate(scores), np.concatenate(hit)
    order = np.argsort(-scores, kind="stable")
    return scores[order], hit[order], sum(number)


def thresholds(images: Sequence[Objects], classes: int) -> list[float]:
    """The score threshold of each class that has the best F1; `SCORE` for a class without any object."""
    found: list[float] = []
    for label in range(classes):
        scores, hit, number = all_hits(images, label)
        found.append(best_threshold(scores, hit, number) if number and hit.any() else SCORE)
    return found


def of_classes(chosen: Sequence[float], classes: int) -> list[float]:
    """The `thresholds` of a validation for all classes: those that it lacks have `SCORE`; empty if there are none."""
    return [*chosen, *[SCORE] * (classes - len(chosen))] if chosen else []


def at_thresholds(images: Sequence[Objects], names: Sequence[str], chosen: Sequence[float]) -> dict[str, Any]:
    """Precision, recall and F1 of each class at its threshold, and their means over the classes with an object."""
    rows: dict[str, dict[str, Any]] = {}
    for label, (name, threshold) in enumerate(zip(distinct(tuple(names)), chosen, strict=True)):
        scores, hit, number = all_hits(images, label)
        told = scores >= np.float32(threshold)
        right, guessed = int(hit[told].sum()), int(told.sum())
        rows[name] = {
            "threshold": float(threshold),
            "examples": number,
            "precision": right / max(guessed, 1) if number else None,
            "recall": right / number if number else None,
            "f1": 2 * right / (guessed + number) if number else None,
        }
    there = [row for row in rows.values() if row["examples"]]
    means = {f"macro_{name}": float(np.mean([row[name] for row in there])) if there else None for name in MEANS}
    return {**means, "per_class": rows}


def figures(images: Sequence[Objects], names: Sequence[str], chosen: Sequence[float], of: str) -> dict[str, Any]:
    """The confusion matrix with background, and precision and recall of each class at its score and at its threshold.

    Args:
      images: the objects of all images.
      names: names of the classes.
      chosen: thresholds from `thresholds` of the validation split; empty without one.
      of: whose overlap is measured, "boxes" or "masks".
    """
    matrix = confusion(images, len(names))
    found = {
        "matched": {"of": of, "score": SCORE, "overlap": OVERLAP},
        "per_class": each_class(matrix, distinct(tuple(names))),
        "confusion_classes": list(distinct((*names, BACKGROUND))),
        "confusion_matrix": matrix.to_json(),
    }
    return found | ({"at_thresholds": at_thresholds(images, names, chosen)} if len(chosen) == len(names) else {})


def in_words(figures: Mapping[str, Any]) -> list[str]:
    """Lines on what was found, confused and missed, what is false, and the figures at the thresholds."""
    matrix = Confusion.from_json(figures["confusion_matrix"])
    last = matrix.classes - 1
    there, right = int(matrix.totals[:last].sum()), int(matrix.right.sum())
    missed = int(matrix.counts[(matrix.predicted == last) & (matrix.true < last)].sum())
    lines = [
        f"from a score of {figures['matched']['score']}: {right} of {there} found, {there - right - missed} as another "
        f"class, {missed} missed, {int(matrix.totals[last])} false"
    ]
    chosen = figures.get("at_thresholds", {})
    if chosen.get("macro_f1") is not None:
        told = [f"{title} {100 * chosen[f'macro_{name}']:.2f}%" for name, title in MEANS.items()]
        lines.append(f"from the scores chosen on validation: {'  '.join(told)}")
    return lines
