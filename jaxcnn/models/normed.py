"""A convolution with normalisation and activation, and upsampling: parts of networks that also go up in size."""

from collections.abc import Callable

import flax.linen as nn
import jax
from flax.typing import Dtype
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Conv
from jaxcnn.models.network import Images


class Normed(nn.Module):
    """A convolution, padded to keep the size at stride 1, its normalisation, and an activation."""

    features: int
    size: int
    strides: int
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype
    activation: Callable[[jax.Array], jax.Array] = nn.silu

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Float[Array, "b oh ow o"]:
        """The output of the layer for `x`."""
        x = Conv(self.features, self.size, self.strides, self.size // 2, use_bias=False, dtype=self.dtype, name="conv")(
            x
        )
        return self.activation(norm_layer(self.norm, self.axis_name, name="bn")(x, train))


def doubled(x: Images, height: int, width: int) -> Images:
    """A map of twice the size, made by repeating pixels and cut to `height` and `width`."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
