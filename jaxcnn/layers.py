"""Layers for networks of your own: fast on the CPU, and with equal results on any number of devices.

They are those of the built-in networks. In a run, `BatchNorm` and `Dropout` know the config and the devices:

    class Net(nn.Module):
        outputs: int

        @nn.compact
        def __call__(self, images, train=False):
            x = nn.relu(BatchNorm()(Conv(64, 3, padding=1)(images), train))
            x = Dropout(0.5)(global_average_pool(x), train)
            return Classifier(self.outputs)(x)

Images are float32 [B, H, W, C].
"""

from jaxcnn.models.attention import (
    BAM,
    CBAM,
    CoordinateAttention,
    EfficientChannelAttention,
    GlobalContext,
    NonLocal,
    SqueezeExcitation,
)
from jaxcnn.models.batch_norm import BatchNorm
from jaxcnn.models.convolution import convolve
from jaxcnn.models.layers import Classifier, Conv, Dense, Dropout, LayerNorm, classifier_normal, he_normal
from jaxcnn.models.network import Network
from jaxcnn.models.pooling import adaptive_average_pool, global_average_pool, max_pool

__all__ = [
    "BAM",
    "CBAM",
    "BatchNorm",
    "Classifier",
    "Conv",
    "CoordinateAttention",
    "Dense",
    "Dropout",
    "EfficientChannelAttention",
    "GlobalContext",
    "LayerNorm",
    "Network",
    "NonLocal",
    "SqueezeExcitation",
    "adaptive_average_pool",
    "classifier_normal",
    "convolve",
    "global_average_pool",
    "he_normal",
    "max_pool",
]
