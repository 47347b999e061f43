"""The layers: BatchNorm that knows no devices, dropout that knows examples, and the rest against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxcnn import config
from jaxcnn.models import layers

BATCH = 32
# In float64, where rounding (1e-16 times some hundred additions and divisions by a standard deviation of about 1) is
# far below any mistake.
FLOAT64_ROUNDING = 1e-12


def mesh_of(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def batch_norm_inputs(dtype):
    """Images [32, 3, 2, 4] that differ much between examples, targets of that shape, and variables."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 3, 2, 4)) * rng.uniform(0.5, 2, (BATCH, 1, 1, 1)) + rng.normal(
        size=(BATCH, 1, 1, 4)
    )
    variables = {
        "params": {"scale": rng.uniform(0.5, 1.5, 4), "bias": rng.standard_normal(4)},
        "batch_stats": {"mean": rng.standard_normal(4), "var": rng.uniform(0.5, 1.5, 4)},
    }
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (x, rng.standard_normal(x.shape), variables))


def apply_batch_norm(variables, x, targets, norm, axis_name):
    """Sum over examples of a loss, and (outputs, new running statistics)."""
    y, updates = layers.BatchNorm(norm, axis_name).apply(variables, x, train=True, mutable=["batch_stats"])
    return jnp.sum(jnp.sin(y) * targets), (y, updates["batch_stats"])


def on_devices(devices: int, norm: config.Norm, variables, x, targets):
    """Outputs, gradients with respect to parameters and images, and running statistics averaged over devices."""

    def local(variables, x, targets):
        loss = functools.partial(apply_batch_norm, norm=norm, axis_name="data")
        (_, (y, statistics)), (gradients, x_gradient) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            variables, x, targets
        )
        statistics = jax.lax.pmean(statistics, "data")
        return y, x_gradient, jax.lax.psum(gradients["params"], "data"), statistics

    shard, all_of_it = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(
        local,
        mesh=mesh_of(devices),
        in_specs=(all_of_it, shard, shard),
        out_specs=(shard, shard, all_of_it, all_of_it),
        check_vma=False,
    )
    return jax.jit(mapped)(variables, x, targets)


def by_definition(variables, x, norm: config.Norm):
    """BatchNorm of consecutive groups in numpy: outputs and new running statistics."""
    x = np.asarray(x)
    groups = x.reshape(-1, norm.group_size or len(x), *x.shape[1:])
    mean = groups.mean(axis=(1, 2, 3), keepdims=True)
    variance = groups.var(axis=(1, 2, 3), keepdims=True)
    params, old = variables["params"], variables["batch_stats"]
    y = (groups - mean) / np.sqrt(variance + norm.epsilon) * params["scale"] + params["bias"]
    m = norm.momentum
    unbiased = groups.var(axis=(1, 2, 3), ddof=1)
    statistics = {
        "mean": m * old["mean"] + (1 - m) * mean.mean(axis=(0, 1, 2, 3)),
        "var": m * old["var"] + (1 - m) * unbiased.mean(axis=0),
    }
    return y.reshape(x.shape), statistics


@pytest.mark.parametrize("group_size", [0, 2, 4, 8, 16, 32])
def test_batch_norm_on_one_device_is_its_definition(group_size):
    with jax.enable_x64(True):
        x, targets, variables = batch_norm_inputs(jnp.float64)
        norm = config.Norm(group_size=group_size, momentum=0.8)
        _, (y, statistics) = apply_batch_norm(variables, x, targets, norm, None)
        expected, expected_statistics = by_definition(variables, x, norm)
        np.testing.assert_allclose(y, expected, atol=FLOAT64_ROUNDING)
        for name in ("mean", "var"):
            np.testing.assert_allclose(statistics[name], expected_statistics[name], atol=FLOAT64_ROUNDING)


