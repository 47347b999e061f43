"""Detection: boxes of objects and their classes, as targets and as a loss."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, UInt8

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.tasks import box_geometry, box_records, objectness, side_bins
from jaxcnn.tasks.assignment import assign, binary_cross_entropy
from jaxcnn.tasks.box_records import OF_IMAGE
from jaxcnn.tasks.coco_figures import as_bbox
from jaxcnn.tasks.found_boxes import draw_boxes
from jaxcnn.tasks.moving import Move, product
from jaxcnn.tasks.task import Facts, OfEach, Outputs, Settings, Tree
from jaxcnn.text import counted, listed, shorten

BETA = 2.0  # power of the quality focal loss
BOX_WEIGHT = 2.0  # weight of the box loss relative to the class loss (Lyu et al. 2022, arXiv:2212.07784, section 2.3)
VISIBLE = 0.2  # share of a box that must stay visible in a moved image; with less it counts as a crowd
GROUPS = 10  # groups of images by their number of boxes, for stratified validation

Corners = Float32[Array, "g 4"]


def moved_boxes(boxes: Corners, move: Move) -> Corners:
    """The boxes [g, 4] after their image has moved.

    For a rotated object only the box is known. The box around the rotated corners is too large for all but rectangles;
    this is the box around the rotated ellipse that fills the old box, as Kalra et al. 2021 (arXiv 2109.13488) propose.
    """
    if move.across is None:
        scale, shift = jnp.tile(move.scale, 2), jnp.tile(move.shift, 2)
        ends = product(boxes, scale) + shift
        return jnp.concatenate([jnp.minimum(ends[:, :2], ends[:, 2:]), jnp.maximum(ends[:, :2], ends[:, 2:])], axis=1)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    along, across = product(middle, move.scale), product(middle[:, ::-1], move.across)
    centre = (along + across) + move.shift
    squares = jnp.square(half * move.scale), jnp.square(half[:, ::-1] * move.across)
    reach = jnp.sqrt(jnp.clip(squares[0], 0.0, 1e30) + jnp.clip(squares[1], 0.0, 1e30))
    return jnp.concatenate([centre - reach, centre + reach], axis=1)


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Targets that are padded boxes: the columns of `box_records`, as a mapping."""

    classes: int
    most: int

    @property
    def outputs(self) -> int:
        """The number of classes; a detector also outputs a box at each point."""
        return self.classes

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes and types of all columns of one image."""
        fields: Any = self.record_type().fields
        subtypes = {name: field[0].subdtype or (field[0], ()) for name, field in fields.items()}
        return {name: jax.ShapeDtypeStruct(shape, base) for name, (base, shape) in subtypes.items()}

    def record_type(self) -> np.dtype:
        """The type of the records of images."""
        return box_records.record_type(self.most)

    def whole(self, target: Tree) -> Tree:
        """The targets unchanged, because images with boxes are never mixed."""
        return target

    def mixed(self, target: Tree, other: Tree, share: OfEach) -> Tree:
        """Never called: images with boxes are not mixed, and the config refuses it."""
        raise NotImplementedError

    def moved(self, target: Tree, move: Move, sides: tuple[int, int]) -> Tree:
        """The boxes of one image that has moved, cut off at the border of the image.

        A box of which less than `VISIBLE` is left counts as a crowd: what is left is neither background nor learnt.
        """
        corners = moved_boxes(target["boxes"], move)
        return self._cut(target, corners, corners, move, sides)

    def _cut(self, target: Tree, whole: Corners, seen: Corners, move: Move, sides: tuple[int, int]) -> Tree:
        """The target with new boxes: the `seen` parts of `whole` objects, which may reach beyond the image."""
        height, width = sides
        cut = jnp.clip(seen, 0.0, jnp.array([width, height, width, height], jnp.float32))
        left = box_geometry.area(cut)
        valid = target["valid"] & (left > 0)
        crowd = target["crowd"] | (left < VISIBLE * box_geometry.area(whole))
        boxes = jnp.where(valid[:, None], cut, 0.0)
        frame = target["frame"]
        if move.across is None:
            stretch = jnp.tile(move.scale, 2) * frame
            frame = stretch + jnp.concatenate([jnp.zeros(2), move.shift])
        return target | {"boxes": boxes, "valid": valid, "crowd": crowd, "frame": frame}

    def composed(self, parts: Tree, seen: Bool[Array, "n h w"]) -> Tree:
        """The boxes of several images that form one: the largest first, crowds last, at most as many as places."""
        objects = {name: each.reshape(-1, *each.shape[2:]) for name, each in parts.items() if name not in OF_IMAGE}
        size = box_geometry.area(objects["boxes"])
        kept = jnp.lexsort((-size, objects["crowd"], ~objects["valid"]))[: self.most]
        found = {name: parts[name][0] if name in OF_IMAGE else objects[name][kept] for name in parts}
        return found | {"boxes": jnp.where(found["valid"][:, None], found["boxes"], 0.0)}

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], target: Tree) -> UInt8[np.ndarray, "h w 3"]:
        """The image with the boxes, in the colours of their classes."""
        real = target["valid"]
        return draw_boxes(image, [as_bbox(box) for box in target["boxes"][real]], target["label"][real].tolist())

    def read(self, labels: np.ndarray, title: str, base: str) -> Tree:
        """The columns of records, with `most` places for each image."""
        if labels.dtype.names is None:
            raise UserError(
                f"{title} {base} has a label for each image, but config.task.name='detection' needs boxes; read them "
                "by config.data.source='coco:…', 'yolo:…' or 'voc:…'"
            )
        rows = box_records.padded(labels, self.most, f"{title} {base}")
        if wrong := np.argwhere(rows["valid"] & ((rows["label"] < 0) | (rows["label"] >= self.classes))).tolist():
            image, place = wrong[0]
            raise UserError(
                f"{title} {base}: box {place} of the image at index {image} has class {rows['label'][image, place]}, "
                f"but there are {self.classes}, counted from 0"
            )
        return {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}

    def check(self, targets: Tree, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if the training split has no box."""
        if not (targets["valid"] & ~targets["crowd"]).any():
            raise UserError(f"{description} has no box: nothing can be learnt")

    def counts(self, targets: Tree) -> np.ndarray:
        """The number of boxes of each class."""
        real = targets["valid"] & ~targets["crowd"]
        return np.bincount(targets["label"][real], minlength=self.classes)

    def groups(self, targets: Tree) -> np.ndarray:
        """The group of each image, from 0 to 9: tenths of the images by their number of boxes."""
        number = targets["valid"].sum(axis=1)
        return np.searchsorted(np.quantile(number, np.linspace(0, 1, GROUPS + 1)[1:-1]), number, side="right")

    def remark(self, targets: Tree, names: Sequence[str]) -> str:
        """Says which classes have no box in the split, as the end of a sentence; empty if all have some."""
        absent = [name for name, count in zip(names, self.counts(targets), strict=True) if not count]
        if not absent:
            return ""
        return f"has no box of {counted(len(absent), 'class', 'classes')} ({listed(absent)}), which its AP leaves out"

    def describe(self, targets: Tree, names: Sequence[str]) -> str:
        """The number of classes, the number of boxes, and the fewest and most boxes in an image, as text."""
        number = (targets["valid"] & ~targets["crowd"]).sum(axis=1)
        return (
            f"{counted(len(names), 'class', 'classes')}, {counted(int(number.sum()), 'box', 'boxes')}, "
            f"{number.min()} to {number.max()} in an image"
        )

    def captions(self, target: Tree, names: Sequence[str], width: int) -> list[str]:
        """The number of boxes of each class and the number of crowds, one line for each image."""
        lines = []
        for label, valid, crowd in zip(
            *(np.asarray(target[name]) for name in ("label", "valid", "crowd")), strict=True
        ):
            count = np.bincount(label[valid], minlength=len(names))
            told = [f"{count[each]} {names[each]}" for each in np.argsort(-count, kind="stable") if count[each]]
            told += [counted(int(crowd[valid].sum()), "crowd")] if crowd[valid].any() else []
            lines.append(shorten(", ".join(told) or "nothing", width))
        return lines

    def facts(self, targets: Tree) -> Facts:
        """The mean number of boxes in a training image."""
        return {"boxes_per_image": float((targets["valid"] & ~targets["crowd"]).sum(axis=1).mean())}


