"""Semantic segmentation: a class for each pixel."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int64, UInt8

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.tasks import weights
from jaxcnn.tasks.classes import lacks, without_examples
from jaxcnn.tasks.found_boxes import colour_table
from jaxcnn.tasks.moving import Move, nearest
from jaxcnn.tasks.task import Facts, OfEach, Settings, module_of
from jaxcnn.text import counted, shorten

VOID = 255  # the value of pixels that count neither in training nor in figures, as in Pascal VOC
MOST_CLASSES = 255
OPACITY = 0.5  # opacity of the colours of classes over an image

Maps = UInt8[Any, "b h w"]
LabelMap = UInt8[Any, "h w"]
PixelOutputs = Float32[Any, "b h w k"]


def areas(maps: UInt8[np.ndarray, "n h w"], classes: int) -> Int64[np.ndarray, "n k"]:
    """The number of pixels of each class in each map."""
    return np.stack([np.bincount(each.ravel(), minlength=256)[:classes] for each in maps])


def coloured(image: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the colours of a map's classes over it; class 0 and pixels without a class have no colour."""
    table = colour_table()
    over = table[(labels.astype(np.int64) - 1) % len(table)]
    mixed = (1 - OPACITY) * image + OPACITY * over
    return np.where(((labels != 0) & (labels != VOID))[..., None], mixed.round(), image).astype(np.uint8)


