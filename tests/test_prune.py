"""Pruning: the smallest weights become zero at the stated steps, stay zero, and nothing but the weights knows it."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, Prune
from jaxcnn.learn import prune, rates
from jaxcnn.learn.network import check_layers
from jaxcnn.train import length, trained
from tests import digits, runs, small

pytestmark = pytest.mark.unoptimised

OPTIONS = {"sparsity": 0.8, "end": 0.75, "every": 5}
ON = {"sparsity": 0.75, "end": 0.6, "every": 2}


def leaves(tree) -> dict[str, np.ndarray]:
    return {rates.path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def after_one_step(options, params, before=None, total=10):
    """`prune.pruned` for a run of one pruning, at its first step."""
    options = Prune(**({"end": 0.0} | options))
    params = {name: {"kernel": np.float32(value)} for name, value in params.items()}
    before = params if before is None else {name: {"kernel": np.float32(value)} for name, value in before.items()}
    found = jax.jit(lambda part, old: prune.pruned(options, part, old, np.int32(0), total))(params, before)
    return {name: np.asarray(leaf["kernel"]) for name, leaf in found.items()}


DRAWN = np.random.default_rng(0).normal(size=(2, 40, 25)).astype(np.float32) * [[[1.0]], [[10.0]]]


def smallest_zero(weights, count):
    """The reference: `weights` with the `count` smallest magnitudes at zero."""
    flat = weights.flatten()
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return flat.reshape(weights.shape)


def test_the_smallest_weights_of_each_layer_are_pruned_as_many_as_said():
    a, b = np.float32(DRAWN)
    found = after_one_step({"sparsity": 0.7, "layers": (("b/.*", 0.25),)}, {"a": a, "b": b})
    np.testing.assert_array_equal(found["a"], smallest_zero(a, 700))
    np.testing.assert_array_equal(found["b"], smallest_zero(b, 250))


def test_global_scope_pools_the_layers_without_a_sparsity_of_their_own():
    a, b = np.float32(DRAWN)
    found = after_one_step({"sparsity": 0.5, "scope": "global"}, {"a": a, "b": b})
    both = smallest_zero(np.stack([a, b]), 1000)
    np.testing.assert_array_equal(np.stack([found["a"], found["b"]]), both)
    assert np.mean(found["a"] == 0) > 0.8 > 0.2 > np.mean(found["b"] == 0)
    found = after_one_step({"sparsity": 0.5, "scope": "global", "layers": (("a/.*", 0.0),)}, {"a": a, "b": b})
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], smallest_zero(b, 500))


def test_what_was_zero_stays_zero_but_a_layer_of_zeros_alone_learns():
    a, b = np.float32(DRAWN)
    held = np.where(np.abs(a) < 1, 0, a)
    found = after_one_step({"sparsity": 0.01}, {"a": a, "b": b}, {"a": held, "b": np.zeros_like(b)})
    np.testing.assert_array_equal(found["a"], held)
    np.testing.assert_array_equal(found["b"], smallest_zero(b, 10))


def test_the_curve_is_that_of_zhu_and_gupta():
    options, total = Prune(sparsity=0.5, begin=0.1, end=0.5, every=10), 100
    assert prune.prunings(options, total) == (10, 50)
    shares = {t: [float(x) for x in prune.share_at(options, np.int32(t), total)] for t in range(1, 101)}
    due = {t: share for t, (share, now) in shares.items() if now}
    # float32 has 24 bits, and the cube takes three roundings.
    assert due == pytest.approx({t: 1 - (1 - (t - 10) / 40) ** 3 for t in (10, 20, 30, 40, 50)}, abs=4 * 2**-24)
    assert prune.prunings(Prune(sparsity=0.5, end=0.5), 60) == (30, 30)  # shorter than `every`: once, at the end
    assert float(prune.share_at(Prune(sparsity=0.5, end=0.5), np.int32(30), 60)[0]) == 1.0


def test_sharded_over_devices_a_run_reaches_its_sparsity_in_weights_and_average():
    config = small.config(prune=ON, optim={"ema_decay": 0.9, "sam_radius": 0.05}, parallel={"shard_params": True})
    _, state = small.train(config, 4, 6, optimised=False)
    for path, (zeros, size) in prune.counts(state.params).items():
        assert zeros == round(0.75 * size), path
    assert_same_zeros(state.params, state.ema["params"])


def assert_same_zeros(one, other):
    one, other = leaves(one), leaves(other)
    for path, leaf in one.items():
        if leaf.ndim > 1:
            np.testing.assert_array_equal(leaf == 0, other[path] == 0, err_msg=path)
            assert not np.array_equal(leaf, other[path])


def test_without_pruning_the_step_is_the_program_it_was():
    spec = small.spec_of(small.config())
    assert "bitcast" not in small.unoptimised_step.lowered(spec, small.meshes.make_mesh(1)).as_text()


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "run"
    figures = digits.run(folder, prune=OPTIONS)
    return folder, figures


def test_a_resumed_run_ends_with_the_same_bits(pruned_run, tmp_path):
    folder, figures = pruned_run
    zeros = {
        path: counts
        for path, counts in prune.counts(trained.load(folder, "last", "", 1)[0].variables["params"]).items()
    }
    assert figures["live_parameters"] == figures["parameters"] - sum(z for z, _ in zeros.values())
    assert figures["sparsity"] == sum(z for z, _ in zeros.values()) / sum(n for _, n in zeros.values()) > 0.79
    again = tmp_path / "run"
    shutil.copytree(folder, again)
    for checkpoint in (again / "checkpoints").iterdir():
        if checkpoint.name != "20":  # in the middle of the prunings
            shutil.rmtree(checkpoint)
    (again / "summary.json").unlink()
    digits.run(again, prune=OPTIONS)
    assert runs.seals(again) == runs.seals(folder)


def test_a_run_from_the_weights_of_a_pruned_one_keeps_its_zeros(pruned_run, tmp_path):
    folder, _ = pruned_run
    digits.run(tmp_path / "tuned", prune=OPTIONS, init={"source": f"workdir:{folder}"})
    tuned = (trained.load(run, "last", "last", 1)[0].variables["params"] for run in (folder, tmp_path / "tuned"))
    assert_same_zeros(*tuned)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 5}, "config.prune.every has no effect without config.prune.sparsity above 0"),
        ({"sparsity": 1.0}, "config.prune.sparsity must be in [0, 1), but is 1.0"),
        ({"sparsity": 0.5, "begin": 0.7}, "config.prune.begin=0.7 must not be after config.prune.end=0.6"),
        ({"layers": (("conv.*", 1.5),)}, "config.prune.layers must have only sparsities in [0, 1)"),
        ({"layers": (("conv.*", 0.5),), "scope": "global"}, "config.prune.scope='global' needs config.prune.sparsity"),
    ],
)
def test_impossible_options_are_one_line(options, words):
    with pytest.raises(ConfigError) as caught:
        small.config(prune=options)
    (line,) = str(caught.value).splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("options", "layers", "words"),
    [
        ({"layers": (("conv9/.*", 0.5),)}, (), r"'conv9/\.\*' matches no kernel that is trained"),
        ({"layers": (("(", 0.5),)}, (), "is not a regular expression"),
        ({"sparsity": 0.5, "layers": ((".*", 0.0),)}, (), "leaves no kernel to prune"),
        ({"layers": (("conv1/kernel", 0.5),)}, (("conv1/.*", 0.0),), "matches no kernel that is trained"),
    ],
)
def test_patterns_that_prune_nothing_are_refused(options, layers, words):
    config = small.config(prune=options, optim={"layers": layers})
    with pytest.raises(ConfigError, match=words):
        check_layers(small.spec_of(config))


@pytest.mark.parametrize("groups", [{"prune": {"sparsity": 0.5}}, {"optim": {"swa_from": 0.5}}])
def test_a_run_whose_schedule_is_a_share_of_its_length_cannot_be_made_longer(groups):
    config = small.config(schedule={"name": "constant"}, run={"epochs": 2.0}, **groups)
    longer = dataclasses.replace(config, run=dataclasses.replace(config.run, epochs=4.0))
    there, here = (configs.flatten(configs.to_dict(each)) for each in (config, longer))
    assert length.why_not_longer(there, here) in [
        f"what config.{key} does depends on the length" for key in ("prune", "optim.swa_from")
    ]
