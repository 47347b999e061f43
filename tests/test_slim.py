"""Structured pruning: what leaves together, zeros that leave without a trace, closed forms, the run that is left."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxcnn import config as configs
from jaxcnn.compress import begun, filters, joins
from jaxcnn.compress.filters import Keep
from jaxcnn.config import ConfigError, UserError, networks, recipes
from jaxcnn.learn.network import check_layers, network, usual_sizes
from jaxcnn.machine import mesh as meshes
from jaxcnn.models import context
from jaxcnn.train import assess, seals, starting, trained, workdir
from tests import digits, runs, small

NETWORKS = {  # with the side of their images, and how many weights of a filter are not zero
    "alexnet": ({"batch_norm": False, "width": 1 / 16}, 32, 4),  # plain; its dense layer sees 2x2 pixels
    "cnn": ({"width": 1 / 4}, 8, 4),
    "resnet18": ({"width": 1 / 16, "last_stride": 1}, 16, 1),  # projected shortcuts
    "resnet20": ({"width": 1 / 4}, 8, 1),  # shortcuts that are padded with zeros
}


def spec_of(name: str, side: int = 8, **options):
    return small.spec_of(small.config(model={"name": name, **options}), side=side)


def of_integers(name: str) -> trained.Trained:
    """A network whose arithmetic is exact: weights are 0, 1 or -1, statistics and biases are integers.

    So no sum has more bits than float32's 24, in whatever order it is taken. The images are 0 to 3. Of n layers of 4
    weights and a bias of 1, the outputs are below 4^n (3 + 1): 2^18 for AlexNet's 8. A residual block gives at most
    2 v + 4 of v: below 2^9 (3 + 4) for the 9 of ResNet-20, and its classifier four times that. A mean is over 16, 4
    or 1 pixels, so 4 bits more.
    The scale of BatchNorm, 2 or -2, undoes its division by the root of variance 1 and epsilon 3.
    """
    options, side, taps = NETWORKS[name]
    config = small.config(model={"name": name, **options}, norm={"epsilon": 3.0})
    spec = small.spec_of(config, side=side)
    shapes = jax.eval_shape(network(spec).init, jax.random.key(0), jnp.zeros((1, *spec.image_shape)))
    rng = np.random.default_rng(0)

    def draw(path: str, shape: tuple[int, ...]) -> np.ndarray:
        if path.endswith("kernel"):
            count = shape[-1] if len(shape) == 4 else shape[0]
            kernel = np.zeros((count, np.prod(shape) // count))
            live = 4 if "classifier" in path else taps
            for each in kernel:
                each[rng.permutation(len(each))[:live]] = rng.choice([-1, 1], live)
            return kernel.T.reshape(shape) if len(shape) == 4 else kernel
        if path.endswith("var"):
            return np.ones(shape)
        return 2 * rng.choice([-1, 1], shape) if path.endswith("scale") else rng.integers(-1, 2, shape)

    flat = {path: draw(path, leaf.shape).astype(np.float32) for path, leaf in seals.leaves(shapes)}
    variables = {"batch_stats": {}} | traverse_util.unflatten_dict(flat, sep="/")
    mesh = meshes.make_mesh(1)
    variables = jax.device_put(variables, meshes.replicated(mesh))
    return trained.Trained(config, spec, mesh, 7, "last", variables, small.constants(mesh), ("a", "b", "c", "d"), {})


def zeroed(whole: trained.Trained, groups: list[joins.Group], found: joins.Joins, share: float):
    """The network with a share of the filters of each group at zero, and the numbers of these."""
    rng, arrays = np.random.default_rng(1), seals.on_host(whole.variables)
    leave = [rng.permutation(group.channels)[: round(share * len(group.channels))] for group in groups]
    for name, axes in found.of.items():
        axis = {4: 3, 2: 0, 1: 0}[arrays[name].ndim]
        if not name.startswith("batch_stats"):
            arrays[name] = np.array(arrays[name])
            np.moveaxis(arrays[name], axis, 0)[np.isin(axes[axis], np.concatenate(leave))] = 0
    return dataclasses.replace(whole, variables=seals.replaced(whole.variables, arrays)), set(
        np.concatenate(leave).tolist()
    )


def logits(each: trained.Trained, images: np.ndarray) -> np.ndarray:
    with context.portable():  # sums of products: Winograd's method has fractions
        compiled = jax.jit(network(each.spec).apply).lower(each.variables, images).compile(small.UNOPTIMISED)
    return np.asarray(compiled(each.variables, images))


@pytest.mark.parametrize("name", NETWORKS)
def test_filters_that_are_zero_leave_without_a_trace(name):
    whole = of_integers(name)
    found, usual = joins.of(whole.spec), usual_sizes(whole.spec)
    sized = {(f"params/{layer}/kernel", 0 if "dense" in layer else 3) for layer in usual}
    groups = [group for group in found.groups() if sized & set(group.places)]
    before, leave = zeroed(whole, groups, found, 0.5)
    by = filters.NORM if name == "resnet18" else filters.L1
    after, _ = filters.slim(before, Keep(0.5, by))
    kept = found.without(seals.on_host(before.variables), leave)
    assert {path: leaf.tolist() for path, leaf in seals.leaves(after.variables)} == {
        path: array.tolist() for path, array in kept.items()
    }
    assert filters.cost(after).parameters < 0.5 * filters.cost(before).parameters
    images = np.random.default_rng(2).integers(0, 4, (4, *whole.spec.image_shape)).astype(np.float32)
    expected = logits(before, images)
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(logits(after, images), expected)
    again, _ = filters.slim(after, Keep(0.5, by))  # a slimmed network is slimmed further
    assert filters.cost(again).flops < filters.cost(after).flops


def test_what_is_added_together_leaves_together():
    groups = {}
    for name in ("resnet18", "resnet20"):
        found = joins.of(spec_of(name, width=1 / 4))
        groups[name] = {frozenset(place for place, axis in each.places if axis == 3): each for each in found.groups()}
    stage = {f"params/block2_{i}/conv2/kernel" for i in (1, 2)} | {"params/block2_1/shortcut_conv/kernel"}
    assert len(groups["resnet18"][frozenset(stage)].channels) == 32
    assert len(groups["resnet18"][frozenset({"params/block2_1/conv1/kernel"})].channels) == 32
    ends = [{f"params/block{stage}_{i}/conv2/kernel" for i in (1, 2, 3)} for stage in (1, 2, 3)]
    ends[0].add("params/stem_conv/kernel")
    # 4, 8 and 16 channels: those of a stage lie in the middle of the next one's; the zeros beside them leave in pairs.
    for number, channels in ((0, 4), (1, 2), (2, 4)):
        assert len(groups["resnet20"][frozenset().union(*ends[number:])].channels) == channels


@pytest.mark.parametrize("name", ["resnet50", "vgg11"])
def test_a_slimmed_network_is_the_one_that_its_config_builds(name):
    options = {"resnet50": {"form": "imagenet", "shortcut": "pooled"}, "vgg11": {"head": "dense4096"}}[name]
    spec = spec_of(name, 32, width=1 / 16, **options)
    shapes = jax.eval_shape(network(spec).init, jax.random.key(0), jnp.zeros((1, *spec.image_shape)))
    variables = jax.tree.map(lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype("f"), shapes)
    mesh = meshes.make_mesh(1)
    config = small.config(model={"name": name, "width": 1 / 16, **options})
    whole = trained.Trained(config, spec, mesh, 7, "last", variables, small.constants(mesh), ("a", "b", "c", "d"), {})
    keep = Keep(0.5, filters.NORM, "global", (("stem_conv|block1_.*", 1.0),))
    after, remarks = filters.slim(whole, keep)  # which compares all shapes
    counts = dict(after.config.model.channels)
    assert not any(layer.startswith(("stem", "block1_")) for layer in counts)
    assert remarks == (["without BatchNorm, and so left whole: dense1, dense2"] if name == "vgg11" else [])
    assert configs.check(after.config) == []


def test_parameters_and_operations_fall_by_the_closed_form():
    whole = of_integers("cnn")
    after, _ = filters.slim(whole, Keep(0.75, layers=(("conv3", 0.5),)))
    assert after.config.model.channels == (("conv1", 6), ("conv2", 12), ("conv3", 8))
    a, b, c, classes, side = 6, 12, 8, 4, 8
    kernels = [9 * 3 * a, 9 * a * b, 9 * b * c, c * classes]
    cost = filters.cost(after)
    assert cost.parameters == sum(kernels) + 2 * (a + b + c) + classes
    assert cost.flops == 2 * (side**2 * (kernels[0] + kernels[1]) + (side // 2) ** 2 * kernels[2] + kernels[3])
    assert cost.size == 4 * (cost.parameters + 2 * (a + b + c))
    layers = filters.rows(whole, after)
    assert [(each["channels_before"], each["channels_after"]) for each in layers] == [(8, 6), (16, 12), (16, 8), (4, 4)]
    assert len(filters.table(layers)) == 2 + len(layers)


def test_the_smallest_norms_leave_each_layer_and_the_smallest_scales_all_layers():
    whole, rng = of_integers("cnn"), np.random.default_rng(3)
    arrays = {path: rng.normal(size=leaf.shape).astype("f") for path, leaf in seals.leaves(whole.variables)}
    whole = dataclasses.replace(whole, variables=seals.replaced(whole.variables, arrays))
    kernel = arrays["params/conv1/kernel"]
    best = np.sort(np.argsort(-np.abs(kernel).sum((0, 1, 2)))[:4])
    after = seals.on_host(filters.slim(whole, Keep(0.5))[0].variables)
    np.testing.assert_array_equal(after["params/conv1/kernel"], kernel[..., best])
    scales = {name: np.abs(arrays[f"params/bn{name}/scale"]) for name in (1, 2, 3)}
    border = np.sort(np.concatenate(list(scales.values())))[-10]  # 10 of 40 stay
    after = filters.slim(whole, Keep(0.25, filters.NORM, "global"))[0]
    for name, each in scales.items():
        kept = seals.on_host(after.variables)[f"params/bn{name}/scale"]
        np.testing.assert_array_equal(np.abs(kept), each[each >= min(border, each.max())])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and what is left of it as another run."""
    folder = tmp_path_factory.mktemp("slim")
    digits.run(folder / "run")
    with small.programs_kept():
        before, _ = trained.load(folder / "run", "last", "", 1)
        after, _ = filters.slim(before, Keep(0.5))
        begun.write(after, folder / "run", folder / "small", ["compress"])
    return folder, after


