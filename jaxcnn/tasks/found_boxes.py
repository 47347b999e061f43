"""The boxes that a detector finds in images: how they are judged, shown and described."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from jaxcnn.tasks import coco_figures, coco_pictures, compared, matching, objectness, suppression
from jaxcnn.tasks.box_geometry import overlap
from jaxcnn.tasks.box_records import in_stored
from jaxcnn.tasks.coco_figures import CocoFigures, as_bbox
from jaxcnn.tasks.faults import Compared
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.marks import Mark
from jaxcnn.tasks.task import Collector, Facts, OfEach, Tree
from jaxcnn.text import counted, shown

SURE = 0.3  # score from which a found box is drawn and told in words
SAME_PLACE = 0.9  # IoU from which two boxes count as the same place
MOST_WITH_TEXT = 12  # boxes; with more of them, their texts would hide the image
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def colour_table() -> Float32[np.ndarray, "colours 3"]:
    """`COLOURS` as red, green and blue, from 0 to 255."""
    return np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS], np.float32)


@dataclasses.dataclass(frozen=True)
class Detections:
    """Boxes with scores, judged by COCO's average precision.

    Attributes:
      sides: height and width of the images.
      most_found: boxes found in an image.
      rule: which of the boxes that overlap are found.
      classes: number of classes; columns after their logits serve only training. 0: there are no such columns.
      has_objectness: whether the column after them is the logit of an object.
    """

    sides: tuple[int, int]
    most_found: int
    rule: suppression.Rule
    classes: int = 0
    has_objectness: bool = False

    @property
    def headline(self) -> Headline:
        """The average precision, over overlaps from 0.5 to 0.95 and all classes."""
        return Headline("ap", "AP")

    @property
    def of_groups(self) -> tuple[str, ...]:
        """The headline figure is also computed for each group."""
        return (self.headline.name,)

    @property
    def metrics(self) -> tuple[str, ...]:
        """No figure is a mean over images: an empty tuple."""
        return ()

    @property
    def collects(self) -> bool:
        """Always True, because only a collector computes the headline figure."""
        return True

    def recorded(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """COCO's figures that have a value, by name."""
        return {name: figures[name] for name in coco_figures.FIGURES if figures[name] is not None}

    def values(self, outputs: Any, target: Tree, constants: Any) -> dict[str, OfEach]:
        """No figures of single images: an empty mapping."""
        return {}

    @property
    def found_in_words(self) -> str:
        """The columns of the array from `found`."""
        return (
            "boxes: float32 [batch, boxes, 6]: left, top, right and bottom in pixels of the input, score, number of "
            "the class; a score of 0 is padding"
        )

    def of_places(self, outputs: Float32[Array, "b a k4"]) -> tuple[Float32[Array, "b a 4"], Float32[Array, "b a k"]]:
        """The box of each point (left, top, right, bottom in pixels, perhaps over the border) and its class logits."""
        boxes, logits = outputs[..., :4], outputs[..., 4 : 4 + self.classes if self.classes else None]
        if self.has_objectness:
            logits = objectness.joined(logits, outputs[..., 4 + self.classes :])
        return boxes, logits

    def found(self, outputs: Float32[Array, "b a k4"]) -> suppression.Found:
        """The boxes that survive non-maximum suppression, by falling score."""

        def of_one(answers: Float32[Array, "a k4"]) -> Float32[Array, "found 6"]:
            return suppression.found_in(*self.of_places(answers), self.sides, self.most_found, self.rule)

        return jax.vmap(of_one)(outputs)

    def agreement(self, found: np.ndarray, other: np.ndarray) -> float:
        """The share of confident boxes with a partner in `other`: of equal class, and close in score and place.

        Scores may differ by 0.05, and the IoU is at least 0.9. The share is 1 if no score is at least `SURE`.
        """
        partners: list[bool] = []
        for rows, others in zip(found, other, strict=True):
            sure = rows[rows[:, 4] >= SURE]
            near = self._same_place(sure, others)
            alike = (sure[:, None, 5] == others[None, :, 5]) & (np.abs(sure[:, None, 4] - others[None, :, 4]) <= 0.05)
            partners += (near & alike & (others[None, :, 4] > 0)).any(axis=1).tolist()
        return sum(partners) / len(partners) if partners else 1.0

    def _same_place(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which of the others lies nearly where each row does, bool [rows, others]."""
        of_each, of_others = jnp.asarray(rows[:, None, :4]), jnp.asarray(others[None, :, :4])
        return np.asarray(overlap(of_each, of_others)) >= SAME_PLACE

    def collector(self, constants: Any) -> CocoFigures:
        """An empty collector of COCO's figures."""
        return CocoFigures()

    def answers(self, outputs: np.ndarray, names: Sequence[str], constants: Any, fitted: Facts) -> list[dict[str, Any]]:
        """A mapping with "boxes" for each image, by falling score: label, score, bbox (x, y, width, height)."""
        return [
            {
                "boxes": [
                    {
                        "label": names[int(row[5])],
                        "category_id": int(row[5]) + 1,
                        "score": float(row[4]),
                        "bbox": as_bbox(row[:4]),
                    }
                    for row in rows
                    if row[4] > 0
                ]
            }
            for rows in outputs
        ]

    def in_stored(self, answer: dict[str, Any], frame: np.ndarray, sides: tuple[int, int]) -> dict[str, Any]:
        """The answer with boxes in pixels of the stored image."""
        boxes = []
        for each in answer["boxes"]:
            x, y, width, height = each["bbox"]
            corners = np.array([[x, y, x + width, y + height]], np.float32)
            boxes.append(each | {"bbox": as_bbox(in_stored(corners, frame)[0])})
        return answer | {"boxes": boxes}

    def as_file(self, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
        """A set in COCO's form whose annotations have a score; images that could not be read have an "error"."""

        def annotations_of(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
            for each in result["boxes"]:
                of_box = {name: each[name] for name in ("category_id", "bbox", "score")}
                yield {**of_box, "area": each["bbox"][2] * each["bbox"][3], "iscrowd": 0}

        return coco_figures.as_set(results, annotations_of, dict(enumerate(names, start=1)))

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], answer: Mapping[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
        """The image with its confident boxes drawn in, with class and score if there are at most `MOST_WITH_TEXT`."""
        sure = [each for each in answer["boxes"] if each["score"] >= SURE]
        texts = [f"{each['label']} {100 * each['score']:.0f}%" for each in sure]
        return draw_boxes(
            image,
            [each["bbox"] for each in sure],
            [each["category_id"] - 1 for each in sure],
            texts if len(sure) <= MOST_WITH_TEXT else None,
        )

    def marks(self, answer: Mapping[str, Any]) -> list[Mark]:
        """The boxes as marks, with their masks if they have any."""
        return [
            Mark(
                each["label"],
                each["category_id"] - 1,
                f"{100 * each['score']:.1f} %",
                each["score"],
                each["bbox"],
                each.get("segmentation"),
            )
            for each in answer["boxes"]
        ]

    def in_words(self, answer: Mapping[str, Any]) -> str:
        """The confident boxes counted by class, such as "2 cat, 1 dog"."""
        count = collections.Counter(each["label"] for each in answer["boxes"] if each["score"] >= SURE)
        return ", ".join(f"{number} {shown(label)}" for label, number in count.most_common()) or "nothing"

    def probabilities(self, outputs: np.ndarray) -> None:
        """None, because the outputs are boxes."""

    def columns(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The number of confident boxes: of all classes together, and of each class that occurs."""
        count = collections.Counter(each["label"] for each in answer["boxes"] if each["score"] >= SURE)
        return {"boxes": count.total(), **dict(sorted(count.items()))}

    def describe(self, figures: Mapping[str, Any]) -> list[str]:
        """Lines with COCO's figures, and with the numbers of objects that were found, confused, missed and false."""
        return [*self._of_coco(figures), *self._matched(figures)]

    def _of_coco(self, figures: Mapping[str, Any]) -> list[str]:
        def told(*names: str) -> str:
            values = [figures[name] for name in names]
            texts = ["none" if value is None else f"{100 * value:.2f}%" for value in values]
            labels = [name[:2].upper() + name[2:].replace("_", " ") for name in names]
            return "  ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True))

        return [
            f"{told('ap', 'ap50', 'ap75', 'ar')}  loss {figures['loss']:.4f}",
            "by size: " + told("ap_small", "ap_medium", "ap_large"),
        ]

    def _matched(self, figures: Mapping[str, Any]) -> list[str]:
        return matching.in_words(figures) if "matched" in figures else []

    @property
    def faults(self) -> Mapping[str, str]:
        """The kinds of faults with their titles: missed objects and false objects."""
        return {"missed": "Most missed objects", "false": "Most false objects"}

    @property
    def legend(self) -> str:
        """A sentence on the colours of the pictures."""
        return compared.LEGEND

    def faults_of(self, outputs: np.ndarray, target: Tree, collector: Collector | None = None) -> dict[str, np.ndarray]:
        """The numbers of missed objects and of false objects in each image, by kind."""
        judged = [matching.judge(objects) for objects in self._sure(outputs, target, collector)]
        return {name: np.array([getattr(each, name) for each in judged]) for name in self.faults}

    def _sure(self, outputs: np.ndarray, target: Tree, collector: Collector | None = None) -> list[matching.Objects]:
        """The objects of each image; found ones need at least the score at which the confusion matrix counts them."""
        if not isinstance(collector, CocoFigures):
            collector = self.collector(None)
            collector.add(np.where(outputs[..., 4:5] >= matching.SCORE, outputs, 0), target)
        last = collector.objects()[-len(outputs) :] if len(outputs) else []
        return [objects.surer(matching.SCORE) for objects in last]

    def compared(
        self, image: UInt8[np.ndarray, "h w 3"], outputs: np.ndarray, target: Tree, names: Sequence[str]
    ) -> Compared:
        """One image twice, with its annotated boxes and with the found ones, and both in words."""
        (objects,) = self._sure(outputs[None], jax.tree.map(lambda leaf: leaf[None], target))
        judged, real = matching.judge(objects), target["valid"]
        sure = outputs[outputs[:, 4] >= matching.SCORE]
        sure = sure[np.argsort(-sure[:, 4], kind="stable")]
        of_true, of_found = compared.colours(objects, judged)
        left, right = self._masks(target, sure)
        return Compared(
            compared.drawn(image, target["boxes"][real], of_true, left),
            compared.drawn(image, sure[:, :4], of_found, right),
            label=counted(int((~objects.crowd).sum()), "object"),
            answer=compared.in_words(judged, objects),
        )

    def _masks(self, target: Tree, found: np.ndarray) -> tuple[Any, Any]:
        """The masks of the annotated and of the found objects of an image; None where they have no masks."""
        return None, None

    def draw(self, figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
        """Draw precision over recall, the AP of each class, and the confusion matrix."""
        coco_pictures.draw(figures, names, path)


def draw_boxes(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    texts: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """An image with boxes (x, y, width, height) drawn in the colours of their classes, with texts if they are given."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(image.shape[:2]) / 320))
    for number, ((x, y, width, height), label) in enumerate(zip(boxes, labels, strict=True)):
        colour = COLOURS[label % len(COLOURS)]
        pen.rectangle([x, y, max(x + width - 1, x), max(y + height - 1, y)], outline=colour, width=line)
        if texts is not None:
            text = shown(texts[number]).encode("ascii", "replace").decode()  # what Pillow's own font has
            at = (x + line + 1, max(y - 11, 0))
            pen.rectangle(pen.textbbox(at, text), fill=colour)
            pen.text(at, text, fill="white")
    return np.asarray(picture)
