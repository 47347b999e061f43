"""AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, arXiv:1404.5997."""

import flax.linen as nn

from jaxcnn.models import attention, colours
from jaxcnn.models.activations import activation
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dense, Dropout
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import adaptive_average_pool, pool
from jaxcnn.models.sizes import sized

CONV_CHANNELS = (64, 192, 384, 256, 256)
POOLED_CONVS = (1, 2, 5)  # a max-pool follows each of these
HIDDEN = 4096


class AlexNet(Network):
    """Five convolutions, three dense layers. Dropout before each hidden dense layer; no local response normalisation.

    form="cifar": a 3x3 stem of stride 2 and 2x2 max-pools; the input of the first dense layer is the remaining image,
    2x2 for 32x32. For 32x32x3 and 10 classes, 23,272,266 parameters without BatchNorm, 23,273,418 with it.
    form="imagenet": torchvision's layout, 61,100,840 parameters for 1000 classes without BatchNorm.
    With BatchNorm, which follows each convolution, the convolutions have no bias.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        imagenet, activate = self.model.form == "imagenet", activation(self.model)
        window = 3 if imagenet else 2
        first_two = ((11, 4, 2), (5, 1, 2)) if imagenet else ((3, 2, 1), (3, 1, 1))
        geometry = (*first_two, (3, 1, 1), (3, 1, 1), (3, 1, 1))  # (kernel size, strides, padding)
        x = colours.seen(self, images)
        for i, (channels, (size, strides, padding)) in enumerate(zip(CONV_CHANNELS, geometry, strict=True), start=1):
            channels = sized(self.model, f"conv{i}", channels)
            use_bias = not self.model.batch_norm
            conv = Conv(channels, size, strides, padding, use_bias, self.dtype, split=i >= 3, name=f"conv{i}")
            x = conv(x)
            if self.model.batch_norm:
                x = norm_layer(self.norm, self.axis_name, name=f"bn{i}")(x, train)
            attend = attention.at_stage(self, min(i, len(POOLED_CONVS)))
            x = attend("block", activate(x), train, f"attention{i}")
            if i in POOLED_CONVS:
                x = attend("stage", x, train, f"stage{attend.stage}_attention")
                x = pool(self.model, x, window, strides=2)
        if imagenet:
            x = adaptive_average_pool(x, 6)
        x = x.reshape(x.shape[0], -1)
        for i in (1, 2):
            x = Dropout(self.model.dropout, name=f"dropout{i}")(x, train, positions)
            features = sized(self.model, f"dense{i}", HIDDEN)
            x = activate(Dense(features, dtype=self.dtype, split=True, name=f"dense{i}")(x))
        return Classifier(self.outputs, name="classifier")(x)
