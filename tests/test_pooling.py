"""Pooling against its definition, gradients against those of `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn import config
from jaxcnn.models import context
from jaxcnn.models.pooling import adaptive_average_pool, halving_average_pool, halving_pool, max_pool, pool


@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1)])
def test_max_pool_is_its_definition_and_padding_never_wins(window, strides, padding):
    x = -1 - np.random.default_rng(0).random((2, 9, 8, 3)).astype(np.float32)
    edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(x, edges, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(1, 2))[:, ::strides, ::strides]
    np.testing.assert_array_equal(max_pool(x, window, strides, padding), windows.max(axis=(-1, -2)))


@pytest.mark.parametrize(("height", "width", "size"), [(13, 7, 6), (1, 3, 7), (6, 6, 6), (8, 12, 4), (15, 6, 6)])
def test_adaptive_average_pool_is_its_definition(height, width, size):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = np.empty((2, size, size, 3))
    for i in range(size):
        rows = slice(int(np.floor(i * height / size)), int(np.ceil((i + 1) * height / size)))
        for j in range(size):
            columns = slice(int(np.floor(j * width / size)), int(np.ceil((j + 1) * width / size)))
            expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(adaptive_average_pool(jnp.asarray(x), size), expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 4), (3, 7), (1, 1)])
def test_halving_average_pool_is_the_mean_of_the_pixels_that_are_there(height, width):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = [
        [x[:, i : i + 2, j : j + 2].mean(axis=(1, 2), dtype=np.float64) for j in range(0, width, 2)]
        for i in range(0, height, 2)
    ]
    pooled = halving_average_pool(jnp.asarray(x))
    np.testing.assert_allclose(pooled, np.moveaxis(np.array(expected), 2, 0), atol=1e-6)
    half = halving_average_pool(jnp.asarray(x, jnp.bfloat16))  # one rounding to 2^-9, of values below 4 that had one
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), pooled, atol=2 * 4 * 2**-9)


@pytest.mark.parametrize(("window", "strides"), [(2, 2), (3, 2)])
def test_pooling_by_name_is_the_largest_the_mean_or_their_sum(window, strides):
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))[:, ::strides, ::strides]
    mean, largest = views.mean(axis=(-2, -1), dtype=np.float64), views.max(axis=(-2, -1))
    for name, expected in (("max", largest), ("mean", mean), ("both", mean + largest)):
        pooled = pool(config.Model(pooling=name), jnp.asarray(x), window, strides)
        np.testing.assert_allclose(pooled, expected, atol=2e-6)  # sums of nine values below 4, each rounded to 2^-24
        with context.portable():  # another form of the same: the order of sums may differ
            alike = pool(config.Model(pooling=name), jnp.asarray(x), window, strides)
        np.testing.assert_allclose(alike, pooled, atol=2e-6)


@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 3, 0), (2, 3, 1)])
@pytest.mark.parametrize("side", [(9, 8), (7, 12)])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_max_pool_gradient_goes_to_the_first_of_equal_values(window, strides, padding, side, platform, monkeypatch):
    if platform == "gpu":  # whose form is run here all the same
        monkeypatch.setattr(lax, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, (2, *side, 3)), jnp.float32)  # few values, so that windows hold equal ones

    def by_lax(x):
        edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, strides, strides, 1), edges)

    expected, of_lax = jax.vjp(by_lax, x)
    y, ours = jax.vjp(lambda x: max_pool(x, window, strides, padding), x)
    np.testing.assert_array_equal(y, expected)
    dy = jnp.asarray(rng.integers(-4, 5, y.shape), jnp.float32)  # integers, so that sums are exact in any order
    np.testing.assert_array_equal(ours(dy)[0], of_lax(dy)[0])


def test_images_smaller_than_a_window_are_refused_in_one_line():
    with pytest.raises(config.UserError, match=r"too small.*1x4 pixels") as error:
        max_pool(jnp.zeros((1, 1, 4, 1)), 2, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 4), (3, 7), (1, 1)])
def test_halving_pool_has_the_pixels_that_are_there_and_is_the_plain_pool_of_even_sides(height, width):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32))
    windows = [[x[:, i : i + 2, j : j + 2] for j in range(0, width, 2)] for i in range(0, height, 2)]
    largest = np.array([[window.max(axis=(1, 2)) for window in row] for row in windows])
    mean = halving_average_pool(x)
    for name, expected in (
        ("max", np.moveaxis(largest, 2, 0)),
        ("mean", mean),
        ("both", mean + np.moveaxis(largest, 2, 0)),
    ):
        halved = halving_pool(config.Model(pooling=name), x)
        np.testing.assert_array_equal(halved, expected)
        if height % 2 == width % 2 == 0:
            np.testing.assert_array_equal(halved, pool(config.Model(pooling=name), x, 2, 2))
        with context.portable():
            np.testing.assert_allclose(halving_pool(config.Model(pooling=name), x), halved, atol=1e-6)
