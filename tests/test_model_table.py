"""The layers of a network: `python -m jaxcnn.summary`, `jaxcnn.summary`."""

import jax
import jax.numpy as jnp
import pytest

import jaxcnn
import jaxcnn.config as configs
from jaxcnn import models
from jaxcnn.config import UserError
from tests import runs


def config(name, **model):
    return configs.from_config_dict({"model": {"name": name} | model})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {}),
        ("vgg16", {}),
        ("resnet50", {}),
        ("resnet50", {"last_stride": 1, "shortcut": "pooled", "stem": "deep", "stochastic_depth": 0.1}),
        ("cnn", {}),
        ("airbench", {}),
        ("airbench_residual", {}),
    ],
)
def test_parameters_and_operations_are_those_that_jax_counts(name, options):
    """XLA also counts BatchNorm, activations and pooling, and leaves out the products with zero padding."""
    table = jaxcnn.summary(config(name, width=0.25, **options), image_shape=(128, 128, 3), outputs=10)
    module = models.build(configs.Model(name=name, width=0.25, **options), configs.Norm(), 10)
    image = jnp.zeros((1, 128, 128, 3))
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    lowered = jax.jit(module.apply).trace(variables, image).lower(lowering_platforms=("cuda",))
    assert table.flops == pytest.approx(lowered.cost_analysis()["flops"], rel=0.2)
    assert len({layer.path for layer in table.layers}) == len(table.layers)


def test_the_table_of_vgg16_is_that_of_its_paper():
    """Thirteen convolutions, 14,714,688 weights without biases in them; the outputs of a batch of 128."""
    table = jaxcnn.summary("vgg16", image_shape=(32, 32, 3), outputs=10)
    convolutions = [layer for layer in table.layers if layer.kind == "Conv"]
    assert len(convolutions) == 13 and sum(layer.parameters for layer in convolutions) == 14_710_464
    assert convolutions[0].output == (32, 32, 64) and convolutions[0].flops == 2 * 32 * 32 * 9 * 3 * 64
    assert convolutions[0].output_bytes == 32 * 32 * 64 * 4
    assert table.parameters == 14_724_042 and table.batch == 128
    assert "block1_conv1" in str(table) and "14,724,042" in str(table).splitlines()[-1]
    assert "<table" in table._repr_html_()


def test_frozen_layers_are_marked():
    wanted = configs.from_config_dict({"model": {"name": "cnn"}, "optim": {"layers": (("conv1/.*", 0.0),)}})
    table = jaxcnn.summary(wanted, image_shape=(8, 8, 3), outputs=4)
    first, *others = table.layers
    assert (first.path, first.trained) == ("conv1", 0) and all(layer.trained == layer.parameters for layer in others)
    assert f"{first.parameters:,} (frozen)" in str(table) and f"({first.parameters:,} frozen)" in str(table)


def test_a_users_network_is_shown_too():
    table = jaxcnn.summary(config("tests.own_parts:Plain"), image_shape=(8, 8, 3), outputs=4)
    assert [layer.path for layer in table.layers] == ["Conv_0", "BatchNorm_0", "Conv_1", "Dense_0"]
    assert table.layers[0].flops == 2 * 4 * 4 * 9 * 3 * 8
    nnx = jaxcnn.summary(config("tests.own_parts:Nnx"), image_shape=(8, 8, 3), outputs=4)
    assert {layer.path for layer in nnx.layers} == {"conv", "norm", "blocks/0", "blocks/1", "head"}


def test_the_command_prints_the_table_without_data():
    code, output = runs.run("--config=alexnet_cifar10", "--image=32x32x3", "--classes=10", module="jaxcnn.summary")
    assert code == 0 and "23,273,418" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--image=32x32"], "--image=32x32 must be height x width x channels, such as 32x32x3"),
        (["--image=32x32x3"], "give the number of classes too, since --image opens no data: --classes=<number>"),
        (
            ["--image=4x4x3", "--classes=10", "--config.model.form=imagenet"],
            "the images are too small for this network",
        ),
    ],
)
def test_mistakes_are_one_line(flags, told):
    code, error = runs.run("--config=vgg16_cifar10", *flags, module="jaxcnn.summary")
    assert code == 2 and told in error and len(error.strip().splitlines()) == 1


def test_classes_are_needed_without_data():
    with pytest.raises(UserError, match="give the number of classes too"):
        jaxcnn.summary("vgg16", image_shape=(32, 32, 3))
