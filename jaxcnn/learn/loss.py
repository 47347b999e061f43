"""The loss, and the sums from which all reported figures are computed."""

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


@flax.struct.dataclass
class Sums:
    """Sums over examples, float32 scalars, which add up over microbatches, devices, batches and hosts.

    Attributes:
      loss: cross-entropy in nats.
      top1, top5: examples whose label has the largest logit, or one of the five largest; of a mixed example (mixup,
        cutmix), the shares of those labels that do.
      count: number of examples.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array


def cross_entropy(
    logits: ArrayLike, label: ArrayLike, other_label: ArrayLike, weight: ArrayLike, label_smoothing: ArrayLike
) -> jax.Array:
    """Cross-entropy of each example with a mixed and smoothed target, float32 [B].

    The target is `weight` on `label` and the rest on `other_label`, then mixed with the uniform distribution by
    `label_smoothing` (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
      logits: float32 [B, K].
      label, other_label: int32 [B].
      weight: float32 [B], in [0, 1].
      label_smoothing: float32 scalar, in [0, 1).
    """
    log_probability = jax.nn.log_softmax(logits)
    classes = log_probability.shape[-1]
    weight = jnp.asarray(weight)[:, None]
    one_hot = jax.nn.one_hot(label, classes) * weight + jax.nn.one_hot(other_label, classes) * (1.0 - weight)
    target = one_hot * (1.0 - label_smoothing) + label_smoothing / classes
    return -jnp.sum(target * log_probability, axis=-1)


def in_top_k(logits: ArrayLike, label: ArrayLike, k: int) -> jax.Array:
    """Whether `label` is among the k largest logits, bool [B]; ties count against, NaN never counts."""
    logits, label = jnp.asarray(logits), jnp.asarray(label)
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    ahead = jnp.sum((logits >= own) & (jnp.arange(logits.shape[-1]) != label[:, None]), axis=-1)
    return (ahead < k) & jnp.isfinite(own[:, 0])


def sums(
    loss: jax.Array, logits: jax.Array, label: jax.Array, other_label: jax.Array, weight: jax.Array, mask: jax.Array
) -> Sums:
    """Sum losses [B] and accuracies over the examples whose mask [B] is True."""
    counted = mask.astype(jnp.float32)

    def hits(k: int) -> jax.Array:
        first = in_top_k(logits, label, k) * weight
        return jnp.sum(jnp.where(mask, first + in_top_k(logits, other_label, k) * (1.0 - weight), 0.0))

    return Sums(jnp.sum(jnp.where(mask, loss, 0.0)), hits(1), hits(5), jnp.sum(counted))