# 8 devices hold 4 examples each: groups of the whole batch, half a device, one device, two devices, all devices.
# 2 devices hold 16 each.
@pytest.mark.parametrize(
    ("devices", "group_size"), [(8, 0), (8, 2), (8, 4), (8, 8), (8, 16), (8, 32), (2, 0), (2, 8), (1, 8), (1, 0)]
)
def test_batch_norm_does_not_depend_on_devices(devices, group_size):
    with jax.enable_x64(True):
        x, targets, variables = batch_norm_inputs(jnp.float64)
        norm = config.Norm(group_size=group_size)
        y, x_gradient, gradients, statistics = on_devices(devices, norm, variables, x, targets)

        loss = functools.partial(apply_batch_norm, norm=norm, axis_name=None)
        (_, (expected_y, expected_statistics)), (expected_gradients, expected_x_gradient) = jax.value_and_grad(
            loss, argnums=(0, 1), has_aux=True
        )(variables, x, targets)
        np.testing.assert_allclose(y, expected_y, atol=FLOAT64_ROUNDING)
        np.testing.assert_allclose(x_gradient, expected_x_gradient, atol=FLOAT64_ROUNDING)
        for name, gradient in gradients.items():
            # A sum over 192 values, so 100 times the rounding of one.
            np.testing.assert_allclose(gradient, expected_gradients["params"][name], atol=100 * FLOAT64_ROUNDING)
        for name, averaged in statistics.items():
            np.testing.assert_allclose(averaged, expected_statistics[name], atol=FLOAT64_ROUNDING)


def test_batch_norm_gradient_is_that_of_finite_differences():
    with jax.enable_x64(True):
        x, targets, variables = batch_norm_inputs(jnp.float64)
        norm = config.Norm(group_size=8)

        def loss(x):
            return apply_batch_norm(variables, x, targets, norm, None)[0]

        direction = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape))
        step = 1e-5  # central differences err by step**2 and rounding / step, both about 1e-10 times the loss of 1e2
        difference = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(x), direction), difference, rtol=1e-6)


def test_batch_norm_evaluates_with_running_statistics():
    x, _, variables = batch_norm_inputs(jnp.float32)
    y = layers.BatchNorm(config.Norm(group_size=7)).apply(variables, x, train=False)
    params, old = variables["params"], variables["batch_stats"]
    expected = (x - old["mean"]) / np.sqrt(old["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)  # some roundings of 6e-8, at values below 10


def test_batch_norm_of_bfloat16_keeps_statistics_in_float32():
    x, targets, variables = batch_norm_inputs(jnp.float32)
    x = x.astype(jnp.bfloat16)
    _, (y, statistics) = apply_batch_norm(variables, x, targets, config.Norm(), None)
    assert y.dtype == jnp.bfloat16
    assert statistics["mean"].dtype == statistics["var"].dtype == jnp.float32
    _, expected = by_definition(variables, x.astype(jnp.float32), config.Norm())
    for name in ("mean", "var"):
        # float32 sums of 192 values; bfloat16 ones would err by 4e-3.
        np.testing.assert_allclose(statistics[name], expected[name], rtol=1e-5, atol=1e-5)


def test_batch_norm_variance_keeps_its_digits_when_the_mean_is_large():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, 8, 8, 1)) + 3000, jnp.float32)
    grouped = x.reshape(1, -1, 1)
    _, variance = layers.group_statistics(grouped, jnp.full(1, 2999.0), None, 1, 1)
    # Values near 3000 are stored to 1.2e-4; E[x^2] - E[x]^2 would err by 3000^2 * 6e-8 = 0.5 of a variance of 1.
    np.testing.assert_allclose(variance[0, 0], np.asarray(grouped[0], np.float64).var(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("group_size", "batch", "devices", "layout"),
    [
        (0, 4, 1, (4, 1)),
        (0, 4, 8, (4, 8)),
        (2, 4, 8, (2, 1)),
        (4, 4, 8, (4, 1)),
        (16, 4, 8, (4, 4)),
        (32, 4, 8, (4, 8)),
    ],
)
def test_group_layout(group_size, batch, devices, layout):
    assert layers.group_layout(group_size, batch, devices) == layout


@pytest.mark.parametrize(("group_size", "batch", "devices"), [(3, 4, 8), (6, 4, 8), (12, 4, 8), (64, 4, 8), (8, 4, 1)])
def test_groups_that_do_not_fit_are_refused_in_one_line(group_size, batch, devices):
    with pytest.raises(ValueError, match=rf"^norm\.group_size={group_size} does not fit {batch} examples.*$") as error:
        layers.group_layout(group_size, batch, devices)
    assert "\n" not in str(error.value)


def dropout(x, positions, rate=0.3, seed=0):
    return layers.Dropout(rate).apply({}, x, positions, train=True, rngs={"dropout": jax.random.key(seed)})


def test_dropout_noise_belongs_to_the_example():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 40)), jnp.float32)
    positions = jnp.arange(100, 116)
    whole = dropout(x, positions)
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_array_equal(dropout(x[order], positions[order]), whole[order])
    micro = [dropout(x[i : i + 4], positions[i : i + 4]) for i in range(0, 16, 4)]
    np.testing.assert_array_equal(np.concatenate(micro), whole)
    shard = PartitionSpec("data")
    for devices in (2, 8):
        mapped = jax.shard_map(
            dropout, mesh=mesh_of(devices), in_specs=(shard, shard), out_specs=shard, check_vma=False
        )
        np.testing.assert_array_equal(jax.jit(mapped)(x, positions), whole)


