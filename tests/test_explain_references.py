"""Methods of explanation held against other libraries, where chance decides and in residual networks.

`goldens/explain_goldens.npz` holds what Captum, the package of LIME's authors, pytorch-grad-cam and zennit compute in
float64 (`goldens/make_explain_goldens.py` makes it). Both sides take the same draws.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.explain import gradients, perturbations, relevance, removal, scores
from jaxcnn.explain.network import Network
from tests.test_explain_methods import TOLERANCE, Blocks, draw, drawn

CASE, SIDE = "mixed_blocks", 12
SAMPLES, NOISE = 7, 0.15
SEGMENTS = np.add.outer(np.arange(SIDE) // 4 * 3, np.arange(SIDE) // 5)
FITTED, WIDTH, BASELINE, SEED = 40, 0.25, 0.1, 3
GAMMA = 0.25

pytestmark = pytest.mark.unoptimised


@pytest.fixture(scope="module", autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def goldens() -> dict[str, np.ndarray]:
    with np.load(pathlib.Path(__file__).with_name("goldens") / "explain_goldens.npz") as file:
        return dict(file)


def same(ours, golden: str, tolerance: float = TOLERANCE) -> None:
    """Equal to a tolerance of the largest value."""
    theirs = goldens()[golden]
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@functools.cache
def blocks() -> tuple[Network, np.ndarray, np.ndarray]:
    """The small residual network, two images and their targets."""
    variables = drawn(CASE, Blocks(), (SIDE, SIDE, 3))
    images, target = (each[:2] for each in draw.batch(CASE, SIDE))
    return Network(Blocks().apply, variables, rows=40), images, target


def test_smoothgrad_is_that_of_captum(monkeypatch):
    net, images, target = blocks()
    noise = jnp.asarray(draw.generator(CASE, "noise").standard_normal((SAMPLES, *images.shape)))
    monkeypatch.setattr(gradients, "_noise", lambda seed, numbers, images: noise[numbers])
    same(gradients.smoothgrad(net, images, target, samples=SAMPLES, noise=NOISE), "smoothgrad")


def test_lime_is_that_of_its_authors_and_of_captum():
    net, images, target = blocks()
    maps = perturbations.lime(
        net, images, target, baseline=BASELINE, segments=SEGMENTS, samples=FITTED, width=np.sqrt(2) * WIDTH, seed=SEED
    )
    place = [np.argmax(SEGMENTS.ravel() == segment) for segment in range(SEGMENTS.max() + 1)]
    of_segment = np.asarray(maps).reshape(2, -1)[:, place]
    same(of_segment, "lime")
    same(of_segment, "lime_captum")


@pytest.mark.parametrize("share", [30, 80])
def test_pixels_are_removed_as_by_pytorch_grad_cam(share):
    _, images, _ = blocks()
    rank = np.asarray(scores.ranks(np.abs(images).sum(-1)))
    noise = removal.NOISE * np.random.default_rng(SEED).standard_normal(images.shape)
    count = round(share / 100 * SIDE**2)
    found = [
        removal.imputed(image, each < count, shift) for image, each, shift in zip(images, rank, noise, strict=True)
    ]
    same(np.stack(found), f"road_without_{share}")


def test_the_score_of_road_is_twice_that_of_pytorch_grad_cam():
    net, images, target = blocks()
    maps = np.abs(images).sum(-1)
    # There, pixels at or above a percentile are removed, and the percentiles of n pixels divide n - 1 steps.
    shares = [(SIDE**2 - np.ceil((SIDE**2 - 1) * each / 100)) / SIDE**2 for each in range(90, 0, -10)]
    assert np.abs(np.array(shares) - removal.SHARES).max() < 1 / SIDE**2, "a share differs by less than a pixel"
    found, _ = removal.road(net, images, target, maps, probability=scores.softmax, shares=tuple(shares), seed=SEED)
    same(found / 2, "road")


def without_shifts(variables: dict) -> dict:
    """Variables whose biases and means of BatchNorm are 0."""

    def leaf(path, value):
        return jnp.zeros_like(value) if path[-1].key in ("bias", "mean") else value

    return jax.tree_util.tree_map_with_path(leaf, variables)


def test_relevance_goes_through_shortcuts_and_means_as_in_zennit():
    net, images, target = blocks()
    same(relevance.lrp(net.with_variables(without_shifts(net.variables)), images, target, gamma=GAMMA), "lrp")


def test_without_gamma_relevance_with_biases_is_that_of_zennit_too():
    # That `lrp` with gamma=0 is this product is a test of its own.
    same(gradients.input_x_gradient(*blocks()), "lrp_0")
