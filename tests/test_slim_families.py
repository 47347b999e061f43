"""Structured pruning of each family of networks: without filters that are zero, the slim network computes the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxcnn import models
from jaxcnn.compress import filters, joins
from jaxcnn.compress.filters import Keep
from jaxcnn.config import UserError, networks
from jaxcnn.learn.network import network, usual_sizes
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import seals, trained
from tests import small
from tests.test_slim import logits, zeroed

FAMILIES = {  # with the side of their images; those of other families are in tests/test_slim.py, with exact arithmetic
    "mobilenet_v2": ({"width": 1 / 8}, 8),
    "efficientnet_lite0": ({"width": 1 / 8, "form": "imagenet"}, 32),  # padded as in TensorFlow
    "efficientnet_b0": ({"width": 1 / 8}, 8),  # squeeze-and-excitation, swish
    "squeezenet1_1": ({"width": 1 / 8}, 16),  # joined channels, no BatchNorm
    "vgg11": ({"width": 1 / 16, "head": "dense4096"}, 32),
    "resnet50": ({"width": 1 / 16, "shortcut": "pooled", "stem": "deep"}, 16),
}
QUICKEST = ("efficientnet_lite0", "squeezenet1_1", "mobilenet_v2")  # the others: `make test-services`
WITHOUT = ("convnext_tiny", "airbench", "airbench_residual", "yolo_csp_s", "unet")


def drawn(name: str, **options) -> trained.Trained:
    """A network with random weights of He's scale, so that all layers matter."""
    config = small.config(model={"name": name, **options})
    spec = small.spec_of(config, side=FAMILIES.get(name, ({}, 32))[1])
    shapes = jax.eval_shape(network(spec).init, jax.random.key(0), jnp.zeros((1, *spec.image_shape)))
    rng = np.random.default_rng(0)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith(("var", "scale")):
            return rng.uniform(0.5, 1.5, shape)
        fan_in = np.prod(shape[:-1]) if len(shape) == 4 else shape[-1]
        return rng.normal(size=shape) * (np.sqrt(2 / fan_in) if len(shape) > 1 else 0.1)

    flat = {path: draw(path, leaf.shape).astype(np.float32) for path, leaf in seals.leaves(shapes)}
    mesh = meshes.make_mesh(1)
    variables = {"batch_stats": {}} | traverse_util.unflatten_dict(flat, sep="/")
    variables = jax.device_put(variables, meshes.replicated(mesh))
    return trained.Trained(config, spec, mesh, 7, "last", variables, small.constants(mesh), ("a", "b", "c", "d"), {})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICKEST else pytest.mark.services) for name in FAMILIES]
)
def test_a_slim_network_computes_what_the_whole_one_computes_with_those_filters_at_zero(name):
    whole = drawn(name, **FAMILIES[name][0])
    found, usual = joins.of(whole.spec), usual_sizes(whole.spec)
    sized = {(f"params/{layer}/kernel", 0 if "dense" in layer else 3) for layer in usual}
    groups = [group for group in found.groups() if sized & set(group.places)]
    named = {place for group in groups for place in group.places}
    assert sized <= named, "every layer with channels of its own has filters that can leave"
    before, _ = zeroed(whole, groups, found, 0.5)
    after, _ = filters.slim(before, Keep(0.6))  # of an odd number, not more than are zero
    images = np.random.default_rng(2).normal(size=(2, *whole.spec.image_shape)).astype(np.float32)
    expected = logits(before, images)
    assert expected.std() > 1e-3
    # Sums of the same products in another order: a random walk of roundings of 2^-24, below 1e-5 of the logits.
    assert np.abs(logits(after, images) - expected).max() <= 1e-5 * np.abs(expected).max()
    costs = [filters.cost(each) for each in (before, after)]
    assert costs[1].parameters < 0.6 * costs[0].parameters and costs[1].flops < 0.6 * costs[0].flops


def test_a_depthwise_filter_leaves_with_its_channel():
    found = joins.of(drawn("mobilenet_v2", width=1 / 8).spec)
    groups = [{place for place, _ in group.places} for group in found.groups()]
    inner = {f"params/block2_1/{layer}/kernel" for layer in ("expand_conv", "depthwise_conv", "project_conv")}
    (inside,) = [group for group in groups if "params/block2_1/expand_conv/kernel" in group and inner <= group]
    assert "batch_stats/block2_1/depthwise_bn/mean" in inside
    (ends,) = [group for group in groups if {f"params/block3_{i}/project_conv/kernel" for i in (1, 2, 3)} <= group]
    assert "params/block4_1/expand_conv/kernel" in ends, "the stage that reads them"


def test_a_family_without_channels_to_choose_says_so_in_one_line():
    assert not set(WITHOUT) & set(networks.readers("channels")) and set(WITHOUT) <= set(models.MODELS)
    other = drawn("convnext_tiny", width=1 / 16)
    with pytest.raises(UserError, match=r"--method=filters is for .*mobilenet_v2.*; convnext_tiny has no such option$"):
        filters.slim(other, Keep())
    attending = dataclasses.replace(other.config.model, name="mobilenet_v2", attention="se")
    spec = dataclasses.replace(other.spec, model=attending)
    config = dataclasses.replace(other.config, model=attending)
    with pytest.raises(UserError, match=r"has config.model.attention='se', whose layers have shares of the channels"):
        filters.slim(dataclasses.replace(other, spec=spec, config=config), Keep())
