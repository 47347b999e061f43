"""The loss, and the sums from which all reported figures are computed."""

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float32, Int32

Scalar = Float32[Array, ""]


@flax.struct.dataclass
class Sums:
    """Sums over examples, which add up over microbatches, devices, batches and hosts.

    Attributes:
      loss: cross-entropy in nats.
      top1, top5: examples whose label has the largest logit, or one of the five largest; of a mixed example (mixup,
        cutmix), the shares of those labels that do.
      count: number of examples.
    """

    loss: Scalar
    top1: Scalar
    top5: Scalar
    count: Scalar


def cross_entropy(
    logits: Float32[ArrayLike, "b k"],
    label: Int32[ArrayLike, " b"],
    other_label: Int32[ArrayLike, " b"],
    weight: Float32[ArrayLike, " b"],
    label_smoothing: Float32[ArrayLike, ""],
) -> Float32[Array, " b"]:
    """Cross-entropy of each example with a mixed and smoothed target.

    The target is `weight` on `label` and the rest on `other_label`, then mixed with the uniform distribution by
    `label_smoothing` (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
      logits: the logits of each example.
      label, other_label: numbers of the classes.
      weight: in [0, 1].
      label_smoothing: in [0, 1).
    """
    log_probability = jax.nn.log_softmax(logits)
    classes = log_probability.shape[-1]
    weight = jnp.asarray(weight)[:, None]
    one_hot = jax.nn.one_hot(label, classes) * weight + jax.nn.one_hot(other_label, classes) * (1.0 - weight)
    target = one_hot * (1.0 - label_smoothing) + label_smoothing / classes
    return -jnp.sum(target * log_probability, axis=-1)


def in_top_k(logits: Float32[ArrayLike, "b classes"], label: Int32[ArrayLike, " b"], k: int) -> Bool[Array, " b"]:
    """Whether `label` is among the k largest logits; ties count against, NaN never counts."""
    logits, label = jnp.asarray(logits), jnp.asarray(label)
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    ahead = jnp.sum((logits >= own) & (jnp.arange(logits.shape[-1]) != label[:, None]), axis=-1)
    return (ahead < k) & jnp.isfinite(own[:, 0])


def sums(
    loss: Float32[Array, " b"],
    logits: Float32[Array, "b k"],
    label: Int32[Array, " b"],
    other_label: Int32[Array, " b"],
    weight: Float32[Array, " b"],
    mask: Bool[Array, " b"],
) -> Sums:
    """Sum losses and accuracies over the examples whose mask is True."""
    counted = mask.astype(jnp.float32)

    def hits(k: int) -> Scalar:
        first = in_top_k(logits, label, k) * weight
        return jnp.sum(jnp.where(mask, first + in_top_k(logits, other_label, k) * (1.0 - weight), 0.0))

    return Sums(jnp.sum(jnp.where(mask, loss, 0.0)), hits(1), hits(5), jnp.sum(counted))
