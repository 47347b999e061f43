"""Attention in CNNs: layers that weight channels or pixels by what the whole image shows, and keep the shape.

The last layer of each starts at 0, so a gate starts at one half for every image, and an added term starts at 0.
`config.model.attention` puts one into our networks (`jaxcnn.config.networks` says where); `jaxcnn.layers` has them for
others.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.config import networks
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.layers import Conv, Dense, LayerNorm, at_least_float32, he_normal
from jaxcnn.models.network import Features, Images, Network
from jaxcnn.models.pooling import global_average_pool, max_pool

ZEROS = nn.initializers.zeros
MAPS = "attention_maps"  # the collection in which layers that weight pixels store these weights, on request


class Attention(nn.Module):
    """Base class. A subclass has a compact `__call__(x, train)` that maps images to images of the same shape.

    Attributes:
      ratio: channels of x divided by the channels inside the layer; 0: as in the paper of the method (RATIO).
      norm: options of the BatchNorm layers; None: the options and the axis of the run.
      axis_name: mesh axis over which the batch is sharded, or None.
      dtype: type of the computation.
    """

    RATIO: ClassVar[int] = 16
    LEAST: ClassVar[int] = 1  # fewest channels inside the layer

    ratio: int = 0
    norm: config.Norm | None = None
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def inner(self, x: Images) -> int:
        """The number of channels inside the layer."""
        return max(self.LEAST, x.shape[-1] // (self.ratio or self.RATIO))

    def _weighs(self, weights: Callable[[], Float[Array, "b h w"]]) -> None:
        """Store the weights of the pixels in the collection `MAPS` if a caller asks for it; costs nothing otherwise."""
        if self.is_mutable_collection(MAPS) and not self.is_initializing():
            self.sow(MAPS, "map", weights().astype(jnp.float32))

    def _conv(self, name: str, features: int, size: int = 1, dilation: int = 1, last: bool = False) -> Conv:
        """A convolution that keeps the size of the image; the last one of a branch has no bias and starts at 0."""
        init, padding = ZEROS if last else he_normal, dilation * (size // 2)
        return Conv(features, size, 1, padding, not last, self.dtype, init, dilation=dilation, name=name)

    def _dense(self, name: str, features: int, last: bool = False) -> Dense:
        return Dense(features, dtype=self.dtype, kernel_init=ZEROS if last else he_normal, name=name)

    def _norm(self, name: str, last: bool = False) -> BatchNorm:
        return BatchNorm(self.norm, self.axis_name, ZEROS if last else nn.initializers.ones, name=name)


class SqueezeExcitation(Attention):
    """SE: a gate for each channel, by two dense layers from the means of all channels.

    Hu et al., "Squeeze-and-excitation networks", 2018, arXiv:1709.01507, section 3; ratio 16. SE-ResNet50 has
    28,088,024 parameters for 1000 classes.

    Attributes:
      channels: number of channels inside, in place of a ratio; 0: by the ratio.
      activation: activation after the first layer.
    """

    channels: int = 0
    activation: Callable[[Features], Features] = nn.relu

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` times the gates of its channels."""
        means = global_average_pool(x)
        inside = self.activation(self._dense("reduce", self.channels or self.inner(x))(means))
        gate = nn.sigmoid(self._dense("expand", x.shape[-1], last=True)(inside))
        return x * gate[:, None, None]


