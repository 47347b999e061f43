"""The network of airbench94: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import config
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.initializers import partial_identity, unit_deviation_uniform
from jaxcnn.models.layers import Conv, Dropout, scaled
from jaxcnn.models.pooling import max_pool
from jaxcnn.models.whitening import NAME, Whitening

CHANNELS = (64, 256, 256)


class Airbench(nn.Module):
    """Patch whitening, three groups of two 3x3 convolutions with a 2x2 max-pool each, a 3x3 max-pool, a dense layer.

    GELU (exact), BatchNorm without scales, convolutions without biases that start as partial identities. The logits
    are divided by the inputs of the dense layer, which has no bias. 1,971,640 parameters for 3 channels and 10 classes,
    288 of them in the frozen whitening kernel. Takes images from 25x25 pixels up. Dropout precedes the dense layer.

    Attributes:
      model: `width` and `dropout` are read here; the width leaves the whitening layer alone.
      norm: of the BatchNorm layers.
      num_classes: K.
      axis_name: mesh axis the batch is sharded over, or None.
      dtype: of the computation.
    """

    model: config.Model
    norm: config.Norm
    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, positions: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Logits float32 [B, K] of images [B, H, W, C]; positions: int32 [B], for dropout in training."""
        x = _gelu(Whitening(self.dtype, name=NAME)(images.astype(self.dtype)))
        for group, channels in enumerate(CHANNELS, start=1):
            channels = scaled(channels, self.model.width)
            for i in (1, 2):
                name = f"group{group}_conv{i}"
                x = Conv(channels, 3, 1, 1, False, self.dtype, kernel_init=partial_identity, name=name)(x)
                if i == 1:
                    x = max_pool(x, 2, strides=2)
                x = BatchNorm(self.norm, self.axis_name, use_scale=False, name=f"group{group}_bn{i}")(x, train)
                x = _gelu(x)
        x = max_pool(x, 3, strides=3)
        x = x.reshape(x.shape[0], -1)
        x = Dropout(self.model.dropout, name="dropout")(x, positions, train)
        return ScaledClassifier(self.num_classes, name="classifier")(x)


class ScaledClassifier(nn.Module):
    """Dense layer without bias, `[B, inputs]` -> logits float32 `[B, num_classes]`, divided by its inputs.

    Weights of standard deviation 1 then give small logits, and the layer learns at a rate of its own.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `x` to logits."""
        inputs = x.shape[-1]
        kernel = self.param("kernel", unit_deviation_uniform, (inputs, self.num_classes), jnp.float32)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return x @ kernel.astype(x.dtype) / inputs


def _gelu(x: jax.Array) -> jax.Array:
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) by erf, as PyTorch has it.

    `jax.nn.gelu` takes erfc, which has more digits far below 0, where nothing depends on them, and costs four times as
    much on CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))
