"""Faster R-CNN: a two-stage detector. Ren et al. 2015, arXiv:1506.01497.

The layout is that of torchvision's `fasterrcnn_resnet50_fpn`: a feature pyramid (Lin et al. 2017, arXiv:1612.03144) on
the four stages of a ResNet, a network that proposes boxes, and a head for boxes, which reads the pyramid by RoIAlign
(He et al. 2017, arXiv:1703.06870).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxcnn.config.networks import BACKBONES
from jaxcnn.models.layers import Conv, Dense, Dropout, at_least_float32, classifier_normal, known, scaled
from jaxcnn.models.network import Images, Network, Positions
from jaxcnn.models.normed import Normed, doubled
from jaxcnn.models.resnet import stages
from jaxcnn.models.roi_align import within_boxes
from jaxcnn.tasks.anchors import RATIOS, anchors, chosen, match_anchors, match_proposals, random_order
from jaxcnn.tasks.proposals import FoundBoxes, Proposals, found, proposed
from jaxcnn.tasks.suppression import Rule

CHANNELS, HIDDEN = 256, 1024  # channels of the maps of the pyramid, and of the layers of the box head
BOX_CELLS = 7  # side of the features that the box head reads
STAGES = 4  # number of backbone stages whose maps are used

# Returns the features within boxes [b, r, 4] as [b r, n, n, c], for a side n.
Read = Callable[[Float[Array, "b r 4"], int], Float[Array, "br n n c"]]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The number of boxes that pass from each part to the next; as in torchvision, mostly those of the paper.

    Attributes:
      sizes: sides of the anchors of each level, pixels.
      before_suppression: proposals of a level before suppression, in training and in evaluation.
      proposals: proposals of an image, in training and in evaluation.
      anchors_sampled: anchors of an image sampled for the loss of the first stage; at most half have an object.
      proposals_sampled: proposals of an image sampled for the loss of the second stage.
      share: largest share of these that have an object.
    """

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    before_suppression: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (2000, 1000)
    anchors_sampled: int = 256
    proposals_sampled: int = 512
    share: float = 0.25

    @property
    def with_object(self) -> int:
        """The largest number of proposals of an image that learn an object."""
        return int(self.proposals_sampled * self.share)


FEW = Numbers((8.0, 16.0, 32.0, 64.0, 128.0), (128, 128), (64, 64), 64, 32)  # for "faster_rcnn_cnn" and "mask_rcnn_cnn"


