"""Batch normalisation with statistics of groups of examples, independent of the devices that hold them."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jax import lax
from jaxtyping import Array, Float, Float32

import jaxcnn.config as config
from jaxcnn.config.layers import Layers, factor_of
from jaxcnn.models import context

# If the square of a mean exceeds this many times the variance, the variance is computed again: it has lost three of
# float32's seven digits.
LARGE_MEAN = 1000.0


@dataclasses.dataclass(frozen=True)
class PartlyFrozen(config.Norm):
    """The options of BatchNorm in a network in which some layers are frozen.

    Attributes:
      layers: patterns of paths with the factor of their learning rate.
      all_frozen: whether every BatchNorm is frozen.
    """

    layers: Layers = ()
    all_frozen: bool = False

    def is_frozen(self, path: tuple[str, ...], names: tuple[str, ...]) -> bool:
        """Whether the layer at `path`, with parameters `names`, is frozen."""
        return self.all_frozen or all(factor_of("/".join((*path, name)), self.layers) == 0 for name in names)


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics do not depend on the device count.

    Ioffe & Szegedy 2015, arXiv:1502.03167; with groups smaller than the batch, "ghost" batches, Hoffer et al. 2017,
    arXiv:1705.08741. As in PyTorch, a group is normalised by its biased variance, and the running variance uses the
    unbiased one. With several groups, the running statistics use their average. A device knows only its own groups, so
    with an axis, the new running statistics must still be averaged over the devices, which the training step does
    together with the gradients.

    A frozen layer (`PartlyFrozen`) uses its running statistics also in training, and does not change them.

    Attributes:
      norm: momentum, epsilon and group_size (consecutive examples of the global batch; 0: all of it). None: the
        options and the axis of the run.
      axis_name: mesh axis over which the batch is sharded, with the d-th part on device d; None: not sharded.
      scale_init: initializer of the scale.
      use_scale: multiply by a trained scale.
    """

    norm: config.Norm | None = None
    axis_name: str | None = None
    scale_init: Initializer = nn.initializers.ones
    use_scale: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b ... c"], train: bool) -> Float[Array, "b ... c"]:
        """Normalise `x` in float32; the result has the dtype of `x`.

        Raises:
          ValueError: in training, if group_size does not fit the batch and the devices.
        """
        run = context.current()
        norm, axis_name = (run.norm, run.axis_name) if self.norm is None else (self.norm, self.axis_name)
        channels = x.shape[-1:]
        ones = jnp.ones(channels, jnp.float32)
        scale = self.param("scale", self.scale_init, channels, jnp.float32) if self.use_scale else ones
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train or self._is_frozen(norm):
            y = _affine(_wide(x), running_mean.value, running_variance.value, scale, bias, norm.epsilon)
            return y.astype(x.dtype)
        devices = lax.axis_size(axis_name) if axis_name else 1
        local, span = group_layout(norm.group_size, x.shape[0], devices)
        groups = x.reshape(x.shape[0] // local, -1, *channels)
        layout = (axis_name, devices, span)
        y, mean, variance = normalize_groups(groups, scale, bias, running_mean.value, norm.epsilon, layout)
        if not self.is_initializing():
            elements = groups.shape[1] * span
            unbiased = variance * (elements / max(elements - 1, 1))
            momentum = norm.momentum
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean.mean(axis=(0, 1))
            running_variance.value = momentum * running_variance.value + (1 - momentum) * unbiased.mean(axis=(0, 1))
        return y.reshape(x.shape)

    def _is_frozen(self, norm: config.Norm) -> bool:
        names = ("scale", "bias") if self.use_scale else ("bias",)
        return isinstance(norm, PartlyFrozen) and norm.is_frozen(self.path, names)


def group_layout(group_size: int, batch: int, devices: int) -> tuple[int, int]:
    """The layout of BatchNorm groups on devices: (examples of one group on one device, devices per group).

    Args:
      group_size: examples per group; 0: all of the global batch.
      batch: examples on each device.
      devices: number of devices that hold the global batch.

    Raises:
      ValueError: the groups neither divide a device's examples nor occupy a whole number of devices.
    """
    group_size = group_size or batch * devices
    if batch % group_size == 0:
        return group_size, 1
    if group_size % batch == 0 and devices % (group_size // batch) == 0:
        return batch, group_size // batch
    raise ValueError(
        f"norm.group_size={group_size} does not fit {batch} examples on each of {devices} device(s): it must divide "
        f"{batch}, or be {batch} times a divisor of {devices}"
    )


# The mesh axis (or None), its size, and the number of consecutive devices that hold one group, a divisor of the size.
Layout = tuple[str | None, int, int]
Groups = Float[Array, "groups elements c"]
Moment = Float[Array, "groups 1 c"]  # of at least float32
Channels = Float32[Array, " c"]
Residuals = tuple[Groups, Channels, Channels, Channels, Moment, Moment]  # x, scale, bias, shift, mean, 1 / deviation


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_groups(
    x: Groups, scale: Channels, bias: Channels, shift: Channels, epsilon: float, layout: Layout
) -> tuple[Groups, Moment, Moment]:
    """Normalise each group by its own mean and biased variance, then scale and shift its channels.

    The statistics need one pass over `x` and one collective for the mean and the mean of squares. The difference of
    these loses digits if a mean is much larger than the deviation, so the moments are those of `x - shift`, whose mean
    is near 0 if `shift` is the running mean. XLA:CPU would write that difference to memory, so there the moments of a
    group on one device are those of `x`; if digits are lost, the variance is computed again, around the mean.
    Differentiable in reverse mode with respect to `x`, `scale` and `bias`, through y only; inside
    `jax.shard_map(..., check_vma=False)`, the gradients of `scale` and `bias` are this device's share.

    Args:
      x: this device's part of its groups.
      scale, bias, shift: values of each channel, [c].
      epsilon: added to the variance.
      layout: layout of the groups on devices.

    Returns:
      y in the dtype of `x`, the mean and the variance.
    """
    mean, variance = _statistics(_wide(x), shift, layout)
    y = _affine(_wide(x), mean, variance, scale, bias, epsilon)
    return y.astype(x.dtype), mean, variance


def _forward(
    x: Groups, scale: Channels, bias: Channels, shift: Channels, epsilon: float, layout: Layout
) -> tuple[tuple[Groups, Moment, Moment], Residuals]:
    y, mean, variance = normalize_groups(x, scale, bias, shift, epsilon, layout)
    return (y, mean, variance), (x, scale, bias, shift, mean, lax.rsqrt(variance + epsilon))


def _backward(
    epsilon: float, layout: Layout, residuals: Residuals, cotangents: tuple[Groups, Moment, Moment]
) -> tuple[Groups, Channels, Channels, Channels]:
    x, scale, bias, shift, mean, inverse = residuals
    dy, wide = _wide(cotangents[0]), _wide(x)
    total = _sum(dy)
    # The sum over dy * (x - mean), without computing x - mean, which XLA:CPU would write to memory. This loses no more
    # digits than `x` itself, which has none below those of the mean.
    correlation = (_sum(dy * wide) - mean * total) * inverse
    dbias, dscale = total.sum(axis=(0, 1)), correlation.sum(axis=(0, 1))
    over_group = _over_group(jnp.stack([total, correlation]), layout) / (x.shape[1] * layout[2])
    dx = (scale * inverse) * (dy - over_group[0] - (wide - mean) * (inverse * over_group[1]))
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype), jnp.zeros_like(shift)


normalize_groups.defvjp(_forward, _backward)


def _statistics(x: Groups, shift: Channels, layout: Layout) -> tuple[Moment, Moment]:
    """Mean and biased variance of each group."""

    def around_zero(x: Groups, shift: Channels) -> tuple[Moment, Moment]:
        mean, variance = _from_moments(x, layout)
        lost = jnp.any(jnp.square(mean) > LARGE_MEAN * variance)
        return mean, lax.cond(lost, lambda: _from_moments(x - mean, layout)[1], lambda: variance)

    def around_shift(x: Groups, shift: Channels) -> tuple[Moment, Moment]:
        mean, variance = _from_moments(x - shift, layout)
        return mean + shift, variance

    if layout[2] > 1:  # several devices: a collective must not depend on a condition
        return around_shift(x, shift)
    return lax.platform_dependent(x, shift, cpu=around_zero, default=around_shift)


def _from_moments(x: Groups, layout: Layout) -> tuple[Moment, Moment]:
    """Mean and biased variance of each group by one pass and one collective; the variance is a small difference."""
    # XLA:CPU sums squares three times as fast in one stage as in the two stages of `_sum`.
    moments = jnp.stack([x.sum(axis=1, keepdims=True), jnp.square(x).sum(axis=1, keepdims=True)]) / x.shape[1]
    mean, square = _over_group(moments, layout) / layout[2]
    return mean, jnp.maximum(square - jnp.square(mean), 0)


def _over_group(sums: Float[Array, "2 groups 1 c"], layout: Layout) -> Float[Array, "2 groups 1 c"]:
    """The sums over the devices that share a group."""
    axis_name, devices, span = layout
    if span == 1:
        return sums
    groups = None if span == devices else np.arange(devices).reshape(-1, span).tolist()
    return lax.psum(sums, axis_name, axis_index_groups=groups)


def _sum(x: Groups) -> Moment:
    """The sum over the elements of each group.

    Computed in two stages, since XLA:CPU is a hundred times slower at the one-stage sum of a product of two arrays.
    """
    groups, elements, channels = x.shape
    blocks = max(n for n in range(1, 65) if elements % n == 0)
    partial = x.reshape(groups, blocks, elements // blocks, channels).sum(axis=2)
    return lax.optimization_barrier(partial).sum(axis=1, keepdims=True)  # else XLA would merge the two stages


def _affine(
    x: Float[Array, "... c"],
    mean: Channels | Moment,
    variance: Channels | Moment,
    scale: Channels,
    bias: Channels,
    epsilon: float,
) -> Float[Array, "... c"]:
    return (x - mean) * (lax.rsqrt(variance + epsilon) * scale) + bias


def _wide(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
