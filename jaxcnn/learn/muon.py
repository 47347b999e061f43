"""Muon: momentum whose update of each kernel is orthogonalised.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), in the form of airbench94_muon, where
every kernel is also brought back to a fixed norm before its update.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.typing import Collection
from jax import lax
from jaxtyping import Array, Float32

Kernel = Float32[Array, "... o"]
Matrix = Float32[Array, "rows columns"]
Scalar = Float32[Array, ""]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial; Jordan chose them for the largest slope at 0
LARGE = 2**16  # entries of a kernel whose products take a CPU longer than a tenth of a millisecond
EPSILON = 1e-10  # added to the norm of a gradient (of the batch's mean loss)


def muon(
    learning_rate: Scalar,
    momentum: Scalar,
    *,
    nesterov: bool,
    steps: int,
    scale: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Muon for kernels, without weight decay.

    The momentum is a sum of gradients, as in PyTorch. `optax.contrib.scale_by_muon` averages them and corrects the bias
    of old and new gradients separately, so its first few Nesterov updates have another direction.

    Args:
      learning_rate: the spectral norm of an update is about this.
      momentum: the factor of the old sum.
      nesterov: whether to look ahead by one step.
      steps: number of Newton-Schulz iterations.
      scale: a stateless transformation that scales the updates of some kernels; None: no scaling.
    """
    scale = scale or optax.identity()
    return optax.chain(
        optax.trace(momentum, nesterov=nesterov),
        optax.stateless_with_tree_map(lambda update, _: orthogonalize(update, steps)),
        optax.scale_by_learning_rate(learning_rate),
        optax.stateless(lambda updates, params: scale.update(updates, optax.EmptyState(), params)[0]),
        renormalize(),
    )


def orthogonalize(kernel: Kernel, steps: int) -> Kernel:
    """The kernel with its singular values, as a matrix "inputs o", close to 1 (roughly 0.7 to 1.2).

    Newton-Schulz: each step applies an odd polynomial of degree 5 to the singular values. After few steps, small ones
    are still smaller. `X = steps(X / norm)` needs only matrix products. On CPU, those of long matrices are
    applied to the product of X with its transpose (`_by_gram`), where X is `LARGE` enough to gain; on a GPU, whose
    products round float32 to fewer bits, the rounding of such a product would decide small singular values.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (jnp.linalg.norm(wide) + EPSILON)
    direct, by_gram = (functools.partial(form, steps=steps) for form in (_directly, _by_gram))
    rows, columns = wide.shape
    if rows * columns >= LARGE and 2 * columns > 3 * rows and steps > 1:  # then `_by_gram` has fewer multiplications
        wide = lax.platform_dependent(wide, cpu=by_gram, default=direct)
    else:
        wide = direct(wide)
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).reshape(kernel.shape)


def _directly(wide: Matrix, steps: int) -> Matrix:
    linear, cubic, quintic = COEFFICIENTS
    for _ in range(steps):
        gram = wide @ wide.T
        wide = linear * wide + (cubic * gram + quintic * gram @ gram) @ wide
    return wide


def _by_gram(wide: Matrix, steps: int) -> Matrix:
    """The same steps by square matrices of the shorter side: each is a polynomial of X X^T times X, and all commute.

    Two products with the whole matrix instead of two in each step: for 512 x 4,608 and three steps, 2.2 times as fast.
    """
    linear, cubic, quintic = COEFFICIENTS
    gram, unit = wide @ wide.T, jnp.eye(wide.shape[0], dtype=wide.dtype)
    product = unit
    for step in range(steps):
        polynomial = linear * unit + cubic * gram + quintic * gram @ gram
        product = polynomial @ product if step else polynomial
        if step < steps - 1:
            gram = polynomial @ (gram @ polynomial)
    return product @ wide


def renormalize() -> optax.GradientTransformation:
    """Extend the update of each kernel so that it first rescales the kernel to the norm sqrt(o).

    If BatchNorm follows, a kernel's norm only sets how far an update turns it; with a fixed norm, a learning rate means
    the same for every kernel at all times. It must be last in a chain, since its updates must not be scaled.
    """

    def update(update: Kernel, kernel: Kernel) -> Kernel:
        return update + kernel * (math.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel) - 1)

    return optax.stateless_with_tree_map(update)


def labels(params: Collection, classifier: str) -> Collection:
    """The kind of each parameter for Muon: "kernel", "classifier" (its kernel) or "bias"."""

    def label(path: Sequence[Any], _: Any) -> str:
        module, name = path[0].key, path[-1].key
        if name != "kernel":
            return "bias"
        return "classifier" if module == classifier else "kernel"

    return jax.tree_util.tree_map_with_path(label, params)
