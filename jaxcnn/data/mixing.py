"""Mixing an example with another one of its batch: mixup and cutmix.

The partner of the example at position p of the global batch is the one at position p - 1 (the last one for the first),
after its own augmentation; how much of it comes in is drawn with the example's own key. Neither depends on where the
examples lie, so devices and microbatches never change the result, bit for bit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import config as configuration
from jaxcnn.data import image_ops

QUANTILES = 4096


def mix(
    config: configuration.Augment,
    image: jax.Array,
    label: jax.Array,
    keys: jax.Array,
    *,
    axis_name: str | None = None,
    microbatches: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mix each example of a batch with its partner as `config.mixup` and `config.cutmix` say.

    Where both are on, each example gets one of them by a fair coin.

    Args:
      config: static; an alpha of 0 leaves that kind out.
      image: float32 [b, H, W, C], this device's part of the batch (see `partners`).
      label: int32 [b].
      keys: [b], one for each example, of mixing alone.
      axis_name: the mesh axis over which the batch is spread, inside `shard_map`; None: the whole batch is here.
      microbatches: into which the batch is cut.

    Returns:
      The mixed images; the partners' labels, int32 [b]; and the share of `label` in each target, float32 [b].
    """
    if not (config.mixup or config.cutmix):
        return image, label, jnp.ones(label.shape, jnp.float32)
    height, width = image.shape[1:3]

    def shares(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_mixup = mixup_shares(jax.random.fold_in(key, 0), config.mixup, height, width) if config.mixup else None
        by_cutmix = cutmix_shares(jax.random.fold_in(key, 1), config.cutmix, height, width) if config.cutmix else None
        if by_mixup is None or by_cutmix is None:
            return by_mixup or by_cutmix  # type: ignore[return-value]  # one of them is on
        coin = jax.random.bernoulli(jax.random.fold_in(key, 2))
        return jax.tree.map(lambda one, other: jnp.where(coin, one, other), by_mixup, by_cutmix)

    share, weight = jax.vmap(shares)(keys)
    partner_image, partner_label = partners((image, label), axis_name, microbatches)
    share = share[..., None]
    return _rounded(image * share) + _rounded(partner_image * (1 - share)), partner_label, weight


def mixup_shares(key: jax.Array, alpha: float, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """The share of an example in each of its pixels, float32 [H, W], and in its target, by mixup: the same everywhere.

    Drawn from Beta(alpha, alpha): Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2017), equation 2.
    """
    share = jnp.asarray(beta_quantiles(alpha))[jax.random.randint(key, (), 0, QUANTILES)]
    return jnp.full((height, width), share), share


def cutmix_shares(key: jax.Array, alpha: float, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """The share of an example in each of its pixels, float32 [H, W], and in its target, by cutmix.

    It is 0 in a box with the image's proportions, of area 1 - Beta(alpha, alpha), centred on a uniformly drawn pixel
    and clipped at the borders; the share of the target is that of the pixels left after clipping: Yun et al., "CutMix:
    Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019), section 3.1 and algorithm A1.
    """
    share_key, center_key = jax.random.split(key)
    sides = np.sqrt(1 - beta_quantiles(alpha))[:, None] * [height, width]
    size = jnp.asarray(sides.astype(np.int32))[jax.random.randint(share_key, (), 0, QUANTILES)]
    center = jax.random.randint(center_key, (2,), 0, jnp.array([height, width]))
    kept = ~image_ops.box_mask(height, width, center, size)
    return kept.astype(jnp.float32), image_ops.unit_interval(jnp.sum(kept), height * width)


@functools.lru_cache(maxsize=16)
def beta_quantiles(alpha: float) -> np.ndarray:
    """`QUANTILES` equally likely values that stand for Beta(alpha, alpha): its quantiles, float32, rising.

    Unlike a rejection sampler, a draw from them is one integer, so it is exact in every program, and needs no loop.
    """
    from scipy import special

    return special.betaincinv(alpha, alpha, (np.arange(QUANTILES) + 0.5) / QUANTILES).astype(np.float32)


def partners(values, axis_name: str | None = None, microbatches: int = 1):
    """The values of the examples one position earlier in the global batch, the last one's for the first.

    Microbatch i of k holds positions i B / k to (i + 1) B / k of a global batch of B, and device d of D the d-th part
    of each microbatch, one microbatch after the other. So all but the first example of a part have their partner just
    before them; one exchange between neighbouring devices brings the rest.

    Args:
      values: pytree of arrays [b, ...], b a multiple of `microbatches`.
      axis_name: as in `mix`.
      microbatches: k.
    """

    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    if devices == 1:
        return jax.tree.map(lambda value: jnp.roll(value, 1, axis=0), values)

    def before(value: jax.Array) -> jax.Array:
        parts = value.reshape(microbatches, -1, *value.shape[1:])
        last = parts[:, -1]  # precedes the next device's first of the same microbatch
        received = jax.lax.ppermute(last, axis_name, [(d, (d + 1) % devices) for d in range(devices)])
        # What the first device receives, from the last one, precedes the next microbatch.
        received = jnp.where(jax.lax.axis_index(axis_name) == 0, jnp.roll(received, 1, axis=0), received)
        return jnp.concatenate([received[:, None], parts[:, :-1]], axis=1).reshape(value.shape)

    return jax.tree.map(before, values)


def _rounded(product: jax.Array) -> jax.Array:
    """A product, kept apart from the sum it goes into: a bound that is never met forbids a fused multiply-add.

    Compilers fuse them in one program and not in another, and the results differ in the last bit.
    """
    return jnp.clip(product, -1e30, 1e30)