def numbers_as_names(labels: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Class names made of numbers, one for each class up to the highest in label maps [n, h, w]."""
    highest = max((int(np.where(each == VOID, 0, each).max(initial=0)) for each in labels), default=0)
    return tuple(map(str, range(max(highest + 1, 2))))


@dataclasses.dataclass(frozen=True)
class LabelMaps:
    """Targets that are maps of class numbers, uint8, with the sides of the image; `VOID` is no class."""

    classes: int
    sides: tuple[int, int]

    @property
    def outputs(self) -> int:
        """The number of logits at each pixel: one for each class."""
        return self.classes

    def spec(self) -> jax.ShapeDtypeStruct:
        """The shape and type of a target: the map of one image."""
        return jax.ShapeDtypeStruct(self.sides, jnp.uint8)

    def whole(self, target: Maps) -> Maps:
        """The targets unchanged, because images with maps are never mixed."""
        return target

    def mixed(self, target: Maps, other: Maps, share: OfEach) -> Maps:
        """Never called: images with a class for each pixel are not mixed, and the config refuses it."""
        raise NotImplementedError

    def moved(self, target: LabelMap, move: Move, sides: tuple[int, int]) -> LabelMap:
        """The map of one image that has moved: a pixel takes its class from where it takes its colour."""
        return nearest(target, move.matrix, outside=VOID)

    def composed(self, parts: Maps, seen: Bool[Array, "n h w"]) -> LabelMap:
        """The map of an image made of several: each pixel has its class in the image from which it comes."""
        return jnp.where(seen, parts, 0).max(axis=0)

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], target: LabelMap) -> UInt8[np.ndarray, "h w 3"]:
        """The image with the colours of its classes over it; class 0 and pixels without a class have no colour."""
        return coloured(image, target)

    def read(self, labels: np.ndarray, title: str, base: str) -> UInt8[np.ndarray, "n h w"]:
        """The label maps of a base split as targets."""
        if labels.ndim != 3 or labels.dtype.kind not in "iu":
            raise UserError(
                f"{title} {base} has no class for each pixel, as config.task.name='segmentation' needs; read label "
                "maps by config.data.source='masks:…', or from arrays of integers [N, H, W]"
            )
        if self.classes > MOST_CLASSES:
            raise UserError(f"{title} has {self.classes} classes; config.task.name='segmentation' takes {MOST_CLASSES}")
        if len(wrong := np.argwhere((labels != VOID) & ((labels < 0) | (labels >= self.classes)))):
            image, row, column = wrong[0].tolist()
            raise UserError(
                f"{title} {base}: the pixel in row {row}, column {column} of the map at index {image} has class "
                f"{labels[image, row, column]}, but there are {self.classes}, counted from 0 ({VOID} is no class)"
            )
        return labels.astype(np.uint8, copy=False)

    def check(self, targets: Maps, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if the pixels of the training split have fewer than two classes."""
        if self.classes < 2:
            raise UserError(f"{title} has only one class, {names[0]!r}; segmentation needs at least two")
        there = areas(targets, self.classes).sum(axis=0) > 0
        if there.sum() < 2:
            found = f"only pixels of class {names[int(there.argmax())]!r}" if there.any() else "no pixel of any class"
            raise UserError(f"{description} has {found}: nothing can be learnt")

    def counts(self, targets: Maps) -> np.ndarray:
        """The number of images in which each class has a pixel."""
        return (areas(targets, self.classes) > 0).sum(axis=0)

    def groups(self, targets: Maps) -> np.ndarray:
        """The group of each image: the rarest of the classes that it has, by the number of images in this split."""
        has = areas(targets, self.classes) > 0
        rarest = np.argsort(has.sum(axis=0), kind="stable")
        return np.where(has.any(axis=1), rarest[has[:, rarest].argmax(axis=1)], 0)

    def remark(self, targets: Maps, names: Sequence[str]) -> str:
        """Says which classes have no pixel, as the end of a sentence; empty if all have some."""
        return lacks(without_examples(self.counts(targets), names))

    def describe(self, targets: Maps, names: Sequence[str]) -> str:
        """The classes with their shares of all pixels, as text."""
        total = areas(targets, self.classes).sum(axis=0)
        return f"{counted(self.classes, 'class', 'classes')}: {in_shares(total / max(total.sum(), 1), names, 20)}"

    def captions(self, target: Maps, names: Sequence[str], width: int) -> list[str]:
        """The classes of each map with their shares, as text."""
        found = areas(np.asarray(target), self.classes)
        return [shorten(in_shares(row / max(row.sum(), 1), names, 20) or "nothing", width) for row in found]

    def facts(self, targets: Maps) -> Facts:
        """No facts: the number of classes is known from their names."""
        return {}


def in_shares(shares: np.ndarray, names: Sequence[str], most: int) -> str:
    """Shares as text, such as "sky 62%, tree 38%", the largest first; shares below 0.5 % are left out."""
    order = [k for k in np.argsort(-shares, kind="stable") if shares[k] >= 0.005][:most]
    return ", ".join(f"{names[k]} {100 * shares[k]:.0f}%" for k in order)


@dataclasses.dataclass(frozen=True)
class PixelCrossEntropy:
    """The cross-entropy in nats, averaged over an image's pixels; with `dice` also a soft Dice loss of its classes.

    Pixels without a class are left out. Label smoothing, weights and Dice only count in training.

    Attributes:
      classes: number of classes.
      weighted: whether each class has a weight, in constants["class_weights"].
      dice: whether settings["dice_share"] of the loss is 1 - the mean Dice coefficient of the classes in the image,
        with squares in the denominator (Milletari et al. 2016, arXiv:1606.04797, section 3).
    """

    classes: int
    weighted: bool = False
    dice: bool = False

    @property
    def plain(self) -> "PixelCrossEntropy":
        """The cross-entropy without Dice, weights or smoothing."""
        return PixelCrossEntropy(self.classes)

    @property
    def settings(self) -> tuple[str, ...]:
        """The name of the setting of the Dice loss, if it is used."""
        return ("dice_share",) if self.dice else ()

    def abstract(self) -> dict[str, Any]:
        """The shape of the class weights, if they are used."""
        return {"class_weights": jax.ShapeDtypeStruct((self.classes,), jnp.float32)} if self.weighted else {}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Maps | None
    ) -> dict[str, Any]:
        """The class weights, if they are used; "auto" computes them from the number of pixels."""
        if targets is None or not self.weighted:
            return {}
        pixels = areas(targets, self.classes).sum(axis=0)
        return {"class_weights": weights.class_weights(config, names, np.maximum(pixels, 1))}

    def pair(
        self, outputs: PixelOutputs, target: Maps, settings: Settings, constants: Any
    ) -> tuple[PixelOutputs, PixelOutputs]:
        """The logits and the smoothed target distributions of each pixel; both are 0 for pixels without a class."""
        own = _one_hot(target, self.classes)
        smoothing = settings["label_smoothing"]
        wanted = own * (1.0 - smoothing) + smoothing / self.classes
        there = own.any(axis=-1, keepdims=True)
        return jnp.where(there, outputs, 0.0), jnp.where(there, wanted, 0.0)

    def losses(self, outputs: PixelOutputs, target: Maps, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The loss of each image; `outputs` [b, h, w, k] are logits."""
        logits, wanted = self.pair(outputs, target, settings, constants)
        own = _one_hot(target, self.classes)
        pixels = jnp.maximum(own.sum(axis=(1, 2, 3)), 1)
        terms = wanted * jax.nn.log_softmax(logits)
        if self.weighted:
            terms = terms * constants.task["class_weights"]
        entropy = -terms.sum(axis=(1, 2, 3)) / pixels
        if not self.dice:
            return entropy
        share = settings["dice_share"]
        return (1.0 - share) * entropy + share * _dice_loss(logits, own)

    def reported(self, outputs: PixelOutputs, target: Maps, constants: Any) -> OfEach:
        """The cross-entropy of each image without smoothing, weights or Dice."""
        return self.plain.losses(outputs, target, {"label_smoothing": jnp.zeros(())}, constants, None)


def _one_hot(target: Maps, classes: int) -> Float32[Array, "b h w k"]:
    """One-hot vectors of the class of each pixel; all 0 for a pixel without a class."""
    return (jnp.asarray(target)[..., None] == jnp.arange(classes, dtype=jnp.uint8)).astype(jnp.float32)


def _dice_loss(logits: PixelOutputs, own: PixelOutputs) -> OfEach:
    """1 - the mean Dice coefficient over the classes that an image has; 0 for an image without any class."""
    probability = jax.nn.softmax(logits) * own.sum(axis=-1, keepdims=True)
    both = (probability * own).sum(axis=(1, 2))
    total = jnp.square(probability).sum(axis=(1, 2)) + own.sum(axis=(1, 2))
    there = own.any(axis=(1, 2))
    coefficient = jnp.where(there, 2 * both / jnp.maximum(total, 1.0), 0.0)
    number = there.sum(axis=-1)
    return jnp.where(number > 0, 1.0 - coefficient.sum(axis=-1) / jnp.maximum(number, 1), 0.0)


def right(outputs: PixelOutputs, target: Maps) -> OfEach:
    """The share of each image's pixels whose class has the largest logit; 1 for an image without any class."""
    arrays = module_of(target)
    there = target != VOID
    hits = (arrays.argmax(outputs, axis=-1) == target) & there
    number = there.sum(axis=(1, 2))
    return arrays.where(number > 0, hits.sum(axis=(1, 2)) / arrays.maximum(number, 1), 1.0).astype(np.float32)
