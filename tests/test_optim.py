"""Optimisers, against their definitions written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.config import Optim
from jaxcnn.learn.optim import OPTIMIZERS, decay_mask, make_optimizer
from jaxcnn.learn.state import Hyper

PARAMS = {
    "conv": {"kernel": np.array([[1.0, -2.0], [3.0, 0.5]], np.float32), "bias": np.array([1.0, -1.0], np.float32)}
}
GRADS = jax.tree.map(lambda x: 0.1 * x + 0.3, PARAMS)
RATE, DECAY, MOMENTUM = 0.1, 0.01, 0.9


def train(steps=3, **fields):
    optim = Optim(**fields)
    hyper = Hyper(jnp.float32(RATE), jnp.float32(DECAY), jnp.float32(MOMENTUM), jnp.float32(0), jnp.uint32(0))
    optimizer = make_optimizer(optim, hyper, jnp.float32(RATE))
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return params["conv"]


def decay_of(name, decays_all):
    return DECAY if decays_all or name == "kernel" else 0.0


@pytest.mark.parametrize("decays_all", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs(nesterov, decays_all):
    params = train(name="sgd", nesterov=nesterov, decay_norm_and_bias=decays_all)
    for name in ("kernel", "bias"):
        weight, velocity = PARAMS["conv"][name].astype(np.float64), 0.0
        for _ in range(3):
            gradient = GRADS["conv"][name] + decay_of(name, decays_all) * weight
            velocity = MOMENTUM * velocity + gradient
            weight = weight - RATE * (gradient + MOMENTUM * velocity if nesterov else velocity)
        np.testing.assert_allclose(params[name], weight, rtol=1e-5)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw_are_as_published(decoupled):
    params = train(name="adamw" if decoupled else "adam", beta2=0.99)
    for name in ("kernel", "bias"):
        weight, first, second = PARAMS["conv"][name].astype(np.float64), 0.0, 0.0
        for step in range(1, 4):
            decay = decay_of(name, False)
            gradient = GRADS["conv"][name] + (0 if decoupled else decay * weight)
            first = MOMENTUM * first + (1 - MOMENTUM) * gradient
            second = 0.99 * second + 0.01 * gradient**2
            change = first / (1 - MOMENTUM**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
            weight = weight - RATE * (change + (decay * weight if decoupled else 0))
        np.testing.assert_allclose(params[name], weight, rtol=1e-4)


def test_lars_scales_kernels_by_the_trust_ratio_and_leaves_biases_alone():
    params = train(steps=1, name="lars", nesterov=False, trust_coefficient=0.02)
    weight = PARAMS["conv"]["kernel"].astype(np.float64)
    gradient = GRADS["conv"]["kernel"] + DECAY * weight
    trust = 0.02 * np.linalg.norm(weight) / np.linalg.norm(gradient)
    np.testing.assert_allclose(params["kernel"], weight - RATE * trust * gradient, rtol=1e-5)
    np.testing.assert_allclose(params["bias"], PARAMS["conv"]["bias"] - RATE * GRADS["conv"]["bias"], rtol=1e-5)


def test_lamb_steps_by_the_norm_of_the_weights():
    params = train(steps=1, name="lamb")
    weight = PARAMS["conv"]["kernel"].astype(np.float64)
    change = np.sign(GRADS["conv"]["kernel"]) + DECAY * weight  # Adam's first step is the sign
    expected = weight - RATE * np.linalg.norm(weight) / np.linalg.norm(change) * change
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-4)


def test_clipping_bounds_the_global_norm():
    norm = float(optax.tree.norm(GRADS))
    free = train(steps=1, name="sgd", nesterov=False, clip_norm=10 * norm)
    clipped = train(steps=1, name="sgd", nesterov=False, clip_norm=norm / 2)
    step = PARAMS["conv"]["bias"] - free["bias"]
    np.testing.assert_allclose(PARAMS["conv"]["bias"] - clipped["bias"], step / 2, rtol=1e-5)


def test_batchnorm_and_biases_are_spared_weight_decay_unless_asked():
    params = {"norm": {"scale": 1.0, "bias": 1.0}, "conv": {"kernel": 1.0}}
    assert decay_mask(Optim())(params) == {"norm": {"scale": False, "bias": False}, "conv": {"kernel": True}}
    assert all(jax.tree.leaves(decay_mask(Optim(decay_norm_and_bias=True))(params)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_hyper_parameters_may_be_traced(name):
    optim = Optim(name=name)

    @jax.jit
    def update(hyper):
        optimizer = make_optimizer(optim, hyper, hyper.learning_rate)
        return optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)[0]

    hyper = Hyper(jnp.float32(0.1), jnp.float32(0.1), jnp.float32(0.5), jnp.float32(0), jnp.uint32(0))
    one, two = update(hyper), update(hyper.replace(learning_rate=jnp.float32(0.2)))
    leaf = "bias" if name == "muon" else "kernel"  # muon also renormalises kernels, whatever the rate
    np.testing.assert_allclose(2 * one["conv"][leaf], two["conv"][leaf], rtol=1e-5)
    assert update._cache_size() == 1
