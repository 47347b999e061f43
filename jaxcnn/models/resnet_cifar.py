"""CIFAR's ResNets: He et al., "Deep residual learning for image recognition", 2016, arXiv:1512.03385, section 4.2."""

from typing import Any

import flax.linen as nn

from jaxcnn.config import ConfigError
from jaxcnn.models import attention, colours
from jaxcnn.models.activations import activation
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dropout
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import global_average_pool
from jaxcnn.models.resnet import BasicBlock
from jaxcnn.models.sizes import sized

CHANNELS = (16, 32, 64)  # output channels of each stage
BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18}  # blocks of each stage


class CifarResNet(Network):
    """Three stages of residual blocks of two 3x3 convolutions, with shortcuts without parameters (option A).

    For 3 channels and 10 classes, 269,722, 464,154, 658,586, 853,018 and 1,727,962 parameters. Dropout, which the
    paper does not use, precedes the classifier. stochastic_depth is as in `jaxcnn.models.resnet`.

    `model.stage_blocks`, `stage_channels` and `stage_kernels` give each stage other blocks, channels and sides of its
    kernels, for searches; the stem has the channels of the first stage.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        x = colours.seen(self, images)
        model = self.model
        widths = model.stage_channels or CHANNELS
        counts = model.stage_blocks or (BLOCKS[model.name],) * len(CHANNELS)
        kernels = model.stage_kernels or (3,) * len(CHANNELS)
        stem = sized(model, "stem_conv", widths[0])
        x = Conv(stem, 3, 1, 1, use_bias=False, dtype=self.dtype, name="stem_conv")(x)
        x = activation(model)(norm_layer(self.norm, self.axis_name, name="stem_bn")(x, train))
        block = 0
        for stage, (channels, blocks, kernel) in enumerate(zip(widths, counts, kernels, strict=True), start=1):
            attend = attention.at_stage(self, stage)
            for i in range(1, blocks + 1):
                block, name = block + 1, f"block{stage}_{i}"
                grows = i == 1 and stage > 1
                outputs = sized(model, f"{name}/conv2", channels) if grows else x.shape[-1]
                if outputs < x.shape[-1]:
                    raise ConfigError(
                        f"config.model.channels: {name}/conv2 has {outputs} channels, fewer than the {x.shape[-1]} of "
                        "the stage before, which are added to them"
                    )
                common: dict[str, Any] = {
                    "strides": 2 if grows else 1,
                    "first": sized(model, f"{name}/conv1", channels),
                    "project": False,
                    "pooled": False,
                    "drop_rate": model.stochastic_depth * block / sum(counts),
                    "zero_init": model.zero_init_residual,
                    "norm": self.norm,
                    "axis_name": self.axis_name,
                    "dtype": self.dtype,
                    "split": False,
                    "padded": True,
                    "kernel": kernel,
                    "attend": attend,
                    "activate": activation(model),
                    "name": name,
                }
                x = BasicBlock(outputs, **common)(x, train, positions)
                x = attend("block", x, train, f"block{stage}_{i}_attention")
            x = attend("stage", x, train, f"stage{stage}_attention")
        x = Dropout(model.dropout, name="dropout")(global_average_pool(x), train, positions)
        return Classifier(self.outputs, name="classifier")(x)