def test_what_is_written_is_a_run_that_trains_on(run, tmp_path):
    folder, after = run
    with small.programs_kept():
        there, remarks = trained.load(folder / "small", "last", "", 1)
        split, _ = assess.open_split(there, folder / "small", "val", "")
        assert (there.step, remarks, there.class_names) == (0, [], after.class_names)
        assert there.evaluate(split) == after.evaluate(split)
    own = recipes.from_run(folder / "small")
    config = configs.from_config_dict(own)
    assert config.model.channels == after.config.model.channels and config.init.source == f"workdir:{folder}/small"
    assert "recipes.from_run" in (folder / "small" / begun.TRAIN_ON).read_text()
    model = {"channels": config.model.channels}
    figures = digits.run(tmp_path / "on", model=model, init={"source": config.init.source})
    assert "17 arrays" not in str(figures) and figures["parameters"] == filters.cost(after).parameters
    assert workdir.read_sealed(tmp_path / "on" / starting.FILE)["arrays"][0]["status"] == "loaded"
    figures = digits.run(folder / "small", model=model)  # from step 0, in its own folder
    assert figures["steps"] == digits.STEPS


def test_other_channels_than_those_of_the_weights_are_refused_in_one_line(run, tmp_path):
    folder, _ = run
    with pytest.raises(UserError, match=r"its config.model.channels is that of .*config.json, 3 layers; set the same"):
        digits.run(tmp_path / "on", init={"source": f"workdir:{folder}/small"})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"channels": (("conv1", 0),)}, "config.model.channels gives 'conv1' 0 channels; it must have at least 1"),
        ({"channels": (("conv1", 2), ("conv1", 3))}, "config.model.channels names 'conv1' twice"),
        ({"channels": (("conv1", 2),), "attention": "se"}, "config.model.channels needs config.model.attention='none'"),
        ({"name": "airbench", "channels": (("a", 2),)}, "config.model.channels=(('a', 2),) is for "),
    ],
)
def test_impossible_channels_are_refused(model, words):
    with pytest.raises(ConfigError) as found:
        small.config(model=model)
    assert words in str(found.value) and len(str(found.value).splitlines()) == 1


