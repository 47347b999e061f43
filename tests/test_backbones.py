"""The backbones of the one-stage detector: YOLOX's maps and names, and weights of MobileNetV2 for classification."""

import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config, models
from jaxcnn.models.csp import csp_stages, focused
from jaxcnn.models.network import Network
from jaxcnn.weights import fit, layout
from tests.goldens import make_yolox_goldens as yolox
from tests.small import UNOPTIMISED
from tests.test_weight_names import numbered, shapes_of

GOLDENS = np.load(pathlib.Path(__file__).parent / "goldens" / "yolox_goldens.npz")
LAYOUTS = json.loads(str(GOLDENS["layouts"]))


class Backbone(Network):
    """CSPDarknet alone."""

    @nn.compact
    def __call__(self, images):
        """The maps."""
        return csp_stages(self, "csp_s", images, train=False)


def test_the_backbone_of_yolox_is_read_by_its_names_and_computes_what_it_computes():
    model = config.Model(name="yolo_csp_s", width=0.25)
    initial = {key: np.zeros(shape) for key, shape in shapes_of(model, 2, 64).items()}
    file = {name: yolox.drawn(name, tuple(shape)) for name, shape in LAYOUTS["case"].items()}
    others = {"backbone.lateral_conv0.conv.weight": np.zeros((1, 1, 1, 1)), "head.cls_preds.0.bias": np.zeros(1)}
    fitted = fit.fit(file | others, model, initial, source="a file", head="head")
    assert fitted.naming == "yolox" and len(fitted.arrays) == len(file)
    assert {row.theirs for row in fitted.rows if row.status == fit.LEFT_OUT} == {"", *others}
    variables: dict = {}
    for key, array in fitted.arrays.items():
        inner = variables
        *modules, leaf = key.split("/")
        for name in modules:
            inner = inner.setdefault(name, {})
        inner[leaf] = array
    with jax.enable_x64(True):
        network = Backbone(model, config.Norm(epsilon=1e-3), 2, None, jnp.float64)
        maps = jax.jit(network.apply, compiler_options=UNOPTIMISED)(variables, yolox.image()[None])
        for stage, each in zip((3, 4, 5), maps, strict=True):
            # Sums of some hundred terms in float64 in up to 40 layers.
            np.testing.assert_allclose(each[0], GOLDENS[f"dark{stage}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", yolox.SIZES)
def test_both_sizes_have_the_names_and_shapes_of_those_of_yolox(name):
    shapes = shapes_of(config.Model(name=name), 80, 64)
    backbone = {key: shape for key, shape in shapes.items() if key.split("/")[1].startswith(fit.BACKBONE)}
    leaves = layout.leaves("yolox", config.networks.backbone_of(config.Model(name=name)), backbone)
    written = {leaf.theirs[0]: list(layout.to_theirs("yolox", leaf, numbered(leaf.shape)).shape) for leaf in leaves}
    assert written == LAYOUTS[name]


def test_four_pixels_become_one_and_the_kernel_of_bgr_ones_is_turned_and_back_to_the_bit():
    image = jnp.arange(3 * 5 * 2.0).reshape(1, 3, 5, 2)
    seen = focused(image)
    assert seen.shape == (1, 2, 3, 8)
    wanted = [image[0, 0, 2], image[0, 1, 2], image[0, 0, 3], image[0, 1, 3]]  # of rows 0 and 1, columns 2 and 3
    assert np.array_equal(seen[0, 0, 1], np.concatenate(wanted))
    assert np.array_equal(seen[0, 1, 2], [*image[0, 2, 4], *[0] * 6])  # beyond the border
    key, shape = "params/stem_conv/conv/kernel", (3, 3, 12, 2)
    (leaf,) = layout.leaves("yolox", config.Model(name="csp_s"), {key: shape})
    theirs = layout.to_theirs("yolox", leaf, numbered(shape))
    assert np.array_equal(theirs[1, :, 0, 0], numbered(shape)[0, 0, [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9], 1])
    assert np.array_equal(layout.to_ours("yolox", leaf, theirs), numbered(shape))


@pytest.mark.parametrize("naming", ["torchvision", "jaxcnn"])
def test_a_detector_on_mobilenet_starts_from_its_weights_for_classification(naming):
    whole = config.Model(name="mobilenet_v2", form="imagenet", width=1 / 32)
    shapes = shapes_of(whole, 5, 64)
    there = {key: numbered(shape) for key, shape in shapes.items()}
    file = {
        leaf.theirs[0]: layout.to_theirs(naming, leaf, there[leaf.key]) for leaf in layout.leaves(naming, whole, shapes)
    }
    detector = config.Model(name="yolo_mobilenet_v2", width=1 / 32)
    initial = {key: np.full(shape, -1, np.float32) for key, shape in shapes_of(detector, 2, 64).items()}
    fitted = fit.fit(file, detector, initial, source="a file", head="head", classes=("a", "b"))
    assert fitted.naming == naming
    assert fitted.arrays.keys() == {key for key in there if "classifier" not in key and "last_" not in key}
    assert all(np.array_equal(value, there[key]) for key, value in fitted.arrays.items())


@pytest.mark.parametrize("name", ["yolo_csp_s", "yolo_csp_m", "yolo_mobilenet_v2"])
def test_a_detector_answers_at_the_points_of_three_strides(name):
    network = models.build(config.Model(name=name, width=1 / 16), config.Norm(), 3)
    image = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x)[0], image)
    assert shapes.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 7)
