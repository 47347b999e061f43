"""Statistics of BatchNorm computed again from the training images, as for averages of weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import augment
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import open_splits
from jaxcnn.learn.network import network
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import norm_statistics, seals, setup, trained
from tests import digits

NORMAL = Constants(np.array([0.3], np.float32), np.array([0.4], np.float32))
MOST = 400  # training images, two batches


class First:
    """The first images of a split."""

    def __init__(self, split):
        self.read, self.description = split.read, split.description

    def __len__(self):
        return MOST


@pytest.fixture(scope="module")
def case():
    """The spec of an average of two networks drawn at random, its variables, and training images."""
    config = digits.config(optim={"ema_decay": 0.0})
    splits = open_splits(config.data, config.task)
    spec = setup.spec_on(config, splits)
    draw = jax.jit(lambda key: network(spec).init(key, jnp.zeros((1, *spec.image_shape), jnp.float32)))
    one, other = (jax.device_get(draw(jax.random.key(number))) for number in range(2))
    soup = jax.tree.map(lambda left, right: (left + right) / 2, one, other)
    return spec, soup, First(splits.train)


def test_a_soup_has_the_statistics_of_a_direct_computation(case, monkeypatch):
    spec, variables, train = case
    kept = norm_statistics.of_split(spec, variables, train, NORMAL)
    assert kept.keys() == {name for name, _ in seals.leaves(variables["batch_stats"])} and len(kept) == 6
    # Directly: the input of the first BatchNorm is a convolution of the images, whatever is normalised with what.
    images = np.asarray(augment.normalize(jnp.asarray(train.read(np.arange(MOST))), NORMAL.mean, NORMAL.std))
    kernel = np.asarray(variables["params"]["conv1"]["kernel"], np.float64)
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    # Moments in float32 of batches of some 13,000 numbers, each of which rounds by 2^-24, added in float64.
    np.testing.assert_allclose(kept["bn1/mean"], maps.mean((0, 1, 2)), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(kept["bn1/var"], maps.reshape(-1, maps.shape[-1]).var(0, ddof=1), rtol=2e-5)

    # All images in one batch: what one training step in which old statistics have no weight leaves behind.
    monkeypatch.setattr(norm_statistics, "BATCH", MOST)
    whole = norm_statistics.of_split(spec, variables, train, NORMAL)
    at_once = dataclasses.replace(spec, norm=dataclasses.replace(spec.norm, momentum=0.0))
    step = jax.jit(lambda images: network(at_once).apply(variables, images, train=True, mutable=["batch_stats"])[1])
    for name, value in seals.leaves(step(images)["batch_stats"]):
        np.testing.assert_allclose(whole[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(kept[name], value, rtol=0.1, atol=0.1)  # two batches, each by its own statistics


def test_frozen_layers_dropout_and_the_devices_of_the_weights_change_no_bit(case):
    spec, variables, train = case
    other = dataclasses.replace(
        spec,
        optim=dataclasses.replace(spec.optim, layers=((".*", 0.0),), freeze_norm=True),
        model=dataclasses.replace(spec.model, dropout=0.5),
        norm=dataclasses.replace(spec.norm, group_size=8),
    )
    on_four = jax.device_put(variables, meshes.replicated(meshes.make_mesh(4)))
    one = norm_statistics.of_split(spec, variables, train, NORMAL)
    two = norm_statistics.of_split(other, jax.device_get(on_four), train, NORMAL)
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_a_run_that_starts_from_runs_has_them_from_its_first_step(tmp_path):
    for number in range(2):
        digits.run(tmp_path / str(number), seed=number)
    both = f"workdirs:{tmp_path}/0,{tmp_path}/1"
    optim = {"learning_rate": 0.0, "freeze_norm": True}
    for devices in (1, 4):
        groups = {"init": configs.Init(source=both, reestimate_norm=True), "parallel": {"devices": devices}}
        digits.run(tmp_path / f"soup{devices}", optim=optim, run={"steps": 1}, **groups)
    names = ("0", "1", "soup1", "soup4")
    first, second, ours, on_four = (trained.load(tmp_path / name, "last", "last", 1)[0] for name in names)
    train = open_splits(ours.config.data, ours.config.task).train
    wanted = norm_statistics.of_split(ours.spec, jax.device_get(ours.variables), train, jax.device_get(ours.constants))
    for name, value in wanted.items():
        of_each = [dict(seals.leaves(each.variables["batch_stats"]))[name] for each in (first, second, ours, on_four)]
        np.testing.assert_array_equal(of_each[2], value)
        np.testing.assert_array_equal(of_each[2], of_each[3])
        assert np.abs(value - (of_each[0] + of_each[1]) / 2).max() > 1e-3  # the average of theirs would be another


def test_what_has_no_batch_norm_is_refused_in_one_line(case):
    spec, variables, train = case
    with pytest.raises(UserError, match="is for networks with BatchNorm; this cnn has none"):
        norm_statistics.of_split(spec, {"params": variables["params"]}, train, NORMAL)
    for tree, words in (
        ({"init": {"reestimate_norm": True}}, "has no effect without config.init.source"),
        (
            {"init": {"source": "workdir:a", "reestimate_norm": True}, "norm": {"name": "group"}},
            r"without config\.norm\.name='batch'",
        ),
    ):
        with pytest.raises(ConfigError, match=words):
            configs.from_config_dict({"model": {"name": "cnn"}, **tree})


@pytest.mark.parametrize(("side", "images"), [(8, 256), (128, 256), (224, 83), (512, 16), (2048, 8)])
def test_large_images_go_through_the_network_in_smaller_batches(side, images):
    assert norm_statistics.batch_of((side, side, 3)) == images
