"""The network of airbench94, and a residual network derived from it.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from jaxcnn.models import whitening
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.initializers import partial_identity, unit_deviation_uniform
from jaxcnn.models.layers import Conv, Dense, Dropout, at_least_float32, gelu, scaled
from jaxcnn.models.network import Features, Images, Logits, Network, Positions
from jaxcnn.models.pooling import max_pool
from jaxcnn.models.whitening import Whitening

CHANNELS = (64, 256, 256)


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of `ResidualAirbench`: a convolution, a 2x2 max-pool, and a residual branch of two convolutions.

    Attributes:
      channels: channels of the group's output.
      kernel_size: kernel size of its first convolution.
      inner_channels: channels between the two other convolutions.
      branch: kernel sizes of these two.
    """

    channels: int
    kernel_size: int
    inner_channels: int
    branch: tuple[int, int]


RESIDUAL_GROUPS = (
    Group(64, kernel_size=3, inner_channels=64, branch=(1, 1)),
    Group(256, kernel_size=3, inner_channels=192, branch=(3, 1)),
    Group(768, kernel_size=2, inner_channels=512, branch=(3, 3)),
)


class _Whitened(Network):
    """The common attributes and layers of these networks. The width does not affect the whitening layer."""

    FROZEN: ClassVar = whitening.FROZEN

    def _stem(self, images: Images) -> Float[Array, "b oh ow o"]:
        return gelu(Whitening(self.dtype, name=whitening.NAME)(images.astype(self.dtype)))

    def _layer(
        self,
        x: Images,
        train: bool,
        group: int,
        index: int,
        channels: int,
        kernel_size: int = 3,
        pool: bool = False,
        residual: Float[Array, "b oh ow o"] | None = None,
    ) -> Float[Array, "b oh ow o"]:
        """A convolution, an optional 2x2 max-pool, BatchNorm, the addition of `residual`, and GELU.

        Zero padding keeps the image size if the kernel's side is odd.
        """
        padding = kernel_size // 2 if kernel_size % 2 else 0
        name = f"group{group}_conv{index}"
        options: dict[str, Any] = {"kernel_init": partial_identity, "split": group >= 2, "name": name}
        x = Conv(channels, kernel_size, 1, padding, False, self.dtype, **options)(x)
        x = max_pool(x, 2, strides=2) if pool else x
        x = BatchNorm(self.norm, self.axis_name, use_scale=False, name=f"group{group}_bn{index}")(x, train)
        return gelu(x if residual is None else x + residual)

    def _classify(self, x: Features, positions: Positions | None, train: bool) -> Logits:
        x = Dropout(self.model.dropout, name="dropout")(x, train, positions)
        return ScaledClassifier(self.outputs, name="classifier")(x)


class Airbench(_Whitened):
    """Patch whitening, three groups of two 3x3 convolutions with a 2x2 max-pool each, a 3x3 max-pool, a dense layer.

    GELU (exact), BatchNorm without scales, convolutions without biases, initialised as partial identities. The logits
    are divided by the number of inputs of the dense layer, which has no bias. 1,971,640 parameters for 3 channels and
    10 classes, 288 of them in the frozen whitening kernel. Images must have at least 9x9 pixels; for images below
    25x25, the last max-pool covers the pixels that remain. Dropout precedes the dense layer.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = self._stem(images)
        for group, channels in enumerate(CHANNELS, start=1):
            channels = scaled(channels, self.model.width)
            x = self._layer(x, train, group, 1, channels, pool=True)
            x = self._layer(x, train, group, 2, channels)
        side = min(3, *x.shape[1:3])  # 3 from 25 pixels on
        x = max_pool(x, side, strides=side)
        return self._classify(x.reshape(x.shape[0], -1), positions, train)


class ResidualAirbench(_Whitened):
    """`Airbench` with a residual branch in each group, wide where images are small, for larger numbers of classes.

    airbench96 (Jordan 2024) has three convolutions in each group and adds the first one's output to the third one's.
    The channels and kernel sizes come from entries to a CIFAR-100 speedrun (Vibecoders/futurebiohackers, then
    NAVIER-STOKED, https://github.com/AIDDA-Institute/CIFAR-100-speedrun, 2026), as described by the latter: 175 million
    multiplications for an image of 32x32 pixels, a third more than `Airbench`. A 2x2 kernel uses no zero padding; the
    max-pool would drop the values that padding adds at the lower right. The dense layer gets the sum of the maximum and
    the mean of each channel.

    8,605,368 parameters for 3 channels and 100 classes. Images must have at least 13x13 pixels. Everything else is as
    in `Airbench`.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = self._stem(images)
        for number, group in enumerate(RESIDUAL_GROUPS, start=1):
            channels = scaled(group.channels, self.model.width)
            inner_channels = scaled(group.inner_channels, self.model.width)
            x = self._layer(x, train, number, 1, channels, group.kernel_size, pool=True)
            y = self._layer(x, train, number, 2, inner_channels, group.branch[0])
            x = self._layer(y, train, number, 3, channels, group.branch[1], residual=x)
        return self._classify(x.max((1, 2)) + x.mean((1, 2)), positions, train)


class ScaledClassifier(nn.Module):
    """Dense layer without bias, whose outputs are divided by the number of inputs.

    So weights of standard deviation 1 give small logits, and the layer learns at a separate rate.
    """

    outputs: int

    @nn.compact
    def __call__(self, x: Features) -> Logits:
        """Map `x` to logits."""
        dtype = at_least_float32(x)
        dense = Dense(self.outputs, use_bias=False, dtype=dtype, kernel_init=unit_deviation_uniform)
        nn.share_scope(self, dense)  # the parameter is "classifier/kernel"
        return dense(x) / x.shape[-1]
