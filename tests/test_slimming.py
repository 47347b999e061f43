"""The penalty of network slimming is the L1 norm of BatchNorm's scales, and of nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.learn import slimming
from jaxcnn.learn.network import check_layers
from tests import small

FACTOR = 0.125
SCALES = {"bn": [1.0, -2.0, 0.0, 0.25], "frozen": [1.0], "group": [3.0, -1.0]}


def test_the_gradient_is_that_of_the_l1_norm_of_the_scales_of_batch_norm_that_are_trained():
    params = {name: {"scale": np.float32(values), "bias": np.ones(len(values), "f")} for name, values in SCALES.items()}
    params["conv"] = {"kernel": np.ones((1, 1, 2, 4), np.float32)}
    stats = {name: {"mean": np.zeros(1), "var": np.ones(1)} for name in ("bn", "frozen")}  # GroupNorm has none
    grads = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), params)
    grads["frozen"] = {"scale": None, "bias": None}
    found = slimming.penalized(FACTOR, grads, params, stats)

    def loss(scale):
        return 0.5 * jnp.sum(scale) + FACTOR * jnp.sum(jnp.abs(jnp.where(scale == 0, 0, scale)))

    np.testing.assert_array_equal(found["bn"]["scale"], jax.grad(loss)(params["bn"]["scale"]))
    assert found["bn"]["scale"].tolist() == [0.625, 0.375, 0.5, 0.625]  # 0 where the scale is 0
    assert found["frozen"]["scale"] is None
    for name, leaf in (("bn", "bias"), ("group", "scale"), ("group", "bias"), ("conv", "kernel")):
        np.testing.assert_array_equal(found[name][leaf], grads[name][leaf])


def test_a_step_moves_the_scales_by_the_rate_times_the_penalty_and_nothing_else():
    optim = {"learning_rate": 0.25, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    states = [
        small.train(small.config(optim=optim | {"slimming": factor}), 1, steps=1, optimised=False)[1]
        for factor in (0.0, FACTOR)
    ]
    moved = 0
    for (path, without), (_, with_it) in zip(
        *(jax.tree_util.tree_flatten_with_path(s.params)[0] for s in states), strict=True
    ):
        difference = np.asarray(without) - np.asarray(with_it)
        if path[-1].key == "scale":  # which begin at 1; the update has at most two roundings, of numbers below 2
            np.testing.assert_allclose(difference, 0.25 * FACTOR, atol=4 * 2**-24)
            moved += 1
        else:
            np.testing.assert_array_equal(difference, 0)
    assert moved


def test_networks_without_scales_that_are_trained_are_refused():
    without = small.config(model={"name": "alexnet", "width": 1 / 32, "batch_norm": False}, optim={"slimming": 1e-4})
    with pytest.raises(ConfigError, match="slimming is for the scales of BatchNorm, and this network trains none"):
        check_layers(small.spec_of(without, side=32))
    check_layers(small.spec_of(small.config(optim={"slimming": 1e-4})))
    config = small.config(optim={"slimming": 1e-4})
    frozen = dataclasses.replace(config, optim=dataclasses.replace(config.optim, freeze_norm=True))
    assert "slimming has no effect with config.optim.freeze_norm" in "\n".join(configs.check(frozen))
