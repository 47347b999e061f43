"""Rates by layer: a factor moves a layer as much further, 0 leaves it, and its BatchNorm, exactly as it was."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.config import ConfigError, from_config_dict
from jaxcnn.learn import rates
from jaxcnn.learn.network import check_layers
from jaxcnn.models.batch_norm import PartlyFrozen
from jaxcnn.train.loop import train
from tests import digits, runs, small

HEAD_ONLY = (("(conv|bn).*", 0.0),)


def trained(devices=1, steps=3, **optim):
    """Parameters and statistics before and after some steps of `small.train`, and the losses."""
    config = small.config(optim=optim)
    losses, state = small.train(config, devices, steps, optimised=False)
    first = jax.device_get(small.initial_state(small.spec_of(config, steps), small.meshes.make_mesh(devices), config))
    return first, state, losses


def leaves(tree) -> dict[str, np.ndarray]:
    return {rates.path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars", "muon"])
def test_what_is_frozen_stays_to_the_bit_and_has_no_momentum(name):
    before, after, _ = trained(name=name, layers=HEAD_ONLY)
    old, new = leaves(before.params), leaves(after.params)
    moved = {path for path in old if not np.array_equal(old[path], new[path])}
    assert moved == {"classifier/kernel", "classifier/bias"}
    statistics = [jax.tree.leaves(state.batch_stats) for state in (before, after)]
    assert all(map(np.array_equal, *statistics)), "the statistics of frozen BatchNorm must not move"
    shapes = {leaf.shape for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim}
    assert shapes <= {new[path].shape for path in moved}


def test_frozen_norms_are_those_of_the_running_statistics_and_the_rest_learns():
    before, after, losses = trained(freeze_norm=True)
    old, new = leaves(before.params), leaves(after.params)
    assert {path for path in old if np.array_equal(old[path], new[path])} == {path for path in old if "bn" in path}
    assert all(map(np.array_equal, jax.tree.leaves(before.batch_stats), jax.tree.leaves(after.batch_stats)))
    _, _, one = trained(freeze_norm=True, layers=(("bn.*", 0.0),))
    np.testing.assert_array_equal(losses, one)  # both ways to say it


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_factor_multiplies_the_first_update(name):
    before, plain, _ = trained(steps=1, name=name)
    _, quick, _ = trained(steps=1, name=name, layers=(("classifier/.*", 4.0),))
    start, once, four = (leaves(state.params) for state in (before, plain, quick))
    for path in start:
        factor = 4.0 if path.startswith("classifier") else 1.0
        # A power of two scales without rounding; the sums round by half a unit in the last place each.
        expected = start[path] + factor * (once[path] - start[path])
        np.testing.assert_allclose(four[path], expected, rtol=0, atol=8 * 2**-24 * max(1.0, np.abs(expected).max()))


def test_the_gradient_norm_is_that_of_what_is_trained():
    whole, below = (grad_norm(layers) for layers in ((), (("classifier/.*", 0.0),)))  # the same forward pass
    assert 0 < below < whole


def grad_norm(layers) -> float:
    config = small.config(optim={"layers": layers})
    spec, mesh = small.spec_of(config), small.meshes.make_mesh(1)
    step = small.sharded.resident_train_step(spec, mesh)
    image, label = small.split()
    data = jax.device_put(small.resident.Resident(image, label), small.meshes.replicated(mesh))
    _, metrics = step(small.initial_state(spec, mesh, config), data, small.constants(mesh))
    return float(metrics.grad_norm)


@pytest.mark.parametrize("parallel", [{}, {"shard_optimizer": True}, {"shard_params": True}])
def test_devices_change_nothing(parallel):
    config = small.config(optim={"layers": (("conv1/.*", 0.0), ("bn1/.*", 0.0), ("classifier/.*", 3.0))})
    alone, _ = small.train(config, 1, optimised=False)
    cut = dataclasses.replace(config.parallel, **parallel)
    losses, state = small.train(dataclasses.replace(config, parallel=cut), 8, optimised=False)
    np.testing.assert_allclose(losses, alone, rtol=2e-5)  # sums over devices round otherwise, as in test_parallel
    assert state.opt_state is not None


def test_a_run_with_frozen_layers_resumes_exactly(tmp_path):
    optim = {"layers": (("conv1/.*", 0.0), ("bn1/.*", 0.0), ("classifier/.*", 2.0))}
    config = dataclasses.replace(digits.config(), optim=dataclasses.replace(digits.config().optim, **optim))
    short = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=20))
    train(config, tmp_path / "whole", command=digits.COMMAND)
    train(short, tmp_path / "cut", command=digits.COMMAND)
    train(config, tmp_path / "cut", command=digits.COMMAND)  # a constant rate, so it may go on for longer
    ours, theirs = (runs.kept(tmp_path / name)["checkpoints"]["40"] for name in ("whole", "cut"))
    assert ours == theirs


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((("conv9/.*", 0.0),), "'conv9/.*' matches no parameter"),
        ((("conv1", 0.0),), "a pattern must match the whole path of a parameter, such as"),
        ((("(", 0.0),), "is not a regular expression"),
        (((".*", 0.0),), "freezes every parameter"),
    ],
)
def test_patterns_that_change_nothing_are_refused(layers, words):
    with pytest.raises(ConfigError) as error:
        check_layers(small.spec_of(small.config(optim={"layers": layers})))
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((("a", -1.0),), "must have only factors of at least 0"),
        ((("a", 1.0, 2),), "must have 2 parts"),
        (("ab",), "must be a list"),
        (((1, 1.0),), "must be of type str"),
        ((("a", float("inf")),), "finite"),
        ((("a", 1e-45),), "outside the range of float32"),
    ],
)
def test_what_is_no_pattern_with_a_factor_is_refused(layers, words):
    with pytest.raises(ConfigError, match=words):
        from_config_dict({"optim": {"layers": layers}})


def test_a_batch_norm_is_frozen_where_all_of_it_is():
    norm = PartlyFrozen(layers=(("bn1/scale", 0.0), ("bn2/.*", 0.0)))
    assert not norm.is_frozen(("bn1",), ("scale", "bias"))
    assert norm.is_frozen(("bn2",), ("scale", "bias")) and not norm.is_frozen(("bn3",), ("bias",))
