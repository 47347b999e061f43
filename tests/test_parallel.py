"""Parallel modes: each is the run of one device, moves what it should, and keeps what arithmetic says."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import optax
import pytest

from jaxcnn.config import ConfigError
from jaxcnn.data.batch import Batch
from jaxcnn.learn import layout, programs, sharded
from jaxcnn.learn.collectives import collectives, total_bytes
from jaxcnn.learn.state import make_hyper
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import mesh as meshes
from tests import digits, small
from tests.test_scan import identical, plain, scanned, setting
from tests.test_step import TOLERANCE  # derived there

pytestmark = pytest.mark.usefixtures("kept_programs")

ZERO, FSDP = {"shard_optimizer": True}, {"shard_params": True}
MODEL, BOTH = {"model_devices": 2}, {"model_devices": 2, "shard_params": True}
SGD = {"learning_rate": 0.1, "ema_decay": 0.9, "clip_norm": 1.0}
THIN_ALEXNET = {"name": "alexnet", "width": 1 / 32, "dropout": 0.5, "batch_norm": False}
CASES = {
    "cnn, microbatches": (8, {"optim": SGD | {"accumulate_steps": 2}, "norm": {"group_size": 4}}, (ZERO, BOTH)),
    "lars": (8, {"optim": {"name": "lars", "learning_rate": 3.0}, "norm": {"group_size": 8}}, (BOTH,)),
    "lamb": (8, {"optim": {"name": "lamb", "learning_rate": 0.02, "epsilon": 1e-3}}, (FSDP,)),
    "muon": (8, {"optim": {"name": "muon", "learning_rate": 0.1, "clip_norm": 1.0}}, (BOTH,)),
    "alexnet, dropout": (32, {"optim": SGD, "model": THIN_ALEXNET, "augment": {"mixup": 0.4}}, (MODEL,)),
}


def with_parallel(config, parallel):
    return dataclasses.replace(config, parallel=dataclasses.replace(config.parallel, **parallel))


@pytest.mark.parametrize("name", CASES)
def test_every_mode_on_eight_devices_is_the_run_of_one(name):
    side, groups, modes = CASES[name]
    config = small.config(**groups)
    alone, state = small.train(config, 1, side=side, optimised=False)
    assert len(set(alone.round(4))) == len(alone), "the run must move for the comparison to mean anything"
    for parallel in modes:
        losses, other = small.train(with_parallel(config, parallel), 8, side=side, optimised=False)
        np.testing.assert_allclose(losses, alone, rtol=TOLERANCE, err_msg=str(parallel))
        # Muon's Newton-Schulz steps multiply rounding by up to 3.4^3 = 41.
        atol = TOLERANCE * (10 if name == "muon" else 1)
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=atol, err_msg=str(parallel))


def test_sharded_steps_in_calls_do_not_depend_on_the_cut_to_the_bit_and_are_the_plain_steps_up_to_rounding():
    config = small.config(optim=SGD, norm={"group_size": 2}, parallel=BOTH)
    parts = setting(config, 8)
    whole = scanned(*parts, [8])
    assert identical(scanned(*parts, [3, 5]), whole)
    # XLA lays a cut kernel out in another order inside a loop, and norms are sums in that order.
    for one, two in zip(*map(jax.tree.leaves, (whole, plain(*parts))), strict=True):
        np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=TOLERANCE)


def compiled_step(parallel, devices=8, **groups) -> tuple[StepSpec, jax.stages.Compiled]:
    config = small.config(norm={"group_size": 2}, parallel=parallel, **groups)
    mesh = meshes.make_mesh(devices, config.parallel.model_devices)
    spec = small.spec_of(config)
    return spec, small.unoptimised_step(spec, mesh, "stream")


def nbytes(tree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def state_of(spec, devices=1, model_devices=1):
    return sharded.abstract_state(spec, meshes.make_mesh(devices, model_devices))


def kernels(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim > 1]


def test_data_parallelism_moves_gradients_metrics_and_statistics_in_one_all_reduce_and_nothing_else():
    spec, step = compiled_step({})
    (found,) = collectives(step.as_text())
    state = state_of(spec)
    four_sums = 4 * 4
    assert (found.kind, found.group_size, found.dtypes) == ("all-reduce", 8, ("f32",))
    assert found.bytes == nbytes(state.params) + nbytes(state.batch_stats) + four_sums


def test_statistics_of_groups_over_several_devices_cost_their_own_all_reduces():
    config = small.config(norm={"group_size": 8})
    spec = small.spec_of(config)
    found = collectives(small.unoptimised_step(spec, meshes.make_mesh(8), "stream").as_text())
    # Three BatchNorm layers, one for the statistics and one for their gradients, among the four devices of a group.
    assert sorted(one.group_size for one in found) == [4] * 6 + [8]


@pytest.mark.parametrize(("parallel", "name"), [(ZERO, "ZeRO-1"), (FSDP, "FSDP")])
def test_sharded_updates_scatter_the_gradients_and_gather_the_parameters_once(parallel, name):
    spec, step = compiled_step(parallel)
    found, state = collectives(step.as_text()), state_of(spec)
    cut = nbytes(kernels(state.params))
    assert total_bytes(found, "reduce-scatter") == total_bytes(found, "all-gather") == cut, name
    assert {one.kind for one in found} == {"reduce-scatter", "all-gather", "all-reduce"}
    # What is not cut, and the squares of which the norm of the gradient is made.
    squares = 4 * len(kernels(state.params))
    rest = nbytes(state.params) - cut + nbytes(state.batch_stats) + 16
    assert total_bytes(found, "all-reduce") <= rest + squares
    assert len(found) <= 2 * len(kernels(state.params)) + 2


def test_a_split_layer_moves_its_activations_and_not_its_kernel():
    spec, step = compiled_step(MODEL)
    found = collectives(step.as_text())
    kernel = state_of(spec).params["conv3"]["kernel"]
    (gathered,) = [one for one in found if one.kind == "all-gather"]
    activations = (16 // 4) * 4 * 4 * kernel.shape[-1] * 4  # of the 16 examples' share, 4x4 pixels, float32
    assert (gathered.group_size, gathered.bytes) == (2, activations)
    assert [one.bytes for one in found if one.group_size == 4] == [nbytes(kernel) // 2]


def argument_bytes(parallel) -> int:
    return compiled_step(parallel)[1].memory_analysis().argument_size_in_bytes


def test_a_device_keeps_what_arithmetic_says():
    spec, whole = compiled_step({})
    plain_bytes, state = whole.memory_analysis().argument_size_in_bytes, state_of(spec)
    cut = nbytes(kernels(state.params))
    assert nbytes(kernels(state.opt_state)) == cut, "SGD has one momentum for each parameter"
    assert plain_bytes - argument_bytes(ZERO) == cut * 7 // 8
    assert plain_bytes - argument_bytes(FSDP) == 2 * cut * 7 // 8
    # Four devices see a batch of their own instead of eight, so each has twice the examples: pixels, label and mask, as
    # this step does without index and position.
    examples = 16 // 8 * (8 * 8 * 3 + 4 + 1)
    split = nbytes(state.params["conv3"])
    assert plain_bytes + examples - argument_bytes(MODEL) == 2 * split // 2
    # What goes out again is what came in, but for the batch.
    (written,) = {compiled_step(p)[1].memory_analysis().alias_size_in_bytes for p in (ZERO,)}
    assert written == nbytes(state) - cut * 7 // 8


@pytest.mark.parametrize(
    ("network", "side", "whole", "share"),
    [
        # Of VGG16's 33.6 M parameters 18.9 M are in dense1 and dense2, 14.5 M in the convolutions of 256 and 512.
        ({"name": "vgg16", "head": "dense4096"}, 32, 33_617_860, {"dense": 18_882_560, "conv": 14_450_688}),
        # Of AlexNet's 23.2 M parameters 21.0 M are in dense1 and dense2, 2.1 M in conv3, conv4 and conv5.
        ({"name": "alexnet", "batch_norm": False}, 32, 23_247_684, {"dense": 20_979_712, "conv": 2_139_008}),
    ],
)
def test_the_wide_layers_of_the_large_networks_are_split_over_model(network, side, whole, share):
    spec = small.spec_of(small.config(model=network | {"width": 1.0}), side=side)
    params = state_of(spec, 8, 4).params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == whole
    mine = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(params))
    assert whole - mine == sum(share.values()) * 3 // 4
    lines = layout.describe(spec, meshes.make_mesh(8, 4), params)
    assert any("dense1/kernel" in line and "dense2/kernel" in line and "'model'" in line for line in lines)


def test_the_log_says_which_layers_are_split_and_what_is_cut():
    spec = small.spec_of(small.config(parallel=BOTH))
    mesh = meshes.make_mesh(8, 2)
    lines = layout.describe(spec, mesh, state_of(spec).params)
    assert len(lines) == 2
    assert lines[0] == "P(None, None, None, 'model') over 2 devices: conv3/kernel [3, 3, 16, 16]"
    assert lines[1] == "parameters and the optimiser's state cut into 4 parts over data, except for 84 parameters"
    assert layout.describe(small.spec_of(small.config()), meshes.make_mesh(8), state_of(spec).params) == []


@pytest.mark.parametrize("parallel", [ZERO, FSDP, BOTH])
def test_states_lie_as_promised_and_start_the_same_to_the_bit(parallel):
    config = small.config(optim=SGD, parallel=parallel)
    mesh, spec = meshes.make_mesh(8, config.parallel.model_devices), small.spec_of(config)
    state = sharded.init_state(spec, mesh)(make_hyper(config))
    promised = sharded.state_shardings(spec, mesh)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(promised), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    alone = sharded.init_state(small.spec_of(small.config(optim=SGD)), meshes.make_mesh(1))(make_hyper(config))
    assert identical(jax.device_get(state), jax.device_get(alone))
    momentum = optax.tree.get(state.opt_state, "trace")["conv2"]["kernel"]
    assert math.prod(momentum.addressable_shards[0].data.shape) == momentum.size // meshes.data_devices(mesh)
    cut = state.params["conv2"]["kernel"].addressable_shards[0].data.size < momentum.size
    assert cut == (parallel is not ZERO)


@pytest.mark.parametrize("parallel", [ZERO, FSDP, BOTH])
def test_states_of_an_optimiser_that_are_not_of_their_parameters_shape_are_kept_whole(parallel):
    config = small.config(optim=SGD, parallel=parallel)
    mesh, spec = meshes.make_mesh(8, config.parallel.model_devices), small.spec_of(config)
    state = state_of(spec)
    rows = jax.eval_shape(optax.adafactor(0.1, min_dim_size_to_factor=2).init, state.params)
    placed = jax.tree.map(
        lambda leaf, sharding: sharding.shard_shape(leaf.shape),  # raises where an axis is not there, or not divided
        rows,
        layout.of_state(spec, mesh, dataclasses.replace(state, opt_state=rows)).opt_state,
    )
    assert optax.tree.get(placed, "v_row")["conv2"]["kernel"] == optax.tree.get(rows, "v_row")["conv2"]["kernel"].shape


@pytest.mark.parametrize(
    ("model", "devices", "words"),
    [
        ({"name": "cnn"}, 8, "config.parallel.model_devices=8 does not divide the 12 channels of conv3/kernel; change"),
        ({"name": "resnet50", "width": 1 / 64}, 8, "does not divide the 4 channels of block3_1/conv1/kernel; change"),
    ],
)
def test_wide_layers_that_devices_cannot_share_are_a_config_error_of_one_line(model, devices, words):
    spec = small.spec_of(small.config(model={"width": 12 / 64} | model))
    with pytest.raises(ConfigError) as error:
        sharded.abstract_state(spec, meshes.make_mesh(8, devices))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_gradients_in_bfloat16_are_sent_so_and_move_the_run_by_no_more_than_their_rounding():
    mesh, normal = meshes.make_mesh(8), small.constants(meshes.make_mesh(8))
    image, label = (part[:16] for part in small.split())
    rows = np.arange(16, dtype=np.int32)
    batch = jax.device_put(Batch(image, label, rows, rows, np.ones(16, bool)), meshes.over_data(mesh))
    params = {}
    for name in ("float32", "bfloat16"):
        spec, step = compiled_step({}, optim={"gradient_dtype": name})
        start = sharded.init_state(spec, mesh)(make_hyper(small.config()))
        params["start"] = jax.device_get(start.params)
        params[name] = jax.device_get(step(start, batch, normal)[0].params)
    text = small.unoptimised_step.lowered(spec, mesh, "stream").as_text()
    sent = [line for line in text.splitlines() if line.lstrip().startswith("}) : (tensor<") and "bf16" in line]
    assert len(sent) == len(jax.tree.leaves(params["start"]))
    for before, fine, coarse in zip(*map(jax.tree.leaves, params.values()), strict=True):
        # The first update is a multiple of the gradient. Each share of it is rounded by 2^-9 of itself, and the sum
        # once more; shares cancel, so together they are up to some times their sum.
        assert 0 < np.abs(fine - coarse).max() <= 2**-5 * np.abs(before - fine).max()


def test_a_sharded_moving_average_is_evaluated_like_a_whole_one():
    config = small.config(optim=SGD)
    mesh, batch = meshes.make_mesh(8), meshes.over_data(meshes.make_mesh(8))
    image, label = small.split()
    rows = np.arange(48, dtype=np.int32)
    examples = jax.device_put(Batch(image, label, rows, rows, np.ones(48, bool)), batch)
    logits = {}
    for name, parallel in (("whole", {}), ("cut", ZERO)):
        spec = small.spec_of(with_parallel(config, parallel))
        average = sharded.init_state(spec, mesh)(make_hyper(config)).ema
        assert average["params"]["conv2"]["kernel"].is_fully_replicated == (name == "whole")
        variables = programs.as_evaluated(spec, mesh, average)
        step = programs.eval_step(spec, mesh, 48)
        logits[name] = jax.device_get(step(variables, examples, small.constants(mesh)))
    assert identical(logits["whole"], logits["cut"])


def test_the_learning_rate_grows_with_the_batch_where_a_base_is_given():
    config = small.config(global_batch_size=32, optim={"learning_rate": 0.1, "base_batch_size": 16})
    assert make_hyper(config).learning_rate == np.float32(0.2)
    assert make_hyper(small.config(optim={"learning_rate": 0.1})).learning_rate == np.float32(0.1)
    # It is an input: the same compiled step serves both.
    without = small.config(global_batch_size=32, optim={"learning_rate": 0.2})
    assert small.spec_of(config) == small.spec_of(without)


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"], line["loss"]) for line in lines]


def back_to_half(folder):
    """Take a finished run back to its checkpoint of step 20."""
    (folder / "summary.json").unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint.name != "20":
            shutil.rmtree(checkpoint)


def test_a_run_goes_on_with_other_devices_and_another_layout_along_the_same_curve(tmp_path):
    thin, one, eight = {"model": {"width": 0.25}}, {"devices": 1}, {"devices": 8, **BOTH}
    curves = {}
    for first, then in ((one, eight), (eight, one)):
        folder = tmp_path / str(first["devices"])
        for parallel in (first, then):
            digits.run(folder, **thin, parallel=parallel)
            curves[f"{first} {parallel}"] = losses_of(folder)
            back_to_half(folder)
    alone = curves.pop(f"{one} {one}")
    assert len({loss for _, _, loss in alone}) > 5
    for name, curve in curves.items():
        assert [row[:2] for row in curve] == [row[:2] for row in alone], name
        # 40 steps at a high rate let the rounding of sums grow further than the six steps of TOLERANCE.
        np.testing.assert_allclose([r[2] for r in curve], [r[2] for r in alone], rtol=20 * TOLERANCE, err_msg=name)
