"""A loss of one's own."""

import jax
import jax.numpy as jnp


def poly1(outputs, targets, epsilon=1.0):
    """Cross-entropy plus epsilon times the probability of the other classes: Leng et al. 2022, arXiv 2204.12511.

    Args:
      outputs: logits float32 [B, K].
      targets: distributions over the classes, float32 [B, K]: one-hot, unless smoothed or mixed.
      epsilon: an option of the name, as in "poly1(epsilon=2.0)".

    Returns:
      The loss of each example, float32 [B].
    """
    log_probability = jax.nn.log_softmax(outputs)
    cross_entropy = -jnp.sum(targets * log_probability, axis=-1)
    return cross_entropy + epsilon * (1.0 - jnp.sum(targets * jnp.exp(log_probability), axis=-1))
