"""Attention: what the papers' formulas give, how it starts, where it is, and that networks without it are unchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import Mesh, PartitionSpec

import jaxcnn
from jaxcnn import config, models
from jaxcnn.config import ConfigError, from_config_dict, networks
from jaxcnn.models import attention
from jaxcnn.weights import fit, layout
from tests.small import UNOPTIMISED

EVERY_METHOD = pytest.mark.parametrize("method", attention.METHODS)
ONE_OF_EACH_FAMILY = ("alexnet", "vgg11", "resnet18", "resnet50", "resnet20", "mobilenet_v2", "squeezenet1_1", "cnn")


def shapes_of(side=32, outputs=10, **fields):
    module = models.build(config.Model(**fields), config.Norm(), outputs)
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        ({"name": "resnet50", "attention": "se"}, 28_088_024),  # torch-based libraries agree on this number
        ({"name": "resnet50", "attention": "eca"}, 25_557_032 + 3 * 5 + 4 * 5 + 6 * 5 + 3 * 7),  # 25.56 M
        ({"name": "resnet50", "attention": "cbam"}, 28_089_592),  # 28.09 M: table 4 of its paper
        ({"name": "resnet50", "attention": "bam"}, 25_917_790),  # 25.92 M: table 4 of its paper
        # Figure 4d of GCNet, for each of 16 blocks: a weight of each pixel (C + 1), dense layers to C / 16 channels and
        # back with biases, and LayerNorm between them. Its text counts the kernels: 2 C C / r, with r = 16.
        (
            {"name": "resnet50", "attention": "gc"},
            25_557_032
            + sum(n * (2 * c * c // 16 + 35 * c // 16 + 1) for n, c in ((3, 256), (4, 512), (6, 1024), (3, 2048))),
        ),
        # 27.66 M: table 5 of GCNet; three 1x1 convolutions to half of 1024 channels, one back, and BatchNorm
        ({"name": "resnet50", "attention": "nonlocal", "attention_stages": (3,)}, 25_557_032 + 3 * 524_800 + 526_336),
        ({"name": "mobilenet_v2", "attention": "coordinate"}, 3_951_256),  # 3.95 M: table 2 of its paper
    ],
)
def test_the_parameters_are_those_of_the_papers(fields, parameters):
    shapes = shapes_of(224, 1000, form="imagenet", **fields)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


def test_the_kernel_of_eca_grows_with_the_logarithm_of_the_channels_and_is_odd():
    sizes = {channels: attention.eca_kernel_size(channels) for channels in (1, 64, 128, 256, 512, 1024, 2048)}
    assert sizes == {1: 1, 64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}
    assert all(attention.eca_kernel_size(channels) % 2 for channels in range(1, 3000))


@EVERY_METHOD
def test_a_gate_starts_at_one_half_and_what_is_added_at_nothing(method):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 4, 16)), jnp.float32)
    module = attention.METHODS[method]()

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def start(key, x):
        variables = module.init(key, x)
        return [module.apply(variables, x, train, mutable=["batch_stats"])[0] for train in (False, True)]

    factor = {"se": 1 / 2, "eca": 1 / 2, "cbam": 1 / 4, "coordinate": 1 / 4, "bam": 3 / 2, "gc": 1, "nonlocal": 1}
    for y in start(jax.random.key(0), x):
        np.testing.assert_array_equal(y, factor[method] * x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def relu(x):
    return np.maximum(x, 0)


def convolved(x, kernel, dilation=1):
    """Cross-correlation of [b, h, w, i] with zeros around, tap by tap."""
    reach = dilation * (len(kernel) // 2)
    around = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    h, w = x.shape[1:3]
    return sum(
        around[:, dilation * i : dilation * i + h, dilation * j : dilation * j + w] @ kernel[i, j]
        for i in range(len(kernel))
        for j in range(len(kernel))
    )


def reference(method, v, x):
    """The formula of a method's paper, in evaluation, for variables by path, and how it weighs pixels, if it does."""

    def dense(name, x):
        return x @ v[f"{name}/kernel"].T + v[f"{name}/bias"]

    def conv(name, x, dilation=1):
        return convolved(x, v[f"{name}/kernel"], dilation) + v.get(f"{name}/bias", 0)

    def norm(name, x):
        return (x - v[f"{name}/mean"]) / np.sqrt(v[f"{name}/var"] + 1e-5) * v[f"{name}/scale"] + v[f"{name}/bias"]

    batch, height, width, channels = x.shape
    means, maxima = x.mean((1, 2)), x.max((1, 2))
    if method == "se":
        return x * sigmoid(dense("expand", relu(dense("reduce", means))))[:, None, None], None
    if method == "eca":
        kernel = v["kernel"][:, 0, 0]
        mixed = np.stack([np.convolve(row, kernel[::-1], mode="same") for row in means])
        return x * sigmoid(mixed)[:, None, None], None
    if method == "cbam":
        x = x * sigmoid(sum(dense("expand", relu(dense("reduce", each))) for each in (means, maxima)))[:, None, None]
        gate = sigmoid(conv("spatial", np.stack([x.max(-1), x.mean(-1)], -1)))
        return x * gate, gate[..., 0]
    if method == "bam":
        of_channels = norm("channel_bn", dense("channel_expand", relu(dense("channel_reduce", means))))
        y = relu(conv("spatial_reduce", x))
        y = relu(conv("spatial2", relu(conv("spatial1", y, 4)), 4))
        gate = sigmoid(of_channels[:, None, None] + norm("spatial_bn", conv("spatial_last", y)))
        return x + x * gate, gate.mean(-1)
    if method == "gc":
        weights = softmax(conv("key", x)[..., 0].reshape(batch, -1))
        inside = dense("reduce", (x.reshape(batch, -1, channels) * weights[..., None]).sum(1))
        inside = (inside - inside.mean(-1, keepdims=True)) / np.sqrt(inside.var(-1, keepdims=True) + 1e-5)
        added = dense("expand", relu(inside * v["norm/scale"] + v["norm/bias"]))[:, None, None]
        return x + added, weights.reshape(batch, height, width)
    if method == "nonlocal":
        halves = [
            conv(name, x)[:, : height // 2 * 2, : width // 2 * 2]
            .reshape(batch, height // 2, 2, width // 2, 2, -1)
            .max((2, 4))
            .reshape(batch, height * width // 4, -1)
            for name in ("key", "value")
        ]
        query = conv("query", x).reshape(batch, height * width, -1)
        weights = softmax(query @ halves[0].transpose(0, 2, 1))
        gathered = (weights @ halves[1]).reshape(batch, height, width, -1)
        return x + norm("bn", conv("out", gathered)), weights.mean(1).reshape(batch, height // 2, width // 2)
    assert method == "coordinate"
    both = norm("bn", conv("reduce", np.concatenate([x.mean(2), x.mean(1)], 1)[:, :, None]))
    both = both * np.clip(both + 3, 0, 6) / 6
    rows, columns = sigmoid(conv("rows", both[:, :height])), sigmoid(conv("columns", both[:, height:]))
    gate = rows * columns.transpose(0, 2, 1, 3)
    return x * gate, gate.mean(-1)


@EVERY_METHOD
def test_each_method_computes_the_formula_of_its_paper(method):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 4, 16))
    with jax.enable_x64(True):
        module = attention.METHODS[method](dtype=jnp.float64)
        if "r" not in method and method != "eca":
            module = module.clone(ratio=4)
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        drawn = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape) / max(1, leaf.shape[0]) ** 0.5, shapes)
        for path, leaf in flat(drawn).items():
            if path.endswith(("var", "scale")):
                leaf[...] = 1 + 0.1 * np.abs(leaf)
        y, left = module.apply(jax.tree.map(jnp.asarray, drawn), jnp.asarray(x), mutable=[attention.MAPS])
        by_path = {path.split("/", 1)[1]: leaf for path, leaf in flat(drawn).items()}
        # Sums of at most 100 terms of size 1 round at 1e-16 each: 1e-14, through at most ten layers.
        wanted, weights = reference(method, by_path, x)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-13)
    if weights is None:
        assert not left
    else:
        (found,) = left[attention.MAPS]["map"]
        np.testing.assert_allclose(found, weights, rtol=1e-6)  # float32


