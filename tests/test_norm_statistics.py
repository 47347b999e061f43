"""Statistics of BatchNorm computed again from the training images, as for averages of weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import augment
from jaxcnn.data.source import open_splits
from jaxcnn.learn.network import network
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import norm_statistics, seals, trained
from tests import digits

pytestmark = [pytest.mark.usefixtures("kept_programs"), pytest.mark.unoptimised]


@pytest.fixture(scope="module")
def soup(tmp_path_factory):
    """The average of two runs, without training, with statistics that are computed again; its folder and config."""
    place = tmp_path_factory.mktemp("statistics")
    for number in range(2):
        digits.run(place / str(number), seed=number)
    groups = {
        "init": configs.Init(source=f"workdirs:{place}/0,{place}/1", reestimate_norm=True),
        "optim": {"learning_rate": 0.0, "freeze_norm": True, "ema_decay": 0.5},
        "run": {"steps": 1},
        "checkpoint": {"keep_every_steps": 0},
    }
    digits.run(place / "soup", **groups)
    return place / "soup", digits.config(**groups)


def normalised(loaded, images):
    """The images as the network takes them."""
    constants = jax.device_get(loaded.constants)
    return augment.normalize(jnp.asarray(images), constants.mean, constants.std)


def test_a_soup_has_the_statistics_of_a_direct_computation(soup, monkeypatch):
    loaded, _ = trained.load(soup[0], "last", "ema", 1)
    train = open_splits(soup[1].data, soup[1].task).train
    variables = jax.device_get(loaded.variables)
    kept = dict(seals.leaves(variables["batch_stats"]))
    # Directly: the input of the first BatchNorm is a convolution of the images, whatever is normalised with what.
    inputs = np.asarray(normalised(loaded, train.read(np.arange(len(train)))), np.float64)
    first = sorted(name for name in kept if name.endswith("/mean"))[0].rpartition("/")[0]
    kernel = np.asarray(variables["params"][first.replace("bn", "conv")]["kernel"], np.float64)
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = sum(
        padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(kernel.shape[0]) for j in range(kernel.shape[1])
    )
    # Moments in float32 of batches of some 16,000 numbers, each of which rounds by 2^-24, added in float64.
    np.testing.assert_allclose(kept[f"{first}/mean"], maps.mean((0, 1, 2)), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(kept[f"{first}/var"], maps.reshape(-1, maps.shape[-1]).var(0, ddof=1), rtol=2e-5)
    last, _ = trained.load(soup[0], "last", "last", 1)
    for name, value in seals.leaves(jax.device_get(last.variables["batch_stats"])):
        np.testing.assert_array_equal(value, kept[name])

    # All images in one batch: what one training step in which old statistics have no weight leaves behind.
    monkeypatch.setattr(norm_statistics, "BATCH", len(train))
    whole = norm_statistics.of_split(loaded.spec, variables, train, loaded.constants)
    spec = dataclasses.replace(
        loaded.spec,
        norm=dataclasses.replace(loaded.spec.norm, momentum=0.0),
        optim=dataclasses.replace(loaded.spec.optim, freeze_norm=False),
    )
    _, new = network(spec).apply(variables, jnp.float32(inputs), train=True, mutable=["batch_stats"])
    for name, value in seals.leaves(new["batch_stats"]):
        np.testing.assert_allclose(whole[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(kept[name], value, rtol=0.1, atol=0.1)  # batches of a quarter of the images


def test_the_average_of_the_statistics_would_be_another(soup):
    place = soup[0].parent
    ours, first, second = (
        dict(seals.leaves(jax.device_get(trained.load(place / name, "last", "ema", 1)[0].variables["batch_stats"])))
        for name in ("soup", "0", "1")
    )
    assert all(np.abs(ours[name] - (first[name] + second[name]) / 2).max() > 1e-3 for name in ours)


def test_any_number_of_devices_and_frozen_layers_give_the_same_bits(soup):
    loaded, _ = trained.load(soup[0], "last", "ema", 1)
    config = dataclasses.replace(soup[1], parallel=dataclasses.replace(soup[1].parallel, devices=4))
    splits = open_splits(config.data, config.task)
    on_four = jax.device_put(loaded.variables, meshes.replicated(meshes.make_mesh(4)))
    frozen = dataclasses.replace(loaded.spec, optim=dataclasses.replace(loaded.spec.optim, layers=((".*", 0.0),)))
    one = norm_statistics.of_split(loaded.spec, jax.device_get(loaded.variables), splits.train, loaded.constants)
    for spec in (loaded.spec, frozen):
        other = norm_statistics.of_split(spec, jax.device_get(on_four), splits.train, loaded.constants)
        assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
    kept = dict(seals.leaves(jax.device_get(loaded.variables["batch_stats"])))
    assert all(np.array_equal(one[name], kept[name]) for name in one)


def test_networks_without_batch_norm_are_refused(soup):
    loaded, _ = trained.load(soup[0], "last", "ema", 1)
    train = open_splits(soup[1].data, soup[1].task).train
    with pytest.raises(UserError, match="is for networks with BatchNorm"):
        norm_statistics.of_split(loaded.spec, {"params": loaded.variables["params"]}, train, loaded.constants)
    for tree, words in (
        ({"init": {"reestimate_norm": True}}, "has no effect without config.init.source"),
        (
            {"init": {"source": "workdir:a", "reestimate_norm": True}, "norm": {"name": "group"}},
            r"without config\.norm\.name='batch'",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            configs.from_config_dict({"model": {"name": "cnn"}, **tree})
