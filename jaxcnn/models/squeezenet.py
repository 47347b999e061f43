"""SqueezeNet: Iandola et al., "AlexNet-level accuracy with 50x fewer parameters", 2016, arXiv:1602.07360.

Version 1.1 is that of the authors' repository, with 2.4 times fewer operations.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

from jaxcnn.models import attention
from jaxcnn.models.layers import Conv, Dropout, at_least_float32, classifier_normal
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool, max_pool
from jaxcnn.models.sizes import sized

FIRST_FIRE = 2  # the first convolution counts as layer 1
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))  # (squeeze, expand)
LAST_FIRE = FIRST_FIRE + len(FIRES) - 1
STEMS = {"squeezenet1_0": (96, 7), "squeezenet1_1": (64, 3)}  # (channels, kernel size)
POOLED = {"squeezenet1_0": (1, 4, 8), "squeezenet1_1": (1, 3, 5)}  # a max-pool follows each of these layers


class SqueezeNet(Network):
    """A convolution, eight fire modules, and a convolution that makes the classes, averaged over the image.

    Dropout precedes this last convolution, whose outputs go through a ReLU: no logit is negative. There is no
    BatchNorm.

    form="imagenet": torchvision's layout, 1,248,424 (1.0) and 1,235,496 (1.1) parameters for 1000 classes.
    form="cifar": the same parameters, but the first convolution has stride 1 and keeps the size of the image.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = images.astype(self.dtype)
        channels, size = STEMS[self.model.name]
        strides, padding = (2, 0) if self.model.form == "imagenet" else (1, size // 2)
        stem = Conv(
            sized(self.model, "stem_conv", channels), size, strides, padding, dtype=self.dtype, name="stem_conv"
        )
        x = nn.relu(stem(x))
        pooled = POOLED[self.model.name]
        if 1 in pooled:
            x = max_pool(x, 3, strides=2, ceil=True)
        for layer, (squeeze, expand) in enumerate(FIRES, start=FIRST_FIRE):
            usual = {"squeeze": squeeze, "expand1x1": expand, "expand3x3": expand}
            sizes = {name: sized(self.model, f"fire{layer}/{name}", size) for name, size in usual.items()}
            fire = Fire(sizes["squeeze"], sizes["expand1x1"], sizes["expand3x3"], self.dtype, name=f"fire{layer}")
            x = fire(x)
            attend = attention.at_stage(self, sum(each < layer for each in pooled))
            x = attend("block", x, train, f"fire{layer}_attention")
            if layer in (*pooled, LAST_FIRE):
                x = attend("stage", x, train, f"stage{attend.stage}_attention")
            if layer in pooled:
                x = max_pool(x, 3, strides=2, ceil=True)
        x = Dropout(self.model.dropout, name="dropout")(x, train, positions)
        x = Conv(self.outputs, 1, dtype=at_least_float32(x), kernel_init=classifier_normal, name="classifier")(x)
        return global_average_pool(nn.relu(x))


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution side by side.

    Attributes:
      squeeze: channels of the first.
      expand1x1, expand3x3: channels of the other two.
      dtype: type of the computation.
    """

    squeeze: int
    expand1x1: int
    expand3x3: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b h w o"]:
        """The output of the fire module for `x`: o is the sum of those of the last two."""
        x = nn.relu(Conv(self.squeeze, 1, dtype=self.dtype, name="squeeze")(x))
        one = Conv(self.expand1x1, 1, dtype=self.dtype, name="expand1x1")(x)
        three = Conv(self.expand3x3, 3, padding=1, dtype=self.dtype, name="expand3x3")(x)
        return nn.relu(jnp.concatenate([one, three], axis=-1))
