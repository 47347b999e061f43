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
from jaxtyping import Array, Bool, Float32

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
    batched: bool = False,
    due: Bool[Array, ""] | None = None,
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
      batched: whether kernels of one shape are orthogonalised together (`orthogonalize_together`).
      due: whether this step rescales the kernels; None: every step does.
    """
    scale = scale or optax.identity()
    orthogonal = optax.stateless_with_tree_map(lambda update, _: orthogonalize(update, steps))
    if batched:
        orthogonal = optax.stateless(lambda updates, _: orthogonalize_together(updates, steps))
    return optax.chain(
        optax.trace(momentum, nesterov=nesterov),
        orthogonal,
        optax.scale_by_learning_rate(learning_rate),
        optax.stateless(lambda updates, params: scale.update(updates, optax.EmptyState(), params)[0]),
        renormalize(due),
    )


def orthogonalize(kernel: Kernel, steps: int) -> Kernel:
    """The kernel with its singular values, as a matrix "inputs o", close to 1 (roughly 0.7 to 1.2).

    Newton-Schulz: each step applies an odd polynomial of degree 5 to the singular values. After few steps, small ones
    are still smaller. `X = steps(X / norm)` needs only matrix products. On CPU, those of long matrices are
    applied to the product of X with its transpose (`_by_gram`), where X is `LARGE` enough to gain; on a GPU, whose
    products round float32 to fewer bits, the rounding of such a product would dominate small singular values.
    """
    return _as_kernel(_orthogonal(_as_wide(kernel), steps), kernel)


def orthogonalize_together(kernels: optax.Updates, steps: int) -> optax.Updates:
    """`orthogonalize` for each kernel of a tree, with one stack of matrices for all kernels of one shape.

    The shape is that of the matrix "inputs o" or its transpose. So a GPU starts a batched product where it would start
    one for each kernel. The values are equal up to rounding. Hiverge's speedrun (https://github.com/hiverge/
    cifar10-speedrun, 2025) pads all kernels to one shape; that would add operations.
    """
    leaves, structure = jax.tree.flatten(kernels)
    wide = [_as_wide(kernel) for kernel in leaves]
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, matrix in enumerate(wide):
        places.setdefault((matrix.shape, matrix.dtype), []).append(place)
    for alike in places.values():
        stack = jnp.stack([wide[place] for place in alike])
        orthogonal = jax.vmap(functools.partial(_orthogonal, steps=steps))(stack) if len(alike) > 1 else None
        for row, place in enumerate(alike):
            wide[place] = _orthogonal(wide[place], steps) if orthogonal is None else orthogonal[row]
    return jax.tree.unflatten(structure, map(_as_kernel, wide, leaves))


def _as_wide(kernel: Kernel) -> Matrix:
    """The kernel as a matrix "inputs o", or the transpose of this, so that it has no more rows than columns."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _as_kernel(wide: Matrix, kernel: Kernel) -> Kernel:
    """The inverse of `_as_wide` for a kernel of the shape of `kernel`."""
    rows, columns = kernel.size // kernel.shape[-1], kernel.shape[-1]
    return (wide if rows <= columns else wide.T).reshape(kernel.shape)


def _orthogonal(wide: Matrix, steps: int) -> Matrix:
    """The result of `orthogonalize` for a matrix with no more rows than columns."""
    wide = wide / (jnp.linalg.norm(wide) + EPSILON)
    direct, by_gram = (functools.partial(form, steps=steps) for form in (_directly, _by_gram))
    rows, columns = wide.shape
    if rows * columns >= LARGE and 2 * columns > 3 * rows and steps > 1:  # then `_by_gram` has fewer multiplications
        return lax.platform_dependent(wide, cpu=by_gram, default=direct)
    return direct(wide)


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


def renormalize(due: Bool[Array, ""] | None = None) -> optax.GradientTransformation:
    """Extend the update of each kernel so that it first rescales the kernel to the norm sqrt(o).

    If BatchNorm follows, a kernel's norm only sets how far an update turns it; with a fixed norm, a learning rate means
    the same for every kernel at all times. It must be last in a chain, since its updates must not be scaled. With
    `due`, the norms are computed and applied only where it is True.
    """

    def update(update: Kernel, kernel: Kernel) -> Kernel:
        return update + kernel * (math.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel) - 1)

    if due is None:
        return optax.stateless_with_tree_map(update)

    def update_all(updates: optax.Updates, kernels: optax.Params | None) -> optax.Updates:
        rescaled = functools.partial(jax.tree.map, update)
        return lax.cond(due, rescaled, lambda updates, _: updates, updates, kernels)

    return optax.stateless(update_all)


def labels(params: Collection, classifier: str) -> Collection:
    """The kind of each parameter for Muon: "kernel", "classifier" (its kernel) or "bias"."""

    def label(path: Sequence[Any], _: Any) -> str:
        module, name = path[0].key, path[-1].key
        if name != "kernel":
            return "bias"
        return "classifier" if module == classifier else "kernel"

    return jax.tree_util.tree_map_with_path(label, params)