def test_dropout_noise_differs_between_examples_and_keys():
    x = jnp.ones((2, 1000))
    first = dropout(x, jnp.arange(2))
    assert (first[0] != first[1]).any()
    assert (first != dropout(x, jnp.arange(2), seed=1)).any()
    assert (first != dropout(x, jnp.arange(2, 4))).any()


def test_dropout_drops_its_rate_and_keeps_the_mean():
    rate, n = 0.3, 40_000
    y = np.asarray(dropout(jnp.ones((40, 1000)), jnp.arange(40), rate))
    assert set(np.unique(y)) == {0.0, np.float32(1) / np.float32(1 - rate)}
    five_sigma = 5 * np.sqrt(rate * (1 - rate) / n)  # binomial; a fixed key, so this passes always or never
    assert abs((y == 0).mean() - rate) < five_sigma


def test_dropout_is_the_identity_in_evaluation_and_asks_for_positions_in_training():
    x = jnp.ones((2, 3))
    assert layers.Dropout(0.5).apply({}, x, None, train=False) is x
    assert layers.Dropout(0.0).apply({}, x, None, train=True) is x
    with pytest.raises(ValueError, match="positions"):
        dropout(x, None)


@pytest.mark.parametrize("module", [layers.Conv(256, 3, use_bias=True), layers.Dense(2304)])
def test_weights_start_as_he_normal_and_biases_at_zero(module):
    x = jnp.zeros((1, 4, 4, 64)) if isinstance(module, layers.Conv) else jnp.zeros((1, 64))
    params = module.init(jax.random.key(0), x)["params"]
    kernel = np.asarray(params["kernel"])
    fan_in = kernel[..., 0].size
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


@pytest.mark.parametrize(("window", "strides", "padding"), [(2, 2, 0), (3, 2, 0), (3, 2, 1)])
def test_max_pool_is_its_definition_and_padding_never_wins(window, strides, padding):
    x = -1 - np.random.default_rng(0).random((2, 9, 8, 3)).astype(np.float32)
    edges = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(x, edges, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(1, 2))[:, ::strides, ::strides]
    np.testing.assert_array_equal(layers.max_pool(x, window, strides, padding), windows.max(axis=(-1, -2)))


@pytest.mark.parametrize(("height", "width", "size"), [(13, 7, 6), (1, 3, 7), (6, 6, 6), (8, 12, 4), (15, 6, 6)])
def test_adaptive_average_pool_is_its_definition(height, width, size):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = np.empty((2, size, size, 3))
    for i in range(size):
        rows = slice(int(np.floor(i * height / size)), int(np.ceil((i + 1) * height / size)))
        for j in range(size):
            columns = slice(int(np.floor(j * width / size)), int(np.ceil((j + 1) * width / size)))
            expected[:, i, j] = x[:, rows, columns].mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(layers.adaptive_average_pool(jnp.asarray(x), size), expected, atol=1e-6)


def test_images_smaller_than_a_window_are_refused_in_one_line():
    with pytest.raises(config.UserError, match=r"too small.*1x4 pixels") as error:
        layers.max_pool(jnp.zeros((1, 1, 4, 1)), 2, 2)
    assert "\n" not in str(error.value)
    with pytest.raises(config.UserError, match=r"too small.*2x2 pixels"):
        layers.Conv(4, 3).init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
