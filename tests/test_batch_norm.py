"""BatchNorm that knows no devices: values, gradients and running statistics against their definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxcnn import config
from jaxcnn.models import batch_norm
from jaxcnn.models.batch_norm import BatchNorm

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
    y, updates = BatchNorm(norm, axis_name).apply(variables, x, train=True, mutable=["batch_stats"])
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
    y = BatchNorm(config.Norm(group_size=7)).apply(variables, x, train=False)
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


@pytest.mark.parametrize("shift", [0.0, 2999.0])
def test_batch_norm_variance_keeps_its_digits_when_the_mean_is_large(shift):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, 8, 8, 1)) + 3000, jnp.float32)
    grouped, one = x.reshape(1, -1, 1), jnp.ones(1)
    _, _, variance = batch_norm.normalize_groups(grouped, one, one, jnp.full(1, shift), 1e-5, (None, 1, 1))
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
    assert batch_norm.group_layout(group_size, batch, devices) == layout


@pytest.mark.parametrize(("group_size", "batch", "devices"), [(3, 4, 8), (6, 4, 8), (12, 4, 8), (64, 4, 8), (8, 4, 1)])
def test_groups_that_do_not_fit_are_refused_in_one_line(group_size, batch, devices):
    with pytest.raises(ValueError, match=rf"^norm\.group_size={group_size} does not fit {batch} examples.*$") as error:
        batch_norm.group_layout(group_size, batch, devices)
    assert "\n" not in str(error.value)