class EfficientChannelAttention(Attention):
    """ECA: a gate for each channel, by a convolution over the means of neighbouring channels; without a ratio.

    Wang et al., "ECA-Net", 2020, arXiv:1910.03151. ECA-ResNet50 has 25,557,118 parameters for 1000 classes, 86 more
    than without.
    """

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` times the gates of its channels."""
        channels = x.shape[-1]
        size = eca_kernel_size(channels)
        kernel = self.param("kernel", ZEROS, (size, 1, 1), jnp.float32).astype(x.dtype)
        means = jnp.pad(global_average_pool(x), ((0, 0), (size // 2, size // 2)))
        mixed = sum(means[:, tap : tap + channels] * kernel[tap, 0, 0] for tap in range(size))
        return x * nn.sigmoid(mixed)[:, None, None]


def eca_kernel_size(channels: int) -> int:
    """The kernel of ECA: the odd number next to |log2(channels) + 1| / 2; equation 12 of its paper and its code."""
    size = int(abs(math.log2(channels) + 1) / 2)
    return size if size % 2 else size + 1


class CBAM(Attention):
    """CBAM: gates for the channels, from means and maxima over pixels, then for the pixels, from those over channels.

    Woo et al., "CBAM: convolutional block attention module", 2018, arXiv:1807.06521, section 3; ratio 16, 7x7 kernel.
    ResNet50 with it has 28,089,592 parameters for 1000 classes (28.09 M in table 4).
    """

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` times the gates of its channels and of its pixels."""
        reduce, expand = self._dense("reduce", self.inner(x)), self._dense("expand", x.shape[-1], last=True)
        of_channels = expand(nn.relu(reduce(global_average_pool(x)))) + expand(nn.relu(reduce(x.max((1, 2)))))
        x = x * nn.sigmoid(of_channels)[:, None, None]
        seen = jnp.stack([x.max(-1), x.mean(-1)], axis=-1)
        of_pixels = nn.sigmoid(self._conv("spatial", 1, size=7, last=True)(seen))
        self._weighs(lambda: of_pixels[..., 0])
        return x * of_pixels


class BAM(Attention):
    """BAM: x (1 + gate), where a gate is made from the sum of a branch for the channel and one for the pixel.

    Park et al., "BAM: bottleneck attention module", 2018, arXiv:1807.06514, section 3; ratio 16, dilation 4, placed
    between stages. ResNet50 with it has 25.92 million parameters for 1000 classes (table 4).
    """

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` times one plus the gates."""
        channels, inner = x.shape[-1], self.inner(x)
        of_channels = self._dense("channel_expand", channels)(
            nn.relu(self._dense("channel_reduce", inner)(global_average_pool(x)))
        )
        of_channels = self._norm("channel_bn", last=True)(of_channels, train)
        y = nn.relu(self._conv("spatial_reduce", inner)(x))
        for number in (1, 2):
            y = nn.relu(self._conv(f"spatial{number}", inner, size=3, dilation=4)(y))
        y = Conv(1, 1, use_bias=False, dtype=self.dtype, name="spatial_last")(y)
        of_pixels = self._norm("spatial_bn", last=True)(y, train)
        gate = nn.sigmoid(of_channels[:, None, None] + of_pixels)
        self._weighs(lambda: gate.mean(-1))
        return x * (1 + gate)


