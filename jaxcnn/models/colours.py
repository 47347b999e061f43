"""The colour channels that the first layer of a network sees: `config.model.colours`.

The channels arrive normalised, each by its own mean and standard deviation; they are mixed after that.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.config import ConfigError
from jaxcnn.models.activations import activation
from jaxcnn.models.layers import Conv
from jaxcnn.models.network import Images, Network

# Luma and the blue and red differences of ITU-R BT.601, as in JPEG; one column for each.
YCBCR = np.array(
    [[0.299, -0.299 / 1.772, 0.701 / 1.402], [0.587, -0.587 / 1.772, -0.587 / 1.402], [0.114, 0.5, -0.114 / 1.402]]
)
MIXED = 10  # channels inside the learnt mix: Mishkin et al. 2016, arXiv:1606.02228


def seen(network: Network, images: Images) -> Float[Array, "b h w _"]:
    """Normalised images, in the type of the network, as its first layer sees them; called in its compact method.

    "grey" gives one channel, the others give three. "learned" is a 1x1 convolution to ten channels, the activation, and
    a 1x1 convolution back to three.

    Raises:
      ConfigError: the images do not have three channels.
    """
    x, colours = images.astype(network.dtype), network.model.colours
    if colours == "rgb":
        return x
    if x.shape[-1] != 3:
        raise ConfigError(f"config.model.colours={colours!r} needs images of 3 channels, not {x.shape[-1]}")
    if colours == "learned":
        x = Conv(MIXED, 1, dtype=network.dtype, name="colours1")(x)
        return Conv(3, 1, dtype=network.dtype, name="colours2")(activation(network.model)(x))
    mix = YCBCR if colours == "ycbcr" else YCBCR[:, :1]
    return jnp.tensordot(x, jnp.asarray(mix, x.dtype), 1, precision=lax.Precision.HIGHEST)
