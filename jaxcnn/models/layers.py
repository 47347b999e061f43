"""The layers of all networks. Images are "b h w c", kernels of convolutions "kh kw i o".

The kernel of a dense layer is "features inputs": the forward pass reads it in memory order, which is faster on CPU
(`jaxcnn.models.linear`). Convolutions and dense layers may be split over devices (`jaxcnn.models.split`). Parameters
are float32. A layer computes in its `dtype`; BatchNorm statistics are at least float32. Parameters named "kernel" are
weights, "bias" and "scale" are not.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float, Key, UInt32

from jaxcnn.models import context, split
from jaxcnn.models.convolution import convolve
from jaxcnn.models.geometry import check_covers
from jaxcnn.models.initializers import Weights
from jaxcnn.models.linear import linear
from jaxcnn.models.network import Features, Images, Logits, Positions


def he_normal(key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Weights:
    """Initial weights `[..., in, out]` that keep the scale of the signal through ReLU layers in the forward pass.

    A normal distribution truncated at two standard deviations, of variance 2 / fan_in after truncation: He et al. 2015,
    arXiv:1502.01852, eq. 10. The values are those of `jax.nn.initializers.he_normal`.
    """
    truncation = 0.87962566103423978  # standard deviation of the standard normal truncated at 2
    standard_deviation = math.sqrt(2 / math.prod(shape[:-1])) / truncation
    # Drawn as a flat array: XLA then compiles the generator four times faster, which dominates initialisation time.
    flat = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
    return flat.reshape(shape) * jnp.asarray(standard_deviation, dtype)


def classifier_normal(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: Dtype = jnp.float32
) -> Float[Array, "*shape"]:
    """Initial weights of standard deviation 0.01 for the layer of the logits: the first loss is about log(classes).

    Krizhevsky et al. 2012, section 5; Goyal et al. 2017, arXiv:1706.02677, section 5.1.
    """
    return 0.01 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def scaled(channels: int, width: float) -> int:
    """`channels` times `model.width`, rounded, at least 1."""
    return max(1, round(channels * width))


class Conv(nn.Module):
    """Convolution with a square kernel, used for every convolution of every network.

    Its output, of `dtype`, has oh = (h + 2 padding - extent) // strides + 1, where the extent is
    dilation (kernel_size - 1) + 1.

    Attributes:
      features: output channels, o.
      kernel_size: side of the kernel, pixels.
      strides: pixels between outputs.
      padding: zeros added on each side, pixels.
      use_bias: add a bias.
      dtype: type of the computation.
      kernel_init: initializer of the kernel.
      groups: parts of the channels that are convolved separately; as many as there are input channels: depthwise.
      dilation: pixels between the taps of the kernel.
      split: whether the layer is wide enough to be split over the devices of the mesh axis `model`.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = he_normal
    groups: int = 1
    dilation: int = 1
    split: bool = False
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b oh ow o"]:
        """Convolve `x`. Raises UserError if the image is smaller than the kernel."""
        parts = split.parts(self.path, self.split and self.groups == 1, kernel_ndim=4)
        features = self.features // parts
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        check_covers(x, self.dilation * (self.kernel_size - 1) + 1, self.padding, self)
        x = split.enter(x) if parts > 1 else x
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        x = convolve(x, kernel, self.strides, self.padding, self.groups, self.dilation)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (features,), jnp.float32)
            x += bias.astype(self.dtype)
        return split.leave(x) if parts > 1 else x


class Dense(nn.Module):
    """An affine map; its output is of `dtype`.

    Attributes:
      features: number of outputs.
      use_bias: add a bias, initially 0.
      dtype: type of the computation.
      kernel_init: initializer of the kernel's transpose, "inputs features".
      split: whether the layer is wide enough to be split over the devices of the mesh axis `model`.
    """

    features: int
    use_bias: bool = True
    dtype: Dtype = jnp.float32
    kernel_init: Initializer = he_normal
    split: bool = False

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b features"]:
        """Apply the affine map to the rows of `x`."""
        parts = split.parts(self.path, self.split, kernel_ndim=2)
        features = self.features // parts
        kernel = self.param("kernel", self._initial_kernel, (features, x.shape[-1]))
        x = split.enter(x) if parts > 1 else x
        y = linear(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (features,), jnp.float32).astype(self.dtype)
        return split.leave(y) if parts > 1 else y

    def _initial_kernel(self, key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "features inputs"]:
        return self.kernel_init(key, shape[::-1], jnp.float32).T


