"""The product of the dense layers, in each of its forms, is the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import matmul

TOLERANCE = 1e-11  # float64 rounds at 1.1e-16, sums have up to 40 terms; one operation in float32 would show at 1e-7


def draw(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture(params=["large kernel", "small kernel"])
def kernels(request, monkeypatch):
    """Every kernel counts as large, so that few rows are multiplied in their own way, or none does."""
    large = request.param == "large kernel"
    monkeypatch.setattr(matmul, "LARGE_KERNEL", 1 if large else 10**9)
    return large


@pytest.mark.parametrize("rows", [1, 2, 7, matmul.FEW_ROWS - 1, matmul.FEW_ROWS])
@pytest.mark.parametrize(("inputs", "features"), [(1, 1), (12, 5), (40, 33)])
def test_the_product_and_its_gradients_are_the_plain_ones(kernels, rows, inputs, features):
    with jax.enable_x64(True):
        x, kernel, dy = draw((rows, inputs), 0), draw((inputs, features), 1), draw((rows, features), 2)
        y, gradients = jax.vjp(matmul.matmul, x, kernel)
        for found, wanted in zip([y, *gradients(dy)], [x @ kernel, dy @ kernel.T, x.T @ dy], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_is_kept(kernels, dtype):
    y, gradients = jax.vjp(matmul.matmul, jnp.ones((4, 8), dtype), jnp.ones((8, 3), dtype))
    assert {x.dtype for x in [y, *gradients(y)]} == {jnp.dtype(dtype)}


def test_only_few_rows_on_cpu_have_a_form_of_their_own(monkeypatch):
    monkeypatch.setattr(matmul, "LARGE_KERNEL", 1)

    def barriers(rows: int, platform: str) -> int:
        step = jax.jit(jax.grad(lambda x, kernel: matmul.matmul(x, kernel).sum(), (0, 1)))
        lowered = step.trace(jnp.ones((rows, 8)), jnp.ones((8, 3))).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("optimization_barrier")

    assert barriers(4, "cpu") > 0
    assert barriers(4, "cuda") == barriers(matmul.FEW_ROWS, "cpu") == 0


def test_members_of_a_population_are_multiplied_by_their_own_kernels(kernels):
    x, kernel = draw((3, 4, 8), 0), draw((3, 8, 5), 1)
    np.testing.assert_allclose(jax.vmap(matmul.matmul)(x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)
