"""One-stage detectors without anchors, in the line of YOLOX and RTMDet.

Ge et al. 2021, "YOLOX", arXiv:2107.08430 (decoupled head, section 2.1); Lyu et al. 2022, "RTMDet", arXiv:2212.07784;
Liu et al. 2018, "Path aggregation network", arXiv:1803.01534 (the neck). The backbone has the layers, and the names of
parameters, of the network for classification, so its weights fit.
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Float32, Key

import jaxcnn.config as config
from jaxcnn.config.networks import INVERTED
from jaxcnn.models import csp
from jaxcnn.models.initializers import Weights
from jaxcnn.models.layers import Conv, Dropout, at_least_float32, scaled
from jaxcnn.models.mobilenet import inverted_stages
from jaxcnn.models.network import Images, Network, Positions
from jaxcnn.models.normed import Normed, doubled
from jaxcnn.models.resnet import stages
from jaxcnn.tasks import side_bins
from jaxcnn.tasks.box_geometry import STRIDES, points

PREFIX = "yolo_"  # first part of the name, before that of the backbone
CHANNELS = 128  # channels of all maps of neck and head
TOWER = 2  # convolutions in each branch of the head
PRIOR = 0.01  # initial probability of a class at a point: Lin et al. 2017, arXiv:1708.02002, section 4.1
OF_SEVEN = (3, 5, 7)  # stages of MobileNetV2 whose maps are used: the last ones of strides 8, 16 and 32
LARGEST = 6.0  # largest logarithm of a side in strides

Answers = Float32[Array, "b a k4"]


class Detector(Network):
    """A ResNet in torchvision's layout, a path-aggregation network over its last three stages, and a decoupled head.

    In place of the ResNet, `yolo_csp_s` and `yolo_csp_m` have CSPDarknet (`jaxcnn.models.csp`), `yolo_mobilenet_v2` has
    MobileNetV2 without its last convolution, and `yolo_cnn` five strided convolutions, for first tries.

    At each point (`box_geometry.points`) it predicts left, top, right, bottom of a box in pixels, and a logit of each
    class: [b, a, 4 + k]. The centre of the box is an offset from the point, and its sides are powers of e, both in
    strides. With `model.box_bins` the distances of its sides from the point are distributions over this many bins
    (`jaxcnn.tasks.side_bins`), whose logits follow: [b, a, 4 + k + 4 * bins].
    """

    HEAD: ClassVar[str] = "head"
    MAPPED: ClassVar[str] = "neck_down0/bn"

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Answers:
        """Boxes and logits of images; the positions in the global batch are for stochastic depth in training."""
        backbone = self.model.name.removeprefix(PREFIX)
        channels = scaled(CHANNELS, self.model.width)

        def layer(name: str, size: int = 1, strides: int = 1) -> Normed:
            return Normed(channels, size, strides, self.norm, self.axis_name, self.dtype, name=name)

        if backbone == "cnn":
            maps = [images.astype(self.dtype)]
            for number in range(5):
                maps.append(layer(f"conv{number + 1}", 3, 2)(maps[-1], train))
        elif backbone in csp.SIZES:
            maps = csp.csp_stages(self, backbone, images, train)
        elif backbone in INVERTED:
            seven = inverted_stages(self, backbone, "imagenet", images, positions, train)
            maps = [seven[number - 1] for number in OF_SEVEN]
        else:
            maps = stages(self, backbone, "imagenet", images, positions, train)
        maps = [layer(f"neck_in{number}")(x, train) for number, x in enumerate(maps[-len(STRIDES) :])]
        for number in (1, 0):  # from coarse to fine maps
            x = jnp.concatenate([maps[number], doubled(maps[number + 1], *maps[number].shape[1:3])], axis=-1)
            maps[number] = layer(f"neck_down{number}", 3)(x, train)
        for number in (1, 2):  # and back to coarse ones
            finer = layer(f"neck_half{number}", 3, 2)(maps[number - 1], train)
            maps[number] = layer(f"neck_up{number}", 3)(jnp.concatenate([maps[number], finer], axis=-1), train)
        common = self.model.dropout, self.norm, self.axis_name, self.dtype
        bins = self.model.box_bins
        raw = Head(self.outputs, channels, *common, numbers=4 * max(bins, 1), name=self.HEAD)(maps, train, positions)
        place = jnp.asarray(points(*images.shape[1:3]))
        if bins:
            sides, logits = raw[..., : 4 * bins], raw[..., 4 * bins :]
            return jnp.concatenate([side_bins.in_pixels(sides, place), logits, sides], axis=-1)
        return jnp.concatenate([in_pixels(raw[..., :4], place), raw[..., 4:]], axis=-1)


def in_pixels(raw: Float32[Array, "b a 4"], points: Float32[Array, "a 3"]) -> Float32[Array, "b a 4"]:
    """Boxes in pixels from the offsets of their centres and the logarithms of their sides, both in strides."""
    place, stride = points[:, :2], points[:, 2:]
    centre = place + raw[..., :2] * stride
    half = jnp.exp(jnp.clip(raw[..., 2:], -LARGEST, LARGEST)) * stride / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


class Head(nn.Module):
    """Two towers of convolutions at each level, one for the box and one for the classes, with dropout at their ends.

    Attributes:
      classes: number of classes.
      channels: number of channels of the towers.
      dropout, norm, axis_name, dtype: as in `Network`.
      numbers: numbers for each box.
    """

    classes: int
    channels: int
    dropout: float
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype
    numbers: int = 4

    @nn.compact
    def __call__(self, maps: list[Images], train: bool, positions: Positions | None) -> Answers:
        """The numbers for the box and the logits of the classes at each point, level by level."""
        answers = []
        for level, x in enumerate(maps):
            box = self._tower(x, f"level{level}_box", train)
            label = self._tower(x, f"level{level}_class", train)
            label = Dropout(self.dropout, name=f"level{level}_dropout")(label, train, positions)
            ends = [
                self._end(box, f"level{level}_box_out", self.numbers, 0.0),
                self._end(label, f"level{level}_class_out", self.classes, -math.log((1 - PRIOR) / PRIOR)),
            ]
            answers.append(jnp.concatenate(ends, axis=-1).reshape(x.shape[0], -1, self.numbers + self.classes))
        return jnp.concatenate(answers, axis=1).astype(jnp.float32)

    def _tower(self, x: Images, name: str, train: bool) -> Images:
        for number in range(1, TOWER + 1):
            layer = Normed(self.channels, 3, 1, self.norm, self.axis_name, self.dtype, name=f"{name}_{number}")
            x = layer(x, train)
        return x

    def _end(self, x: Images, name: str, outputs: int, bias: float) -> Float[Array, "b h w o"]:
        wide = at_least_float32(x)
        return Conv(outputs, 1, use_bias=True, dtype=wide, kernel_init=small_normal, name=name)(x) + bias


def small_normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """Initial weights with a standard deviation of 0.01, so that all points begin with about the same outputs."""
    return 0.01 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


assert len(STRIDES) == 3  # the stages whose maps are used
