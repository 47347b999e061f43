"""ResNets of four stages: He et al., "Deep residual learning for image recognition", 2016, arXiv:1512.03385, table 1.

The wide ones are those of Zagoruyko & Komodakis, "Wide residual networks", 2016, arXiv:1605.07146, for ImageNet.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.models import attention, colours
from jaxcnn.models.activations import Activation, activation
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.group_norm import GroupNorm, norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dropout, StochasticDepth, scaled
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool, halving_average_pool, max_pool
from jaxcnn.models.sizes import sized

CHANNELS = (64, 128, 256, 512)  # channels of the 3x3 convolutions of each stage
EXPANSION = 4  # ratio of a bottleneck's output channels to these channels


@dataclasses.dataclass(frozen=True)
class Variant:
    """The numbers in which the ResNets differ.

    Attributes:
      blocks: number of residual blocks of each stage.
      bottleneck: whether blocks are bottlenecks; otherwise they have two 3x3 convolutions.
      widening: factor of the channels of the 3x3 convolutions of bottlenecks.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    widening: int = 1


VARIANTS = {
    "resnet18": Variant((2, 2, 2, 2), bottleneck=False),
    "resnet34": Variant((3, 4, 6, 3), bottleneck=False),
    "resnet50": Variant((3, 4, 6, 3)),
    "resnet101": Variant((3, 4, 23, 3)),
    "resnet152": Variant((3, 8, 36, 3)),
    "wide_resnet50_2": Variant((3, 4, 6, 3), widening=2),
    "wide_resnet101_2": Variant((3, 4, 23, 3), widening=2),
}


