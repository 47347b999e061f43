"""Networks of inverted residual blocks: MobileNetV2, EfficientNet-B0 and EfficientNet-Lite0.

Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, arXiv:1801.04381, table 2. Tan & Le,
"EfficientNet", 2019, arXiv:1905.11946, table 1. EfficientNet-Lite0 (TensorFlow's authors, 2020) is EfficientNet-B0
without squeeze-and-excitation, with ReLU6 in place of swish.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.models import attention
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dropout, StochasticDepth, scaled
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool
from jaxcnn.models.sizes import sized, sized_from

STEM, LAST = 32, 1280  # channels of the first and the last convolution


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of blocks of one kind.

    Attributes:
      expansion: ratio of the channels of a block's depthwise convolution to those of its input.
      channels: channels of the output.
      blocks: how many blocks.
      strides: stride of the first block.
      size: side of the depthwise kernels.
    """

    expansion: int
    channels: int
    blocks: int
    strides: int
    size: int = 3


_EFFICIENTNET = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 40, 2, 2, size=5),
    Stage(6, 80, 3, 2),
    Stage(6, 112, 3, 1, size=5),
    Stage(6, 192, 4, 2, size=5),
    Stage(6, 320, 1, 1),
)
STAGES = {
    "mobilenet_v2": (
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 2),
        Stage(6, 32, 3, 2),
        Stage(6, 64, 4, 2),
        Stage(6, 96, 3, 1),
        Stage(6, 160, 3, 2),
        Stage(6, 320, 1, 1),
    ),
    "efficientnet_b0": _EFFICIENTNET,
    "efficientnet_lite0": _EFFICIENTNET,
}
SQUEEZED = ("efficientnet_b0",)  # squeeze-and-excitation in each block, to a quarter of its input's channels, and swish
PADDED_AT_END = ("efficientnet_lite0",)  # TensorFlow's padding: with stride 2, an even side has more at its end


