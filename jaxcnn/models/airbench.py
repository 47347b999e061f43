"""The network of airbench94, and a residual one of its line.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.
"""

import dataclasses
import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import config
from jaxcnn.models import whitening
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.initializers import partial_identity, unit_deviation_uniform
from jaxcnn.models.layers import Conv, Dense, Dropout, at_least_float32, scaled
from jaxcnn.models.pooling import max_pool
from jaxcnn.models.whitening import Whitening

CHANNELS = (64, 256, 256)


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of `ResidualAirbench`: a convolution, a 2x2 max-pool, and two convolutions around which `x` is added.

    Attributes:
      channels: of the group's output.
      kernel_size: of its first convolution.
      inner_channels: between the two others.
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


class _Whitened(nn.Module):
    """What the networks here have in common: their attributes, and the layers they are made of.

    Attributes:
      model: `width` and `dropout` are read here; the width leaves the whitening layer alone.
      norm: of the BatchNorm layers.
      num_classes: K.
      axis_name: mesh axis the batch is sharded over, or None.
      dtype: of the computation.
    """

    FROZEN: ClassVar = whitening.FROZEN

    model: config.Model
    norm: config.Norm
    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def _stem(self, images: jax.Array) -> jax.Array:
        return _gelu(Whitening(self.dtype, name=whitening.NAME)(images.astype(self.dtype)))

    def _layer(
        self,
        x: jax.Array,
        train: bool,
        group: int,
        index: int,
        channels: int,
        kernel_size: int = 3,
        pool: bool = False,
        residual: jax.Array | None = None,
    ) -> jax.Array:
        """Convolution, 2x2 max-pool if asked for, BatchNorm, plus `residual`, GELU.

        Zeros around images keep their size where the kernel's side is odd.
        """
        padding = kernel_size // 2 if kernel_size % 2 else 0
        name = f"group{group}_conv{index}"
        x = Conv(channels, kernel_size, 1, padding, False, self.dtype, kernel_init=partial_identity, name=name)(x)
        x = max_pool(x, 2, strides=2) if pool else x
        x = BatchNorm(self.norm, self.axis_name, use_scale=False, name=f"group{group}_bn{index}")(x, train)
        return _gelu(x if residual is None else x + residual)

    def _classify(self, x: jax.Array, positions: jax.Array | None, train: bool) -> jax.Array:
        x = Dropout(self.model.dropout, name="dropout")(x, positions, train)
        return ScaledClassifier(self.num_classes, name="classifier")(x)


class Airbench(_Whitened):
    """Patch whitening, three groups of two 3x3 convolutions with a 2x2 max-pool each, a 3x3 max-pool, a dense layer.

    GELU (exact), BatchNorm without scales, convolutions without biases that start as partial identities. The logits
    are divided by the inputs of the dense layer, which has no bias. 1,971,640 parameters for 3 channels and 10 classes,
    288 of them in the frozen whitening kernel. Takes images from 25x25 pixels up. Dropout precedes the dense layer.
    """

    @nn.compact
    def __call__(self, images: jax.Array, positions: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Logits float32 [B, K] of images [B, H, W, C]; positions: int32 [B], for dropout in training."""
        x = self._stem(images)
        for group, channels in enumerate(CHANNELS, start=1):
            channels = scaled(channels, self.model.width)
            x = self._layer(x, train, group, 1, channels, pool=True)
            x = self._layer(x, train, group, 2, channels)
        x = max_pool(x, 3, strides=3)
        return self._classify(x.reshape(x.shape[0], -1), positions, train)


class ResidualAirbench(_Whitened):
    """`Airbench` with a residual branch in each group, wide where images are small, for more than a few classes.

    airbench96 (Jordan 2024) has three convolutions in each group and adds the first's output to the third's. The
    channels and kernel sizes are those that entries to a speedrun of CIFAR-100 came to (Vibecoders/futurebiohackers,
    then NAVIER-STOKED, https://github.com/AIDDA-Institute/CIFAR-100-speedrun, 2026), as described by the latter: 175
    million products of two numbers for an image of 32x32 pixels, a third more than `Airbench` has. A 2x2 kernel takes
    no zeros around its images; what these would add at the lower right, the max-pool leaves out. The largest and the
    mean value of each channel, added up, go to the dense layer.

    8,605,368 parameters for 3 channels and 100 classes. Takes images from 13x13 pixels up. Everything else is as in
    `Airbench`.
    """

    @nn.compact
    def __call__(self, images: jax.Array, positions: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Logits float32 [B, K] of images [B, H, W, C]; positions: int32 [B], for dropout in training."""
        x = self._stem(images)
        for number, group in enumerate(RESIDUAL_GROUPS, start=1):
            channels = scaled(group.channels, self.model.width)
            inner_channels = scaled(group.inner_channels, self.model.width)
            x = self._layer(x, train, number, 1, channels, group.kernel_size, pool=True)
            y = self._layer(x, train, number, 2, inner_channels, group.branch[0])
            x = self._layer(y, train, number, 3, channels, group.branch[1], residual=x)
        return self._classify(x.max((1, 2)) + x.mean((1, 2)), positions, train)


class ScaledClassifier(nn.Module):
    """Dense layer without bias, `[B, inputs]` -> logits float32 `[B, num_classes]`, divided by its inputs.

    Weights of standard deviation 1 then give small logits, and the layer learns at a rate of its own.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `x` to logits."""
        dtype = at_least_float32(x)
        dense = Dense(self.num_classes, use_bias=False, dtype=dtype, kernel_init=unit_deviation_uniform)
        nn.share_scope(self, dense)  # the parameter is "classifier/kernel"
        return dense(x) / x.shape[-1]


def _gelu(x: jax.Array) -> jax.Array:
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) by erf, as PyTorch has it.

    `jax.nn.gelu` takes erfc, which has more digits far below 0, where nothing depends on them, and costs four times as
    much on CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))
