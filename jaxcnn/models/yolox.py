"""YOLOX in the layout of its files: its neck of CSP layers, and a decoupled head with objectness.

Ge et al. 2021, "YOLOX", arXiv:2107.08430 (section 2.1 and figure 2); Liu et al. 2018, "Path aggregation network",
arXiv:1803.01534 (the neck).
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.models import csp
from jaxcnn.models.detector import PRIOR, Head, in_pixels, small_normal
from jaxcnn.models.layers import Conv, Dropout, at_least_float32, scaled
from jaxcnn.models.network import Images, Network, Positions
from jaxcnn.models.normed import Normed, doubled
from jaxcnn.tasks.box_geometry import points

PREFIX, OF_BACKBONE = "yolox_", "csp_"  # first parts of the names of the network and of its backbone
FACTORS = (4, 8, 16)  # channels of the maps at strides 8, 16 and 32, as multiples of those of the first layer

Answers = Float[Array, "b a k5"]


class YOLOX(Network):
    """CSPDarknet, a path-aggregation network of CSP layers over its last three maps, and a decoupled head.

    At each point (`box_geometry.points`) it predicts left, top, right, bottom of a box in pixels, a logit of each
    class, and the logit that there is an object: [b, a, 4 + k + 1]. The probability of a class at a point is the
    product of both (`jaxcnn.tasks.objectness`). The centre of the box is an offset from the upper left corner of the
    point's cell, and its sides are powers of e, both in strides.
    """

    HEAD: ClassVar[str] = "head"
    MAPPED: ClassVar[str] = "neck_down0/conv3/bn"

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Answers:
        """Boxes and logits of images; the positions in the global batch are for dropout in training."""
        size = OF_BACKBONE + self.model.name.removeprefix(PREFIX)
        first, blocks = csp.SIZES[size]
        channels = [factor * scaled(first, self.model.width) for factor in FACTORS]
        common = self.norm, self.axis_name, self.dtype
        maps = csp.csp_stages(self, size, images, train)

        def joined(name: str, number: int, other: Images) -> Images:
            x = jnp.concatenate([other, maps[number]], axis=-1)
            return csp.CSPLayer(channels[number], blocks[0], False, *common, name=f"{name}{number}")(x, train)

        for number in (1, 0):  # from coarse to fine maps
            narrow = Normed(channels[number], 1, 1, *common, name=f"neck_in{number + 1}")
            maps[number + 1] = narrow(maps[number + 1], train)
            maps[number] = joined("neck_down", number, doubled(maps[number + 1], *maps[number].shape[1:3]))
        for number in (1, 2):  # and back to coarse ones
            half = Normed(channels[number - 1], 3, 2, *common, name=f"neck_half{number}")
            maps[number] = joined("neck_up", number, half(maps[number - 1], train))
        head = YOLOXHead(self.outputs, channels[0], self.model.dropout, *common, name=self.HEAD)
        raw = head(maps, train, positions)
        boxes, place = raw[..., :4] - jnp.array([0.5, 0.5, 0, 0], raw.dtype), jnp.asarray(points(*images.shape[1:3]))
        return jnp.concatenate([in_pixels(boxes, place), raw[..., 4:]], axis=-1)


class YOLOXHead(Head):
    """At each level a convolution, after which come the two towers; that of the box also answers objectness."""

    @nn.compact
    def __call__(self, maps: list[Images], train: bool, positions: Positions | None) -> Answers:
        """Four numbers for the box, the logits of the classes and that of an object at each point, level by level."""
        answers = []
        for level, x in enumerate(maps):
            stem = Normed(self.channels, 1, 1, self.norm, self.axis_name, self.dtype, name=f"level{level}_stem")
            x = stem(x, train)
            label = self._tower(x, f"level{level}_class", train)
            box = self._tower(x, f"level{level}_box", train)
            label = Dropout(self.dropout, name=f"level{level}_dropout")(label, train, positions)
            ends = [
                self._begun(box, f"level{level}_box_out", self.numbers, 0.0),
                self._begun(label, f"level{level}_class_out", self.classes, PRIOR),
                self._begun(box, f"level{level}_object_out", 1, PRIOR),
            ]
            answers.append(jnp.concatenate(ends, axis=-1).reshape(x.shape[0], -1, self.numbers + self.classes + 1))
        return jnp.concatenate(answers, axis=1)

    def _begun(self, x: Images, name: str, outputs: int, prior: float) -> Float[Array, "b h w o"]:
        """The last layer, whose bias is a parameter, as files have it; `_end` adds a constant."""
        bias = nn.initializers.constant(-math.log((1 - prior) / prior) if prior else 0.0)
        wide = at_least_float32(x)
        return Conv(outputs, 1, dtype=wide, kernel_init=small_normal, bias_init=bias, name=name)(x)
