"""The regions that a segmentation network finds in images: how they are judged, shown and described."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxcnn.tasks import compared, run_length
from jaxcnn.tasks.coco_figures import as_bbox, as_set
from jaxcnn.tasks.confusion import Confusion, by_class, draw
from jaxcnn.tasks.faults import Compared
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.marks import Mark
from jaxcnn.tasks.segmentation import VOID, Maps, PixelOutputs, coloured, in_shares, right
from jaxcnn.tasks.task import Facts, OfEach
from jaxcnn.text import distinct, shown

RECORDED = ("mean_iou", "mean_dice", "overall_accuracy")
MOST_TOLD = 20  # largest number of classes whose figures are printed
MOST_NAMED = 3  # largest number of classes of an image that are named beside it
NO_BOXES = np.zeros((0, 4))


@dataclasses.dataclass(frozen=True)
class Regions:
    """An evaluation with one class for each pixel, judged by intersection over union."""

    @property
    def headline(self) -> Headline:
        """The mean intersection over union of the classes, counted over the pixels of the whole split."""
        return Headline("mean_iou", "mean IoU")

    @property
    def of_groups(self) -> tuple[str, ...]:
        """The headline figure is also computed for each group."""
        return (self.headline.name,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The name of the only mean over images, the share of correct pixels."""
        return ("pixel_accuracy",)

    @property
    def collects(self) -> bool:
        """Always True, because the headline figure is not a mean over images."""
        return True

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """The figures of all classes together, by name."""
        return {name: figures[name] for name in RECORDED}

    def values(self, outputs: PixelOutputs, target: Maps, constants: Any) -> dict[str, OfEach]:
        """The share of correct pixels in each image, [b], by name."""
        return {"pixel_accuracy": right(outputs, target)}

    @property
    def found_in_words(self) -> str:
        """A description of the map from `found`."""
        return "classes: uint8 [batch, height, width]: the number of the class of each pixel of the input"

    def found(self, outputs: PixelOutputs) -> UInt8[Any, "b h w"]:
        """The class with the largest logit at each pixel."""
        return jnp.argmax(outputs, axis=-1).astype(jnp.uint8)

    def agreement(self, found: np.ndarray, other: np.ndarray) -> float:
        """The share of pixels with the same class."""
        return float(np.mean(found == other))

    def over_image(self, outputs: PixelOutputs) -> Float32[Any, "b k"]:
        """The mean logit of each class; its softmax is the normalised geometric mean of the pixels' probabilities."""
        return outputs.mean(axis=(1, 2))

    def collector(self, constants: Any) -> "Overlaps":
        """An empty collector that counts the pixels of each pair of true and predicted class."""
        return Overlaps()

    def answers(
        self, outputs: UInt8[np.ndarray, "n h w"], names: Sequence[str], constants: Any, fitted: Facts
    ) -> list[dict[str, Any]]:
        """The "regions" of each image, the largest first: label, category_id, area in pixels, share, segmentation.

        The segmentation has COCO's run lengths (`jaxcnn.tasks.run_length`).
        """
        return [{"regions": _regions(each, names)} for each in outputs]

    def in_stored(self, answer: dict[str, Any], frame: np.ndarray, sides: tuple[int, int]) -> dict[str, Any]:
        """The answer at the size of the stored image, by nearest pixels; parts outside the stored image are cut off."""
        found = label_map(answer)
        scale, shift = frame[:2].astype(np.float64), frame[2:].astype(np.float64)
        height, width = found.shape
        columns = ((np.arange(sides[1]) + 0.5) * scale[0] + shift[0]).astype(np.int64).clip(0, width - 1)
        rows = ((np.arange(sides[0]) + 0.5) * scale[1] + shift[1]).astype(np.int64).clip(0, height - 1)
        names = {each["category_id"]: each["label"] for each in answer["regions"]}
        of_all = [names.get(number, "") for number in range(max(names, default=0) + 1)]
        return answer | {"regions": _regions(found[rows[:, None], columns], of_all)}

    def as_file(self, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
        """A set in COCO's form, with an annotation for each class of an image, numbered as in label maps."""

        def annotations_of(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            for each in result["regions"]:
                of_region = {name: each[name] for name in ("category_id", "area", "segmentation")}
                yield {**of_region, "bbox": as_bbox(run_length.corners(each["segmentation"])), "iscrowd": 1}

        return as_set(results, annotations_of, dict(enumerate(names)))

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], answer: Mapping[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
        """The image with the colours of its classes over it; class 0, which is often the background, has none."""
        return coloured(image, label_map(answer))

    def marks(self, answer: Mapping[str, Any]) -> list[Mark]:
        """The regions as marks; class 0, which is often the background, is quiet."""
        return [
            Mark(
                each["label"],
                each["category_id"],
                f"{100 * each['share']:.1f} % of the image",
                mask=each["segmentation"],
                quiet=each["category_id"] == 0,
            )
            for each in answer["regions"]
        ]

    def in_words(self, answer: Mapping[str, Any]) -> str:
        """The classes with their shares of the image, such as "sky 62%, tree 38%"."""
        regions = answer["regions"]
        shares = np.array([each["share"] for each in regions])
        return in_shares(shares, [shown(each["label"]) for each in regions], MOST_TOLD) or "nothing"

    def probabilities(self, outputs: np.ndarray) -> None:
        """None, because the outputs are maps of classes."""

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The share of each class that occurs, by its name."""
        return {each["label"]: each["share"] for each in sorted(answer["regions"], key=lambda of: of["category_id"])}

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with the intersection over union of all classes together, and of single classes, the worst first."""
        by_name = {name: value for name, value in figures["iou_by_class"].items() if value is not None}
        told = [f"{shown(name)} {100 * by_name[name]:.2f}%" for name in sorted(by_name, key=lambda of: by_name[of])]
        more = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        return [
            f"mean IoU {100 * figures['mean_iou']:.2f}%  mean Dice {100 * figures['mean_dice']:.2f}%  "
            f"pixels right {100 * figures['overall_accuracy']:.2f}%  loss {figures['loss']:.4f}",
            f"IoU by class: {', '.join(told[:MOST_TOLD])}{more}",
        ]

    @property
    def faults(self) -> Mapping[str, str]:
        """The only kind of fault with its title: pixels of a wrong class."""
        return {"wrong": "Most wrong pixels"}

    @property
    def legend(self) -> str:
        """A sentence on the colours of the pictures."""
        return "Left the classes as annotated, right as found, in the same colours; class 0 has none."

    def faults_of(
        self, outputs: UInt8[np.ndarray, "n h w"], target: Maps, collector: Any = None
    ) -> dict[str, np.ndarray]:
        """The share of wrong pixels among the pixels of each image that have a class, [n], by name."""
        there = target != VOID
        wrong = ((outputs != target) & there).sum(axis=(1, 2))
        return {"wrong": wrong / np.maximum(there.sum(axis=(1, 2)), 1)}

    def compared(
        self, image: UInt8[np.ndarray, "h w 3"], outputs: UInt8[np.ndarray, "h w"], target: Maps, names: Sequence[str]
    ) -> Compared:
        """One image twice, with the annotated classes and with the found ones, and both in words."""
        wrong = self.faults_of(outputs[None], target[None])["wrong"][0]
        areas = np.bincount(target[target != VOID], minlength=len(names))
        told = in_shares(areas / max(areas.sum(), 1), [shown(name) for name in names], MOST_NAMED)
        return Compared(
            compared.drawn(coloured(image, target), NO_BOXES, ()),
            compared.drawn(coloured(image, outputs), NO_BOXES, ()),
            label=told or "nothing",
            answer=f"{100 * wrong:.1f}% of the pixels wrong",
        )

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw the confusion matrix of pixels."""
        draw(Confusion.from_json(figures["confusion_matrix"]), names, path)


class Overlaps:
    """Counts how many pixels of each class were found as each class, over all images, without pixels of no class."""

    def __init__(self) -> None:
        self._counts = np.zeros((256, 256), np.int64)

    def add(self, outputs: UInt8[np.ndarray, "n h w"], target: UInt8[np.ndarray, "n h w"]) -> None:
        """Add the maps that were found in some images, and their true maps."""
        there = target != VOID
        pairs = target[there].astype(np.int64) * 256 + outputs[there]
        self._counts += np.bincount(pairs, minlength=256 * 256).reshape(256, 256)

    def fitted(self) -> dict[str, Any]:
        """Nothing is fitted: an empty mapping."""
        return {}

    def figures(self, names: Sequence[str], fitted: Facts) -> dict[str, Any]:
        """Mean IoU and Dice over the classes that have pixels, the values of each class, and the confusion matrix.

        The IoU of a class is the number of pixels that have it in both maps, over those in either (Everingham et al.
        2010, "The Pascal Visual Object Classes challenge", section 4.1.3); Dice is F1. None for a class without pixels.
        """
        names = distinct(tuple(names))
        counts = self._counts[: len(names), : len(names)]
        true, predicted = np.nonzero(counts)
        confusion = Confusion(len(names), true, predicted, counts[true, predicted])
        hits, totals, guessed = confusion.right, confusion.totals, confusion.guessed
        has = totals > 0
        union = np.maximum(totals + guessed - hits, 1)
        iou, dice = hits / union, 2 * hits / np.maximum(totals + guessed, 1)
        if not has.any():
            none = dict.fromkeys(names)
            matrix = confusion.to_json()
            empty = {"iou_by_class": none, "dice_by_class": none, "confusion_matrix": matrix}
            return {**dict.fromkeys(RECORDED, 0.0), **empty}
        of_classes = by_class(confusion, names)
        return {
            "mean_iou": float(iou[has].mean()),
            "mean_dice": float(dice[has].mean()),
            "overall_accuracy": float(hits.sum() / totals.sum()),
            "iou_by_class": {name: float(iou[k]) if has[k] else None for k, name in enumerate(names)},
            "dice_by_class": {name: float(dice[k]) if has[k] else None for k, name in enumerate(names)},
            "confusion_matrix": of_classes["confusion_matrix"],
        }


def _regions(found: UInt8[np.ndarray, "h w"], names: Sequence[str]) -> list[dict[str, Any]]:
    """The regions of a map, one for each class that occurs, the largest first."""
    area = np.bincount(found.ravel(), minlength=256)
    return [
        {
            "label": names[label],
            "category_id": label,
            "area": int(area[label]),
            "share": float(area[label] / found.size),
            "segmentation": run_length.encode((found == label).astype(np.uint8)),
        }
        for label in np.argsort(-area, kind="stable").tolist()
        if area[label]
    ]


def label_map(answer: Mapping[str, Any]) -> UInt8[np.ndarray, "h w"]:
    """The map of classes from an answer."""
    height, width = answer["regions"][0]["segmentation"]["size"]
    found = np.full((height, width), VOID, np.uint8)
    for each in answer["regions"]:
        found[run_length.decode(each["segmentation"]) != 0] = each["category_id"]
    return found
