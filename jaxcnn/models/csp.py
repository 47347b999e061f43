"""CSPDarknet, the backbone of YOLOX, in the layout of its files.

Wang et al. 2019, "CSPNet", arXiv:1911.11929 (layers of which a part of the channels skips the blocks); Bochkovskiy et
al. 2020, "YOLOv4", arXiv:2004.10934, section 3.4 (both in one backbone, and pooling of several sizes); Ge et al. 2021,
"YOLOX", arXiv:2107.08430 (its sizes).
"""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float

import jaxcnn.config as config
from jaxcnn.models.layers import scaled
from jaxcnn.models.network import Images, Network
from jaxcnn.models.normed import Normed
from jaxcnn.models.pooling import max_pool

# Channels of the first layer (each stage has twice as many as the one before), and blocks of stages 2 to 5.
SIZES = {
    "csp_tiny": (24, (1, 3, 3, 1)),
    "csp_s": (32, (1, 3, 3, 1)),
    "csp_m": (48, (2, 6, 6, 2)),
    "csp_l": (64, (3, 9, 9, 3)),
    "csp_x": (80, (4, 12, 12, 4)),
}
POOLED = 5  # side of the pooling windows; three in a row cover 5, 9 and 13 pixels


def csp_stages(network: Network, size: str, images: Images, train: bool) -> list[Images]:
    """The outputs of stages 3, 4 and 5, at strides 8, 16 and 32, by layers that belong to the calling network.

    Args:
      network: the calling network, in its compact method; its options count.
      size: one of `SIZES`.
      images, train: as in its `__call__`.
    """
    first, blocks = SIZES[size]
    channels = scaled(first, network.model.width)
    common = network.norm, network.axis_name, network.dtype
    x = Normed(channels, 3, 1, *common, name="stem_conv")(focused(images.astype(network.dtype)), train)
    made = []
    for stage, count in enumerate(blocks, start=2):
        channels *= 2
        x = Normed(channels, 3, 2, *common, name=f"block{stage}_down")(x, train)
        last = stage == len(blocks) + 1
        if last:
            x = PooledBySizes(channels, *common, name=f"block{stage}_pool")(x, train)
        x = CSPLayer(channels, count, not last, *common, name=f"block{stage}_layer")(x, train)
        made.append(x)
    return made[1:]


def focused(images: Images) -> Float[Array, "b oh ow c4"]:
    """Joins each square of four pixels into one pixel with all their channels: column by column, from top to bottom.

    An odd side is first padded with one row or column of zeros.
    """
    odd = [(0, length % 2) for length in images.shape[1:3]]
    x = jnp.pad(images, ((0, 0), *odd, (0, 0)))
    return jnp.concatenate([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], axis=-1)


class CSPLayer(nn.Module):
    """Half of the channels go through blocks, the other half bypass them, and a convolution joins both.

    Attributes:
      channels: channels of the output.
      blocks: number of blocks.
      adds: whether a block adds its result to its input.
      norm, axis_name, dtype: as in `Network`.
    """

    channels: int
    blocks: int
    adds: bool
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Float[Array, "b h w o"]:
        """The output of the layer for `x`."""
        common, half = (self.norm, self.axis_name, self.dtype), self.channels // 2
        inner = Normed(half, 1, 1, *common, name="conv1")(x, train)
        past = Normed(half, 1, 1, *common, name="conv2")(x, train)
        for number in range(self.blocks):
            y = Normed(half, 1, 1, *common, name=f"m{number}_conv1")(inner, train)
            y = Normed(half, 3, 1, *common, name=f"m{number}_conv2")(y, train)
            inner = inner + y if self.adds else y
        return Normed(self.channels, 1, 1, *common, name="conv3")(jnp.concatenate([inner, past], axis=-1), train)


class PooledBySizes(nn.Module):
    """Max-pools with windows of several sizes, joined to their input, between two 1x1 convolutions.

    He et al. 2014, "Spatial pyramid pooling", arXiv:1406.4729, as in YOLOv4. A window of 9 pixels is one of 5 over
    windows of 5.

    Attributes:
      channels: channels of the output.
      norm, axis_name, dtype: as in `Network`.
    """

    channels: int
    norm: config.Norm
    axis_name: str | None
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Float[Array, "b h w o"]:
        """The output of the layer for `x`."""
        common = self.norm, self.axis_name, self.dtype
        maps = [Normed(x.shape[-1] // 2, 1, 1, *common, name="conv1")(x, train)]
        for _ in range(3):
            maps.append(max_pool(maps[-1], POOLED, strides=1, padding=POOLED // 2))
        return Normed(self.channels, 1, 1, *common, name="conv2")(jnp.concatenate(maps, axis=-1), train)