class Classifier(nn.Module):
    """The last dense layer, always computed in float32."""

    outputs: int

    @nn.compact
    def __call__(self, x: Features) -> Logits:
        """Map `x` to logits."""
        dense = Dense(self.outputs, dtype=at_least_float32(x), kernel_init=classifier_normal)
        nn.share_scope(self, dense)  # the parameters are "classifier/kernel", not "classifier/Dense_0/kernel"
        return dense(x)


class LayerNorm(nn.Module):
    """Normalises each vector of channels by its own mean and variance, then scales and shifts it.

    Ba et al., "Layer normalization", 2016, arXiv:1607.06450. Computed in at least float32; the result has the dtype of
    `x`.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalise each vector of channels of `x`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        wide = x.astype(at_least_float32(x))
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * lax.rsqrt(variance + self.epsilon) * scale + bias).astype(x.dtype)


class Dropout(nn.Module):
    """Dropout with noise per example, independent of devices and microbatches.

    Srivastava et al. 2014, JMLR 15; kept values are divided by the probability of keeping, so evaluation is the
    identity. An example's noise comes from the layer's "dropout" key folded with the example's position. Needs a
    "threefry" key: the bits of "rbg" keys depend on the number of examples drawn together.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], train: bool, positions: Positions | None = None
    ) -> Float[Array, "b ..."]:
        """Drop values of `x`; the positions in the global batch are those of the run unless given.

        Raises:
          ValueError: there are no positions, as in a call of a network outside of a run.
        """
        if not train or self.rate == 0:
            return x
        return dropped(x, self.rate, self.make_rng("dropout"), known(positions))


class StochasticDepth(nn.Module):
    """Drops the whole branch of a residual block, each example by itself, independent of devices and microbatches.

    Huang et al. 2016, arXiv:1603.09382; there a branch is dropped for a whole batch, and evaluation multiplies it by
    the probability of keeping. Here a kept branch is divided by it, as in `Dropout`, which also says where the noise
    comes from. Statistics of BatchNorm inside the branch are those of all examples.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], train: bool, positions: Positions | None = None
    ) -> Float[Array, "b ..."]:
        """Drop all values of some examples, at random.

        Raises:
          ValueError: as in `Dropout`.
        """
        if not train or self.rate == 0:
            return x
        return dropped(x, self.rate, self.make_rng("dropout"), known(positions), shape=(1,) * (x.ndim - 1))


def known(positions: Positions | None) -> Positions:
    """The positions in the global batch: those of the run unless given."""
    positions = context.current().positions if positions is None else positions
    if positions is None:
        raise ValueError("dropout needs `positions`, the examples' places in the global batch")
    return positions


def dropped(
    x: Float[Array, "b ..."],
    rate: float,
    key: Key[Array, ""],
    positions: Positions,
    shape: tuple[int, ...] | None = None,
) -> Float[Array, "b ..."]:
    """`x` with values dropped at a rate in (0, 1), by noise from the key and the position of each example.

    The noise of an example has this shape, by default that of the example: a dimension of 1 is dropped as a whole.
    """
    bits, threshold = threshold_of(rate)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    draws = jax.vmap(lambda key: random_integers(key, x.shape[1:] if shape is None else shape, bits))(keys)
    return jnp.where(draws >= threshold, x / (1 - threshold / 2**bits), 0).astype(x.dtype)


def threshold_of(rate: float) -> tuple[int, int]:
    """(bits, threshold) for `rate` in (0, 1): a value is dropped if a random integer of `bits` is below the threshold.

    One bit suffices for 0.5. A rate not exact in 1, 2, 4, 8 or 16 bits becomes the nearest multiple of 2^-16 in (0, 1).
    """
    bits = next((bits for bits in (1, 2, 4, 8) if (rate * 2**bits).is_integer()), 16)
    return bits, min(max(round(rate * 2**bits), 1), 2**bits - 1)


def random_integers(key: Key[Array, ""], shape: tuple[int, ...], bits: int) -> UInt32[Array, "*shape"]:
    """Integers of this shape, uniform in [0, 2^bits); `bits` must divide 32.

    `jax.random.bits` computes 32 bits for an integer of any width; here, one word gives 32 / bits integers.
    """
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size * bits // 32),), jnp.uint32)
    integers = words[:, None] >> jnp.arange(0, 32, bits, dtype=jnp.uint32) & jnp.uint32(2**bits - 1)
    return integers.reshape(-1)[:size].reshape(shape)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) by erf, as in PyTorch.

    `jax.nn.gelu` uses erfc, which is more precise far below 0, where this does not matter, and costs four times as much
    on CPU.
    """
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def at_least_float32(x: Float[Array, "..."]) -> Dtype:
    """The dtype of `x`, or float32 if that is wider."""
    return jnp.promote_types(x.dtype, jnp.float32)