class ResNet(Network):
    """Residual blocks in four stages, whose stride is on the first 3x3 convolution of their first block ("v1.5").

    form="cifar": a 3x3 stem of stride 1 and no max-pool; ResNet50 has 23,520,842 parameters for 3 channels and 10
    classes.
    form="imagenet": torchvision's layout; ResNet50 has 25,557,032 parameters for 1000 classes.

    Dropout precedes the classifier; torchvision's networks have none.

    stem="deep" has three 3x3 convolutions of 32, 32 and 64 channels in the place of the first: He et al. 2019, "Bag of
    tricks for image classification", arXiv:1812.01187, figure 2b.

    Options that change neither the parameters nor their names: last_stride=1 keeps the last stage at the size of the
    stage before, for small images. shortcut="pooled" halves an image by 2x2 means before the 1x1 convolution of a
    shortcut, which then reads all pixels, where a strided one reads every fourth (figure 2c there). stochastic_depth
    is the rate of `StochasticDepth` in the last block; that of block l of L is l / L times as large, the linear rule of
    its paper.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        activate = activation(self.model)
        x = stages(self, self.model.name, self.model.form, images, positions, train, activate)[-1]
        x = Dropout(self.model.dropout, name="dropout")(global_average_pool(x), train, positions)
        return Classifier(self.outputs, name="classifier")(x)


def stages(
    network: Network,
    variant_name: str,
    form: str,
    images: Images,
    positions: Positions | None,
    train: bool,
    activate: Activation = nn.relu,
) -> list[Images]:
    """The outputs of each of the four stages, by layers that belong to the calling network, in its compact method.

    So another network that uses these stages has parameters of the same names.

    Args:
      network: the calling network, whose options count.
      variant_name: one of `VARIANTS`.
      form: "cifar" or "imagenet".
      images, positions, train: as in its `__call__`.
      activate: the nonlinearity.
    """
    model, dtype = network.model, network.dtype
    x = colours.seen(network, images)
    imagenet = form == "imagenet"
    deep = model.stem == "deep"
    for number, channels in enumerate((CHANNELS[0] // 2, CHANNELS[0] // 2, CHANNELS[0]) if deep else CHANNELS[:1]):
        size, strides = (7, 2) if imagenet and not deep else (3, 2 if imagenet and number == 0 else 1)
        conv, norm = (f"stem_{part}{number + 1 if number else ''}" for part in ("conv", "bn"))
        wide = sized(model, conv, channels)
        x = Conv(wide, size, strides, size // 2, use_bias=False, dtype=dtype, name=conv)(x)
        x = activate(norm_layer(network.norm, network.axis_name, name=norm)(x, train))
    if imagenet:
        x = max_pool(x, 3, strides=2, padding=1)
    variant = VARIANTS[variant_name]
    block, all_blocks = 0, sum(variant.blocks)
    made = []
    for stage, (channels, blocks) in enumerate(zip(CHANNELS, variant.blocks, strict=True), start=1):
        stage_strides = {1: 1, len(CHANNELS): model.last_stride}.get(stage, 2)
        attend = attention.at_stage(network, stage)
        before = scaled(CHANNELS[max(stage - 2, 0)], model.width)
        grows = stage_strides > 1 or before != scaled(channels, model.width)
        for i in range(1, blocks + 1):
            block += 1
            name = f"block{stage}_{i}"
            common: dict[str, Any] = {
                "strides": stage_strides if i == 1 else 1,
                "pooled": model.shortcut == "pooled",
                "drop_rate": model.stochastic_depth * block / all_blocks,
                "zero_init": model.zero_init_residual,
                "norm": network.norm,
                "axis_name": network.axis_name,
                "dtype": dtype,
                "split": stage >= 3,
                "attend": attend,
                "activate": activate,
                "project": i == 1 and (variant.bottleneck or grows),
                "name": name,
            }
            # Without a projection, a block has as many channels as its input.
            if variant.bottleneck:
                first, second = (sized(model, f"{name}/conv{n}", variant.widening * channels) for n in (1, 2))
                outputs = sized(model, f"{name}/conv3", EXPANSION * channels) if common["project"] else x.shape[-1]
                x = Bottleneck(first, outputs, second=second, **common)(x, train, positions)
            else:
                first = sized(model, f"{name}/conv1", channels)
                outputs = sized(model, f"{name}/conv2", channels) if common["project"] else x.shape[-1]
                x = BasicBlock(outputs, first=first, **common)(x, train, positions)
            x = attend("block", x, train, f"block{stage}_{i}_attention")
        x = attend("stage", x, train, f"stage{stage}_attention")
        made.append(x)
    return made


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: He et al. 2016, figure 5, left.

    Where channels or size change, the shortcut is a 1x1 convolution with BatchNorm (option B of section 3.3) or, with
    `padded`, every second pixel, with channels of zeros before and after (option A, without parameters).

    Attributes:
      channels: channels of the second convolution.
      strides: stride of the first.
      first: channels of the first.
      padded: whether the shortcut is that of option A.
      kernel: side of the kernels, odd.
      project, pooled, drop_rate, zero_init, norm, axis_name, dtype, split, attend, activate: see `Bottleneck`.
    """

    channels: int
    strides: int
    first: int
    project: bool
    pooled: bool
    drop_rate: float
    zero_init: bool
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype
    split: bool
    padded: bool = False
    kernel: int = 3
    attend: attention.Attend | None = None
    activate: Activation = nn.relu

    @nn.compact
    def __call__(self, x: Images, train: bool, positions: Positions | None = None) -> Float[Array, "b oh ow o"]:
        """The output of the block for `x`: o is `channels`, oh = ceil(h / strides). Positions are for `drop_rate`."""
        y = _conv(self, "conv1", self.first, self.kernel, self.strides)(x)
        y = self.activate(_norm(self, "bn1")(y, train))
        y = _attended(self, "inner", y, train)
        y = _conv(self, "conv2", self.channels, self.kernel)(y)
        y = _last_norm(self, "bn2")(y, train)
        y = _attended(self, "branch", y, train)
        y = StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train, positions)
        if self.padded:
            missing = self.channels - x.shape[-1]
            x = jnp.pad(
                x[:, :: self.strides, :: self.strides],
                ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)),
            )
        elif self.project:
            x = _projected(self, x, self.channels, train)
        return _joined(self, x, y, train)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: He et al. 2016, figure 5, right.

    Attributes:
      channels: channels of the first two convolutions.
      second: channels of the second, if not those of the first.
      output_channels: channels of the third.
      strides: stride of the 3x3 convolution.
      project: whether the shortcut is a 1x1 convolution with BatchNorm instead of the identity.
      pooled: whether a 2x2 average pool before this convolution has the stride instead.
      drop_rate: rate at which an example gets the shortcut alone in training.
      zero_init: whether the scale of the last BatchNorm starts at 0, so the block starts as its shortcut: Goyal et al.
        2017, arXiv:1706.02677, section 5.1.
      norm: options of the BatchNorm layers.
      axis_name: mesh axis over which the batch is sharded, or None.
      dtype: type of the computation.
      split: whether the convolutions are split over the devices of the mesh axis `model`.
      attend: attention after the first 3x3 convolution ("inner") or before the sum ("branch"); None: none.
      activate: the nonlinearity.
    """

    channels: int
    output_channels: int
    strides: int
    project: bool
    pooled: bool
    drop_rate: float
    zero_init: bool
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype
    split: bool
    second: int = 0
    attend: attention.Attend | None = None
    activate: Activation = nn.relu

    @nn.compact
    def __call__(self, x: Images, train: bool, positions: Positions | None = None) -> Float[Array, "b oh ow o"]:
        """The block's output for `x`: o is `output_channels`, oh = ceil(h / strides). Positions are for `drop_rate`."""
        y = _conv(self, "conv1", self.channels, 1)(x)
        y = self.activate(_norm(self, "bn1")(y, train))
        y = _conv(self, "conv2", self.second or self.channels, 3, self.strides)(y)
        y = self.activate(_norm(self, "bn2")(y, train))
        y = _attended(self, "inner", y, train)
        y = _conv(self, "conv3", self.output_channels, 1)(y)
        y = _last_norm(self, "bn3")(y, train)
        y = _attended(self, "branch", y, train)
        y = StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train, positions)
        if self.project:
            x = _projected(self, x, self.output_channels, train)
        return _joined(self, x, y, train)