def sides_of(image: Any, usual: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the images that a loss sees, in training perhaps unusual ones; `usual` without images."""
    return usual if image is None else (image.shape[1], image.shape[2])


@dataclasses.dataclass(frozen=True)
class DetectionLoss:
    """The quality focal loss of the classes plus the generalised IoU loss of the boxes.

    A point with a box should predict the IoU of its box as the probability of the class (Li et al. 2020,
    arXiv:2006.04388, equation 2), all others 0. The sum over the points of an image is divided by the mean number of
    boxes of a training image, a constant, so that no normaliser depends on the division of a batch. Where a network
    answers distributions of the sides (`model.box_bins`), their distribution focal loss is added.

    A network that also answers whether there is an object has the cross-entropies of YOLOX instead of the quality focal
    loss (`objectness.losses`). Points are then assigned by the joined probabilities of class and object.

    Attributes:
      classes: number of classes.
      sides: height and width of the images of evaluation.
      has_objectness: whether the network also answers the logit of an object.
    """

    classes: int
    sides: tuple[int, int]
    has_objectness: bool = False

    @property
    def plain(self) -> "DetectionLoss":
        """This loss itself: training uses nothing besides."""
        return self

    @property
    def settings(self) -> tuple[str, ...]:
        """No settings: an empty tuple."""
        return ()

    def abstract(self) -> dict[str, Any]:
        """The shape of the mean number of boxes in a training image."""
        return {"boxes_per_image": jax.ShapeDtypeStruct((), jnp.float32)}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Tree | None
    ) -> dict[str, Any]:
        """The mean number of boxes in a training image."""
        return {"boxes_per_image": np.asarray(facts["boxes_per_image"], np.float32)}

    def pair(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """Never called: answers and boxes differ in number, and the config refuses whatever would compare them."""
        raise NotImplementedError

    def losses(self, outputs: Any, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The loss of each image; `outputs` [b, a, 4 + k] are boxes in pixels and logits of the classes.

        [b, a, 4 + k + 4 * bins] are also logits of distributions, and [b, a, 4 + k + 1] also that of an object.
        """
        points = jnp.asarray(box_geometry.points(*sides_of(image, self.sides)))
        sums = jax.vmap(lambda answers, of_one: self._of_one(answers, of_one, points))(outputs, target)
        return sums / jnp.maximum(constants.task["boxes_per_image"], 1e-3)

    def _of_one(self, answers: Float32[Array, "a k4"], target: Tree, points: Float32[Array, "a 3"]) -> Any:
        boxes, logits, more = answers[:, :4], answers[:, 4 : 4 + self.classes], answers[:, 4 + self.classes :]
        whole = objectness.joined(logits, more) if self.has_objectness else logits
        found = assign(boxes, whole, points, target["boxes"], target["label"], target["valid"], target["crowd"])
        own = target["label"][found.box][:, None] == jnp.arange(self.classes)
        wanted = jnp.where(own & found.positive[:, None], found.quality[:, None], 0.0)
        if self.has_objectness:
            of_classes, weight = objectness.losses(logits, more, wanted, found.positive), objectness.BOX_WEIGHT
        else:
            probability, weight = jax.nn.sigmoid(logits), BOX_WEIGHT
            of_classes = (binary_cross_entropy(logits, wanted) * jnp.abs(wanted - probability) ** BETA).sum(axis=1)
        of_boxes = 1.0 - box_geometry.generalized_overlap(boxes, target["boxes"][found.box])
        weighted = jnp.where(found.positive, of_boxes, 0.0)
        total = jnp.where(found.ignored, 0.0, of_classes).sum() + weight * weighted.sum()
        if self.has_objectness or not more.shape[1]:
            return total
        of_sides = side_bins.focal(more, points, target["boxes"][found.box])
        return total + side_bins.WEIGHT * jnp.where(found.positive, of_sides, 0.0).sum()

    def reported(self, outputs: Any, target: Tree, constants: Any) -> OfEach:
        """The training loss of each image, which evaluation reports unchanged."""
        return self.losses(outputs, target, {}, constants, None)
