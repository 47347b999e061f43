"""U-Nets: a class for each pixel. Ronneberger et al. 2015, "U-Net", arXiv:1505.04597.

The map of every level on the way down is joined to the map of the same size on the way up. As in most later
implementations, layers have BatchNorm and padding, so that the outputs have the size of the image.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jaxcnn.config.networks import BACKBONES
from jaxcnn.models.layers import Conv, Dropout, at_least_float32, classifier_normal, scaled
from jaxcnn.models.network import Images, Network, Positions
from jaxcnn.models.normed import Normed, doubled
from jaxcnn.models.pooling import max_pool
from jaxcnn.models.resnet import stages

CHANNELS = {  # channels of the levels; those of "unet" are from figure 1 of the paper
    "unet": (64, 128, 256, 512, 1024),
    "unet_small": (64, 128, 256),
}
RESNET_CHANNELS = (16, 32, 64, 128, 256)  # channels on the way up from a ResNet, from the image's own size on

PixelLogits = Float32[Array, "b h w k"]


class UNet(Network):
    """An encoder whose levels halve the image, and a decoder with a skip connection from each level.

    `unet` has the paper's five levels of two 3x3 convolutions, `unet_small` the first three of them. In the
    decoder, a level is doubled by repeating pixels, convolved, and concatenated with the encoder's. The encoder of
    `unet_resnet18` and `unet_resnet50` is a ResNet in torchvision's layout, whose parameters keep their names, so that
    a network for classification can start them; above its first stage there is no skip connection. Dropout precedes
    the logits.
    """

    HEAD: ClassVar[str] = "classifier"

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> PixelLogits:
        """Logits of each pixel; the positions in the global batch are for dropout in training."""

        def layer(x: Images, channels: int, name: str) -> Images:
            features = scaled(channels, self.model.width)
            return Normed(features, 3, 1, self.norm, self.axis_name, self.dtype, nn.relu, name=name)(x, train)

        def level(x: Images, channels: int, name: str) -> Images:
            return layer(layer(x, channels, f"{name}_1"), channels, f"{name}_2")

        joined: list[Images | None]
        backbone = BACKBONES.get(self.model.name)
        if backbone is None:
            channels = CHANNELS[self.model.name]
            maps = [level(images.astype(self.dtype), channels[0], "down1")]
            for number, each in enumerate(channels[1:], start=2):
                maps.append(level(max_pool(maps[-1], 2, strides=2, ceil=True), each, f"down{number}"))
            joined = [*maps[:-1]]
        else:
            channels = RESNET_CHANNELS
            maps = stages(self, backbone, "imagenet", images, positions, train)
            joined = [None, None, *maps[:-1]]  # a ResNet has no maps of the image's own size and of half that size
        x = maps[-1]
        sides = [tuple(-(-side // 2**power) for side in images.shape[1:3]) for power in range(len(joined))]
        for number in range(len(joined), 0, -1):
            x, other = doubled(x, *sides[number - 1]), joined[number - 1]
            if other is not None:
                x = jnp.concatenate([other, layer(x, channels[number - 1], f"up{number}_0")], axis=-1)
            x = level(x, channels[number - 1], f"up{number}")
        x = Dropout(self.model.dropout, name="dropout")(x, train, positions)
        wide = at_least_float32(x)
        return Conv(self.outputs, 1, dtype=wide, kernel_init=classifier_normal, name=self.HEAD)(x).astype(wide)
