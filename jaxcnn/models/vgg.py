"""VGG: Simonyan & Zisserman, "Very deep convolutional networks", 2015, arXiv:1409.1556, table 1, columns A, B, D, E."""

import flax.linen as nn

from jaxcnn.models import attention, colours
from jaxcnn.models.activations import activation
from jaxcnn.models.group_norm import norm_layer
from jaxcnn.models.layers import Classifier, Conv, Dense, Dropout
from jaxcnn.models.network import Images, Logits, Network, Positions
from jaxcnn.models.pooling import adaptive_average_pool, global_average_pool, halving_pool, pool
from jaxcnn.models.sizes import sized

CHANNELS = (64, 128, 256, 512, 512)  # of the convolutions of each block; a 2x2 max-pool ends it
CONVOLUTIONS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}  # convolutions of each block
HIDDEN = 4096


class VGG(Network):
    """Eight to sixteen 3x3 convolutions in five blocks, then one or three dense layers.

    form="cifar": a global average pool (over 1x1 for 32x32 images; sides of smaller ones are rounded up when
    halved), then head="linear", the classifier alone, or head="dense4096", two hidden layers and the classifier. For 3
    channels and 10 classes, VGG16 has 14,724,042 and 33,642,442 parameters with BatchNorm. Convolutions have a bias
    only without BatchNorm.
    form="imagenet": torchvision's layout, an adaptive average pool to 7x7 and two hidden layers; convolutions always
    have a bias. VGG16 has 138,357,544 parameters for 1000 classes without BatchNorm, 138,365,992 with it.

    Dropout follows each hidden dense layer (torchvision's placement); with head="linear" it precedes the classifier.
    """

    @nn.compact
    def __call__(self, images: Images, positions: Positions | None = None, train: bool = False) -> Logits:
        """Logits of images; the positions in the global batch are for dropout in training."""
        imagenet, activate = self.model.form == "imagenet", activation(self.model)
        use_bias = imagenet or not self.model.batch_norm
        x = colours.seen(self, images)
        small = not imagenet and min(x.shape[1:3]) < 2 ** len(CHANNELS)
        blocks = zip(CHANNELS, CONVOLUTIONS[self.model.name], strict=True)
        for block, (channels, convolutions) in enumerate(blocks, start=1):
            attend = attention.at_stage(self, block)
            for i in range(1, convolutions + 1):
                wide, name = block >= 3, f"block{block}_conv{i}"
                x = Conv(sized(self.model, name, channels), 3, 1, 1, use_bias, self.dtype, split=wide, name=name)(x)
                if self.model.batch_norm:
                    x = norm_layer(self.norm, self.axis_name, name=f"block{block}_bn{i}")(x, train)
                x = attend("block", activate(x), train, f"block{block}_attention{i}")
            x = attend("stage", x, train, f"stage{block}_attention")
            x = halving_pool(self.model, x) if small else pool(self.model, x, 2, strides=2)
        if imagenet:
            x = adaptive_average_pool(x, 7)
            x = x.reshape(x.shape[0], -1)
        else:
            x = global_average_pool(x)
        if imagenet or self.model.head == "dense4096":
            for i in (1, 2):
                features = sized(self.model, f"dense{i}", HIDDEN)
                x = activate(Dense(features, dtype=self.dtype, split=True, name=f"dense{i}")(x))
                x = Dropout(self.model.dropout, name=f"dropout{i}")(x, train, positions)
        else:
            x = Dropout(self.model.dropout, name="dropout")(x, train, positions)
        return Classifier(self.outputs, name="classifier")(x)
