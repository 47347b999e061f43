"""The matrix product of all dense layers, with a method for few rows and a large kernel on CPU.

XLA:CPU multiplies by a library that splits the rows of the left factor over its threads, and reads this factor without
repacking if its rows are contiguous in memory. Kernels are stored so, and with few rows, a large kernel is used as the
left factor. For the gradient of the rows, it would have to be read across memory. This product is left to Eigen, which
splits either side; XLA uses it if the left factor is stored transposed.
"""

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.models import context

Rows = Float[Array, "b inputs"]
Outputs = Float[Array, "b features"]
Kernel = Float[Array, "features inputs"]

# Used below this number of rows and from this number of kernel entries. Measured on two cores with 32 rows: 10.0 -> 6.3
# ms with a kernel of 4096 x 4096, its gradient of the rows 19.2 -> 12.8 ms; with 1024 x 4096, 2.8 -> 1.9 ms and 4.4 ->
# 4.1 ms. With 64 rows or smaller kernels the gain is small, with 128 rows zero.
FEW_ROWS = 64
LARGE_KERNEL = 1024 * 4096


@jax.custom_vjp
def linear(x: Rows, kernel: Kernel) -> Outputs:
    """Multiply rows by a kernel: `x @ kernel.T`.

    Differentiable once, in reverse mode. The platform is chosen when the program is lowered.

    Args:
      x: the rows.
      kernel: with the dtype of `x`.

    Returns:
      The products in the dtype of `x`.
    """
    if not _few_rows(x, kernel):
        return x @ kernel.T
    return lax.platform_dependent(x, kernel, cpu=_few_times_transposed, default=lambda x, kernel: x @ kernel.T)


def _forward(x: Rows, kernel: Kernel) -> tuple[Outputs, tuple[Rows, Kernel]]:
    return linear(x, kernel), (x, kernel)


def _backward(residuals: tuple[Rows, Kernel], dy: Outputs) -> tuple[Rows, Kernel]:
    x, kernel = residuals
    return _input_gradient(dy, kernel), dy.T @ x


linear.defvjp(_forward, _backward)


def _input_gradient(dy: Outputs, kernel: Kernel) -> Rows:
    if not _few_rows(dy, kernel):
        return dy @ kernel
    return lax.platform_dependent(dy, kernel, cpu=_few_times_kernel, default=lambda dy, kernel: dy @ kernel)


def _few_rows(rows: Rows | Outputs, kernel: Kernel) -> bool:
    return not context.is_portable() and rows.shape[0] < FEW_ROWS and kernel.size >= LARGE_KERNEL


def _few_times_transposed(x: Rows, kernel: Kernel) -> Outputs:
    # Without the barriers, XLA would fold the transpositions into the products.
    return lax.optimization_barrier(lax.dot_general(kernel, x, (((1,), (1,)), ((), ())))).T


def _few_times_kernel(dy: Outputs, kernel: Kernel) -> Rows:
    return lax.dot_general(lax.optimization_barrier(dy.T), kernel, (((0,), (0,)), ((), ())))
