"""Mixing an example with another one of its batch: mixup and cutmix.

The partner of the example at position p of the global batch is the augmented example at position p - 1 (for the first,
the last one). The share of the partner is drawn with the example's own key. Neither depends on where the examples are
stored, so devices and microbatches never change a bit of the result.
"""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, Shaped

import jaxcnn.config as configuration
from jaxcnn.data import image_ops
from jaxcnn.tasks.moving import product
from jaxcnn.tasks.task import Targets

Shares = tuple[Float32[Array, "h w"], Float32[Array, ""]]
_Tree = TypeVar("_Tree")

QUANTILES = 4096


def mix(
    config: configuration.Augment,
    targets: Targets,
    image: Float32[Array, "b h w c"],
    target: Any,
    keys: Key[Array, " b"],
    *,
    axis_name: str | None = None,
    microbatches: int = 1,
) -> tuple[Float32[Array, "b h w c"], Any]:
    """Mix each example of a batch with its partner as `config.mixup` and `config.cutmix` say.

    If both are on, each example gets one of them with probability 1/2 each.

    Args:
      config: static; an alpha of 0 disables that kind.
      targets: the kind of the targets, which mixes them.
      image: the images of this device's part of the batch (see `partners`).
      target: targets of these images.
      keys: one key per example, used for mixing only.
      axis_name: inside `shard_map`, the mesh axis over which the batch is split; None if this is the whole batch.
      microbatches: number of microbatches in the batch.

    Returns:
      The mixed images and targets.
    """
    if not (config.mixup or config.cutmix):
        return image, targets.whole(target)
    height, width = image.shape[1:3]

    def shares(key: Key[Array, ""]) -> Shares:
        by_mixup = mixup_shares(jax.random.fold_in(key, 0), config.mixup, height, width) if config.mixup else None
        by_cutmix = cutmix_shares(jax.random.fold_in(key, 1), config.cutmix, height, width) if config.cutmix else None
        if by_mixup is None or by_cutmix is None:
            return by_mixup or by_cutmix  # type: ignore[return-value]  # at least one is on
        coin = jax.random.bernoulli(jax.random.fold_in(key, 2))
        return jax.tree.map(lambda one, other: jnp.where(coin, one, other), by_mixup, by_cutmix)

    share, weight = jax.vmap(shares)(keys)
    partner_image, partner = partners((image, target), axis_name, microbatches)
    share = share[..., None]
    mixed = product(image, share) + product(partner_image, 1 - share)
    return mixed, targets.mixed(target, partner, weight)


def mixup_shares(key: Key[Array, ""], alpha: float, height: int, width: int) -> Shares:
    """The share of an example in each of its pixels, and in its target, for mixup: all equal.

    Drawn from Beta(alpha, alpha): Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2017), equation 2.
    """
    share = jnp.asarray(beta_quantiles(alpha))[jax.random.randint(key, (), 0, QUANTILES)]
    return jnp.full((height, width), share), share


def cutmix_shares(key: Key[Array, ""], alpha: float, height: int, width: int) -> Shares:
    """The share of an example in each of its pixels, and in its target, for cutmix.

    It is 0 in a box with the image's proportions, of area 1 - Beta(alpha, alpha), centred on a uniformly drawn pixel
    and clipped at the borders. The target's share is the fraction of pixels outside the clipped box: Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019), section 3.1 and
    algorithm A1.
    """
    share_key, center_key = jax.random.split(key)
    sides = np.sqrt(1 - beta_quantiles(alpha))[:, None] * [height, width]
    size = jnp.asarray(sides.astype(np.int32))[jax.random.randint(share_key, (), 0, QUANTILES)]
    center = jax.random.randint(center_key, (2,), 0, jnp.array([height, width]))
    kept = ~image_ops.box_mask(height, width, center, size)
    return kept.astype(jnp.float32), image_ops.unit_interval(jnp.sum(kept), height * width)


@functools.lru_cache(maxsize=16)
def beta_quantiles(alpha: float) -> Float32[np.ndarray, " quantiles"]:
    """`QUANTILES` equally likely values that approximate Beta(alpha, alpha): its quantiles, ascending.

    Unlike a rejection sampler, a draw from them is one integer, so it is exact in every program and needs no loop.
    """
    from scipy import special

    return special.betaincinv(alpha, alpha, (np.arange(QUANTILES) + 0.5) / QUANTILES).astype(np.float32)


def partners(values: _Tree, axis_name: str | None = None, microbatches: int = 1) -> _Tree:
    """The values of the examples one position earlier in the global batch; for the first, those of the last.

    Microbatch i of k holds positions i B / k to (i + 1) B / k of a global batch of B; device d of D holds the d-th part
    of each microbatch, one microbatch after another. So every example of a part except the first has its partner just
    before it; one exchange between neighbouring devices supplies the rest.

    Args:
      values: pytree of arrays [b, ...]; b is a multiple of `microbatches`.
      axis_name: as in `mix`.
      microbatches: k.
    """

    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if devices == 1:
        return jax.tree.map(lambda value: jnp.roll(value, 1, axis=0), values)

    def before(value: Shaped[Array, "b ..."]) -> Shaped[Array, "b ..."]:
        parts = value.reshape(microbatches, -1, *value.shape[1:])
        last = parts[:, -1]  # precedes the next device's first example of the same microbatch
        received = jax.lax.ppermute(last, axis_name, [(d, (d + 1) % devices) for d in range(devices)])
        # The values that the first device receives from the last one precede the next microbatch.
        received = jnp.where(jax.lax.axis_index(axis_name) == 0, jnp.roll(received, 1, axis=0), received)
        return jnp.concatenate([received[:, None], parts[:, :-1]], axis=1).reshape(value.shape)

    return jax.tree.map(before, values)
