"""The layers all networks are made of. Images are `[B, H, W, C]`, convolution kernels `[height, width, in, out]`.

Parameters are float32. A layer computes in its `dtype`; BatchNorm statistics are at least float32. Parameters named
"kernel" are weights, "bias" and "scale" are not.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jax import lax

from jaxcnn import config


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial weights `[..., in, out]` that keep the scale of the signal through ReLU layers in the forward pass.

    A normal distribution truncated at two standard deviations, of variance 2 / fan_in after truncation: He et al. 2015,
    arXiv:1502.01852, eq. 10. The values are those of `jax.nn.initializers.he_normal`.
    """
    truncation = 0.87962566103423978  # standard deviation of the standard normal truncated at 2
    standard_deviation = math.sqrt(2 / math.prod(shape[:-1])) / truncation
    # Drawn flat, because XLA compiles the generator four times faster so, which is most of the time to initialise.
    flat = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
    return flat.reshape(shape) * jnp.asarray(standard_deviation, dtype)


def classifier_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial weights of standard deviation 0.01 for the layer that makes the logits: the first loss is log(classes).

    Krizhevsky et al. 2012, section 5; Goyal et al. 2017, arXiv:1706.02677, section 5.1.
    """
    return 0.01 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def scaled(channels: int, width: float) -> int:
    """`channels` times `model.width`, rounded, at least 1."""
    return max(1, round(channels * width))


class Conv(nn.Module):
    """Convolution with a square kernel; every convolution of every network goes through here.

    `[B, H, W, C]` -> `[B, H', W', features]` in `dtype`, H' = (H + 2 padding - kernel_size) // strides + 1.

    Attributes:
      features: output channels.
      kernel_size: side of the kernel, pixels.
      strides: pixels between outputs.
      padding: zeros added on each side, pixels.
      use_bias: add a bias, which starts at 0.
      dtype: of the computation.
      kernel_init: of the kernel.
      frozen: the kernel gets no gradient.
    """

    features: int
    kernel_size: int
    strides: int = 1
    padding: int = 0
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Initializer = he_normal
    frozen: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve `x`. Raises UserError where the image is smaller than the kernel."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        kernel = lax.stop_gradient(kernel) if self.frozen else kernel
        _check_covers(x, self.kernel_size, self.padding, self)
        x = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.strides, self.strides),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            x += bias.astype(self.dtype)
        return x


class Dense(nn.Module):
    """Affine map `[B, inputs]` -> `[B, features]` in `dtype`; the bias starts at 0."""

    features: int
    dtype: Any = jnp.float32
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `x`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Classifier(nn.Module):
    """The last dense layer: `[B, inputs]` -> logits `[B, num_classes]`, computed in float32 whatever came before."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `x` to logits."""
        dense = Dense(self.num_classes, _at_least_float32(x), classifier_normal)
        nn.share_scope(self, dense)  # the parameters are "classifier/kernel", not "classifier/Dense_0/kernel"
        return dense(x)


