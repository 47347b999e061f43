"""Group normalisation, and the choice between it and BatchNorm."""

import math

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jax import lax
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.models.batch_norm import BatchNorm


class GroupNorm(nn.Module):
    """Normalises groups of channels of each example by their own mean and biased variance.

    Wu & He 2018, arXiv:1803.08494. It is the same in training and after it, has no running statistics, and knows
    neither the batch nor the devices. Scale and bias are of each channel.

    Attributes:
      norm: epsilon, and the number of groups, of which the greatest common divisor with the channels is taken.
      scale_init: initializer of the scale.
    """

    norm: config.Norm
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b ... c"], train: bool) -> Float[Array, "b ... c"]:
        """Normalise `x` in float32; the result has the dtype of `x`. `train` has no effect."""
        channels = x.shape[-1]
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        groups = math.gcd(self.norm.groups, channels)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(x.shape[0], -1, groups, channels // groups)
        centred = wide - wide.mean(axis=(1, 3), keepdims=True)
        variance = jnp.square(centred).mean(axis=(1, 3), keepdims=True)
        normal = (centred * lax.rsqrt(variance + self.norm.epsilon)).reshape(x.shape)
        return (normal * scale + bias).astype(x.dtype)


def norm_layer(
    norm: config.Norm, axis_name: str | None, scale_init: Initializer = nn.initializers.ones, *, name: str
) -> BatchNorm | GroupNorm:
    """The normalisation of `norm.name`, called with images and `train`; `axis_name` as in `BatchNorm`."""
    if norm.name == "group":
        return GroupNorm(norm, scale_init, name=name)
    return BatchNorm(norm, axis_name, scale_init, name=name)