def modules_of(**fields):
    """The paths of the attention modules of a network."""
    paths = flat(shapes_of(**fields)["params"])
    return {path.rpartition("attention")[0] + "attention" for path in paths if "attention" in path}


def test_attention_is_where_the_options_say():
    blocks = [f"block{stage}_{i}" for stage, count in ((1, 3), (2, 4), (3, 6), (4, 3)) for i in range(1, count + 1)]
    in_blocks = {f"{block}/attention" for block in blocks}
    assert modules_of(name="resnet50", attention="se") == in_blocks
    assert modules_of(name="resnet50", attention="eca", attention_place="inner") == in_blocks
    after_blocks = modules_of(name="resnet50", attention="eca", attention_place="block", attention_stages=(2, 4))
    assert after_blocks == {f"{block}_attention" for block in blocks if block[5] in "24"}
    assert modules_of(name="resnet50", attention="bam") == {f"stage{stage}_attention" for stage in (1, 2, 3)}
    last = modules_of(name="resnet50", attention="nonlocal", attention_stages=(4,))
    assert last == {"stage4_attention"}
    inner = shapes_of(name="resnet50", attention="eca", attention_place="inner", width=1 / 64)
    assert inner["params"]["block4_1"]["attention"]["kernel"].shape == (3, 1, 1)  # of 8 channels, not of 32


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_every_family_takes_attention_and_keeps_the_names_and_shapes_of_the_rest(name):
    method = {"alexnet": "eca", "vgg11": "gc", "cnn": "cbam", "resnet20": "bam"}.get(name, "coordinate")
    without, with_it = (
        flat(shapes_of(name=name, width=1 / 8, **fields)["params"]) for fields in ({}, {"attention": method})
    )
    rest = {path: leaf for path, leaf in with_it.items() if "attention" not in path}
    assert rest == without and len(rest) < len(with_it)
    for path, leaf in with_it.items():
        last = path.rsplit("/", 1)[-1]
        assert last in ("kernel", "bias", "scale") and (last == "kernel") == (leaf.ndim > 1), path