class GlobalContext(Attention):
    """GC: adds to every pixel the same vector, made by a bottleneck from a weighted mean of all pixels.

    Cao et al., "GCNet: non-local networks meet squeeze-excitation networks and beyond", 2019, arXiv:1904.11492, figure
    4d; ratio 16.
    """

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` plus the vector made from its context."""
        batch, height, width, channels = x.shape
        weights = self._conv("key", 1)(x).reshape(batch, height * width).astype(at_least_float32(x))
        weights = nn.softmax(weights).astype(x.dtype)
        self._weighs(lambda: weights.reshape(batch, height, width))
        context = jnp.einsum("bnc,bn->bc", x.reshape(batch, -1, channels), weights)
        inside = LayerNorm(name="norm")(self._dense("reduce", self.inner(x))(context))
        return x + self._dense("expand", channels, last=True)(nn.relu(inside))[:, None, None]


class NonLocal(Attention):
    """Adds to each pixel a normalised mean of all pixels, weighted by their similarity to it.

    Wang et al., "Non-local neural networks", 2018, arXiv:1711.07971, section 3: the embedded Gaussian, ratio 2, whose
    keys and values are halved by 2x2 max-pools. ResNet50 with one after its third stage has 27.66 million parameters
    for 1000 classes.
    """

    RATIO: ClassVar[int] = 2

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` plus the weighted means for each pixel."""
        inner = self.inner(x)
        halve = functools.partial(max_pool, window=2, strides=2) if min(x.shape[1:3]) > 1 else lambda y: y
        query = _pixels(self._conv("query", inner)(x))
        key, value = (_pixels(halve(self._conv(name, inner)(x))) for name in ("key", "value"))
        similar = jnp.einsum("bnc,bmc->bnm", query, key, preferred_element_type=at_least_float32(x))
        weights = nn.softmax(similar).astype(x.dtype)
        self._weighs(lambda: weights.mean(1).reshape(x.shape[0], *self._halved(x)))
        gathered = jnp.einsum("bnm,bmc->bnc", weights, value)
        gathered = gathered.reshape(*x.shape[:3], inner)
        y = Conv(x.shape[-1], 1, use_bias=False, dtype=self.dtype, name="out")(gathered)
        return x + self._norm("bn", last=True)(y, train)

    def _halved(self, x: Images) -> tuple[int, int]:
        """The height and width of keys and values."""
        height, width = x.shape[1:3]
        return (height // 2, width // 2) if min(height, width) > 1 else (height, width)


class CoordinateAttention(Attention):
    """Coordinate attention: a gate for each row and one for each column of each channel, from means over them.

    Hou et al., "Coordinate attention for efficient mobile network design", 2021, arXiv:2103.02907, section 3; ratio 32,
    at least eight channels inside.
    """

    RATIO: ClassVar[int] = 32
    LEAST: ClassVar[int] = 8

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Images:
        """`x` times the gates of its rows and of its columns."""
        height = x.shape[1]
        both = jnp.concatenate([x.mean(2), x.mean(1)], axis=1)[:, :, None]  # the rows, then the columns
        both = Conv(self.inner(x), 1, use_bias=False, dtype=self.dtype, name="reduce")(both)
        both = nn.hard_swish(self._norm("bn")(both, train))
        of_rows = nn.sigmoid(self._gate("rows", x.shape[-1])(both[:, :height]))
        of_columns = nn.sigmoid(self._gate("columns", x.shape[-1])(both[:, height:]))
        self._weighs(lambda: (of_rows * of_columns.swapaxes(1, 2)).mean(-1))
        return x * of_rows * of_columns.swapaxes(1, 2)

    def _gate(self, name: str, channels: int) -> Conv:
        return Conv(channels, 1, dtype=self.dtype, kernel_init=ZEROS, name=name)


def _pixels(x: Images) -> Float[Array, "b n c"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])


METHODS: dict[str, type[Attention]] = {
    "se": SqueezeExcitation,
    "eca": EfficientChannelAttention,
    "cbam": CBAM,
    "bam": BAM,
    "gc": GlobalContext,
    "nonlocal": NonLocal,
    "coordinate": CoordinateAttention,
}


@dataclasses.dataclass(frozen=True)
class Attend:
    """The attention that the options of a network ask for in one of its stages.

    Attributes:
      stage: number of the stage, from 1.
      place: name of the place that has attention; empty: no place.
      method: one of `METHODS`, or "none".
      ratio, norm, axis_name, dtype: as in `Attention`.
    """

    stage: int
    place: str
    method: str
    ratio: int
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype

    def __call__(self, place: str, x: Images, train: bool, name: str = "attention") -> Images:
        """`x` after the attention of this place, as a module of the caller; `x` itself where there is no attention."""
        if place != self.place:
            return x
        return METHODS[self.method](self.ratio, self.norm, self.axis_name, self.dtype, name=name)(x, train)


NOWHERE = Attend(0, "", "none", 0, config.Norm(), None, jnp.float32)


def at_stage(network: Network, stage: int) -> Attend:
    """The attention that the options of a network ask for in a stage."""
    model = network.model
    place = networks.attention_place(model, stage)
    ratio = model.attention_ratio
    return Attend(stage, place, model.attention, ratio, network.norm, network.axis_name, network.dtype)
