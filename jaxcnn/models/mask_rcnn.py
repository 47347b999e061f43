"""Mask R-CNN: Faster R-CNN with a mask for each object. He et al. 2017, arXiv:1703.06870.

The layout is that of torchvision's `maskrcnn_resnet50_fpn`. The head for masks reads the pyramid as the head for
boxes does.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Key

from jaxcnn.models.faster_rcnn import FasterRCNN, Read
from jaxcnn.models.initializers import Weights
from jaxcnn.models.layers import Conv, at_least_float32, classifier_normal, he_normal
from jaxcnn.models.network import Images
from jaxcnn.tasks.proposals import FoundBoxes
from jaxcnn.tasks.two_stage import one_of_class

MASK_CELLS = 14  # side of the features that the head for masks reads
MASK_LAYERS = 4


class MaskRCNN(FasterRCNN):
    """Finds boxes, classes and masks of objects.

    The answer is that of `FasterRCNN`. In training with a target it also has "masks" [b, m, 28, 28, k + 1], the logits
    of the first m proposals, with 1 in place of k + 1 where one mask is for all classes; otherwise "masks"
    [b, f, 28, 28], probabilities.
    """

    def learnt_within(self, boxes: Float[Array, "b m 4"], read: Read) -> dict[str, Array]:
        """The mask logits of the proposals that have objects."""
        masks = self._mask_head(read(boxes, MASK_CELLS))
        return {"masks": masks.reshape(*boxes.shape[:2], *masks.shape[1:])}

    def found_within(self, found: FoundBoxes, read: Read) -> dict[str, Array]:
        """The mask of each found object, for its own class."""
        masks = jax.nn.sigmoid(self._mask_head(read(found.boxes, MASK_CELLS)))
        of_class = one_of_class(masks, found.label.reshape(-1, 1, 1, 1) + 1, axis=-1)
        return {"masks": of_class.reshape(*found.label.shape, *of_class.shape[1:3])}

    def _mask_head(self, x: Float[Array, "r n n c"]) -> Float[Array, "r m m k1"]:
        channels = x.shape[-1]
        for number in range(1, MASK_LAYERS + 1):
            x = nn.relu(Conv(channels, 3, 1, 1, dtype=self.dtype, name=f"mask_conv{number}")(x))
        x = nn.relu(TwiceAsLarge(channels, self.dtype, name="mask_up")(x))
        kinds = 1 if self.model.class_agnostic in ("masks", "both") else self.outputs + 1
        return Conv(kinds, 1, dtype=at_least_float32(x), kernel_init=classifier_normal, name="mask_logits")(x)


class TwiceAsLarge(nn.Module):
    """A transposed convolution with a 2 x 2 kernel and stride 2, which turns each pixel into four.

    Attributes:
      features: output channels, o.
      dtype: type of the computation.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "b oh ow o"]:
        """The map with twice the height and width."""
        kernel = self.param("kernel", _of_four, (2, 2, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        made = jnp.einsum("bhwi,xyio->bhxwyo", x.astype(self.dtype), kernel.astype(self.dtype))
        count, height, width = x.shape[:3]
        return made.reshape(count, 2 * height, 2 * width, -1) + bias.astype(self.dtype)


def _of_four(key: Key[Array, ""], shape: tuple[int, int, int, int], dtype: Dtype = jnp.float32) -> Weights:
    """Initial weights as for four 1 x 1 convolutions."""
    height, width, inputs, outputs = shape
    flat = he_normal(key, (inputs, height * width * outputs), dtype)
    return flat.reshape(inputs, height, width, outputs).transpose(1, 2, 0, 3)
