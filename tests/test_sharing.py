"""Shared values are trained by the sum of the gradients of their weights, and the weights go on sharing them."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.compress import begun, deep
from jaxcnn.config import ConfigError
from jaxcnn.learn import sharing
from jaxcnn.train import assess, seals, trained
from jaxcnn.weights.shared import Shared
from tests import digits, runs, small

VALUES = 6


def shared_kernel(generator, shape=(4, 5, 6)):
    codebook = np.concatenate([[0.0], np.sort(generator.normal(size=VALUES))]).astype(np.float32)
    numbers = generator.integers(0, VALUES + 1, shape)
    return codebook, numbers


def test_the_gradient_of_a_weight_is_that_of_its_value_by_differentiating_the_loss_and_0_where_it_is_0():
    generator = np.random.default_rng(0)
    codebook, numbers = shared_kernel(generator)
    factors = generator.integers(-8, 9, numbers.shape).astype(np.float32)  # whole numbers: sums are exact in any order

    def loss(values):
        return jnp.sum(values[numbers] * factors)

    by_value = np.asarray(jax.grad(loss)(codebook))
    params = {"a": {"kernel": codebook[numbers], "bias": np.ones(3, np.float32)}}
    grads = {"a": {"kernel": factors, "bias": np.arange(3, dtype=np.float32)}}
    found = jax.jit(lambda grads, params: sharing.summed(VALUES, grads, params))(grads, params)
    np.testing.assert_array_equal(found["a"]["kernel"], np.where(numbers > 0, by_value[numbers], 0))
    np.testing.assert_array_equal(found["a"]["bias"], grads["a"]["bias"])


def test_weights_that_were_equal_take_one_value_and_zeros_stay():
    generator = np.random.default_rng(1)
    codebook, numbers = shared_kernel(generator)
    codebook[1] = -0.5
    params = {"a": {"kernel": codebook[numbers]}, "b": {"kernel": None}}
    moved = {"a": {"kernel": generator.normal(size=numbers.shape).astype(np.float32)}, "b": {"kernel": None}}
    found = np.asarray(sharing.kept(VALUES, moved, params)["a"]["kernel"])
    for number in range(1, VALUES + 1):
        first = moved["a"]["kernel"][numbers == number][0]
        np.testing.assert_array_equal(found[numbers == number], first)
    assert not found[numbers == 0].any()


def test_values_are_told_apart_alike_by_a_table_and_by_order():
    near = np.float32(1.0) + np.arange(3, dtype=np.float32) * np.float32(2**-23)  # alike in their upper 16 bits
    codebook = np.concatenate([near, -near[1:], [0.0, -0.0]]).astype(np.float32)
    weights = codebook[np.random.default_rng(2).integers(0, len(codebook), (64, 128))]
    whole, parts = sharing._clusters(jnp.asarray(weights), 7), sharing._clusters(jnp.asarray(weights), 2**10)
    firsts = {value: int(np.flatnonzero(weights.reshape(-1) == value)[0]) for value in np.unique(weights)}
    for numbers, places in (whole, parts):
        assert [int(each) for each in places[numbers]] == [firsts[value] for value in weights.reshape(-1)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run at step 0 whose weights share values, and the network that it was made of."""
    folder = tmp_path_factory.mktemp("sharing")
    digits.run(folder / "run")
    with small.programs_kept():
        network, _ = trained.load(folder / "run", "last", "", 1)
        arrays = seals.on_host(network.variables)
        for name, each in arrays.items():
            if each.ndim > 1:
                arrays[name] = np.where(np.abs(each) < np.quantile(np.abs(each), 0.5), 0, each)
        shared = deep.begun(deep.with_arrays(network, arrays), deep.Bits(4, 3))
        begun.write(shared, folder / "run", folder / "shared", ["compress"])
    return folder, shared


def train(folder, tmp_path, until=0):
    groups = {
        "init": {"source": f"workdir:{folder}/shared"},
        "optim": {"learning_rate": 1e-3, "ema_decay": 0.8, "shared_values": 16},
    }
    if until:
        return digits.run_up_to(until, tmp_path, **groups)
    return digits.run(tmp_path, **groups)


def kernels(folder, weights="last"):
    with small.programs_kept():
        network, _ = trained.load(folder, "last", weights, 1)
    return network, {name: each for name, each in seals.on_host(network.variables).items() if each.ndim > 1}


def test_a_run_trains_the_values_keeps_who_shares_them_and_resumes_to_the_bit(run, tmp_path):
    folder, shared = run
    before = {name: each for name, each in seals.on_host(shared.variables).items() if each.ndim > 1}
    train(folder, tmp_path / "whole")
    for weights in ("last", "ema"):
        network, after = kernels(tmp_path / "whole", weights)
        for name, each in after.items():
            assert not np.array_equal(each, before[name])
            values, numbers = np.unique(before[name], return_inverse=True)
            assert not each[before[name] == 0].any()
            for number in range(len(values)):
                assert len(np.unique(each.reshape(-1)[numbers.reshape(-1) == number])) == 1
    split = assess.open_split(network, tmp_path / "whole", "val", "")[0]
    with small.programs_kept():
        assert network.evaluate(split)["loss"] < shared.evaluate(split)["loss"]
    again = deep.share(seals.on_host(network.variables), deep.Bits(4, 4))
    for name, each in again.items():  # so that what is coded is what was trained
        if isinstance(each, Shared):
            np.testing.assert_array_equal(each.decoded(), after[name])
    train(folder, tmp_path / "parts", until=20)
    shutil.copytree(tmp_path / "parts", tmp_path / "copy")
    train(folder, tmp_path / "copy")
    for name, each in kernels(tmp_path / "copy")[1].items():
        np.testing.assert_array_equal(each, kernels(tmp_path / "whole")[1][name])


def test_the_run_that_is_written_has_the_shared_weights_and_a_config_that_trains_them(run):
    folder, shared = run
    network, there = kernels(folder / "shared")
    assert network.step == 0 and there.keys() == {k for k, v in seals.on_host(shared.variables).items() if v.ndim > 1}
    for name, each in there.items():
        np.testing.assert_array_equal(each, seals.on_host(shared.variables)[name])
        assert len(np.unique(each[each != 0])) <= 16
    assert network.config.optim.shared_values <= 16 and not network.config.prune.is_on
    assert configs.check(network.config) == []


def test_weights_that_share_nothing_and_options_that_do_not_fit_are_refused_in_one_line(tmp_path):
    with pytest.raises(
        ConfigError, match=r"shared_values=16, but .*/kernel has [0-9,]+ values; start from weights that"
    ):
        digits.run(tmp_path / "drawn", optim={"learning_rate": 1e-3, "shared_values": 16})
    config = digits.config(optim={"shared_values": 16})
    muon = dataclasses.replace(config, optim=dataclasses.replace(config.optim, name="muon"))
    assert "not for config.optim.name='muon'" in "\n".join(configs.check(muon))
    pruned = dataclasses.replace(config, prune=dataclasses.replace(config.prune, sparsity=0.5))
    assert "keeps zeros at zero; leave config.prune.sparsity at 0" in "\n".join(configs.check(pruned))


def test_the_command_writes_the_run(run, tmp_path):
    folder, _ = run
    flags = (f"--workdir={folder}/run", "--method=share", f"--out={tmp_path}/s", "--conv_bits=4", "--dense_bits=3")
    code, output = runs.run(*flags, module="jaxcnn.compress")
    assert code == 0 and "| shared | " in output and "trains its values" in output
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    assert config["optim"]["shared_values"] == 16
