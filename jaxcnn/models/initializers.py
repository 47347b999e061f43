"""Initial weights in addition to those of the common layers; kernels are "kh kw i o" or "inputs features"."""

import math

import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Key

Weights = Float[Array, "*shape"]


def fan_in_uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """Uniform within +-1 / sqrt(fan_in), PyTorch's default for convolutions and dense layers.

    He et al. 2015 (arXiv:1502.01852) with a leaky ReLU of slope sqrt(5).
    """
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)


def partial_identity(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """A convolution that copies its input channels: output channel i is input channel i, if the input exists.

    Further output channels are `fan_in_uniform`. Dirac kernels are from Zagoruyko & Komodakis 2017 (arXiv:1706.00388),
    random further channels from Jordan 2024 (arXiv:2404.00498).

    Args:
      key: key of the random channels.
      shape: (kh, kw, i, o); for an even side, the second of the two middle places is used.
      dtype: type of the kernel.
    """
    height, width, inputs, outputs = shape
    passed = jnp.zeros(shape, dtype).at[height // 2, width // 2].set(jnp.eye(inputs, outputs, dtype=dtype))
    return jnp.where(jnp.arange(outputs) < inputs, passed, fan_in_uniform(key, shape, dtype))


def unit_deviation_uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """Uniform weights, scaled so that the sample's own standard deviation is 1."""
    weights = jax.random.uniform(key, shape, dtype, -1, 1)
    return weights / weights.std(ddof=1)


def fan_in_bias(fan_in: int) -> Initializer:
    """An initializer of biases: uniform within +-1 / sqrt(fan_in), PyTorch's default."""

    def initialize(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize
