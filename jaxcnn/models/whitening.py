"""Patch whitening: a first convolution whose filters are computed from the data and not trained.

Its outputs are the components of each image patch along the eigenvectors of the covariance of all patches, scaled to
about unit variance, and their negatives: Page, "How to Train Your ResNet" (2019), part 8; in the form of Jordan 2024
(arXiv:2404.00498).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float, Float32, Num

from jaxcnn.data.examples import WHITE
from jaxcnn.models.initializers import fan_in_bias
from jaxcnn.models.layers import Conv

NAME = "whitening"  # name of the layer in every network that has one
BIAS = f"{NAME}/bias"
FROZEN = ((f"{NAME}/kernel", 0.0),)  # patterns of the optimiser
SIZE = 2  # side of a patch, pixels
EPSILON = 5e-4  # added to the eigenvalues
EXAMPLES = 5000  # training images for the covariance
_IMAGES_AT_ONCE = 500


class Whitening(nn.Module):
    """A convolution with a frozen kernel, and a trained bias; its output is of `dtype`.

    Networks with this layer have `FROZEN` among their frozen parameters. The kernel is random until it is replaced by
    the result of `whitening_kernel`.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h-1 w-1 2*2*2*c"]:
        """Whiten the patches of `x`."""
        inputs = SIZE * SIZE * x.shape[-1]
        conv = Conv(2 * inputs, SIZE, use_bias=False, dtype=self.dtype)
        nn.share_scope(self, conv)  # the parameters are "whitening/kernel" and "whitening/bias"
        bias = self.param("bias", fan_in_bias(inputs), (2 * inputs,), jnp.float32)
        return _add_bias(conv(x), bias)


@jax.custom_vjp
def _add_bias(x: Float[Array, "b h w c"], bias: Float32[Array, " c"]) -> Float[Array, "b h w c"]:
    """The sum of `x` and `bias`, in the dtype of `x`. The gradient of `bias` is summed in float32.

    It is summed over batch and rows first, then over columns: GPUs sum few channels slowly, but a whole row fast.
    """
    return x + bias.astype(x.dtype)


def _add_bias_backward(_: None, dy: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w c"], Float32[Array, " c"]]:
    batch, height, width, channels = dy.shape
    rows = dy.reshape(batch * height, width * channels).sum(axis=0, dtype=jnp.float32)
    rows = lax.optimization_barrier(rows)  # else XLA would merge the two sums
    return dy, rows.reshape(width, channels).sum(axis=0)


_add_bias.defvjp(lambda x, bias: (_add_bias(x, bias), None), _add_bias_backward)


def whitening_kernel(
    images: Num[np.ndarray, "n h w c"],
    mean: Float[np.ndarray, " c"],
    std: Float[np.ndarray, " c"],
    size: int = SIZE,
    epsilon: float = EPSILON,
) -> Float32[np.ndarray, "size size c 2*size*size*c"]:
    """The filters that whiten the patches of these images.

    With the eigenvectors v and eigenvalues l of the covariance of the normalised patches (about 0, not about their
    mean), in ascending order of l, the filters are v / sqrt(l + epsilon), then their negatives. The sign of an
    eigenvector makes its component of largest magnitude positive. Sums of 8-bit pixels are exact integers, so
    the number of threads does not change a bit.

    Args:
      images: the pixels.
      mean, std: mean and standard deviation for normalisation, in units where the white of the pixels' type is 1.
      size: side of a patch, pixels.
      epsilon: added to the eigenvalues, in units of the normalised pixels' variance.
    """
    channels = images.shape[-1]
    inputs = size * size * channels
    count = len(images) * (images.shape[1] - size + 1) * (images.shape[2] - size + 1)
    total, products = np.zeros(inputs), np.zeros((inputs, inputs))
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        windows = np.lib.stride_tricks.sliding_window_view(
            images[start : start + _IMAGES_AT_ONCE], (size, size), axis=(1, 2)
        )  # [images, oh, ow, c, size, size]
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, inputs).astype(np.float64)
        total += patches.sum(axis=0)  # integers far below 2^53: exact in any order
        products += patches.T @ patches
    shift = np.tile(np.asarray(mean, np.float64), size * size)
    scale = np.tile(np.where(np.asarray(std) > 0, np.asarray(std, np.float64), 1.0), size * size)
    white = WHITE[images.dtype.name]
    first, second = total / (white * count), products / (white**2 * count)
    covariance = second - np.outer(first, shift) - np.outer(shift, first) + np.outer(shift, shift)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    largest = np.abs(eigenvectors).argmax(axis=0)
    eigenvectors = eigenvectors * np.sign(eigenvectors[largest, np.arange(inputs)])
    filters = eigenvectors / np.sqrt(np.maximum(eigenvalues, 0) + epsilon)
    return np.concatenate([filters, -filters], axis=1).reshape(size, size, channels, -1).astype(np.float32)
