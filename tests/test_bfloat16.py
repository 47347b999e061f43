"""The training step as a GPU would get it, lowered without one: what is computed in bfloat16, what is not, and layouts.

StableHLO names every operation with the types of its operands and results.
"""

import functools
import re

import pytest

from jaxcnn.learn import sharded
from jaxcnn.machine import mesh as meshes
from tests import small

MODELS = {
    "alexnet": {"name": "alexnet", "width": 1 / 16},
    "vgg16": {"name": "vgg16", "width": 1 / 16, "head": "dense4096"},
    "resnet50": {"name": "resnet50", "width": 1 / 16},
}
CONVOLUTION = re.compile(r"stablehlo\.convolution\(.*?dim_numbers = (.*?), window.* : \((.*?)\) -> (\S+)")
PRODUCT = re.compile(r"stablehlo\.dot_general .* : \((.*?)\) -> (\S+)")


@functools.cache
def lowered_for_cuda(name: str, dtype: str) -> str:
    """StableHLO of the training step on 32x32 images, for the platform "cuda"."""
    config = small.config(model=MODELS[name] | {"dtype": dtype})
    spec, mesh = small.spec_of(config, side=32), meshes.make_mesh(1)
    arguments = (
        sharded.abstract_state(spec, mesh),
        sharded.abstract_batch(spec, mesh, spec.global_batch_size),
        sharded.abstract_constants(spec, mesh),
    )
    return sharded.train_step(spec, mesh).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


def element_types(types: str) -> set[str]:
    return {each.rstrip(">").rpartition("x")[2] for each in re.findall(r"tensor<[^>]*>", types)}


@pytest.mark.parametrize("name", MODELS)
def test_every_convolution_is_a_plain_one_in_bfloat16(name):
    found = CONVOLUTION.findall(lowered_for_cuda(name, "bfloat16"))
    assert len(found) == lowered_for_cuda(name, "bfloat16").count("stablehlo.convolution")
    layers = {"alexnet": 5, "vgg16": 13, "resnet50": 53}[name]
    assert len(found) == 3 * layers - 1, "forward and both gradients of each, but the images need no gradient"
    for _, operands, result in found:
        assert element_types(operands) | element_types(result) == {"bf16"}
    forward = [dimensions for dimensions, _, _ in found if dimensions == "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"]
    assert len(forward) >= layers, "activations are NHWC, kernels HWIO"


@pytest.mark.parametrize("name", MODELS)
def test_only_the_classifier_is_a_float32_matrix_product(name):
    text = lowered_for_cuda(name, "bfloat16")
    products = [element_types(operands) | element_types(result) for operands, result in PRODUCT.findall(text)]
    assert len(products) == text.count("stablehlo.dot_general")
    assert products.count({"f32"}) == 3  # forward and two gradients
    assert all(types in ({"f32"}, {"bf16"}) for types in products)


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_sums_over_a_batch_are_float32(name):
    """BatchNorm's statistics, its gradients and the loss."""
    text = lowered_for_cuda(name, "bfloat16")
    sums = [types for kind, types in re.findall(r"stablehlo\.reduce\(.*applies stablehlo\.(\w+).* : (.*)", text)
            if kind == "add"]  # fmt: skip
    statistics = [types for types in sums if re.search(r"\(tensor<1x\d+x\d+xf32>", types)]
    norms = text.count("stablehlo.rsqrt") // 2  # one for the result, one kept for the gradient
    assert norms == {"vgg16": 13, "resnet50": 53}[name]
    assert len(statistics) >= 2 * norms, "two moments for every BatchNorm"
    # Left are the biases of dense layers, whose gradient has the dtype of the layer.
    assert all(re.match(r"\(tensor<\d+x\d+xbf16>", types) for types in sums if "bf16" in types)


def test_float32_runs_have_no_bfloat16():
    assert "bf16" not in lowered_for_cuda("resnet50", "float32")
