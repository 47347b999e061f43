"""An augmentation of one's own."""

import jax
import jax.numpy as jnp


def invert(image, key, probability=0.5):
    """The negative of an image, with some probability.

    Args:
      image: one image uint8 [H, W, C]; jaxcnn applies the function to each image of a batch.
      key: the random key of this image and step.
      probability: an option of the name, as in "invert(probability=0.1)".

    Returns:
      An image of the same shape and type.
    """
    return jnp.where(jax.random.bernoulli(key, probability), 255 - image, image)