class Dropout(nn.Module):
    """Dropout whose noise belongs to the example: neither devices nor microbatches change it.

    Srivastava et al. 2014, JMLR 15; kept values are divided by 1 - rate, so evaluation is the identity. The noise of
    an example is that of the layer's "dropout" key folded with the example's position. Needs a "threefry" key: the
    bits of "rbg" keys depend on how many examples are drawn for together.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, positions: jax.Array | None, train: bool) -> jax.Array:
        """Drop values of `x` [B, ...]; positions: int32 [B] in the global batch. Raises ValueError without them."""
        if not train or self.rate == 0:
            return x
        if positions is None:
            raise ValueError("dropout needs `positions`, the examples' places in the global batch")
        key = self.make_rng("dropout")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics do not depend on the device count.

    Ioffe & Szegedy 2015, arXiv:1502.03167; with groups smaller than the batch, "ghost" batches, Hoffer et al. 2017,
    arXiv:1705.08741. As in PyTorch, a group is normalised by its biased variance, and the running variance takes the
    unbiased one. With several groups the running statistics take their average; a device knows its own groups only, so
    under an axis the new running statistics are those of all groups once they are averaged over the devices, which the
    training step does together with the gradients.

    Attributes:
      norm: momentum, epsilon and group_size (consecutive examples of the global batch; 0: all of it).
      axis_name: mesh axis the batch is sharded over, device d holding the d-th part; None: all of it is here.
      scale_init: of the scale.
      use_scale: multiply by a trained scale.
    """

    norm: config.Norm
    axis_name: str | None = None
    scale_init: Initializer = nn.initializers.ones
    use_scale: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalise `x` [B, ..., C]; the result has the dtype of `x`, the arithmetic is float32.

        Raises:
          ValueError: in training, where group_size does not fit the batch and the devices.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", self.scale_init, channels, jnp.float32) if self.use_scale else 1.0
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_variance = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        y = x.astype(_at_least_float32(x))
        if train:
            devices = lax.axis_size(self.axis_name) if self.axis_name else 1
            local, span = group_layout(self.norm.group_size, x.shape[0], devices)
            y = y.reshape(x.shape[0] // local, -1, *channels)
            mean, variance = group_statistics(y, running_mean.value, self.axis_name, devices, span)
            if not self.is_initializing():
                elements = y.shape[1] * span
                unbiased = variance * (elements / max(elements - 1, 1))
                momentum = self.norm.momentum
                running_mean.value = momentum * running_mean.value + (1 - momentum) * mean.mean(axis=(0, 1))
                running_variance.value = momentum * running_variance.value + (1 - momentum) * unbiased.mean(axis=(0, 1))
        else:
            mean, variance = running_mean.value, running_variance.value
        y = (y - mean) * (lax.rsqrt(variance + self.norm.epsilon) * scale) + bias
        return y.reshape(x.shape).astype(x.dtype)


def group_layout(group_size: int, batch: int, devices: int) -> tuple[int, int]:
    """How BatchNorm groups lie on devices: (examples of one group on one device, devices one group spans).

    Args:
      group_size: examples per group; 0: all of the global batch.
      batch: examples on each device.
      devices: how many hold the global batch.

    Raises:
      ValueError: the groups neither divide a device's examples nor take up a whole number of devices.
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


def group_statistics(
    x: jax.Array, shift: jax.Array, axis_name: str | None, devices: int, span: int
) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance, `[groups, 1, C]` each, of groups that lie on `span` consecutive devices.

    One reading of `x` and one collective: mean and mean of squares together, both of `x - shift`. Where `shift` is
    near the mean, as the running mean is, their difference loses no digits; and no constant changes the gradient.

    Args:
      x: this device's part of its groups, [groups, elements, C].
      shift: [C].
      axis_name: mesh axis, needed where span > 1; the gradient is right inside `jax.shard_map(..., check_vma=False)`.
      devices: size of the axis.
      span: devices of one group, a divisor of `devices`.
    """
    shift = lax.stop_gradient(shift)
    centred = x - shift
    moments = jnp.stack([centred.mean(axis=1, keepdims=True), jnp.square(centred).mean(axis=1, keepdims=True)])
    if span > 1:
        groups = None if span == devices else np.arange(devices).reshape(-1, span).tolist()
        moments = lax.psum(moments, axis_name, axis_index_groups=groups) / span
    mean, square = moments
    return mean + shift, jnp.maximum(square - jnp.square(mean), 0)


def max_pool(x: jax.Array, window: int, strides: int, padding: int = 0) -> jax.Array:
    """Largest value of each window: `[B, H, W, C]` -> `[B, H', W', C]`, H' = (H + 2 padding - window) // strides + 1.

    Padding never wins. Raises UserError where the image is smaller than the window.
    """
    _check_covers(x, window, padding)
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        window_dimensions=(1, window, window, 1),
        window_strides=(1, strides, strides, 1),
        padding=[(0, 0), (padding, padding), (padding, padding), (0, 0)],
    )


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over all pixels: `[B, H, W, C]` -> `[B, C]`."""
    return x.mean(axis=(1, 2))


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Mean over size x size windows that cover the image: `[B, H, W, C]` -> `[B, size, size, C]`.

    Window i reaches from floor(i H / size) to ceil((i + 1) H / size), as PyTorch's AdaptiveAvgPool2d has it, so
    windows may overlap, and an image may also be smaller than `size`.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        weights = np.zeros((size, length))
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            weights[i, start:stop] = 1 / (stop - start)
        pooled = jnp.tensordot(x, jnp.asarray(weights, x.dtype), axes=(axis, 1), precision=lax.Precision.HIGHEST)
        x = jnp.moveaxis(pooled, -1, axis)
    return x


def _at_least_float32(x: jax.Array) -> Any:
    return jnp.promote_types(x.dtype, jnp.float32)


def _check_covers(x: jax.Array, window: int, padding: int, module: nn.Module | None = None) -> None:
    height, width = x.shape[1:3]
    if min(height, width) + 2 * padding < window:
        where = "/".join(module.path) if module is not None else "max-pool"
        raise config.UserError(
            f"the images are too small for this network: {height}x{width} pixels are left before a {window}x{window} "
            f"window ({where}); use larger images (config.data.image_size), or another config.model.name or form"
        )
