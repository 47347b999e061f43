"""The networks: sizes, names, dtypes, initial values, and that they are pure functions of what they are given."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from jax.extend.core import jaxprs_in_params
from jax.sharding import Mesh, PartitionSpec

from jaxcnn import config, models
from jaxcnn.learn import compilation, rates
from jaxcnn.machine import mesh as meshes
from jaxcnn.models import initializers
from jaxcnn.models.layers import StochasticDepth
from jaxcnn.models.resnet import Bottleneck
from tests.small import UNOPTIMISED

CIFAR = (32, 32, 3)
IMAGENET = (224, 224, 3)
SMALL = {
    "alexnet": 32,
    "vgg16": 32,
    "resnet50": 8,
    "cnn": 8,
    "airbench": 25,
    "airbench_residual": 13,
}  # sides that every CIFAR form takes quickly
OPTIONS = {"resnet50": {"last_stride": 1, "shortcut": "pooled", "stochastic_depth": 0.5}}  # that make others no slower
EVERY_MODEL = pytest.mark.parametrize("name", SMALL)


def shapes_of(shape, num_classes, **fields):
    """Shapes and dtypes of all variables, without computing any."""
    module = models.build(config.Model(**fields), config.Norm(), num_classes)
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def tiny(name, **fields):
    """A module of an eighth of the width, variables drawn by numpy (initialising takes long to compile), 8 images."""
    fields = {"name": name, "width": 1 / 8, **fields}
    shape = (SMALL[name], SMALL[name], 3)
    rng = np.random.default_rng(0)

    def draw(leaf):
        outputs = leaf.shape[0] if leaf.ndim == 2 else leaf.shape[-1]
        scale = np.sqrt(2 * outputs / leaf.size) if leaf.ndim > 1 else 0.1
        return jnp.asarray(scale * rng.standard_normal(leaf.shape) + (leaf.ndim == 1), leaf.dtype)

    variables = jax.tree.map(draw, shapes_of(shape, 10, **fields))
    images = jnp.asarray(rng.standard_normal((8, *shape)), jnp.float32)
    return models.build(config.Model(**fields), config.Norm(), 10), variables, images


@pytest.mark.parametrize(
    ("shape", "num_classes", "fields", "parameters"),
    [
        (CIFAR, 10, {"name": "alexnet", "batch_norm": False}, 23_272_266),
        (CIFAR, 10, {"name": "alexnet"}, 23_273_418),
        (CIFAR, 10, {"name": "vgg16"}, 14_724_042),
        (CIFAR, 10, {"name": "vgg16", "batch_norm": False}, 14_719_818),
        (CIFAR, 10, {"name": "vgg16", "head": "dense4096"}, 33_642_442),
        (CIFAR, 10, {"name": "vgg16", "head": "dense4096", "batch_norm": False}, 33_638_218),
        (CIFAR, 10, {"name": "resnet50"}, 23_520_842),
        (CIFAR, 100, {"name": "resnet50"}, 23_705_252),
        (CIFAR, 100, {"name": "resnet50", **OPTIONS["resnet50"]}, 23_705_252),
        (CIFAR, 10, {"name": "cnn"}, 57_130),
        (CIFAR, 10, {"name": "airbench"}, 1_971_640),
        ((8, 8, 1), 10, {"name": "cnn"}, 56_554),
        (IMAGENET, 1000, {"name": "alexnet", "form": "imagenet", "batch_norm": False}, 61_100_840),
        (IMAGENET, 1000, {"name": "vgg16", "form": "imagenet", "batch_norm": False}, 138_357_544),
        (IMAGENET, 1000, {"name": "vgg16", "form": "imagenet"}, 138_365_992),
        (IMAGENET, 1000, {"name": "resnet50", "form": "imagenet"}, 25_557_032),
        (CIFAR, 10, {"name": "resnet20"}, 269_722),
        (CIFAR, 10, {"name": "resnet32"}, 464_154),
        (CIFAR, 10, {"name": "resnet44"}, 658_586),
        (CIFAR, 10, {"name": "resnet56"}, 853_018),
        (CIFAR, 10, {"name": "resnet110"}, 1_727_962),
        ((224, 224, 3), 1000, {"name": "efficientnet_lite0", "form": "imagenet"}, 4_652_008),
        (IMAGENET, 1000, {"name": "efficientnet_b0", "form": "imagenet"}, 5_288_548),
        (IMAGENET, 1000, {"name": "convnext_tiny", "form": "imagenet"}, 28_589_128),
    ],
)
def test_parameter_counts(shape, num_classes, fields, parameters):
    assert count(shapes_of(shape, num_classes, **fields)["params"]) == parameters


def test_running_statistics_are_two_per_batch_norm_channel():
    assert count(shapes_of(CIFAR, 10, name="alexnet")["batch_stats"]) == 2 * (64 + 192 + 384 + 256 + 256)
    assert count(shapes_of(CIFAR, 10, name="vgg16")["batch_stats"]) == 2 * 4224
    assert count(shapes_of(CIFAR, 10, name="resnet50")["batch_stats"]) == 2 * 26560


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_without_batch_norm_there_are_no_running_statistics_and_convolutions_have_biases(name):
    without, with_norm = (shapes_of(CIFAR, 10, name=name, batch_norm=value) for value in (False, True))
    assert set(without) == {"params"}
    convolutions = [path for path, leaf in flat(without["params"]).items() if leaf.ndim == 4]
    assert all(path.replace("kernel", "bias") in flat(without["params"]) for path in convolutions)
    assert not any(path.replace("kernel", "bias") in flat(with_norm["params"]) for path in convolutions)


@pytest.mark.parametrize(
    "name", [*SMALL, "resnet18", "resnet20", "squeezenet1_0", "mobilenet_v2", "efficientnet_b0", "convnext_tiny"]
)
def test_weights_are_the_leaves_named_kernel(name):
    for path, leaf in flat(shapes_of(CIFAR, 10, name=name)["params"]).items():
        last = path.rsplit("/", 1)[-1]
        assert last in ("kernel", "bias", "scale"), path
        assert (last == "kernel") == (leaf.ndim > 1), path


def test_parameter_names_are_readable_paths():
    resnet = flat(shapes_of(CIFAR, 10, name="resnet50")["params"])
    assert {"stem_conv/kernel", "block2_1/shortcut_bn/scale", "block3_6/conv2/kernel", "classifier/bias"} <= set(resnet)
    vgg = flat(shapes_of(CIFAR, 10, name="vgg16", head="dense4096")["params"])
    assert {"block1_conv1/kernel", "block5_bn3/bias", "dense2/kernel", "classifier/kernel"} <= set(vgg)
    alexnet = flat(shapes_of(CIFAR, 10, name="alexnet")["params"])
    assert {"conv1/kernel", "bn5/scale", "dense1/bias", "classifier/kernel"} <= set(alexnet)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"name": "alexnet"}, (64, 48, 1)),
        ({"name": "alexnet"}, (28, 28, 1)),
        ({"name": "alexnet", "form": "imagenet"}, (256, 192, 3)),
        ({"name": "alexnet", "form": "imagenet"}, (64, 64, 3)),
        ({"name": "vgg16"}, (64, 96, 3)),
        ({"name": "vgg16", "form": "imagenet"}, (64, 64, 3)),
        ({"name": "resnet50"}, (8, 8, 1)),
        ({"name": "resnet50", "form": "imagenet"}, (65, 97, 3)),
        ({"name": "cnn"}, (33, 20, 4)),
        ({"name": "resnet18"}, (9, 7, 1)),
        ({"name": "resnet34", "form": "imagenet", "shortcut": "pooled", "last_stride": 1}, (65, 97, 3)),
        ({"name": "resnet18", "stem": "deep"}, (9, 7, 1)),
        ({"name": "resnet32"}, (9, 28, 1)),
        ({"name": "mobilenet_v2"}, (28, 28, 1)),
        ({"name": "mobilenet_v2", "form": "imagenet"}, (33, 49, 3)),
        ({"name": "efficientnet_lite0", "form": "imagenet"}, (33, 50, 4)),
        ({"name": "squeezenet1_0"}, (28, 28, 1)),
        ({"name": "efficientnet_b0"}, (28, 28, 1)),
        ({"name": "convnext_tiny"}, (28, 28, 1)),
        ({"name": "convnext_tiny", "form": "imagenet"}, (65, 97, 3)),
        ({"name": "squeezenet1_1", "form": "imagenet"}, (64, 96, 3)),
        ({"name": "airbench"}, (25, 60, 1)),
        ({"name": "airbench"}, (9, 16, 1)),
        ({"name": "vgg16"}, (1, 20, 1)),
        ({"name": "airbench_residual"}, (13, 40, 1)),
    ],
)
def test_other_image_sizes_are_taken(fields, shape):
    module = models.build(config.Model(**fields), config.Norm(), 7)
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    outputs, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    assert outputs.shape == (2, 7)


def test_airbench_has_no_scales_and_its_only_bias_outside_batchnorm_is_that_of_whitening():
    paths = set(flat(shapes_of(CIFAR, 10, name="airbench")["params"]))
    assert {"whitening/kernel", "whitening/bias", "group1_conv1/kernel", "group3_bn2/bias"} <= paths
    assert not any(path.endswith("scale") for path in paths)
    assert {path for path in paths if path.endswith("bias") and "_bn" not in path} == {"whitening/bias"}
    assert shapes_of(CIFAR, 10, name="airbench", width=0.5)["params"]["whitening"]["kernel"].shape == (2, 2, 3, 24)


def test_the_kernel_of_whitening_is_frozen_and_everything_else_gets_a_gradient():
    module, variables, images = tiny("airbench")
    part = rates.trainable(variables["params"], models.frozen(config.Model(name="airbench")))

    def loss(part):
        params = rates.merged(part, variables["params"])
        return (module.apply({**variables, "params": params}, images) ** 2).sum()

    gradients = flat(jax.jit(jax.grad(loss), compiler_options=UNOPTIMISED)(part))
    assert gradients.pop("whitening/kernel") is None
    assert gradients.keys() == flat(variables["params"]).keys() - {"whitening/kernel"}
    assert all(bool(jnp.any(gradient != 0)) for gradient in gradients.values())


def test_airbench_divides_its_logits_by_the_inputs_of_the_classifier():
    module, variables, images = tiny("airbench")
    doubled = jax.tree.map(lambda x: x, variables)
    doubled["params"]["classifier"] = {"kernel": 32 * variables["params"]["classifier"]["kernel"]}  # 256 / 8 inputs
    inputs = module.apply(doubled, images) / module.apply(variables, images)
    np.testing.assert_allclose(inputs, 32, rtol=1e-5)


def test_a_partial_identity_hands_its_inputs_on_and_draws_the_rest():
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    for outputs in (3, 4, 9):
        kernel = initializers.partial_identity(jax.random.key(0), (3, 3, 4, outputs))
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        np.testing.assert_array_equal(y[..., : min(4, outputs)], x[..., : min(4, outputs)])
    drawn = np.asarray(kernel[..., 4:])
    assert np.abs(drawn).max() <= 1 / 6 and len(np.unique(drawn)) == drawn.size  # 1 / sqrt(3 * 3 * 4)


def test_uniform_initializers_have_pytorchs_bounds_and_deviations():
    drawn = np.asarray(initializers.fan_in_uniform(jax.random.key(0), (3, 3, 16, 64)))
    assert 0.99 / 12 < np.abs(drawn).max() <= 1 / 12
    # A uniform distribution within b has deviation b / sqrt(3); 2 % are 4 standard errors of 9,216 draws.
    assert drawn.std() == pytest.approx(1 / 12 / np.sqrt(3), rel=0.02)
    classifier = np.asarray(initializers.unit_deviation_uniform(jax.random.key(0), (256, 10)), np.float64)
    assert classifier.std(ddof=1) == pytest.approx(1, abs=1e-6)
    bias = np.asarray(initializers.fan_in_bias(12)(jax.random.key(0), (24,)))
    assert 0 < np.abs(bias).max() <= 12**-0.5


def test_too_small_images_are_refused_in_one_line():
    with pytest.raises(config.UserError, match="too small for this network"):
        shapes_of((16, 16, 3), 10, name="vgg16", form="imagenet")


def test_width_multiplies_every_channel_count_and_is_at_least_one():
    full = flat(shapes_of(CIFAR, 10, name="resnet50")["params"])
    half = flat(shapes_of(CIFAR, 10, name="resnet50", width=0.5)["params"])
    assert full.keys() == half.keys()
    for path, leaf in full.items():
        outputs = 0 if path == "classifier/kernel" else -1
        assert half[path].shape[outputs] == leaf.shape[outputs] / (1 if path.startswith("classifier") else 2), path
    assert flat(shapes_of(CIFAR, 10, name="alexnet", width=0.5)["params"])["dense2/kernel"].shape == (2048, 2048)
    assert flat(shapes_of(CIFAR, 10, name="vgg16", width=1.5)["params"])["block1_conv1/kernel"].shape == (3, 3, 3, 96)
    assert flat(shapes_of(CIFAR, 10, name="vgg16", width=1e-4)["params"])["block5_conv3/kernel"].shape == (3, 3, 1, 1)


def test_inference_of_resnet50_keeps_the_sum_of_a_stage_and_not_its_terms():
    module = models.build(config.Model(name="resnet50", width=0.25), config.Norm(), 10)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *CIFAR)))
    images = jax.ShapeDtypeStruct((16, *CIFAR), jnp.float32)
    program = compilation.jit(module.apply, meshes.make_mesh(1)).lower(variables, images).compile(UNOPTIMISED)
    output_of_a_block = 4 * 16 * 32 * 32 * 64  # bytes, in the first stage, which has four terms
    assert program.memory_analysis().temp_size_in_bytes < 5 * output_of_a_block


def features_of(images, **fields):
    """Shapes of the outputs of the last block of each stage of ResNet50."""
    module = models.build(config.Model(name="resnet50", **fields), config.Norm(), 10)
    seen = {}

    def look(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, Bottleneck) and context.method_name == "__call__":
            seen[context.module.name.partition("_")[0]] = output.shape[1:3]
        return output

    with nn.intercept_methods(look):
        jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *images), jnp.float32))
    return list(seen.values())


def test_the_last_stage_of_resnet50_may_keep_the_size_of_the_one_before():
    assert features_of((32, 32, 3)) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert features_of((32, 32, 3), last_stride=1) == [(32, 32), (16, 16), (8, 8), (8, 8)]
    for shortcut in ("strided", "pooled"):  # sides are rounded up in both parts of a block
        assert features_of((9, 6, 3), shortcut=shortcut) == [(9, 6), (5, 3), (3, 2), (2, 1)]


def test_the_blocks_of_resnet50_are_dropped_more_often_the_deeper_they_are():
    rates = []

    def look(call, args, kwargs, context):
        if isinstance(context.module, StochasticDepth) and context.method_name == "__call__":
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        shapes_of((8, 8, 3), 10, name="resnet50", stochastic_depth=0.32)
    np.testing.assert_allclose(rates, np.arange(1, 17) * 0.02)  # l / L of the rate: Huang et al. 2016, equation 4


def test_an_example_whose_block_is_dropped_keeps_its_features():
    positions = jnp.arange(40)
    images = jax.random.uniform(jax.random.key(1), (40, 4, 4, 4))
    block = Bottleneck(
        2, 4, 1, project=False, pooled=False, drop_rate=0.5, zero_init=False, norm=config.Norm(), axis_name=None,
        dtype=jnp.float32, split=False,
    )  # fmt: skip
    variables = block.init(jax.random.key(0), images, False)

    @jax.jit
    def unchanged(images, positions):
        rngs = {"dropout": jax.random.key(2)}
        result, _ = block.apply(variables, images, True, positions, rngs=rngs, mutable=["batch_stats"])
        return (result == images).all(axis=(1, 2, 3))

    dropped = np.asarray(unchanged(images, positions))
    assert 5 < dropped.sum() < 35
    np.testing.assert_array_equal(unchanged(images[::-1], positions[::-1]), dropped[::-1])


@pytest.mark.parametrize("zero_init", [True, False])
def test_zero_init_residual_zeroes_the_last_scale_of_each_block_and_no_other(zero_init):
    module = models.build(config.Model(name="resnet50", zero_init_residual=zero_init), config.Norm(), 10)

    @jax.jit
    def initial_scales():  # of all variables only these are computed
        params = flat(module.init(jax.random.key(0), jnp.zeros((1, *CIFAR)))["params"])
        return {path: leaf for path, leaf in params.items() if path.endswith("/scale")}

    scales = initial_scales()
    assert len(scales) == 53
    for path, leaf in scales.items():
        np.testing.assert_array_equal(leaf, 0 if zero_init and path.endswith("bn3/scale") else 1)


def test_initial_values_depend_on_the_key_alone():
    module = models.build(config.Model(name="cnn"), config.Norm(), 10)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    init = jax.jit(module.init)
    first, second = init(jax.random.key(0), images), init(jax.random.key(0), jnp.zeros_like(images))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    other = init(jax.random.key(1), images)
    for path, leaf in flat(first).items():
        assert path.endswith("kernel") == (leaf != flat(other)[path]).any(), path


@EVERY_MODEL
def test_bfloat16_computes_in_bfloat16_and_keeps_everything_else_in_float32(name):
    module, variables, images = tiny(name, dtype="bfloat16", dropout=0.5, **OPTIONS.get(name, {}))

    def loss(params):
        logits, updates = module.apply(
            variables | {"params": params},
            images,
            positions=jnp.arange(8),
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        return logits.sum(), (logits, updates)

    results = jax.eval_shape(jax.grad(loss, has_aux=True), variables["params"])
    for leaf in jax.tree.leaves((variables, results)):
        assert leaf.dtype == jnp.float32
    convolutions = [
        equation
        for equation in all_equations(jax.make_jaxpr(lambda: module.apply(variables, images))().jaxpr)
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert (
        len(convolutions)
        == {"alexnet": 5, "vgg16": 13, "resnet50": 53, "cnn": 3, "airbench": 7, "airbench_residual": 10}[name]
    )
    assert all(variable.aval.dtype == jnp.bfloat16 for e in convolutions for variable in [*e.invars, *e.outvars])


def all_equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from all_equations(inner)


def test_bfloat16_logits_are_near_those_of_float32():
    module, variables, images = tiny("cnn")
    exact = module.apply(variables, images)
    rounded = tiny("cnn", dtype="bfloat16")[0].apply(variables, images)
    # bfloat16 rounds to 2^-9 = 0.2 %, independently at about ten places on the way.
    assert 0 < jnp.abs(rounded - exact).max() < 0.02 * jnp.abs(exact).max()


@EVERY_MODEL
def test_networks_are_pure(name):
    module, variables, images = tiny(name, dropout=0.5, **OPTIONS.get(name, {}))
    before = jax.tree.map(np.array, variables)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def train(variables, images, key):
        return module.apply(
            variables, images, jnp.arange(8), train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    first, second = (train(variables, images, jax.random.key(0)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    assert (train(variables, images, jax.random.key(3))[0] != first[0]).any(), "dropout did nothing"
    assert jnp.isfinite(first[0]).all()
    assert jax.tree.structure(first[1]["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_training_a_network_does_not_depend_on_devices():
    """Whole-network check of axis_name, with dropout and groups of two devices; `test_layers` has every group size."""
    with jax.enable_x64(True):
        _, variables, _ = tiny("cnn")
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        images = jax.random.normal(jax.random.key(1), (16, 8, 8, 3), jnp.float64)
        labels = jnp.arange(16) % 10

        def gradients(variables, images, labels, positions, axis_name):
            module = tiny_module(axis_name)

            def loss(params):
                logits, updates = module.apply(
                    variables | {"params": params},
                    images,
                    positions=positions,
                    train=True,
                    rngs={"dropout": jax.random.key(2)},
                    mutable=["batch_stats"],
                )
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum(), updates

            grads, updates = jax.grad(loss, has_aux=True)(variables["params"])
            if axis_name:
                return jax.lax.psum(grads, axis_name), jax.lax.pmean(updates, axis_name)
            return grads, updates

        shard, all_of_it = PartitionSpec("data"), PartitionSpec()
        mapped = jax.shard_map(
            functools.partial(gradients, axis_name="data"),
            mesh=Mesh(np.array(jax.devices()[:8]), ("data",)),
            in_specs=(all_of_it, shard, shard, shard),
            out_specs=all_of_it,
            check_vma=False,
        )
        inputs = variables, images, labels, jnp.arange(16)
        ours = jax.jit(mapped, compiler_options=UNOPTIMISED)(*inputs)
        expected = jax.jit(functools.partial(gradients, axis_name=None), compiler_options=UNOPTIMISED)(*inputs)
        # Rounding of 1e-16, times sums of 1000 terms, times BatchNorm over few elements of small variance.
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), ours, expected)


def tiny_module(axis_name):
    model = config.Model(name="cnn", width=1 / 8, dropout=0.5)
    return models.build(model, config.Norm(group_size=4), 10, axis_name).clone(dtype=jnp.float64)


def test_the_small_network_learns_handwritten_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = (digits.images[..., None] / 8 - 1).astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:1437], order[1437:]
    module = models.build(config.Model(name="cnn"), config.Norm(), 10)
    variables = jax.jit(module.init)(jax.random.key(0), images[:1])
    epochs, batch_size = 5, 64
    steps = epochs * (len(train) // batch_size)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, steps), 0.9, nesterov=True)

    @jax.jit
    def step(variables, opt_state, images, labels):
        def loss(params):
            logits, updates = module.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

        gradients, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates)} | statistics, opt_state

    opt_state = optimizer.init(variables["params"])
    rng = np.random.default_rng(1)
    for _ in range(epochs):
        shuffled = rng.permutation(train)
        for i in range(0, len(train) - batch_size + 1, batch_size):
            batch = shuffled[i : i + batch_size]
            variables, opt_state = step(variables, opt_state, images[batch], labels[batch])
    correct = jax.jit(module.apply)(variables, images[test]).argmax(axis=1) == labels[test]
    assert correct.mean() > 0.98
