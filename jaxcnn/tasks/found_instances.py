"""The instances (boxes with masks) that a network finds in images: how they are judged, shown and described."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float32, UInt8

from jaxcnn.tasks import coco_figures, run_length
from jaxcnn.tasks.box_records import MASK, MASK_BOX, OUTLINE, STORED
from jaxcnn.tasks.coco_figures import CocoFigures
from jaxcnn.tasks.found_boxes import SURE
from jaxcnn.tasks.found_in_stages import FoundInStages, padded
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.instances import MASK_OUTPUTS
from jaxcnn.tasks.pasting import covered, from_grid, pasted, pasted_part
from jaxcnn.tasks.task import Facts, Tree

BOX_COLUMNS = 6  # columns before the cells of the mask: those of `suppression.found_in`
OF_MASKS = tuple(f"mask_{name}" for name in coco_figures.FIGURES)


@dataclasses.dataclass(frozen=True)
class FoundInstances(FoundInStages):
    """Boxes with scores and masks, judged by COCO's average precision of masks, and that of boxes."""

    @property
    def headline(self) -> Headline:
        """The average precision of masks, over overlaps from 0.5 to 0.95 and all classes."""
        return Headline("mask_ap", "mask AP")

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """COCO's figures of masks and boxes that have a value, by name."""
        names = (*OF_MASKS, *coco_figures.FIGURES)
        return {name: figures[name] for name in names if figures[name] is not None}

    @property
    def found_in_words(self) -> str:
        """The columns of the array from `found`."""
        return (
            f"instances: float32 [batch, objects, {BOX_COLUMNS + MASK_OUTPUTS**2}]: left, top, right and bottom in "
            "pixels of the input, score, number of the class, then row by row the probability of each cell of a grid "
            f"of {MASK_OUTPUTS} x {MASK_OUTPUTS} over the box to be within the object; a score of 0 is padding"
        )

    def found(self, outputs: Any) -> Float32[Array, "b found 6m"]:
        """The boxes and masks that the network has found, by falling score."""
        masks = outputs["masks"].reshape(*outputs["scores"].shape, -1)
        return padded(outputs, masks)

    def collector(self, constants: Any) -> "InstanceFigures":
        """An empty collector of COCO's figures of boxes and masks."""
        return InstanceFigures()

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """The answers as in `Detections`, each box also with "grid", the cells of its mask.

        Painting a mask takes longer than all the rest, so this is done once, in the stored image: by `in_stored`.
        """
        told = super().answers(outputs[..., :BOX_COLUMNS], names, constants, fitted)
        for answer, rows in zip(told, outputs, strict=True):
            for each, row in zip(answer["boxes"], rows[rows[:, 4] > 0], strict=True):
                each["grid"] = _grid(row)
        return told

    def in_stored(self, answer: dict[str, Any], frame: np.ndarray, sides: tuple[int, int]) -> dict[str, Any]:
        """The answer with boxes in pixels of the stored image, and "segmentation", COCO's run lengths of the masks."""
        moved = super().in_stored(answer, frame, sides)
        for each in moved["boxes"]:
            each["segmentation"] = _segmentation(each.pop("grid"), each["bbox"], sides)
        return moved

    def as_file(self, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
        """A set in COCO's form, whose annotations have a score and a mask."""

        def annotations_of(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            for each in result["boxes"]:
                of_box = {name: each[name] for name in ("category_id", "bbox", "score", "segmentation")}
                yield {**of_box, "area": int(run_length.decode(each["segmentation"]).sum()), "iscrowd": 0}

        return coco_figures.as_set(results, annotations_of, dict(enumerate(names, start=1)))

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], answer: Mapping[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
        """The image with its confident boxes and masks drawn in."""
        sure = [each for each in answer["boxes"] if each["score"] >= SURE]
        masks = [run_length.decode(each["segmentation"]) != 0 for each in sure]
        return super().drawn(covered(image, masks, [each["category_id"] - 1 for each in sure]), answer)

    def _masks(self, target: Tree, found: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The masks of the annotated and of the found objects, in the image that the network sees."""
        real = target["valid"]
        true = zip(target[MASK][real], target[MASK_BOX][real], strict=True)
        return (
            [from_grid(bits, box, self.sides) for bits, box in true],
            [pasted(_grid(row), row[:4], self.sides) for row in found],
        )

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with COCO's figures of masks and boxes, and the numbers of found, confused, missed, false objects."""
        of_masks = {**figures} | {name: figures[f"mask_{name}"] for name in coco_figures.FIGURES}
        of_boxes = [f"boxes: {line}" for line in self._of_coco(figures)]
        return [f"masks: {self._of_coco(of_masks)[0]}", *of_boxes, *self._matched(figures)]


def _grid(row: Float32[np.ndarray, " columns"]) -> Float32[np.ndarray, "m m"]:
    return row[BOX_COLUMNS:].reshape(MASK_OUTPUTS, MASK_OUTPUTS)


def _segmentation(grid: Float32[np.ndarray, "m m"], bbox: Sequence[float], sides: tuple[int, int]) -> dict[str, Any]:
    """The run lengths of a found mask, whose box is x, y, width, height, in an image of this height and width."""
    x, y, width, height = bbox
    return pasted_part(grid, np.array([x, y, x + width, y + height]), sides).encoded(sides)


def _stored(target: Tree, place: int) -> tuple[int, int]:
    """Height and width of the stored image at `place` in a batch."""
    height, width = target[STORED][place].tolist()
    return height, width


class InstanceFigures(CocoFigures):
    """A collector of found boxes and masks, and of the annotated ones, in pixels of the stored images.

    As in COCO's own evaluation, the annotated masks are those that the annotations describe, not the grids that the
    network learns, and the found ones are those that predictions write (`FoundInstances.in_stored`).
    """

    kind = "segm"

    def __init__(self) -> None:
        super().__init__()
        self._stored_sides: list[tuple[int, int]] = []

    def facts_of(self, image: int) -> dict[str, Any]:
        """The height and width of the image, which its masks have, too."""
        height, width = self._stored_sides[image]
        return {"height": height, "width": width}

    def annotated(self, target: Tree, place: int) -> list[dict[str, Any]]:
        """The annotated objects as in `CocoFigures`, each also with its mask."""
        told, sides = super().annotated(target, place), _stored(target, place)
        self._stored_sides.append(sides)
        outlines = target[OUTLINE][place][target["valid"][place]]
        for each, counts in zip(told, outlines, strict=True):
            each["segmentation"] = {"size": list(sides), "counts": counts}
        return told

    def found(self, rows: np.ndarray, target: Tree, place: int) -> list[dict[str, Any]]:
        """The found objects as in `CocoFigures`, each also with its mask."""
        told, sides = super().found(rows, target, place), _stored(target, place)
        for each, row in zip(told, rows, strict=True):
            each["segmentation"] = _segmentation(_grid(row), each["bbox"], sides)
        return told

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """COCO's figures of boxes and (with the prefix "mask_") of masks, and the figures of matched masks."""
        of_masks = self.of_kind("segm", names)
        renamed = {f"mask_{name}": value for name, value in of_masks.items() if name != "precision"}
        return self.of_kind("bbox", names) | renamed | self._matched(names, fitted)
