"""The probability that a point has an object at all, as a third answer of a detector, and its loss.

Ge et al. 2021, "YOLOX", arXiv:2107.08430: the probability of a class is that of an object times that of the class.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxcnn.tasks.assignment import binary_cross_entropy

BOX_WEIGHT = 5.0  # weight of the box loss relative to the others, as in the code of the paper


def joined(logits: Float[Array, "... k"], objectness: Float[Array, "... 1"]) -> Float[Array, "... k"]:
    """The logits of the products of the probabilities of the classes and of an object.

    log(p q / (1 - p q)) = a + b - log(1 + e^a + e^b) for p = sigmoid(a), q = sigmoid(b), without overflow.
    """
    most = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(logits, objectness), 0.0))
    powers = jnp.exp(-most) + jnp.exp(logits - most) + jnp.exp(objectness - most)
    return logits + objectness - most - jnp.log(powers)


def losses(
    logits: Float[Array, "a k"],
    objectness: Float[Array, "a 1"],
    wanted: Float[Array, "a k"],
    positive: Bool[Array, " a"],
) -> Float[Array, " a"]:
    """The cross-entropies of each point, in nats: of its objectness and, where it has a box, of its classes.

    Args:
      logits: logits of the classes.
      objectness: logits of an object.
      wanted: the target of each class at a point with a box: the overlap for the class of its box, 0 for the others.
      positive: whether a point has a box, which is the target of its objectness.
    """
    of_classes = binary_cross_entropy(logits, wanted).sum(axis=1)
    of_object = binary_cross_entropy(objectness[:, 0], positive.astype(objectness.dtype))
    return of_object + jnp.where(positive, of_classes, 0.0)
