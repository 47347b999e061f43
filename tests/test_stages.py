"""Options by stage and colours of the networks: `model.stage_blocks` and others, `model.colours`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import models
from jaxcnn.config import ConfigError, Model, Norm, from_config_dict
from jaxcnn.models import colours

IMAGES = jax.ShapeDtypeStruct((2, 16, 16, 3), "float32")


def shapes_of(**fields):
    network = models.build(Model(**fields), Norm(), 10)
    return jax.eval_shape(network.init, jax.random.key(0), IMAGES)["params"]


def test_stages_as_published_are_those_without_the_options():
    as_published = {"stage_blocks": (3, 3, 3), "stage_channels": (16, 32, 64), "stage_kernels": (3, 3, 3)}
    plain, staged = (models.build(Model(name="resnet20", **more), Norm(), 10) for more in ({}, as_published))
    variables = jax.eval_shape(plain.init, jax.random.key(0), IMAGES)
    assert str(jax.make_jaxpr(plain.apply)(variables, IMAGES)) == str(jax.make_jaxpr(staged.apply)(variables, IMAGES))


def test_each_stage_has_its_blocks_channels_and_kernels():
    stages = {"stage_blocks": (1, 3, 2), "stage_channels": (8, 8, 24), "stage_kernels": (5, 3, 1)}
    params = shapes_of(name="resnet20", width=0.5, **stages)
    blocks = [name for name in params if name.startswith("block")]
    assert blocks == ["block1_1", "block2_1", "block2_2", "block2_3", "block3_1", "block3_2"]
    assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 4)
    assert params["block1_1"]["conv2"]["kernel"].shape == (5, 5, 4, 4)
    assert params["block2_1"]["conv1"]["kernel"].shape == (3, 3, 4, 4)
    assert params["block3_1"]["conv1"]["kernel"].shape == (1, 1, 4, 12)
    assert params["block3_2"]["conv2"]["kernel"].shape == (1, 1, 12, 12)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "resnet20", "stage_blocks": (1, 2)}, "must have 3 numbers, one for each stage"),
        ({"name": "resnet20", "stage_channels": (16, 8, 32)}, "must not fall: a shortcut adds the channels"),
        ({"name": "resnet20", "stage_kernels": (3, 4, 3)}, "must be odd sides, unlike 4"),
        ({"name": "resnet50", "stage_blocks": (1, 2, 3)}, "resnet50 has no such option"),
        ({"name": "resnet18", "pooling": "mean"}, "resnet18 has no such option"),
        ({"name": "mobilenet_v2", "colours": "grey"}, "mobilenet_v2 has no such option"),
    ],
)
def test_what_no_network_can_have_is_told_in_one_line(model, told):
    with pytest.raises(ConfigError, match=told) as caught:
        from_config_dict({"model": model})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["alexnet", "cnn", "resnet18", "resnet20", "vgg11"])
def test_the_first_layer_of_each_network_sees_the_colours(name):
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
    for each, channels in {"rgb": 3, "grey": 1, "ycbcr": 3, "learned": 3}.items():
        network = models.build(Model(name=name, width=1 / 16, colours=each), Norm(), 10)
        params = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
        first = next(layer for layer in params if "conv" in layer and "colours" not in layer)
        assert params[first]["kernel"].shape[2] == channels
        assert ("colours1" in params) == (each == "learned")


def test_luma_and_chroma_are_those_of_jpeg():
    """Pillow's conversion of colours, which rounds to whole numbers; its chroma is around 128."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).convert("YCbCr"), np.float64) - [0, 128, 128]
    for name, channels in (("ycbcr", 3), ("grey", 1)):
        network = models.build(Model(name="cnn", colours=name), Norm(), 10)
        seen = colours.seen(network, jnp.asarray(pixels, jnp.float32))
        np.testing.assert_allclose(seen, wanted[..., :channels], atol=1.01)  # Pillow cuts off at 255


def test_colours_of_other_than_three_channels_are_refused():
    network = models.build(Model(name="cnn", colours="grey"), Norm(), 10)
    with pytest.raises(ConfigError, match=r"config\.model\.colours='grey' needs images of 3 channels, not 1"):
        network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
