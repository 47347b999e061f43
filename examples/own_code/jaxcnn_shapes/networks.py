"""A network of one's own, of the layers that jaxcnn's own networks have."""

import flax.linen as nn

from jaxcnn.layers import BatchNorm, Classifier, Conv, Dropout, global_average_pool, max_pool


class ShapeNet(nn.Module):
    """Blocks of a 3x3 convolution and a 2x2 max-pool.

    Attributes:
      outputs: number of classes; jaxcnn gives it.
      channels: of the first block; each further block has twice as many.
      blocks: how many there are.
      dropout: rate before the classifier; `config.model.dropout`, if the name does not set it.
    """

    outputs: int
    channels: int = 16
    blocks: int = 2
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, train=False):
        """Logits [B, outputs] of normalised images float32 [B, H, W, C]."""
        x = images
        for block in range(self.blocks):
            x = Conv(self.channels * 2**block, 3, padding=1, use_bias=False)(x)
            x = max_pool(nn.relu(BatchNorm()(x, train)), 2, strides=2)
        x = Dropout(self.dropout)(global_average_pool(x), train)
        return Classifier(self.outputs)(x)
