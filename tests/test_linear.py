"""The product of the dense layers, in each of its forms, is the plain product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import linear

TOLERANCE = 1e-11  # float64 rounds at 1.1e-16, sums have up to 40 terms; one operation in float32 would show at 1e-7


def draw(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture(params=["large kernel", "small kernel"])
def kernels(request, monkeypatch):
    """Every kernel counts as large, so that few rows are multiplied in their own way, or none does."""
    large = request.param == "large kernel"
    monkeypatch.setattr(linear, "LARGE_KERNEL", 1 if large else 10**9)
    return large


@pytest.mark.parametrize("rows", [1, 2, 7, linear.FEW_ROWS - 1, linear.FEW_ROWS])
@pytest.mark.parametrize(("inputs", "features"), [(1, 1), (12, 5), (40, 33)])
def test_the_product_and_its_gradients_are_the_plain_ones(kernels, rows, inputs, features):
    with jax.enable_x64(True):
        x, kernel, dy = draw((rows, inputs), 0), draw((features, inputs), 1), draw((rows, features), 2)
        y, gradients = jax.vjp(linear.linear, x, kernel)
        for found, wanted in zip([y, *gradients(dy)], [x @ kernel.T, dy @ kernel, dy.T @ x], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_is_kept(kernels, dtype):
    y, gradients = jax.vjp(linear.linear, jnp.ones((4, 8), dtype), jnp.ones((3, 8), dtype))
    assert {x.dtype for x in [y, *gradients(y)]} == {jnp.dtype(dtype)}


def test_only_few_rows_on_cpu_have_a_form_of_their_own(monkeypatch):
    monkeypatch.setattr(linear, "LARGE_KERNEL", 1)

    def barriers(function, rows: int, platform: str) -> int:
        traced = jax.jit(function).trace(jnp.ones((rows, 8)), jnp.ones((3, 8)))
        return traced.lower(lowering_platforms=(platform,)).as_text().count("optimization_barrier")

    # The gradient of a sum needs no result of the product itself, so each of the two has its own form alone.
    for function in (linear.linear, jax.grad(lambda x, kernel: linear.linear(x, kernel).sum())):
        assert barriers(function, 4, "cpu") == 1
        assert barriers(function, 4, "cuda") == barriers(function, linear.FEW_ROWS, "cpu") == 0


def test_members_of_a_population_are_multiplied_by_their_own_kernels(kernels):
    x, kernel = draw((3, 4, 8), 0), draw((3, 5, 8), 1)
    np.testing.assert_allclose(jax.vmap(linear.linear)(x, kernel), x @ kernel.mT, rtol=1e-5, atol=1e-5)