class InvertedResidualNet(Network):
    """A 3x3 convolution, seven stages of inverted residual blocks, a 1x1 convolution, and the classifier.

    form="imagenet": MobileNetV2 and EfficientNet-B0 in torchvision's layout, 3,504,872 and 5,288,548 parameters for
    1000 classes; EfficientNet-Lite0 in TensorFlow's, 4,652,008 parameters. TensorFlow's weights need
    config.norm.epsilon=1e-3.
    form="cifar": the same parameters, but the first convolution and the second stage have stride 1.

    Dropout precedes the classifier. stochastic_depth is the rate of the last block; that of block l of L is l / L times
    as large, and only blocks with a shortcut have one.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        name = self.model.name
        x = inverted_stages(self, name, self.model.form, images, positions, train)[-1]
        x = _outer_step(self, name, x, "last", sized(self.model, "last_conv", LAST), 1, 1, train)
        x = Dropout(self.model.dropout, name="dropout")(global_average_pool(x), train, positions)
        return Classifier(self.outputs, name="classifier")(x)


def inverted_stages(
    network: Network, variant_name: str, form: str, images: Images, positions: Positions | None, train: bool
) -> list[Images]:
    """The outputs of each of the seven stages, by layers that belong to the calling network, in its compact method.

    So another network that uses these stages has parameters of the same names.

    Args:
      network: the calling network, whose options count.
      variant_name: one of `STAGES`.
      form: "cifar" or "imagenet".
      images, positions, train: as in its `__call__`.
    """
    model, large, squeezed = network.model, form == "imagenet", variant_name in SQUEEZED
    x = images.astype(network.dtype)
    x = _outer_step(network, variant_name, x, "stem", sized(model, "stem_conv", STEM), 3, 2 if large else 1, train)
    usual = scaled(STEM, model.width)  # channels, with none of `model.channels`
    stages = STAGES[variant_name]
    block, all_blocks = 0, sum(stage.blocks for stage in stages)
    made = []
    for number, stage in enumerate(stages, start=1):
        attend = attention.NOWHERE if squeezed else attention.at_stage(network, number)
        for i in range(1, stage.blocks + 1):
            block += 1
            first = stage.strides if large or number != 2 else 1
            strides, path, before = first if i == 1 else 1, f"block{number}_{i}", usual
            usual = scaled(stage.channels, model.width)
            joined = strides == 1 and before == usual
            inner = stage.expansion * before
            x = InvertedResidual(
                channels=x.shape[-1] if joined else sized(model, f"{path}/project_conv", stage.channels),
                inner=sized_from(model, f"{path}/expand_conv", inner) if stage.expansion > 1 else 0,
                size=stage.size,
                strides=strides,
                joined=joined,
                at_end=variant_name in PADDED_AT_END,
                drop_rate=model.stochastic_depth * block / all_blocks,
                norm=network.norm,
                axis_name=network.axis_name,
                dtype=network.dtype,
                attend=attend,
                squeezed=max(1, before // 4) if squeezed else 0,
                name=path,
            )(x, train, positions)
            x = attend("block", x, train, f"block{number}_{i}_attention")
        x = attend("stage", x, train, f"stage{number}_attention")
        made.append(x)
    return made


def _outer_step(
    network: Network, variant_name: str, x: Images, name: str, channels: int, size: int, strides: int, train: bool
) -> Images:
    """The first or the last convolution of a network, with BatchNorm and activation."""
    at_end, common = variant_name in PADDED_AT_END, (network.norm, network.axis_name, network.dtype)
    x = _step(x, name, channels, size, strides, 1, at_end, *common, train)
    return nn.silu(x) if variant_name in SQUEEZED else nn.relu6(x)


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise one, and a 1x1 one to few, beside a shortcut where sizes agree.

    Attributes:
      channels: channels of the output.
      inner: channels of the first and of the depthwise convolution; 0: there is no first one, and the depthwise one
        has those of the input.
      size: side of the depthwise kernel.
      strides: stride of the depthwise convolution.
      joined: whether there is a shortcut, which needs stride 1 and an input of `channels`.
      at_end: whether it is padded as in TensorFlow.
      drop_rate: rate at which an example gets the shortcut alone in training.
      norm: options of the BatchNorm layers.
      axis_name: mesh axis over which the batch is sharded, or None.
      dtype: type of the computation.
      attend: attention after the depthwise convolution ("inner") or at the end of the branch ("branch").
      squeezed: channels inside the squeeze-and-excitation that follows the depthwise convolution, with swish in place
        of ReLU6; 0: there is none.
    """

    channels: int
    inner: int
    size: int
    strides: int
    joined: bool
    at_end: bool
    drop_rate: float
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype
    attend: attention.Attend
    squeezed: int = 0

    @nn.compact
    def __call__(self, x: Images, train: bool, positions: Positions | None = None) -> Float[Array, "b oh ow o"]:
        """The output of the block for `x`: o is `channels`, oh = ceil(h / strides). Positions are for `drop_rate`."""

        def step(x: Images, name: str, channels: int, size: int, strides: int, groups: int) -> Images:
            return _step(
                x, name, channels, size, strides, groups, self.at_end, self.norm, self.axis_name, self.dtype, train
            )

        inner = self.inner or x.shape[-1]
        activation = nn.silu if self.squeezed else nn.relu6
        y = x
        if self.inner:
            y = activation(step(y, "expand", inner, 1, 1, 1))
        y = activation(step(y, "depthwise", inner, self.size, self.strides, inner))
        if self.squeezed:
            y = attention.SqueezeExcitation(channels=self.squeezed, activation=nn.silu, dtype=self.dtype, name="se")(y)
        y = self.attend("inner", y, train)
        y = step(y, "project", self.channels, 1, 1, 1)
        y = self.attend("branch", y, train)
        if not self.joined:
            return y
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train, positions)


def _step(
    x: Images,
    name: str,
    channels: int,
    size: int,
    strides: int,
    groups: int,
    at_end: bool,
    norm: config.Norm,
    axis_name: str | None,
    dtype: Dtype,
    train: bool,
) -> Images:
    """A convolution and its normalisation, as modules of the caller; `name` begins their names."""
    padding = size // 2
    if at_end and strides > 1:
        x, padding = _padded_at_end(x, size, strides), 0
    conv = Conv(channels, size, strides, padding, False, dtype, groups=groups, name=f"{name}_conv")
    return norm_layer(norm, axis_name, name=f"{name}_bn")(conv(x), train)


def _padded_at_end(x: Images, size: int, strides: int) -> Images:
    """`x` padded for a convolution with ceil(h / strides) outputs; an odd number of zeros has one more at the end."""
    missing = [max(0, (-(-length // strides) - 1) * strides + size - length) for length in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), *((rest // 2, rest - rest // 2) for rest in missing), (0, 0)))
