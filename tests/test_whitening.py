"""Patch whitening, from the filters to the run."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import models
from jaxcnn.data.source import open_splits
from jaxcnn.learn.schedule import learning_rate_factor, whitening_bias_scale
from jaxcnn.models.whitening import whitening_kernel
from jaxcnn.train import trained
from jaxcnn.train.loop import train
from tests import small

pytestmark = [pytest.mark.usefixtures("kept_programs"), pytest.mark.unoptimised]

MEAN, STD = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.25], np.float32)


def smooth_images(count=40, side=9):
    """uint8 images whose neighbouring pixels and channels go together, as those of photographs."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, side + 2, side + 2, 3))
    noise = noise[:, 2:] + noise[:, 1:-1] + noise[:, :-2]
    noise = noise[:, :, 2:] + noise[:, :, 1:-1] + noise[:, :, :-2]
    noise = noise + 1.5 * noise.mean(axis=-1, keepdims=True)
    return np.clip(110 + 15 * noise, 0, 255).astype(np.uint8)


def patches_of(images, size):
    """Normalised patches [n, size * size * C], in float64, by loops."""
    pixels = (images / 255.0 - MEAN.astype(np.float64)) / STD.astype(np.float64)
    high, wide = images.shape[1] - size + 1, images.shape[2] - size + 1
    return np.concatenate(
        [pixels[:, y : y + size, x : x + size].reshape(len(images), -1) for y in range(high) for x in range(wide)]
    )


@pytest.mark.parametrize("size", [2, 3])
def test_filters_give_uncorrelated_outputs_of_unit_variance(size):
    images = smooth_images()
    inputs = size * size * 3
    kernel = whitening_kernel(images, MEAN, STD, size=size, epsilon=0.0)
    assert kernel.shape == (size, size, 3, 2 * inputs) and kernel.dtype == np.float32
    outputs = patches_of(images, size) @ kernel.reshape(inputs, -1).astype(np.float64)
    moments = outputs.T @ outputs / len(outputs)
    # The filters round to 2^-24 of entries up to 1 / sqrt(smallest eigenvalue), which the smallest meets again: ~1e-5.
    np.testing.assert_allclose(moments[:inputs, :inputs], np.eye(inputs), atol=1e-4)
    np.testing.assert_array_equal(kernel[..., inputs:], -kernel[..., :inputs])


def test_epsilon_bounds_what_is_amplified_and_signs_are_fixed():
    images, epsilon = smooth_images(), 5e-4
    patches = patches_of(images, 2)
    eigenvalues, eigenvectors = np.linalg.eigh(patches.T @ patches / len(patches))
    kernel = whitening_kernel(images, MEAN, STD, epsilon=epsilon).reshape(12, 24)
    for i in range(12):
        expected = eigenvectors[:, i] / np.sqrt(eigenvalues[i] + epsilon)
        expected *= np.sign(expected[np.abs(expected).argmax()])
        np.testing.assert_allclose(kernel[:, i], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_constant_images_give_finite_filters():
    assert np.isfinite(whitening_kernel(np.full((3, 4, 4, 3), 7, np.uint8), MEAN, np.zeros(3))).all()


def test_networks_without_whitening_take_nothing_from_the_data():
    params = {"conv1": {"kernel": np.ones(3)}}
    assert models.examples_for_initialization(params) == 0
    assert models.initialize_from_data(params, smooth_images(), MEAN, STD) is params


AIRBENCH = {
    "model": {"name": "airbench", "width": 1 / 16},
    "data": {"source": "synthetic:32x32x3:4:96", "protocol": "full"},
    "optim": {"name": "muon", "whitening_bias_epochs": 0.5, "ema_decay": 0.5},
    "checkpoint": {"every_steps": 1},
    "run": {"steps": 4, "tensorboard": False, "tta": "flip_translate"},
}


def finished(folder, **changes):
    config = small.config(**AIRBENCH, **changes)
    summary = train(config, folder, command=[])
    return summary, trained.load(folder, "last", "last", 1)[0], trained.load(folder, "last", "ema", 1)[0]


def test_a_run_whitens_by_its_training_split_and_keeps_the_kernel_on_any_devices(tmp_path):
    kept = []
    for devices in (1, 8):
        _, network, averaged = finished(tmp_path / str(devices), parallel={"devices": devices})
        split = open_splits(network.config.data).train
        statistics = json.loads((tmp_path / str(devices) / "normalization.json").read_text())
        expected = whitening_kernel(
            split.read(np.arange(96)), np.float32(statistics["mean"]), np.float32(statistics["std"])
        )
        kept.append(network.variables["params"]["whitening"])
        np.testing.assert_array_equal(kept[-1]["kernel"], expected)
        # An average of equal numbers rounds.
        np.testing.assert_allclose(averaged.variables["params"]["whitening"]["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(kept[0]["kernel"], kept[1]["kernel"])


def test_the_bias_of_whitening_moves_at_first_and_then_no_more(tmp_path):
    finished(tmp_path)
    biases = [
        np.asarray(trained.load(tmp_path, step, "last", 1)[0].variables["params"]["whitening"]["bias"])
        for step in ("3", "4")
    ]
    np.testing.assert_array_equal(*biases)  # 96 examples, batches of 16: half an epoch is three steps


def test_the_rate_of_the_bias_falls_linearly_to_zero_whatever_the_schedule():
    config = small.config(schedule={"name": "linear"})
    for name in ("linear", "cosine"):
        schedule = dataclasses.replace(config.schedule, name=name)
        for step, expected in ((0, 1.0), (2, 1 - 2 / 5), (4, 1 - 4 / 5), (5, 0.0), (19, 0.0), (20, 0.0)):
            factor = learning_rate_factor(schedule, jnp.int32(step), total_steps=20, steps_per_epoch=2.5)
            scale = whitening_bias_scale(2.0, jnp.int32(step), factor, steps_per_epoch=2.5)
            assert float(factor * scale) == pytest.approx(expected, abs=1e-6)
    assert whitening_bias_scale(0.0, jnp.int32(7), factor, steps_per_epoch=2.5) == 1.0


def test_the_linear_schedule_is_one_minus_the_share_of_the_run_done():
    schedule = small.config(schedule={"name": "linear"}).schedule
    for step in range(200):
        factor = learning_rate_factor(schedule, jnp.int32(step), total_steps=200, steps_per_epoch=25)
        assert float(factor) == pytest.approx(1 - step / 200, abs=2**-23)
