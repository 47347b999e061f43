"""Nonlinearities and GroupNorm by config: their formulas, and the networks that have them."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from jaxcnn import models
from jaxcnn.config import Config, Model, Norm, check, choices
from jaxcnn.models.activations import ACTIVATIONS
from jaxcnn.models.group_norm import GroupNorm

FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * special.ndtr(x),
    "silu": lambda x: x * special.expit(x),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}
FAMILIES = ("alexnet", "vgg11", "resnet18", "resnet20", "cnn")


@pytest.mark.parametrize("name", FORMULAS)
def test_an_activation_is_its_formula(name):
    x = np.linspace(-8, 8, 1001)
    # A few float32 roundings of values below 8, each at most 2^-24 of the value.
    np.testing.assert_allclose(ACTIVATIONS[name](x.astype(np.float32)), FORMULAS[name](x), rtol=1e-5, atol=1e-6)


def test_the_choices_are_those_that_exist():
    assert set(choices("model.activation")) == set(ACTIVATIONS) == set(FORMULAS)


def drawn(name, norm, **fields):
    """A thin network with its variables and images."""
    network = models.build(Model(name=name, width=1 / 16, **fields), norm, 4)
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    return network, jax.eval_shape(network.init, jax.random.key(0), images), images


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_have_the_activation_everywhere_and_groups_in_place_of_batches(name):
    plain, before, images = drawn(name, Norm())
    other, after, _ = drawn(name, Norm(name="group", groups=4), activation="mish")
    assert jax.tree.structure(before["params"]) == jax.tree.structure(after["params"])
    assert "batch_stats" in before and "batch_stats" not in after
    as_text = {
        network: str(jax.make_jaxpr(network.apply)(of, images)) for network, of in ((plain, before), (other, after))
    }
    assert "relu" in as_text[plain] and "mish" not in as_text[plain]
    assert "relu" not in as_text[other] and "mish" in as_text[other]


@pytest.mark.parametrize("name", ["mobilenet_v2", "unet", "yolo_cnn", "yolo_csp_s", "mask_rcnn_cnn"])
def test_networks_without_a_choice_of_activation_have_groups_too(name):
    trees = []
    for norm in (Norm(), Norm(name="group", groups=4)):
        network = models.build(Model(name=name, width=1 / 16), norm, 4)
        trees.append(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 64, 64, 3))))
    before, after = trees
    assert before["params"] == after["params"]
    assert "batch_stats" in before and "batch_stats" not in after


@pytest.mark.parametrize(("channels", "groups", "actual"), [(8, 4, 4), (6, 32, 2)])
def test_group_norm_is_its_formula_and_has_the_gradients_of_flax(channels, groups, actual):
    generator = np.random.default_rng(0)
    x = generator.normal(3, 2, (2, 3, 3, channels)).astype(np.float32)
    scale, bias, weights = (
        generator.normal(size=shape).astype(np.float32) for shape in ((channels,), (channels,), x.shape)
    )
    layer, variables = GroupNorm(Norm(groups=groups)), {"params": {"scale": scale, "bias": bias}}
    wide = x.astype(np.float64).reshape(2, 9, actual, -1)
    normal = (wide - wide.mean(axis=(1, 3), keepdims=True)) / np.sqrt(wide.var(axis=(1, 3), keepdims=True) + 1e-5)
    apply = jax.jit(layer.apply, static_argnums=2)
    y = apply(variables, x, True)
    # The mean of values near 3 has an error of a few 2^-24 times 3, which the deviation of 2 does not make larger.
    np.testing.assert_allclose(y, normal.reshape(x.shape) * scale + bias, rtol=1e-5, atol=5e-6)
    assert (y == apply(variables, x, False)).all()
    assert jax.eval_shape(lambda x: layer.apply(variables, x, True), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16

    def loss(variables, x, layer, *more):
        return jnp.sum(weights * layer.apply(variables, x, *more))

    reference = nn.GroupNorm(num_groups=actual, epsilon=1e-5, use_fast_variance=False)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=(2, 3))
    wanted = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(variables, x, reference)
    for a, b in zip(*map(jax.tree.leaves, (gradients(variables, x, layer, True), wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # sums of 18 products of a few units, and differences


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"name": "convnext_tiny"}, "norm": {"name": "group"}}, "and convnext_tiny has none"),
        ({"model": {"name": "airbench"}, "norm": {"name": "group"}}, "and airbench has one without scales"),
        ({"model": {"name": "mobilenet_v2", "activation": "elu"}}, "mobilenet_v2 has no such option"),
        ({"norm": {"groups": 8}}, "config.norm.groups has no effect with config.norm.name='batch'"),
        ({"norm": {"name": "group", "group_size": 8}}, "config.norm.group_size is for BatchNorm"),
        (
            {"model": {"batch_norm": False}, "norm": {"name": "group"}},
            "has no effect with config.model.batch_norm=False",
        ),
        ({"norm": {"name": "group"}, "optim": {"freeze_norm": True}}, "config.optim.freeze_norm is for BatchNorm"),
        (
            {"model": {"name": "mobilenet_v2"}, "norm": {"name": "group"}, "optim": {"name": "muon"}},
            "it needs BatchNorm or GroupNorm after every",
        ),
    ],
)
def test_what_a_network_has_not_is_told(changes, told):
    config = Config()
    for group, fields in changes.items():
        config = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **fields)})
    assert any(told in line for line in check(config)), check(config)


def test_steps_of_several_microbatches_need_no_groups_of_examples_without_batch_norm():
    config = Config(norm=Norm(name="group"), optim=dataclasses.replace(Config().optim, accumulate_steps=4))
    assert check(config) == []
    assert check(dataclasses.replace(config, norm=Norm()))
