"""Instances: boxes of objects, their classes and masks, as Mask R-CNN learns them: He et al. 2017, arXiv 1703.06870."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxcnn.config import UserError
from jaxcnn.tasks import box_records, mask_grids, two_stage
from jaxcnn.tasks.assignment import binary_cross_entropy
from jaxcnn.tasks.box_records import MASK, MASK_BOX, OUTLINE
from jaxcnn.tasks.detection import VISIBLE, Boxes, moved_boxes
from jaxcnn.tasks.moving import Move, product
from jaxcnn.tasks.task import Tree
from jaxcnn.tasks.two_stage import TwoStageLoss, learnt_label, mean_of, one_of_class

MASK_OUTPUTS = 28  # side of the mask of a box in the output of a network
MOST_SAMPLES = 16  # in one direction of a cell of a true mask; larger boxes, above 448 pixels, get no more samples


@dataclasses.dataclass(frozen=True)
class Instances(Boxes):
    """Targets that are padded boxes, each with a mask: the columns of `box_records`, including those of masks.

    When the image moves, only the place of a mask's grid changes; when it rotates, the cells are sampled again.

    Attributes:
      classes: number of classes.
      most: places for the boxes of an image.
      mask_side: side of the grids of masks, in cells.
    """

    mask_side: int

    def record_type(self) -> np.dtype:
        """The type of the records of images on the devices, including the columns of masks."""
        return box_records.record_type(self.most, self.mask_side)

    def read(self, labels: np.ndarray, title: str, base: str) -> Tree:
        """The columns of records, including those of masks and those that stay on the host."""
        if not {MASK, OUTLINE} <= {*(labels.dtype.names or ())}:
            raise UserError(
                f"{title} {base} has no mask for each object, but config.task.name='instances' needs them; read them "
                "by config.data.source='coco:…' or 'yolo:…' (with polygons), or give 'masks' beside 'boxes' from Python"
            )
        return super().read(labels, title, base)

    def moved(self, target: Tree, move: Move, sides: tuple[int, int]) -> Tree:
        """The boxes of one image that has moved, cut off at its border, and the places of their whole masks.

        Where the image turns, the box of an object is that of its turned mask; a crowd has none.
        """
        if move.across is not None:
            return self._turned(target, move, sides)
        scale, shift = jnp.tile(move.scale, 2), jnp.tile(move.shift, 2)
        place = product(target[MASK_BOX], scale) + shift
        return super().moved(target, move, sides) | {MASK_BOX: place}

    def _turned(self, target: Tree, move: Move, sides: tuple[int, int]) -> Tree:
        cells, place = mask_grids.turned(mask_grids.cells_of(target[MASK]), target[MASK_BOX], move)
        there = cells & mask_grids.inside(place, self.mask_side, sides)
        of_box = moved_boxes(target["boxes"], move)
        has = mask_grids.cells_of(target[MASK]).any(axis=(1, 2))[:, None]
        whole, seen = (jnp.where(has, mask_grids.extent(each, place), of_box) for each in (cells, there))
        return self._cut(target, whole, seen, move, sides) | {MASK: mask_grids.bits_of(cells), MASK_BOX: place}

    def composed(self, parts: Tree, seen: Bool[Array, "n h w"]) -> Tree:
        """The boxes as in `Boxes.composed`; a mask keeps only the cells whose pixels come from its own image."""
        cells = mask_grids.cells_of(parts[MASK])
        there = jax.vmap(mask_grids.looked_up, in_axes=(0, 0, None))(seen, parts[MASK_BOX], self.mask_side)
        return super().composed(parts | {MASK: mask_grids.bits_of(cells & there)}, seen)

    def pasted(
        self, target: Tree, other: Tree, wanted: Bool[Array, " g"], sides: tuple[int, int]
    ) -> tuple[Tree, Bool[Array, "h w"]]:
        """The objects of an image together with objects pasted from another image, which lie over them.

        Hidden pixels leave the masks of the image's own objects, and their boxes shrink to what is left. With less than
        `VISIBLE` of its pixels left, an object counts as a crowd. No more are pasted than there are places.
        """
        theirs = mask_grids.cells_of(other[MASK]) & mask_grids.inside(other[MASK_BOX], self.mask_side, sides)
        chosen = wanted & other["valid"] & ~other["crowd"]
        chosen &= theirs.any(axis=(1, 2))
        chosen &= jnp.cumsum(chosen) <= self.most - target["valid"].sum()
        over = mask_grids.covered(theirs, other[MASK_BOX], chosen, sides)
        cells, place = mask_grids.cells_of(target[MASK]), target[MASK_BOX]
        kept = cells & ~mask_grids.looked_up(over, place, self.mask_side)
        within = mask_grids.inside(place, self.mask_side, sides)
        before, after = ((each & within).sum(axis=(1, 2)) for each in (cells, kept))
        hidden = after < before
        height, width = sides
        rest = jnp.clip(mask_grids.extent(kept & within, place), 0.0, jnp.array([width, height, width, height]))
        own = target | {
            "boxes": jnp.where(hidden[:, None], rest.astype(jnp.float32), target["boxes"]),
            "valid": target["valid"] & ~(hidden & (after == 0)),
            "crowd": target["crowd"] | (hidden & (after < VISIBLE * before)),
            MASK: mask_grids.bits_of(kept),
        }
        both = jax.tree.map(lambda *parts: jnp.stack(parts), own, other | {"valid": chosen})
        return self.composed(both, jnp.ones((2, *sides), bool)), over

    def drawn(self, image: UInt8[np.ndarray, "h w 3"], target: Tree) -> UInt8[np.ndarray, "h w 3"]:
        """The image with the boxes and masks, in the colours of their classes."""
        from jaxcnn.tasks.pasting import covered, from_grid

        real = target["valid"] & ~target["crowd"]
        masks = [
            from_grid(mask, box, image.shape[:2])
            for mask, box in zip(target[MASK][real], target[MASK_BOX][real], strict=True)
        ]
        return super().drawn(covered(image, masks, target["label"][real].tolist()), target)


@dataclasses.dataclass(frozen=True)
class InstanceLoss(TwoStageLoss):
    """The sum of the five losses of Mask R-CNN, for each image by itself.

    The mask loss of torchvision is the mean over the objects of a batch, this one the mean over images of that of their
    objects, as with the other four (`TwoStageLoss`). In evaluation it is left out.
    """

    def parts(self, answer: Any, target: Tree, sides: tuple[int, int]) -> dict[str, Float[Array, ""]]:
        """The losses by name: five in training, four in evaluation."""
        return parts(answer, target, sides)


def parts(answer: Any, target: Tree, sides: tuple[int, int]) -> dict[str, Float[Array, ""]]:
    """The losses of one image by name, for an answer in training or for one from `two_stage.judged`."""
    found = two_stage.parts(answer, target)
    return found | ({"mask": _mask_loss(answer, target, sides)} if "masks" in answer else {})


def _mask_loss(answer: Any, target: Tree, sides: tuple[int, int]) -> Float[Array, ""]:
    """The mean binary cross-entropy of masks over the proposals with an object; each mask is that of its class."""
    masks, label = answer["masks"], learnt_label(answer, target)
    few = slice(0, masks.shape[0])
    logits = one_of_class(masks, label[few, None, None, None], axis=-1)[..., 0]
    wanted = masks_of(answer["boxes"][few], answer["true"][few], target, sides).astype(logits.dtype)
    entropy = binary_cross_entropy(logits, wanted)
    return mean_of(entropy.mean(axis=(1, 2)), answer["positive"][few])


def masks_of(
    boxes: Float[Array, "m 4"],
    true: Int[Array, " m"],
    target: Tree,
    sides: tuple[int, int],
    cells: int = MASK_OUTPUTS,
) -> Float[Array, "m n n"]:
    """The true masks within boxes, from 0 to 1, as RoIAlign reads them with about one sample for each pixel.

    As in torchvision, a box has ceil(side / n) samples in each direction of a cell, and the centre of the first pixel
    is at 0. A grid is read as if it were the mask in the image: between the centres of its cells it is linear, and
    beyond it the mask is 0.

    Args:
      boxes: within the image.
      true: the number of the object for each box.
      target: a mapping with the columns of `box_records`.
      sides: height and width of the image, whose last pixels extend to its border.
      cells: n, the cells of the result in each direction.
    """
    bits = jnp.unpackbits(target[MASK][true], axis=-1)
    places, boxes = target[MASK_BOX][true].astype(boxes.dtype), jax.lax.stop_gradient(boxes)
    x, y = (
        _read(boxes[:, axis], boxes[:, axis + 2], places[:, axis], places[:, axis + 2], bits.shape[-1], cells, last)
        for axis, last in ((0, sides[1] - 1), (1, sides[0] - 1))
    )
    return jnp.einsum("mru,muv,mcv->mrc", y, bits.astype(boxes.dtype), x)


def _read(
    low: Float[Array, " m"],
    high: Float[Array, " m"],
    first: Float[Array, " m"],
    last: Float[Array, " m"],
    side: int,
    cells: int,
    end: int,
) -> Float[Array, "m n side"]:
    """The weights with which each cell of a box reads each cell of a grid, in one direction."""
    length = jnp.maximum(high - low, 1.0)
    samples = jnp.minimum(jnp.ceil((high - low) / cells), MOST_SAMPLES)
    number = jnp.arange(MOST_SAMPLES)
    inside = (number + 0.5) / jnp.maximum(samples, 1)[:, None]
    place = low[:, None, None] + (jnp.arange(cells)[:, None] + inside[:, None]) * (length / cells)[:, None, None]
    place = jnp.minimum(place, end)
    # Half a pixel: the centre of a pixel is at its number here, and half a pixel beyond its border in the image.
    in_grid = (place + 0.5 - first[:, None, None]) / (last - first)[:, None, None] * side - 0.5
    near = jnp.maximum(1.0 - jnp.abs(in_grid[..., None] - jnp.arange(side)), 0.0)
    used = number < samples[:, None]
    return jnp.where(used[:, None, :, None], near, 0.0).sum(axis=2) / jnp.maximum(samples, 1)[:, None, None]