# The layers that both kinds of block make in the same way, as submodules of the block.


def _conv(block: BasicBlock | Bottleneck, name: str, features: int, size: int, strides: int = 1) -> Conv:
    return Conv(features, size, strides, size // 2, use_bias=False, dtype=block.dtype, split=block.split, name=name)


def _norm(
    block: BasicBlock | Bottleneck, name: str, scale_init: Initializer = nn.initializers.ones
) -> BatchNorm | GroupNorm:
    return norm_layer(block.norm, block.axis_name, scale_init, name=name)


def _last_norm(block: BasicBlock | Bottleneck, name: str) -> BatchNorm | GroupNorm:
    return _norm(block, name, nn.initializers.zeros if block.zero_init else nn.initializers.ones)


def _attended(block: BasicBlock | Bottleneck, place: str, y: Images, train: bool) -> Images:
    return y if block.attend is None else block.attend(place, y, train)


def _projected(block: BasicBlock | Bottleneck, x: Images, features: int, train: bool) -> Images:
    """The projection shortcut: a 1x1 convolution with BatchNorm."""
    strides = block.strides
    if block.pooled and strides == 2:
        x, strides = halving_average_pool(x), 1
    x = _conv(block, "shortcut_conv", features, 1, strides)(x)
    return _norm(block, "shortcut_bn")(x, train)


def _joined(block: BasicBlock | Bottleneck, x: Images, y: Images, train: bool) -> Images:
    """The activation of the sum of shortcut and branch; in evaluation it is stored in memory.

    Otherwise XLA:CPU would repeat the addition wherever the sum is read, also in the next block's sum, and so keep the
    terms of all blocks of a stage until its end. It does not fuse across a conditional. Training stores what its
    gradients need.
    """

    def join(x: Images, y: Images) -> Images:
        return block.activate(x + y)

    def join_once(x: Images, y: Images) -> Images:
        return lax.cond(jnp.isnan(x[(0,) * x.ndim]), join, join, x, y)

    return join(x, y) if train else lax.platform_dependent(x, y, cpu=join_once, default=join)