@pytest.mark.parametrize("name", ["yolo_resnet18", "unet_resnet18", "mask_rcnn_resnet18"])
def test_a_resnet_as_a_backbone_takes_attention_and_the_weights_of_a_classifier_with_it(name):
    fields = {"width": 1 / 32, "attention": "bam"}
    wanted, classifier = config.Model(name=name, **fields), config.Model(name="resnet18", form="imagenet", **fields)
    initial, given = arrays(wanted, side=64), arrays(classifier)
    found = {key.split("/")[1] for key in initial if "attention" in key}
    assert found == {f"stage{stage}_attention" for stage in (1, 2, 3)}
    leaves = layout.leaves("torchvision", classifier, {key: value.shape for key, value in given.items()})
    file = {leaf.theirs[0]: layout.to_theirs("torchvision", leaf, given[leaf.key]) for leaf in leaves}
    fitted = fit.fit(file, wanted, initial, source="file", head=models.MODELS[name].HEAD)
    assert fitted.arrays.keys() == {key for key in given if "/classifier/" not in key}
    for key, value in fitted.arrays.items():
        np.testing.assert_array_equal(value, given[key])
    in_blocks = modules_of(name=name, side=64, width=1 / 32, attention="se", attention_stages=(3, 4))
    assert in_blocks == {f"block{stage}_{number}/attention" for stage in (3, 4) for number in (1, 2)}


def test_attention_changes_no_first_value_of_the_rest():
    def initial(**fields):
        module = models.build(config.Model(name="cnn", width=1 / 32, **fields), config.Norm(), 10)
        init = jax.jit(lambda key: module.init(key, jnp.zeros((1, 8, 8, 3)))["params"], compiler_options=UNOPTIMISED)
        return flat(init(jax.random.key(0)))

    without, with_it = initial(), initial(attention="cbam")
    for path, leaf in without.items():
        np.testing.assert_array_equal(leaf, with_it[path])


def test_the_stages_that_the_config_knows_are_those_of_the_networks():
    for name, stages in networks.STAGES.items():
        if name not in (*ONE_OF_EACH_FAMILY, "squeezenet1_0", "efficientnet_lite0") or name == "resnet50":
            continue  # as their siblings
        every = tuple(range(1, stages + 1))
        found = modules_of(name=name, attention="eca", attention_place="stage", attention_stages=every, width=1 / 16)
        assert found == {f"stage{stage}_attention" for stage in every}