class FasterRCNN(Network):
    """Finds boxes of objects and their classes.

    `faster_rcnn_cnn` has five strided convolutions in place of the ResNet, for first tries, small anchors and few
    proposals.

    The answer is a mapping of arrays, for b images with a anchors, p proposals, k classes and f found boxes:

      anchors [b, a, 4]: boxes of the first stage
      anchor_logits [b, a]: whether an object is there
      anchor_told [b, a, 4]: the predicted box, encoded against its anchor (`anchors.encoded`)
      boxes [b, p, 4]: proposals
      valid [b, p]: false for padding
      logits [b, p, k + 1]: of the second stage; class 0 is the background
      told [b, p, k + 1, 4]: the predicted boxes, encoded; [b, p, 1, 4] with `model.class_agnostic`

    In training, anchors and proposals are the sampled ones, and for both there are also "anchor_valid", "anchor_true"
    (the number of the true box) and "anchor_positive", or "true" and "positive". Otherwise there are also "found"
    [b, f, 4], its "scores" and its "label".

    A network with more outputs for an object adds them in `learnt_within` and `found_within`.

    Attributes:
      most_found: f.
      rule: which of several boxes that overlap are found.
      numbers: numbers of boxes between the parts; None: by the name of the network.
    """

    HEAD: ClassVar[str] = "box_logits"
    LEARNS_FROM_TARGET: ClassVar[bool] = True

    most_found: int = 100
    rule: Rule = Rule(0.5)
    numbers: Numbers | None = None

    @nn.compact
    def __call__(
        self, images: Images, positions: Positions | None = None, train: bool = False, target: Any = None
    ) -> dict[str, Array]:
        """The outputs for images; in training, `target` has their true boxes (`jaxcnn.tasks.box_records`)."""
        backbone = BACKBONES.get(self.model.name)
        numbers = self.numbers or (FEW if backbone is None else Numbers())
        sides = images.shape[1], images.shape[2]
        pyramid = self._pyramid(images, positions, train, backbone)
        levels = anchors(sides, [(each.shape[1], each.shape[2]) for each in pyramid], numbers.sizes)
        logits, told = self._first_stage(pyramid)
        learns = train and target is not None
        before, after = (each[0 if train else 1] for each in (numbers.before_suppression, numbers.proposals))
        given = jax.vmap(lambda a, b: proposed(a, b, levels, sides, before, after))(logits, told)
        answer = {"anchor_logits": jnp.concatenate(logits, axis=1), "anchor_told": jnp.concatenate(told, axis=1)}
        every = jnp.asarray(np.concatenate(levels), answer["anchor_told"].dtype)
        answer |= {"anchors": jnp.broadcast_to(every, answer["anchor_told"].shape)}
        if learns:
            places = known(positions)
            first, second = jax.random.split(self.make_rng("dropout"))
            order = random_order(_of_each(first, places), every.shape[0])
            answer = jax.vmap(lambda a, b, c: _anchors_to_learn(a, b, c, numbers))(answer, target, order)
            order = random_order(_of_each(second, places), after + target["boxes"].shape[1])
            answer |= jax.vmap(lambda a, b, c: _to_learn(a, b, c, numbers))(given, target, order)
        else:
            answer |= {"boxes": given.boxes, "valid": given.valid}
        maps = pyramid[:STAGES]

        def read(boxes: Float[Array, "b r 4"], cells: int) -> Float[Array, "br n n c"]:
            return within_boxes(maps, boxes, cells)

        boxes = jax.lax.stop_gradient(answer["boxes"])
        answer |= self._box_head(read(boxes, BOX_CELLS), (boxes.shape[0], boxes.shape[1]), train, positions)
        if learns:
            return answer | self.learnt_within(boxes[:, : numbers.with_object], read)

        def find(given: Proposals, logits: Any, told: Any) -> Any:
            return found(given, logits, told, sides, self.most_found, self.rule)

        ends = jax.vmap(find)(Proposals(answer["boxes"], answer["valid"]), answer["logits"], answer["told"])
        more = self.found_within(ends, read)
        return answer | {"found": ends.boxes, "scores": ends.scores, "label": ends.label} | more

    def learnt_within(self, boxes: Float[Array, "b m 4"], read: Read) -> dict[str, Array]:
        """More outputs in training, about the first m of the sampled proposals, which are those with objects."""
        return {}

    def found_within(self, found: FoundBoxes, read: Read) -> dict[str, Array]:
        """More outputs in evaluation, about the boxes found in each image."""
        return {}

    def _pyramid(self, images: Images, positions: Positions | None, train: bool, backbone: str | None) -> list[Images]:
        """The maps of four stages, from fine to coarse, each with the coarser ones added, and a fifth, coarser map."""
        channels = scaled(CHANNELS, self.model.width)
        if backbone is None:
            maps = [images.astype(self.dtype)]
            for number in range(1, 6):
                layer = Normed(channels, 3, 2, self.norm, self.axis_name, self.dtype, name=f"conv{number}")
                maps.append(layer(maps[-1], train))
        else:
            maps = stages(self, backbone, "imagenet", images, positions, train)
        inner = [
            Conv(channels, 1, dtype=self.dtype, name=f"pyramid_in{number}")(each)
            for number, each in enumerate(maps[-STAGES:])
        ]
        for number in reversed(range(STAGES - 1)):
            inner[number] += doubled(inner[number + 1], *inner[number].shape[1:3])
        made = [
            Conv(channels, 3, 1, 1, dtype=self.dtype, name=f"pyramid_out{number}")(each)
            for number, each in enumerate(inner)
        ]
        return [*made, made[-1][:, ::2, ::2]]

    def _first_stage(self, pyramid: list[Images]) -> tuple[list[Array], list[Array]]:
        """The logits of anchors that they have an object, [b, a], and encoded boxes, [b, a, 4], of each level."""
        wide = at_least_float32(pyramid[0])
        ends: dict[str, Any] = {"dtype": wide, "kernel_init": classifier_normal}
        conv = Conv(pyramid[0].shape[-1], 3, 1, 1, dtype=self.dtype, kernel_init=classifier_normal, name="anchor_conv")
        logits = Conv(len(RATIOS), 1, name="anchor_logits", **ends)
        boxes = Conv(4 * len(RATIOS), 1, name="anchor_boxes", **ends)
        hidden = [nn.relu(conv(each)) for each in pyramid]
        count = pyramid[0].shape[0]
        return [logits(x).reshape(count, -1) for x in hidden], [boxes(x).reshape(count, -1, 4) for x in hidden]

    def _box_head(
        self, features: Float[Array, "r n n c"], shape: tuple[int, int], train: bool, positions: Positions | None
    ) -> dict[str, Array]:
        hidden = scaled(HIDDEN, self.model.width)
        x = features.reshape(features.shape[0], -1)
        for number in (1, 2):
            x = nn.relu(Dense(hidden, dtype=self.dtype, name=f"box_dense{number}")(x))
        by_image = x.reshape(*shape, hidden)
        x = Dropout(self.model.dropout, name="box_dropout")(by_image, train, positions).reshape(-1, hidden)
        ends: dict[str, Any] = {"dtype": at_least_float32(x), "kernel_init": classifier_normal}
        logits = Dense(self.outputs + 1, name="box_logits", **ends)(x)
        kinds = 1 if self.model.class_agnostic in ("boxes", "both") else self.outputs + 1
        told = Dense(4 * kinds, name="box_boxes", **ends)(x)
        return {"logits": logits.reshape(*shape, -1), "told": told.reshape(*shape, -1, 4)}


def _of_each(key: Key[Array, ""], positions: Positions) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _anchors_to_learn(
    answer: dict[str, Array], target: Any, order: Float[Array, " a"], numbers: Numbers
) -> dict[str, Array]:
    """The sampled anchors of one image for the loss of the first stage, with the outputs for them and their targets."""
    found = match_anchors(answer["anchors"], target)
    place, used = chosen(found, order, numbers.anchors_sampled, 0.5)
    learnt = {name: array[place] for name, array in answer.items()}
    return learnt | {
        "anchor_valid": used,
        "anchor_true": found.box[place],
        "anchor_positive": found.positive[place] & used,
    }


def _to_learn(given: Proposals, target: Any, order: Float[Array, " a"], numbers: Numbers) -> dict[str, Array]:
    """The sampled proposals and true boxes of one image for the loss of the second stage, with their targets."""
    real = target["valid"] & ~target["crowd"]
    boxes = jnp.concatenate([given.boxes, target["boxes"].astype(given.boxes.dtype)])
    usable = jnp.concatenate([given.valid, real])
    found = match_proposals(boxes, usable, target)
    place, used = chosen(found, order, numbers.proposals_sampled, numbers.share)
    kept = jnp.where(used[:, None], boxes[place], 0.0)
    return {"boxes": kept, "valid": used, "true": found.box[place], "positive": found.positive[place] & used}
