"""The product under every dense layer, by the way that suits few rows against a large kernel on CPU.

XLA:CPU multiplies in a library that splits the rows among its threads: few rows keep one core busy. Eigen, which splits
either side, is taken where the left factor lies transposed, and a kernel may stand on the left itself.
"""

import jax
import jax.numpy as jnp
from jax import lax

# Below this many rows and from this many entries of the kernel on. Measured on two cores, with 512 to 4096 features:
# twice as fast at 32 rows, no gain at 64 or with smaller kernels.
FEW_ROWS = 64
LARGE_KERNEL = 1024 * 4096


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiply rows by a kernel: `x @ kernel`.

    Differentiable once, in reverse mode. The platform is chosen when the program is lowered.

    Args:
      x: [B, inputs].
      kernel: [inputs, features], of the dtype of `x`.

    Returns:
      [B, features] in the dtype of `x`.
    """
    if not _few_rows(x, kernel):
        return x @ kernel
    return lax.platform_dependent(x, kernel, cpu=_few_times_kernel, default=jnp.matmul)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return matmul(x, kernel), (x, kernel)


def _backward(residuals: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return _input_gradient(dy, kernel), x.T @ dy


matmul.defvjp(_forward, _backward)


def _input_gradient(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    if not _few_rows(dy, kernel):
        return dy @ kernel.T
    return lax.platform_dependent(dy, kernel, cpu=_few_times_transposed, default=lambda dy, kernel: dy @ kernel.T)


def _few_rows(rows: jax.Array, kernel: jax.Array) -> bool:
    return rows.shape[0] < FEW_ROWS and kernel.size >= LARGE_KERNEL


def _few_times_kernel(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Without the barrier, XLA would fold the transposition into the product.
    return lax.dot_general(lax.optimization_barrier(x.T), kernel, (((0,), (0,)), ((), ())))


def _few_times_transposed(dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.optimization_barrier(lax.dot_general(kernel, dy, (((1,), (1,)), ((), ())))).T