def test_attention_with_statistics_does_not_depend_on_devices():
    with jax.enable_x64(True):
        make = functools.partial(attention.CoordinateAttention, 4, config.Norm(), dtype=jnp.float64)
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.standard_normal((8, 4, 4, 8)))
        variables = jax.eval_shape(make().init, jax.random.key(0), x)
        variables = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), variables)

        def apply(axis_name, variables, x):
            return make(axis_name=axis_name).apply(variables, x, True, mutable=["batch_stats"])[0]

        mapped = jax.shard_map(
            functools.partial(apply, "data"),
            mesh=Mesh(np.array(jax.devices()[:2]), ("data",)),
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec("data"),
            check_vma=False,
        )
        ours, whole = (
            jax.jit(one, compiler_options=UNOPTIMISED)(variables, x) for one in (mapped, functools.partial(apply, None))
        )
        # Rounding of 1e-16, times sums of 64 values, times a division by a deviation.
        np.testing.assert_allclose(ours, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"attention_ratio": 8}}, "attention_ratio has no effect with config.model.attention='none'"),
        ({"model": {"attention_stages": (1,)}}, "attention_stages has no effect with config.model.attention='none'"),
        ({"model": {"attention": "eca", "attention_ratio": 8}}, "'eca', which has no ratio"),
        ({"model": {"attention": "se", "attention_place": "branch"}}, "is for networks of residual blocks; vgg16 has"),
        ({"model": {"attention": "se", "attention_stages": (2, 6)}}, "increasing numbers from 1 to 5, the stages of"),
        ({"model": {"attention": "se", "attention_stages": (2, 2)}}, "increasing numbers from 1 to 5, the stages of"),
        ({"model": {"attention": "sse"}}, "did you mean 'se'?"),
        ({"model": {"name": "airbench", "attention": "se"}}, "airbench has no such option"),
        ({"model": {"name": "cnn", "attention": "se"}, "optim": {"name": "muon"}}, "without config.model.attention"),
        (
            {"model": {"name": "squeezenet1_0", "attention": "bam"}, "optim": {"accumulate_steps": 2}},
            "cannot be combined with BatchNorm statistics of the whole batch",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(fields, words):
    with pytest.raises(ConfigError) as caught:
        from_config_dict(fields)
    (line,) = str(caught.value).splitlines()
    assert words in line


def arrays(model, outputs=10, side=32):
    shapes = shapes_of(side, outputs, **{name: getattr(model, name) for name in model.__dataclass_fields__})
    paths = jax.tree_util.tree_flatten_with_path(shapes)[0]
    rng = np.random.default_rng(0)
    return {
        "/".join(key.key for key in path): rng.standard_normal(leaf.shape).astype(np.float32) for path, leaf in paths
    }


def test_weights_of_a_network_without_attention_start_one_with_it():
    plain = config.Model(name="resnet18", width=1 / 32)
    given = arrays(plain)
    leaves = layout.leaves("torchvision", plain, {key: value.shape for key, value in given.items()})
    file = {leaf.theirs[0]: layout.to_theirs("torchvision", leaf, given[leaf.key]) for leaf in leaves}
    wanted = config.Model(name="resnet18", width=1 / 32, attention="eca")
    with pytest.raises(config.UserError, match=r"lacks block1_1/attention/kernel.*config\.init\.skip"):
        fit.fit(file, wanted, arrays(wanted), source="file")
    fitted = fit.fit(file, wanted, arrays(wanted), source="file", skip=(".*attention/.*",))
    assert fitted.naming == "torchvision" and fitted.arrays.keys() == given.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(fitted.arrays[key], value)


def test_se_resnets_have_the_names_and_layouts_of_timm():
    model = config.Model(name="resnet18", width=1 / 32, attention="se", attention_ratio=2)
    given = arrays(model)
    leaves = layout.leaves("timm", model, {key: value.shape for key, value in given.items()})
    file = {leaf.theirs[0]: layout.to_theirs("timm", leaf, given[leaf.key]) for leaf in leaves}
    assert file["layer2.1.se.fc1.weight"].shape == (2, 4, 1, 1) and file["layer2.1.se.fc2.bias"].shape == (4,)
    fitted = fit.fit(file, model, arrays(model), source="file")
    for key, value in given.items():
        np.testing.assert_array_equal(fitted.arrays[key], value)


def test_own_networks_may_use_each_method():
    from jaxcnn import layers

    assert all(getattr(layers, made.__name__) is made for made in attention.METHODS.values())
    assert jaxcnn.layers is layers
