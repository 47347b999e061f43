"""Maps that ignore the network: a method that scores no better than these explains nothing.

Arguments as for the methods; `network` and `target` are not used. Adebayo et al. 2018, arXiv:1810.03292, show that an
edge detector looks like an explanation.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcnn.config.ranges import Count
from jaxcnn.explain.network import Images, Network, Targets

_SOBEL = ((1, 0, -1), (2, 0, -2), (1, 0, -1))


def edges(network: Network, images: Images, target: Targets) -> Float[Array, "n h w"]:
    """The length of the gradient of the brightness, by the Sobel filter; at the edge of the image, pixels repeat."""
    del network, target
    grey = jnp.pad(jnp.asarray(images).mean(-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = grey.shape[1] - 2, grey.shape[2] - 2
    found = []
    for kernel in (np.array(_SOBEL), np.array(_SOBEL).T):
        taps = [
            kernel[i, j] * grey[:, i : i + height, j : j + width] for i in range(3) for j in range(3) if kernel[i, j]
        ]
        found.append(sum(taps[1:], taps[0]))
    return jnp.sqrt(found[0] ** 2 + found[1] ** 2)


def random(network: Network, images: Images, target: Targets, *, seed: Count = 0) -> Float[Array, "n h w"]:
    """Uniform random numbers."""
    del network, target
    shape = jnp.shape(images)[:3]
    return jnp.asarray(np.random.Generator(np.random.PCG64(seed)).random(shape), jnp.asarray(images).dtype)
