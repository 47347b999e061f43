"""ConvNeXt: Liu et al., "A ConvNet for the 2020s", 2022, arXiv:2201.03545, section 2."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Key

from jaxcnn.models.initializers import Weights
from jaxcnn.models.layers import Classifier, Conv, Dropout, LayerNorm, StochasticDepth, gelu, scaled
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool

CHANNELS = (96, 192, 384, 768)  # output channels of each stage
BLOCKS = {"convnext_tiny": (3, 3, 9, 3)}  # blocks of each stage
EXPANSION = 4  # ratio of the channels inside a block to those of its input
FIRST_SCALE = 1e-6  # initial scale of the branch of each block
EPSILON = 1e-6  # epsilon of LayerNorm


def _normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """Initial weights with a standard deviation of 0.02, as in appendix A.1."""
    return 0.02 * jax.random.normal(key, shape, dtype)


class ConvNeXt(Network):
    """A convolution over patches, four stages of blocks with 2x2 convolutions of stride 2 between them, a classifier.

    form="imagenet": torchvision's layout, patches of 4x4 pixels; ConvNeXt-Tiny has 28,589,128 parameters for 1000
    classes. form="cifar": patches of 2x2.

    Dropout precedes the classifier; torchvision's networks have none. stochastic_depth is as in
    `jaxcnn.models.resnet`. There is no BatchNorm.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = images.astype(self.dtype)
        blocks = BLOCKS[self.model.name]
        block, all_blocks = 0, sum(blocks)
        for stage, count in enumerate(blocks, start=1):
            channels = scaled(CHANNELS[stage - 1], self.model.width)
            if stage == 1:
                x = _patches(x, channels, 4 if self.model.form == "imagenet" else 2, "stem_conv")
                x = LayerNorm(EPSILON, name="stem_ln")(x)
            else:
                x = _patches(LayerNorm(EPSILON, name=f"down{stage}_ln")(x), channels, 2, f"down{stage}_conv")
            for i in range(1, count + 1):
                block += 1
                rate = self.model.stochastic_depth * block / all_blocks
                x = Block(rate, self.dtype, split=stage >= 3, name=f"block{stage}_{i}")(x, train, positions)
        x = LayerNorm(EPSILON, name="last_ln")(global_average_pool(x))
        x = Dropout(self.model.dropout, name="dropout")(x, train, positions)
        return Classifier(self.outputs, name="classifier")(x)


class Block(nn.Module):
    """A 7x7 depthwise convolution, LayerNorm, and two 1x1 convolutions around a GELU, beside a shortcut.

    Attributes:
      drop_rate: rate at which an example gets the shortcut alone in training.
      dtype: type of the computation.
      split: whether the 1x1 convolutions are split over the devices of the mesh axis `model`.
    """

    drop_rate: float
    dtype: Dtype
    split: bool = False

    @nn.compact
    def __call__(self, x: Images, train: bool, positions: Positions | None = None) -> Images:
        """The output of the block for `x`. Positions are needed for `drop_rate`."""
        channels = x.shape[-1]
        y = Conv(channels, 7, 1, 3, dtype=self.dtype, kernel_init=_normal, groups=channels, name="depthwise")(x)
        y = LayerNorm(EPSILON, name="ln")(y)
        options: dict[str, Any] = {"dtype": self.dtype, "kernel_init": _normal, "split": self.split}
        y = gelu(Conv(EXPANSION * channels, 1, name="expand", **options)(y))
        y = LayerScale(name="layer_scale")(Conv(channels, 1, name="project", **options)(y))
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train, positions)


class LayerScale(nn.Module):
    """Multiplies each channel by a trained factor that starts small: Touvron et al. 2021, arXiv:2103.17239."""

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b h w c"]:
        """Multiply each channel of `x` by its factor."""
        scale = self.param("scale", nn.initializers.constant(FIRST_SCALE), x.shape[-1:], jnp.float32)
        return x * scale.astype(x.dtype)


def _patches(x: Images, channels: int, size: int, name: str) -> Float[Array, "b oh ow o"]:
    """A convolution over patches that do not overlap, as a module of the caller."""
    return Conv(channels, size, size, dtype=x.dtype, kernel_init=_normal, name=name)(x)
