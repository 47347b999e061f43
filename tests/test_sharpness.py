"""Sharpness-aware minimisation, and the average of the weights of all steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ConfigError
from jaxcnn.data.resident import Resident
from jaxcnn.learn import spread
from jaxcnn.learn import step as steps
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from tests import small

PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "learning_rate": 0.1}
CONSTANT = {"name": "constant"}


def test_the_gradient_is_that_at_the_distance_uphill():
    """Against algorithm 1 of Foret et al. 2020, written out with two calls of the plain gradient."""
    radius = 0.5
    config = small.config(optim=PLAIN | {"sam_radius": radius}, schedule=CONSTANT)
    spec, mesh = small.spec_of(config, 1), meshes.make_mesh(1)
    constants, hyper = small.constants(mesh), make_hyper(config)
    before = small.initial_state(small.spec_of(small.config(optim=PLAIN, schedule=CONSTANT), 1), mesh, config)
    _, after = small.train(config, steps=1, optimised=False)

    @functools.partial(jax.jit, compiler_options=small.UNOPTIMISED)
    def gradients(params):
        positions = jnp.arange(config.global_batch_size, dtype=jnp.int32)
        batch = spread.batch_part(spec, positions, hyper.seed, jnp.int32(0), Resident(*map(jnp.asarray, small.split())))
        return steps.batch_gradients(spec, params, before.batch_stats, jnp.int32(0), hyper, batch, constants)

    here = gradients(before.params).grads
    norm = np.sqrt(sum(np.square(np.float64(leaf)).sum() for leaf in jax.tree.leaves(here)))
    moved = jax.tree.map(lambda weight, grad: weight + radius * grad / norm, before.params, here)
    there = gradients(moved)
    expected = jax.tree.map(lambda weight, grad: weight - 0.1 * grad, before.params, there.grads)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after.params, expected)
    jax.tree.map(close, after.batch_stats, gradients(before.params).batch_stats)
    largest = max(np.abs(one - two).max() for one, two in zip(*map(jax.tree.leaves, (here, there.grads)), strict=True))
    assert largest > 1e-3, "the two gradients must differ for this to mean much"


def test_sharpness_aware_minimisation_does_not_depend_on_devices():
    config = small.config(
        optim={"sam_radius": 0.05, "learning_rate": 0.05, "accumulate_steps": 2}, norm={"group_size": 2}
    )
    one, state = small.train(config, steps=3, optimised=False)
    eight, other = small.train(config, devices=4, steps=3, optimised=False)
    np.testing.assert_allclose(eight, one, rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), other.params, state.params)


def test_the_average_is_the_mean_of_the_weights_from_its_first_step_on():
    """From a third of six steps on: of the states after steps 3, 4, 5 and 6."""
    groups = {"optim": PLAIN | {"swa_from": 1 / 3}, "schedule": CONSTANT}
    config = small.config(**groups)
    seen = []
    for count in (3, 4, 5, 6):
        spec = small.spec_of(config, 6)
        seen.append(_after(config, spec, count))
    mean = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), axis=0), *[state.variables() for state in seen])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), seen[-1].ema, mean)
    jax.tree.map(np.testing.assert_array_equal, seen[0].ema, seen[0].variables())


def _after(config, spec, count):
    """The state after some of the steps of a run."""
    mesh = meshes.make_mesh(1)
    state = small.initial_state(spec, mesh, config)
    data = jax.device_put(Resident(*small.split()), meshes.replicated(mesh))
    step = small.unoptimised_step(spec, mesh)
    for _ in range(count):
        state, _ = step(state, data, small.constants(mesh))
    return jax.device_get(state)


def test_two_kinds_of_average_are_refused():
    with pytest.raises(ConfigError, match=r"config\.optim\.swa_from and config\.optim\.ema_decay are two kinds of"):
        small.config(optim={"swa_from": 0.7, "ema_decay": 0.9})