def test_layers_without_channels_of_their_own_are_refused_with_those_that_have():
    for name, layer, words in (
        ("cnn", "conv9", "'conv9' is no layer of cnn with channels of its own (did you mean 'conv3'?)"),
        ("resnet18", "x", "'x' is no layer of resnet18 with channels of its own; they are stem_conv, block1_1/conv1"),
    ):
        with pytest.raises(ConfigError) as found:
            check_layers(spec_of(name, channels=((layer, 3),)))
        assert words in str(found.value)
    with pytest.raises(ConfigError, match="block2_1/conv2 has 3 channels, fewer than the 16 of the stage before"):
        check_layers(spec_of("resnet20", width=1.0, channels=(("block2_1/conv2", 3),)))


def test_what_cannot_leave_is_told_in_one_line(run):
    whole = of_integers("alexnet")
    for keep, words in (
        (Keep(layers=(("conv9", 0.5),)), "--layer_keep: 'conv9' matches no layer; there are conv1, conv2, conv3"),
        (Keep(1.0), "--keep=1 keeps every filter of alexnet; lower it"),
        (Keep(by=filters.NORM), "--by=norm needs BatchNorm, which this alexnet has not; use --by=l1"),
    ):
        with pytest.raises(UserError) as found:
            filters.slim(whole, keep)
        assert words in str(found.value)
    cnn = run[1]
    grouped = dataclasses.replace(cnn.config, norm=configs.Norm(name="group", groups=4))
    with pytest.raises(UserError, match="with fewer channels its groups would be others"):
        filters.slim(dataclasses.replace(cnn, config=grouped), Keep())
    other = dataclasses.replace(whole.config, model=configs.Model(name="convnext_tiny", width=1 / 16))
    spec = small.spec_of(other, side=32)
    with pytest.raises(UserError) as found:
        filters.slim(dataclasses.replace(whole, config=other, spec=spec), Keep())
    assert str(found.value).endswith("convnext_tiny has no such option") and "mobilenet_v2" in networks.readers(
        "channels"
    )
    with pytest.raises(UserError, match="is not empty; give a folder that is new or empty"):
        begun.check(run[0])


def test_the_command_tells_what_was_and_what_is_left(run, tmp_path):
    folder, after = run
    arguments = [f"--workdir={folder}/run", "--method=filters", "--seconds=0", f"--out={tmp_path}/small"]
    code, output = runs.run(*arguments, module="jaxcnn.compress")
    lines = output.splitlines()
    assert code == 0 and any(line.startswith("| conv2 | 16 | 8 | 1,152 | 288 |") for line in lines)
    told = workdir.read_json(tmp_path / "small" / "slim.json")
    assert told["after"]["parameters"] == filters.cost(after).parameters and f"| {told['after']['flops']:,} |" in output
    written = (tmp_path / "small" / "model_card.md").read_text()
    assert (
        "| slimmed | fewer channels in 3 layers |" in written
        and f"| after | {filters.cost(after).parameters:,} |" in written
    )
    for wrong, words in (
        (("--keep=0",), "--keep=0.0: the share that stays must be above 0 and at most 1"),
        (("--conv_bits=4",), "--conv_bits is for --method=deep and share, not filters; leave it out"),
    ):
        code, output = runs.run(*arguments, *wrong, module="jaxcnn.compress")
        assert code == 2 and words in output.splitlines()[-1]
