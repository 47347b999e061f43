"""The layers: dropout that knows examples, and the rest against their definitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxcnn import config
from jaxcnn.models import layers


def mesh_of(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def dropout(x, positions, rate=0.3, seed=0, kind=layers.Dropout):
    return kind(rate).apply({}, x, train=True, positions=positions, rngs={"dropout": jax.random.key(seed)})


@pytest.mark.parametrize(
    ("rate", "kind"), [(0.3, layers.Dropout), (0.5, layers.Dropout), (0.3, layers.StochasticDepth)]
)
def test_dropout_noise_belongs_to_the_example(rate, kind):
    drop = partial(dropout, rate=rate, kind=kind)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 40)), jnp.float32)
    positions = jnp.arange(100, 116)
    whole = drop(x, positions)
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(drop(x[order], positions[order]), whole[order])
    micro = [drop(x[i : i + 4], positions[i : i + 4]) for i in range(0, 16, 4)]
    np.testing.assert_array_equal(np.concatenate(micro), whole)
    shard = PartitionSpec("data")
    for devices in (2, 8):
        mapped = jax.shard_map(drop, mesh=mesh_of(devices), in_specs=(shard, shard), out_specs=shard, check_vma=False)
        np.testing.assert_array_equal(jax.jit(mapped)(x, positions), whole)


def test_dropout_noise_differs_between_examples_and_keys():
    x = jnp.ones((2, 1000))
    first = dropout(x, jnp.arange(2))
    assert (first[0] != first[1]).any()
    assert (first != dropout(x, jnp.arange(2), seed=1)).any()
    assert (first != dropout(x, jnp.arange(2, 4))).any()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.75, 0.9])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate):
    n = 40_000
    y = np.asarray(dropout(jnp.ones((40, 1000)), jnp.arange(40), rate))
    bits, threshold = layers.threshold_of(rate)
    held = threshold / 2**bits
    assert abs(held - rate) <= 2**-17
    assert set(np.unique(y)) == {0.0, np.float32(1) / np.float32(1 - held)}
    five_sigma = 5 * np.sqrt(rate * (1 - rate) / n)  # binomial; a fixed key, so this passes always or never
    assert abs((y == 0).mean() - rate) < five_sigma


def test_stochastic_depth_drops_its_rate_of_whole_examples_and_keeps_the_mean():
    n, rate = 4000, 0.25
    y = np.asarray(dropout(jnp.ones((n, 3, 2)), jnp.arange(n), rate, kind=layers.StochasticDepth)).reshape(n, -1)
    assert (y == y[:, :1]).all()
    assert set(np.unique(y)) == {0.0, np.float32(1) / np.float32(1 - rate)}
    assert abs((y[:, 0] == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)  # as above


def test_dropout_takes_as_few_bits_as_its_rate_needs():
    rates = {0.5: (1, 1), 0.25: (2, 1), 0.3125: (4, 5), 3 / 256: (8, 3), 1e-9: (16, 1), 1 - 1e-9: (16, 2**16 - 1)}
    assert {rate: layers.threshold_of(rate) for rate in rates} == rates
    assert layers.threshold_of(0.3) == (16, 19661)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_random_integers_are_the_words_of_jax_cut_into_parts(bits):
    shape = (7, 11)  # 77 integers do not fill their last word
    integers = np.asarray(layers.random_integers(jax.random.key(3), shape, bits))
    words = jax.random.bits(jax.random.key(3), (-(-77 * bits // 32),), jnp.uint32)
    digits = "".join(f"{word:032b}"[::-1] for word in np.asarray(words))  # the lowest bits come first
    parts = [int(digits[i * bits : (i + 1) * bits][::-1], 2) for i in range(77)]
    np.testing.assert_array_equal(integers, np.reshape(parts, shape))


@pytest.mark.parametrize("kind", [layers.Dropout, layers.StochasticDepth])
def test_dropout_is_the_identity_in_evaluation_and_asks_for_positions_in_training(kind):
    x = jnp.ones((2, 3))
    assert kind(0.5).apply({}, x, train=False) is x
    assert kind(0.0).apply({}, x, train=True) is x
    with pytest.raises(ValueError, match="positions"):
        dropout(x, None, kind=kind)


@pytest.mark.parametrize("module", [layers.Conv(256, 3, use_bias=True), layers.Dense(2304)])
def test_weights_start_as_he_normal_and_biases_at_zero(module):
    x = jnp.zeros((1, 4, 4, 64)) if isinstance(module, layers.Conv) else jnp.zeros((1, 64))
    params = module.init(jax.random.key(0), x)["params"]
    kernel = np.asarray(params["kernel"])
    fan_in = 9 * 64 if isinstance(module, layers.Conv) else 64
    # 147,456 draws: the variance of a normal's sample variance is 2 / n, so five standard errors are 1.9 %.
    np.testing.assert_allclose(kernel.var(), 2 / fan_in, rtol=0.019)
    assert abs(kernel.mean()) < 5 * np.sqrt(2 / fan_in / kernel.size)
    # Truncated at two standard deviations of the normal, whose truncation leaves 0.87962566 of its own.
    assert np.abs(kernel).max() <= 2 * np.sqrt(2 / fan_in) / 0.87962566 * (1 + 1e-6)
    np.testing.assert_array_equal(params["bias"], 0)


def test_he_normal_has_the_values_of_the_library():
    key, shape = jax.random.key(0), (3, 3, 16, 32)
    # The same draw, scaled by a constant that may be rounded another way: 2 ulp.
    np.testing.assert_allclose(layers.he_normal(key, shape), jax.nn.initializers.he_normal()(key, shape), rtol=2.4e-7)


def test_classifier_computes_in_float32_and_starts_small():
    x = jnp.ones((2, 1000), jnp.bfloat16)
    logits, variables = layers.Classifier(100).init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel", "bias"}
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(np.std(variables["params"]["kernel"]), 0.01, rtol=0.012)  # five sigma of 100,000 draws


@pytest.mark.parametrize(("strides", "padding", "size"), [(1, 1, 3), (2, 1, 3), (2, 0, 1), (4, 2, 5)])
def test_conv_is_its_definition(strides, padding, size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 8, 3)).astype(np.float32)
    params = {"kernel": rng.standard_normal((size, size, 3, 5)).astype(np.float32), "bias": np.arange(5.0)}
    y = layers.Conv(5, size, strides, padding).apply({"params": params}, x)
    padded = np.pad(x.astype(np.float64), [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::strides, ::strides]
    expected = np.einsum("byxchw,hwco->byxo", windows, params["kernel"].astype(np.float64)) + params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-4)  # at most 75 products of about 1, each rounded at 6e-8


def test_images_smaller_than_a_kernel_are_refused_in_one_line():
    with pytest.raises(config.UserError, match=r"too small.*2x2 pixels") as error:
        layers.Conv(4, 3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
    assert "\n" not in str(error.value)
