"""CIFAR's ResNets: He et al., "Deep residual learning for image recognition", 2016, arXiv:1512.03385, section 4.2."""

from typing import Any

import flax.linen as nn

from jaxcnn.models import attention
from jaxcnn.models.activations import activation
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dropout, scaled
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool
from jaxcnn.models.resnet import BasicBlock

CHANNELS = (16, 32, 64)  # of each stage
BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}  # of each stage


class CifarResNet(Network):
    """Three stages of residual blocks of two 3x3 convolutions, with shortcuts without parameters (option A).

    For 3 channels and 10 classes, 269,722, 464,154, 658,586, 853,018 and 1,727,962 parameters. Dropout, which the
    paper does not use, precedes the classifier. stochastic_depth is as in `jaxcnn.models.resnet`.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = images.astype(self.dtype)
        stem = scaled(CHANNELS[0], self.model.width)
        x = Conv(stem, 3, 1, 1, use_bias=False, dtype=self.dtype, name="stem_conv")(x)
        x = activation(self.model)(norm_layer(self.norm, self.axis_name, name="stem_bn")(x, train))
        blocks = BLOCKS[self.model.name]
        for stage, channels in enumerate(CHANNELS, start=1):
            attend = attention.at_stage(self, stage)
            for i in range(1, blocks + 1):
                block = (stage - 1) * blocks + i
                common: dict[str, Any] = {
                    "strides": 2 if i == 1 and stage > 1 else 1,
                    "pooled": False,
                    "drop_rate": self.model.stochastic_depth * block / (len(CHANNELS) * blocks),
                    "zero_init": self.model.zero_init_residual,
                    "norm": self.norm,
                    "axis_name": self.axis_name,
                    "dtype": self.dtype,
                    "split": False,
                    "padded": True,
                    "attend": attend,
                    "activate": activation(self.model),
                    "name": f"block{stage}_{i}",
                }
                x = BasicBlock(scaled(channels, self.model.width), **common)(x, train, positions)
                x = attend("block", x, train, f"block{stage}_{i}_attention")
            x = attend("stage", x, train, f"stage{stage}_attention")
        x = Dropout(self.model.dropout, name="dropout")(global_average_pool(x), train, positions)
        return Classifier(self.outputs, name="classifier")(x)
