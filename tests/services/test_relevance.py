"""Relevance of a ResNet50, held against zennit: its program takes a minute to compile."""

import jax
import jax.numpy as jnp
import pytest

from jaxcnn import config, models
from jaxcnn.explain import relevance
from jaxcnn.explain.network import Network
from tests.test_explain_methods import draw, drawn
from tests.test_explain_references import GAMMA, same, without_shifts

pytestmark = pytest.mark.services
CASE = "resnet50_cifar"


def test_relevance_of_a_resnet50_is_that_of_zennit():
    fields, side = draw.CASES[CASE]
    with jax.enable_x64(True):
        module = models.build(config.Model(width=draw.WIDTH, **fields), config.Norm(), draw.CLASSES)
        module = module.clone(dtype=jnp.float64)
        variables = without_shifts(drawn(CASE, module, (side, side, 3)))
        images, target = (each[:2] for each in draw.batch(CASE, side))
        found = relevance.lrp(Network(module.apply, variables, rows=16), images, target, gamma=GAMMA)
        same(found, "lrp_resnet50")
