"""The figures of a detector, computed by COCO's own code in `faster-coco-eval`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.machine.extras import need
from jaxcnn.tasks import matching
from jaxcnn.tasks.box_records import in_stored
from jaxcnn.tasks.matching import Objects
from jaxcnn.tasks.task import Facts, Tree
from jaxcnn.text import distinct

MOST = 1, 10, 100  # boxes of a class in an image that COCO's figures count: AR 1, AR 10, and all others
MOST_CURVES = 100  # largest number of classes for which each class has its own curve of precision over recall
OVERLAPS = {0.5: 0, 0.75: 5}  # overlaps of these curves, and the indices of these overlaps in COCO's results
FIGURES = (  # figures of COCO's summary, in its order
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar", "ar_small", "ar_medium", "ar_large"),
)


class CocoFigures:
    """Collects found and annotated boxes, in pixels of the images as they are stored.

    Objects are small, medium or large by the area of the annotation, as in COCO: the limits are 32² and 96² pixels. Of
    more than 100 boxes of a class in an image, the best 100 count, as in COCO.
    """

    kind = "bbox"  # decides by which overlap objects are matched: that of boxes, or of masks ("segm")

    def __init__(self) -> None:
        need("detect", "the average precision of config.task.name='detection'")
        self._of_image: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = []  # annotated and found objects
        self._objects: list[Objects] = []  # those of the first images, compared

    def add(self, outputs: np.ndarray, target: Tree) -> None:
        """Add what was found, [n, found, 6] (`suppression.found_in`), and the targets of some images."""
        for place, rows in enumerate(outputs):
            annotated = self.annotated(target, place)
            self._of_image.append((annotated, self.found(rows[rows[:, 4] > 0], target, place)))

    def facts_of(self, image: int) -> dict[str, Any]:
        """The facts about an image added, counted from 0, that COCO's evaluation needs besides the image's id."""
        return {}

    def annotated(self, target: Tree, place: int) -> list[dict[str, Any]]:
        """The annotations of the image at `place` in a batch, in COCO's form, without ids."""
        real = target["valid"][place]
        boxes = in_stored(target["boxes"][place][real], target["frame"][place])
        columns = (target[name][place][real] for name in ("label", "crowd", "area"))
        return [
            {"category_id": int(label) + 1, "bbox": as_bbox(box), "area": float(area), "iscrowd": int(crowd)}
            for box, label, crowd, area in zip(boxes, *columns, strict=True)
        ]

    def found(self, rows: np.ndarray, target: Tree, place: int) -> list[dict[str, Any]]:
        """The boxes found in the image at `place` in a batch, in COCO's form; padding must be removed before."""
        return [
            {"category_id": int(row[5]) + 1, "bbox": as_bbox(box), "score": float(row[4])}
            for box, row in zip(in_stored(rows[:, :4], target["frame"][place]), rows, strict=True)
        ]

    def objects(self) -> list[Objects]:
        """The objects of each image added, with the overlaps between found and annotated ones."""
        self._objects += [self._compared(*each) for each in self._of_image[len(self._objects) :]]
        return self._objects

    def _compared(self, annotated: list[dict[str, Any]], found: list[dict[str, Any]]) -> Objects:
        from faster_coco_eval.core import mask

        there = sorted(found, key=lambda each: -each["score"])
        crowd = [each["iscrowd"] for each in annotated]
        of_boxes = self.kind == "bbox"
        shapes = [[each["bbox" if of_boxes else "segmentation"] for each in of] for of in (there, annotated)]
        sides = map(np.array, shapes) if of_boxes else shapes
        overlap = mask.iou(*sides, crowd) if annotated and there else np.zeros((len(there), len(annotated)))
        return Objects(
            np.array([each["score"] for each in there], np.float32),
            np.array([each["category_id"] - 1 for each in there], np.int64),
            np.array([each["category_id"] - 1 for each in annotated], np.int64),
            np.array(crowd, bool),
            np.asarray(overlap, np.float64),
        )

    def _all(self, kind: int) -> list[dict[str, Any]]:
        """The annotated (0) or the found (1) objects of all images, with the number of their image, from 1."""
        each = ((number, one) for number, both in enumerate(self._of_image, start=1) for one in both[kind])
        return [{"image_id": number, **one} for number, one in each]

    def fitted(self) -> dict[str, Any]:
        """The score threshold of each class with the best F1 at an overlap of 0.5; for the validation split."""
        chosen = matching.thresholds(self.objects(), self._classes())
        return {"thresholds": chosen} if chosen else {}

    def _classes(self) -> int:
        """The highest class number that occurs, counted from 1; classes above it get no threshold."""
        return max((each["category_id"] for both in self._of_image for of in both for each in of), default=0)

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """COCO's twelve figures, the AP of each class, and precision over recall at an overlap of 0.5.

        A figure is None where no annotated box counts for it; `ap` is then 0, since it decides. Also the confusion
        matrix with background, and precision and recall of each class (`jaxcnn.tasks.matching`).
        """
        return self.of_kind("bbox", names) | self._matched(names, fitted)

    def _matched(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """The figures of `matching`; a class without a threshold from validation has the usual score."""
        chosen = matching.of_classes(fitted.get("thresholds", ()), len(names))
        return matching.figures(self.objects(), names, chosen, "boxes" if self.kind == "bbox" else "masks")

    def of_kind(self, kind: str, names: Sequence[str]) -> dict[str, Any]:
        """The figures of boxes ("bbox") or of masks ("segm").

        "curves" has the precision at recalls 0, 0.01, …, 1: the mean over the classes at each overlap, and that of each
        class at an overlap of 0.5, if there are at most `MOST_CURVES` classes.
        """
        names = distinct(tuple(names))
        none = dict.fromkeys(names)
        of_all = dict.fromkeys(FIGURES) | {"ap": 0.0, "ap_by_class": none, "ap50_by_class": none}
        of_all |= {"precision": None, "curves": None}
        if not any(not each["iscrowd"] for annotated, _ in self._of_image for each in annotated):
            return of_all
        evaluated = self._evaluated(kind, names)
        # [overlaps, recalls, classes, areas, most]
        precision = np.asarray(evaluated.eval["precision"], np.float64)[:, :, :, 0, -1]
        known = np.asarray((precision > -1).any(axis=(0, 1)))
        figures = {
            name: None if value == -1 else float(value)
            for name, value in zip(FIGURES, evaluated.stats[: len(FIGURES)], strict=True)
        }

        def by_class(of: np.ndarray) -> dict[str, Any]:
            each = zip(names, of.tolist(), known.tolist(), strict=True)
            return {name: value if has else None for name, value, has in each}

        means = {f"{at:g}": precision[k][:, known].mean(axis=1).round(6).tolist() for at, k in OVERLAPS.items()}
        of_each = by_class(precision[0].T.round(4)) if len(names) <= MOST_CURVES else {}
        return {
            **figures,
            "ap_by_class": by_class(precision.mean(axis=(0, 1))),
            "ap50_by_class": by_class(precision[0].mean(axis=0)),
            "precision": means["0.5"],
            "curves": {"mean": means, "by_class": of_each},
        }

    def _evaluated(self, kind: str, names: Sequence[str]) -> Any:
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(
            {
                "images": [{"id": image + 1, **self.facts_of(image)} for image in range(len(self._of_image))],
                "categories": [{"id": label + 1, "name": name} for label, name in enumerate(names)],
                "annotations": [{"id": number, **each} for number, each in enumerate(self._all(0), start=1)],
            }
        )
        answers = self._all(1)
        if kind == "segm":  # without boxes, by which COCO's code would decide which found masks are small or large
            answers = [{name: each[name] for name in each if name != "bbox"} for each in answers]
        found = truth.loadRes(answers) if answers else COCO({**truth.dataset, "annotations": []})
        evaluated = COCOeval_faster(truth, found, kind, print_function=lambda *_: None)
        evaluated.params.maxDets = list(MOST)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
        return evaluated


def as_set(
    results: Sequence[Mapping[str, Any]],
    annotations_of: Callable[[Mapping[str, Any]], Iterable[dict[str, Any]]],
    categories: Mapping[int, str],
) -> dict[str, Any]:
    """The answers for files as a set in COCO's form; images that could not be read have an "error".

    Args:
      results: answers for files; each has "file", and "error" or an answer.
      annotations_of: returns the annotations of an answer, without "id" and "image_id".
      categories: names by id.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, result in enumerate(results, start=1):
        error = {"error": result["error"]} if "error" in result else {}
        images.append({"id": number, "file_name": result["file"], **error})
        for each in () if error else annotations_of(result):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **each})
    named = [{"id": identity, "name": name} for identity, name in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def as_bbox(corners: np.ndarray) -> list[float]:
    """A box as x, y, width, height from left, top, right, bottom."""
    left, top, right, bottom = map(float, corners)
    return [left, top, right - left, bottom - top]
