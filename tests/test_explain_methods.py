"""Methods of explanation: held against Captum, pytorch-grad-cam, zennit, scikit-learn and closed forms.

`goldens/captum_goldens.npz` holds what Captum, pytorch-grad-cam and zennit compute in float64 for an AlexNet with
BatchNorm (`goldens/make_captum_goldens.py` makes it); the network runs here in float64 too.
"""

import dataclasses
import functools
import inspect
import itertools
import math
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config, models
from jaxcnn.config import UserError
from jaxcnn.explain import (
    cams,
    gradients,
    inside,
    kernels,
    methods,
    network,
    perturbations,
    randomisation,
    relevance,
    scores,
    superpixels,
)
from jaxcnn.explain.network import Network
from jaxcnn.machine import mesh as meshes
from jaxcnn.models import convolution, nnx_bridge, pooling, resnet
from tests import own_parts

sys.path.insert(0, str(pathlib.Path(__file__).with_name("goldens")))
import draw

CASE, THIN = "alexnet_cifar_bn", 3
# As in test_torch_parity, where it is derived; measured: below 1e-12.
TOLERANCE = 1e-9
# Captum takes the points of the quadrature, and sums what it finds by perturbation, in float32, which rounds at 6e-8,
# as pytorch-grad-cam does with the outputs for Score-CAM;
# Shapley values are such sums over 720 orders of six segments.
FLOAT32 = 1e-6
FLOAT32_SUM = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def goldens() -> dict[str, np.ndarray]:
    with np.load(pathlib.Path(__file__).with_name("goldens") / "captum_goldens.npz") as file:
        return dict(file)


@functools.cache
def alexnet() -> tuple[Network, np.ndarray, np.ndarray]:
    """The network of the goldens, two images and their targets."""
    fields, side = draw.CASES[CASE]
    module = models.build(config.Model(width=draw.WIDTH, **fields), config.Norm(), draw.CLASSES).clone(
        dtype=jnp.float64
    )
    variables = drawn(CASE, module, (side, side, 3))
    images, labels = draw.batch(CASE, side)
    return Network(module.apply, variables, rows=16), images[:2], labels[:2]


def drawn(case: str, module, image_shape) -> dict:
    """Variables of a module from `draw`, in float64."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))

    def leaf(path, shape):
        collection, *inner = (key.key for key in path)
        return jnp.asarray(draw.leaf(case, collection, "/".join(inner), shape.shape), jnp.float64)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def same(ours, golden: str, tolerance: float = TOLERANCE) -> None:
    """Equal to a tolerance of the largest value."""
    theirs = goldens()[golden]
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("name", ["gradient", "input_x_gradient", "guided_backprop"])
def test_gradients_are_those_of_captum(name):
    net, images, target = alexnet()
    same(getattr(gradients, name)(net, images, target)[:, ::THIN, ::THIN], name)


def test_integrated_gradients_are_those_of_captum():
    net, images, target = alexnet()
    found = gradients.integrated_gradients(net, images, target, baseline=0.5, steps=20)
    same(found[:, ::THIN, ::THIN], "integrated_gradients", FLOAT32)


@pytest.mark.parametrize("layer", ["bn2", "bn5"])
@pytest.mark.parametrize("name", ["gradcam", "gradcam_plus_plus", "scorecam"])
def test_class_activation_maps_are_those_of_captum_and_pytorch_grad_cam(name, layer):
    net, images, target = alexnet()
    chosen = inside.choose(inside.layers(net.apply, net.variables, (32, 32, 3)), layer)
    small = getattr(cams, name)(net, images, target, layer=chosen, enlarge=False)
    same(small, f"{name}_{layer}", FLOAT32 if name == "scorecam" else TOLERANCE)
    if name == "gradcam":
        same(cams.gradcam(net, images, target, layer=chosen)[:, ::THIN, ::THIN], f"gradcam_large_{layer}")


def test_occlusion_is_that_of_captum():
    net, images, target = alexnet()
    found = perturbations.occlusion(net, images, target, baseline=0.25, window=10, stride=7)
    same(found[:, ::THIN, ::THIN], "occlusion", FLOAT32)


def test_shapley_values_of_six_segments_are_those_of_captum():
    net, images, target = alexnet()
    segments = np.add.outer(np.arange(32) // 11 * 2, np.arange(32) // 16)
    found = np.asarray(perturbations.kernel_shap(net, images, target, baseline=0.1, segments=segments))
    of_segment = found[:, [0, 0, 11, 11, 22, 22], [0, 16] * 3] * np.bincount(segments.ravel())
    same(of_segment, "shapley", FLOAT32_SUM)


def test_infidelity_and_sensitivity_are_those_of_captum():
    net, images, target = alexnet()
    shifts = 0.1 * np.random.default_rng(0).standard_normal((7, *images.shape))
    values = gradients.input_x_gradient(net, images, target)
    same(scores.infidelity(net, images, target, values, shifts), "infidelity", FLOAT32)
    found = scores.sensitivity(lambda x: gradients.input_x_gradient(net, x, target), images, values, shifts)
    same(found, "sensitivity", FLOAT32)


class Blocks(nn.Module):
    """Shortcuts, strides, a grouped and a depthwise convolution; as in `goldens/make_captum_resnet_goldens.py`."""

    @nn.compact
    def __call__(self, x):
        block = functools.partial(
            resnet.Bottleneck, pooled=False, drop_rate=0.0, zero_init=False, norm=config.Norm(), axis_name=None,
            dtype=jnp.float64, split=False,
        )  # fmt: skip
        x = block(4, 8, 2, project=True, name="first")(x, False)
        x = block(2, 8, 1, project=False, name="second")(x, False)
        conv = functools.partial(nn.Conv, 16, (3, 3), padding=1, use_bias=False, dtype=jnp.float64)
        x = nn.relu(conv(strides=2, feature_group_count=4, name="grouped")(x))
        x = nn.relu(conv(feature_group_count=16, name="depthwise")(x))
        return nn.Dense(draw.CLASSES, dtype=jnp.float64, name="classifier")(x.mean((1, 2)))


def test_of_residual_grouped_and_depthwise_layers_explanations_are_those_of_captum():
    case, side, module = "mixed_blocks", 12, Blocks()
    variables = drawn(case, module, (side, side, 3))
    images, target = (each[:2] for each in draw.batch(case, side))
    net = Network(module.apply, variables, rows=40)
    with np.load(pathlib.Path(__file__).with_name("goldens") / "captum_resnet_goldens.npz") as file:
        theirs = dict(file)
    ours = {
        "outputs": net.outputs(images),
        "gradient": gradients.gradient(net, images, target),
        "guided_backprop": gradients.guided_backprop(net, images, target),
        "integrated_gradients": gradients.integrated_gradients(net, images, target, baseline=0.5, steps=20),
    }
    found = inside.layers(net.apply, variables, (side, side, 3))
    for name in ("second", "depthwise"):
        layer = inside.choose(found, name)
        ours[f"gradcam_{name}"] = cams.gradcam(net, images, target, layer=layer, enlarge=False)
    assert set(ours) == set(theirs) and np.abs(theirs["guided_backprop"] - theirs["gradient"]).max() > 1e-3
    for name, expected in theirs.items():
        tolerance = FLOAT32 if name == "integrated_gradients" else TOLERANCE
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


# Closed forms

SIDE = 6
WEIGHTS = np.random.default_rng(1).standard_normal((SIDE * SIDE * 3, 4))
IMAGES = np.random.default_rng(2).standard_normal((3, SIDE, SIDE, 3))
TARGET = np.array([0, 3, 1])
OWN = WEIGHTS.T[TARGET].reshape(IMAGES.shape)  # the weights of each image's output


def line(variables, images):
    return images.reshape(len(images), -1) @ variables


def square(variables, images):
    return line(variables, images) ** 2


LINEAR = Network(line, WEIGHTS, rows=5)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("gradient", {}, OWN),
        ("input_x_gradient", {}, OWN * IMAGES),
        ("smoothgrad", {"samples": 3}, OWN),
        ("integrated_gradients", {"baseline": 0.5, "steps": 3}, OWN * (IMAGES - 0.5)),
        ("expected_gradients", {"references": IMAGES[:2], "samples": 4}, OWN * (IMAGES - IMAGES[:2].mean(0))),
    ],
)
def test_of_a_linear_network_gradient_methods_give_its_weights(name, options, expected):
    found = getattr(gradients, name)(LINEAR, IMAGES, TARGET, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_smoothgrad_of_a_square_is_the_gradient_at_the_mean_of_the_noisy_images():
    net, samples, share, seed = Network(square, WEIGHTS, rows=4), 7, 0.2, 5
    keys = [jax.random.fold_in(jax.random.key(seed), place) for place in range(3)]
    noise = np.array([
        [jax.random.normal(jax.random.fold_in(key, number), IMAGES.shape[1:], jnp.float64) for number in range(samples)]
        for key in keys
    ])  # fmt: skip
    ranges = IMAGES.max((1, 2, 3)) - IMAGES.min((1, 2, 3))
    means = IMAGES + (share * ranges)[:, None, None, None] * noise.mean(1)
    expected = 2 * (means * OWN).sum((1, 2, 3), keepdims=True) * OWN
    found = gradients.smoothgrad(net, IMAGES, TARGET, samples=samples, noise=share, seed=seed)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.abs(expected - 2 * (IMAGES * OWN).sum((1, 2, 3), keepdims=True) * OWN).max() > 0.1


def test_integrated_gradients_of_a_polynomial_add_up_to_the_change_of_the_output():
    net = Network(square, WEIGHTS, rows=4)  # two points of Gauss and Legendre integrate its gradient exactly
    values = gradients.integrated_gradients(net, IMAGES, TARGET, baseline=0.3, steps=2)
    change = net.scores(IMAGES, TARGET) - net.scores(np.full_like(IMAGES, 0.3), TARGET)
    np.testing.assert_allclose(values.sum((1, 2, 3)), change, rtol=1e-12)
    assert np.abs(gradients.completeness_gap(net, IMAGES, TARGET, values, 0.3)).max() < 1e-12 * np.abs(change).max()


def test_expected_gradients_are_the_mean_of_integrated_ones_over_the_references():
    net = Network(square, WEIGHTS, rows=2048)
    references = IMAGES[:2] + 1
    mean = sum(gradients.integrated_gradients(net, IMAGES, TARGET, baseline=each) for each in references) / 2
    found = gradients.expected_gradients(net, IMAGES, TARGET, references=references, samples=400)
    # The gradient is linear along the way, and 400 points lie one in each interval: the mean place of the 200 points of
    # a reference has a deviation of at most 1 / (2 sqrt(200)) = 0.035 of the way.
    assert np.abs(found - mean).max() < 0.1 * np.abs(mean).max()


def test_the_gap_of_a_sum_with_few_steps_is_told():
    net = Network(lambda variables, images: jnp.tanh(line(variables, images)), WEIGHTS, rows=4)
    values = gradients.integrated_gradients(net, IMAGES, TARGET, steps=2)
    change = net.scores(IMAGES, TARGET)  # the output is 0 where the image is
    gap = gradients.completeness_gap(net, IMAGES, TARGET, values)
    np.testing.assert_allclose(gap, values.sum((1, 2, 3)) - change, rtol=1e-12)
    assert np.abs(gap).max() > 1e-3


def test_occlusion_of_single_pixels_is_what_each_adds():
    found = perturbations.occlusion(LINEAR, IMAGES, TARGET, baseline=0.5, window=1, stride=1)
    np.testing.assert_allclose(found, (OWN * (IMAGES - 0.5)).sum(-1), rtol=1e-9, atol=1e-12)


def test_rise_is_the_mean_output_over_the_masks_that_show_a_pixel():
    found = perturbations.rise(LINEAR, IMAGES, TARGET, masks=40, cells=3, seed=7)
    masks = perturbations.random_masks((SIDE, SIDE), 40, 3, 0.5, (7, 0)).astype(np.float64)
    outputs = np.einsum("nhwc,nhwc,khw->kn", IMAGES, OWN, masks)
    expected = np.einsum("kn,khw->nhw", outputs, masks) / masks.sum(0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_the_map_of_rise_of_a_constant_network_is_flat(centred):
    """However unevenly chance shows the pixels: here the masks show some pixels twice as much as others."""
    net = Network(lambda variables, images: variables + 0 * images.mean((1, 2)), np.full((1, 3), 0.1), rows=9)
    for masks, share in ((20, 0.5), (2, 0.1)):  # of the second, some pixels are never shown
        options = {"masks": masks, "cells": 3, "share": share, "seed": 7}
        weight = perturbations.random_masks((SIDE, SIDE), masks, 3, share, (7, 0)).sum(0)
        assert weight.max() > 1.5 * weight.min() and (masks > 2 or weight.min() == 0)
        found = perturbations.rise(net, IMAGES, TARGET % 3, centred=centred, **options)
        # The masks are added up in two orders, each with an error of at most masks * 2^-53.
        np.testing.assert_allclose(found, 0 if centred else 0.1, rtol=2 * masks * 2**-53, atol=masks * 2**-53)


def test_rise_of_probabilities_is_in_their_range_where_logits_are_far_below_0():
    net = Network(lambda variables, images: line(variables, images) - 50, WEIGHTS, rows=9)
    found = np.asarray(perturbations.rise(net, IMAGES, TARGET, masks=40, cells=3, seed=7, probability=jax.nn.softmax))
    masks = perturbations.random_masks((SIDE, SIDE), 40, 3, 0.5, (7, 0)).astype(np.float64)
    outputs = np.einsum("nhwc,hwcj,khw->knj", IMAGES, WEIGHTS.reshape(SIDE, SIDE, 3, 4), masks)
    shares = np.exp(outputs - outputs.max(-1, keepdims=True))
    of_target = (shares / shares.sum(-1, keepdims=True))[:, np.arange(3), TARGET]
    expected = np.einsum("kn,khw->nhw", of_target, masks) / masks.sum(0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.min() >= 0 and found.max() <= 1


def test_centred_rise_does_not_depend_on_an_offset_of_the_outputs():
    far = Network(lambda variables, images: line(variables, images) - 50, WEIGHTS, rows=9)
    found, same = (
        np.asarray(perturbations.rise(net, IMAGES, TARGET, masks=40, cells=3, centred=True)) for net in (far, LINEAR)
    )
    np.testing.assert_allclose(found, same, rtol=0, atol=1e-10)
    masks = perturbations.random_masks((SIDE, SIDE), 40, 3, 0.5, (0, 0)).astype(np.float64)
    outputs = np.einsum("nhwc,nhwc,khw->kn", IMAGES, OWN, masks)
    expected = np.einsum("kn,khw->nhw", outputs - outputs.mean(0), masks) / masks.sum(0)
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=0, atol=1e-10)


def test_masks_of_rise_show_each_pixel_with_the_wanted_probability():
    masks = perturbations.random_masks((20, 14), 4000, 5, 0.3, 0)
    assert masks.shape == (4000, 20, 14) and masks.min() >= 0 and masks.max() <= 1
    # A mask is a mean of independent cells, each 1 with probability 0.3: its deviation is at most sqrt(0.21 / 4000).
    assert np.abs(masks.mean(0) - 0.3).max() < 5 * math.sqrt(0.21 / 4000)


SEGMENTS = superpixels.grid((SIDE, SIDE), 3)[:, :4] % 5
SEGMENTS = np.concatenate([SEGMENTS, SEGMENTS[:, :2]], axis=1)  # 5 segments of different sizes


def by_hand(net: Network, baseline: float) -> np.ndarray:
    """The Shapley values [n, segments] from their definition: the mean gain over all orders."""
    found = np.zeros((len(IMAGES), SEGMENTS.max() + 1))
    orders = list(itertools.permutations(range(found.shape[1])))
    known = {}

    def value(seen: frozenset) -> np.ndarray:
        if seen not in known:
            shown = np.isin(SEGMENTS, list(seen))[None, :, :, None]
            known[seen] = np.asarray(net.scores(np.where(shown, IMAGES, baseline), TARGET))
        return known[seen]

    for order in orders:
        for place, segment in enumerate(order):
            before = frozenset(order[:place])
            found[:, segment] += (value(before | {segment}) - value(before)) / len(orders)
    return found


def test_superpixels_follow_the_edges_of_each_image():
    """Halves of other colours, upright in one image and flat in the other: no superpixel has pixels of both."""
    images = np.zeros((2, 24, 24, 3))
    images[0, :, :9] = images[1, :11] = [2.0, -1.0, 0.5]
    found = superpixels.slic(images + np.random.default_rng(0).normal(0, 0.02, images.shape), 16)
    assert found.shape == (2, 24, 24) and 8 <= found[0].max() + 1 <= 24
    for each, part in zip(found, (np.arange(24)[None] < 9, np.arange(24)[:, None] < 11), strict=True):
        where = np.broadcast_to(part, each.shape)
        assert not set(each[where]) & set(each[~where])
    net = Network(square, WEIGHTS, rows=256)
    options = {"baseline": 0.2, "samples": 40, "cells": 2}
    found = perturbations.lime(net, IMAGES, TARGET, segments="slic", **options)
    same = perturbations.lime(net, IMAGES, TARGET, segments=superpixels.slic(IMAGES, 4), **options)
    np.testing.assert_array_equal(found, same)
    with pytest.raises(UserError, match="segments='hexagons' must be 'grid', 'slic' or integers"):
        perturbations.lime(net, IMAGES, TARGET, segments="hexagons")


def of_segments(maps) -> np.ndarray:
    return np.stack([np.asarray(maps)[:, k == SEGMENTS].sum(1) for k in range(SEGMENTS.max() + 1)], axis=1)


def test_shapley_values_are_the_mean_gain_over_all_orders():
    net = Network(square, WEIGHTS, rows=256)
    found = perturbations.kernel_shap(net, IMAGES, TARGET, baseline=0.2, segments=SEGMENTS)
    np.testing.assert_allclose(of_segments(found), by_hand(net, 0.2), rtol=1e-9, atol=1e-9)


def test_sampled_shapley_values_of_an_additive_game_are_what_each_segment_adds():
    found = perturbations.kernel_shap(LINEAR, IMAGES, TARGET, cells=SIDE, samples=200)  # 36 segments of a pixel
    np.testing.assert_allclose(found, (OWN * IMAGES).sum(-1), rtol=1e-8, atol=1e-8)


def test_sampled_shapley_values_are_those_by_definition():
    gains = np.random.default_rng(6).standard_normal(12)
    segments = np.arange(12).reshape(3, 4)

    def game(power: int) -> Network:  # the output is a power of the sum of what is seen
        return Network(lambda variables, images: images.sum((1, 2)) ** power, None, rows=4096)

    image = gains.reshape(1, 3, 4, 1)
    shap = functools.partial(perturbations.kernel_shap, images=image, target=np.zeros(1, int), segments=segments)
    # Of a square, segment i has its gain times that of all; a sample and its complement together give it exactly.
    found = np.asarray(shap(game(2), samples=400)).ravel()
    np.testing.assert_allclose(found, gains * gains.sum(), rtol=1e-8, atol=1e-8)
    seen = (np.arange(2**12)[:, None] >> np.arange(12) & 1).astype(bool)
    cubes, sizes = (seen @ gains) ** 3, seen.sum(1)
    weights = np.array([1 / (12 * math.comb(11, size)) if size < 12 else 0 for size in sizes])  # of orders
    exact = [(weights * (cubes[np.arange(2**12) | 1 << k] - cubes))[~seen[:, k]].sum() for k in range(12)]
    found = np.asarray(shap(game(3), samples=8000)).ravel()
    # Measured over twenty seeds: at most 0.027 of the largest value; with all sizes equally likely, at least 0.07.
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.045 * np.abs(exact).max())


def test_too_few_samples_for_shapley_values_are_refused_before_the_network_is_called():
    def never(variables, images):
        raise AssertionError("called")

    with pytest.raises(UserError, match="20 samples are too few for the Shapley values of 36 segments"):
        perturbations.kernel_shap(Network(never, WEIGHTS), IMAGES, TARGET, cells=SIDE, samples=20)


def test_too_few_samples_for_shapley_values_are_refused():
    with pytest.raises(UserError, match="20 samples are too few for the Shapley values of 36 segments"):
        perturbations.kernel_shap(LINEAR, IMAGES, TARGET, cells=SIDE, samples=20)


def test_lime_is_a_weighted_ridge_regression():
    from sklearn.linear_model import Ridge

    net = Network(square, WEIGHTS, rows=256)
    found = perturbations.lime(net, IMAGES, TARGET, segments=SEGMENTS, samples=60, seed=3)
    seen = (np.random.Generator(np.random.PCG64(3)).random((60, 5)) < 0.5).astype(float)
    seen[0] = 1
    shown = seen[:, SEGMENTS][..., None]
    outputs = np.stack([np.asarray(net.scores(IMAGES * each, TARGET)) for each in shown])
    weights = np.exp(-((1 - np.sqrt(seen.mean(1))) ** 2) / 0.25**2)
    model = Ridge(alpha=1.0).fit(seen, outputs, sample_weight=weights)
    np.testing.assert_allclose(found, model.coef_[:, SEGMENTS], rtol=1e-8)


@pytest.mark.parametrize("segments", [np.zeros((3, 3), int), np.zeros((SIDE, SIDE))])
def test_segments_that_do_not_fit_are_refused(segments):
    with pytest.raises(UserError, match=r"segments must be integers \[h, w\] of shape \(6, 6\)"):
        perturbations.lime(LINEAR, IMAGES, TARGET, segments=segments)


# Relevance

NARROW = np.random.default_rng(3).standard_normal((3, 3, 3, 5))  # a convolution; then ReLU, a max-pool, a dense layer
DENSE = np.random.default_rng(4).standard_normal((3 * 3 * 5, 4))


def of_layers(variables, images):
    x = convolution.convolve(images, variables["kernel"], 1, 1)
    x = pooling.max_pool(jnp.maximum(x, 0), 2, 2)
    return x.reshape(len(x), -1) @ variables["dense"] + variables["bias"]


def handed_down(relevance, contributions, gamma):
    """The gamma rule by its definition: relevance [j] of sums over contributions [i, j], to the i."""
    total = contributions.sum(0)
    counted = contributions * (1 + gamma * (np.sign(contributions) == np.sign(total)))
    return counted @ (relevance / counted.sum(0))


def test_relevance_is_handed_down_by_the_gamma_rule_and_none_is_lost():
    variables = {"kernel": NARROW, "dense": DENSE, "bias": np.zeros(4)}
    net = Network(of_layers, variables, rows=8)
    found = np.asarray(relevance.lrp(net, IMAGES, TARGET, gamma=0.3))
    np.testing.assert_allclose(found.sum((1, 2, 3)), net.scores(IMAGES, TARGET), rtol=1e-10)
    basis = np.eye(IMAGES[0].size).reshape(-1, *IMAGES.shape[1:])
    matrix = np.asarray(convolution.convolve(basis, jnp.asarray(NARROW), 1, 1)).reshape(len(basis), -1)
    for image, target, ours in zip(IMAGES, TARGET, found, strict=True):
        sums = image.ravel() @ matrix
        active = np.maximum(sums, 0).reshape(SIDE, SIDE, 5)
        windows = active.reshape(3, 2, 3, 2, 5).transpose(0, 2, 4, 1, 3).reshape(3, 3, 5, 4)
        pooled = windows.max(-1)
        of_pooled = handed_down(pooled.ravel() @ DENSE[:, [target]], pooled.ravel()[:, None] * DENSE[:, [target]], 0.3)
        of_windows = of_pooled.reshape(3, 3, 5, 1) * (np.arange(4) == windows.argmax(-1)[..., None])
        of_sums = of_windows.reshape(3, 3, 5, 2, 2).transpose(0, 3, 1, 4, 2).ravel()
        kept = of_sums != 0
        expected = handed_down(of_sums[kept], image.ravel()[:, None] * matrix[:, kept], 0.3)
        np.testing.assert_allclose(ours.ravel(), expected, rtol=1e-8, atol=1e-10)


def test_relevance_is_that_of_zennit():
    net, images, target = alexnet()

    def leaf(path, value):  # without biases and shifts, whose share zennit hands on
        return jnp.zeros_like(value) if path[-1].key in ("bias", "mean") else value

    without = net.with_variables(jax.tree_util.tree_map_with_path(leaf, net.variables))
    same(relevance.lrp(without, images, target, gamma=0.25)[:, ::THIN, ::THIN], "lrp")


def test_relevance_without_gamma_is_gradient_times_pixel_and_biases_keep_their_share():
    net = Network(of_layers, {"kernel": NARROW, "dense": DENSE, "bias": np.ones(4)}, rows=8)
    found, expected = relevance.lrp(net, IMAGES, TARGET, gamma=0.0), gradients.input_x_gradient(net, IMAGES, TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    bias = np.random.default_rng(5).standard_normal(4)
    ruled = Network(of_layers, {"kernel": NARROW, "dense": DENSE, "bias": bias}, rows=8)
    total = np.asarray(relevance.lrp(ruled, IMAGES, TARGET)).sum((1, 2, 3))
    np.testing.assert_allclose(total, ruled.scores(IMAGES, TARGET) - bias[TARGET], rtol=1e-10)
    with pytest.raises(UserError, match="lrp: gamma=-1 must be at least 0"):
        relevance.lrp(ruled, IMAGES, TARGET, gamma=-1)


def test_the_sign_of_a_batch_norm_scale_does_not_change_relevance():
    variables = {"kernel": NARROW, "dense": DENSE, "bias": np.zeros(4)}

    def flipped(variables, images):
        x = -convolution.convolve(images, -variables["kernel"], 1, 1)
        x = pooling.max_pool(jnp.maximum(x, 0), 2, 2)
        return x.reshape(len(x), -1) @ variables["dense"]

    both = [relevance.lrp(Network(apply, variables, rows=8), IMAGES, TARGET) for apply in (of_layers, flipped)]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-9, atol=1e-12)


# Inside of networks


def test_guided_backpropagation_changes_every_relu_also_inside_a_choice_by_platform(monkeypatch):
    block = resnet.Bottleneck(
        4, 8, 1, project=True, pooled=False, drop_rate=0.0, zero_init=False, norm=config.Norm(), axis_name=None,
        dtype=jnp.float64, split=False,
    )  # fmt: skip
    variables = drawn("bottleneck", _Pooling(block), (SIDE, SIDE, 3))
    net = Network(_Pooling(block).apply, variables, rows=3)
    found = gradients.guided_backprop(net, IMAGES, TARGET)
    assert np.abs(found - gradients.gradient(net, IMAGES, TARGET)).max() > 1e-3

    monkeypatch.setattr(resnet.nn, "relu", inside._guided_relu)
    guided = block.clone(activate=inside._guided_relu)
    replaced = Network(lambda *inputs: _Pooling(guided).apply(*inputs), variables, rows=3)
    np.testing.assert_allclose(found, gradients.gradient(replaced, IMAGES, TARGET), rtol=1e-9, atol=1e-12)


class _Pooling(nn.Module):
    inner: nn.Module

    def __call__(self, x):
        return self.inner(x, False).mean((1, 2))


def test_a_network_without_relu_has_no_guided_backpropagation():
    with pytest.raises(UserError, match="guided backpropagation changes the gradient of ReLUs, and this network has"):
        gradients.guided_backprop(LINEAR, IMAGES, TARGET)


def layers_of(name: str, side: int, **fields) -> list[inside.Layer]:
    module = models.build(config.Model(name=name, width=1 / 16, **fields), config.Norm(), 4)
    variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    return inside.layers(module.apply, variables, (side, side, 3))


@pytest.mark.parametrize(
    ("name", "side", "chosen", "shape"),
    [
        ("cnn", 8, "bn3", (4, 4, 4)),
        ("vgg16", 32, "block4_bn3", (4, 4, 32)),
        ("resnet50", 32, "block4_3", (4, 4, 128)),
    ],
)
def test_the_layer_chosen_is_the_last_whose_maps_have_four_by_four_positions(name, side, chosen, shape):
    layer = inside.choose(layers_of(name, side))
    assert (layer.name, layer.shape) == (chosen, shape)


def test_a_wrong_layer_is_told_with_the_list():
    found = layers_of("cnn", 8)
    with pytest.raises(UserError, match=r"no layer 'classifier' with .*; it has conv1 \(8x8\), bn1 \(8x8\), conv2"):
        inside.choose(found, "classifier")
    with pytest.raises(UserError, match=r"no layer 'conv4' with .*; it has conv1 \(8x8\), conv2 .*, conv3 .*, bn1 "):
        inside.choose(found, "conv4")
    many = layers_of("resnet50", 32)
    assert len(many) > 40
    for name in ("blok4_3", "x" * 1000, "two\nlines", 3):
        with pytest.raises(UserError, match=r"more$") as caught:
            inside.choose(many, name)
        assert len(str(caught.value)) < 500 and len(str(caught.value).splitlines()) == 1
        assert name != "blok4_3" or "it has block4_3 (4x4)" in str(caught.value)
    with pytest.raises(UserError, match="no layer with feature maps of more than one position"):
        inside.choose(inside.layers(line, jnp.zeros((SIDE * SIDE * 3, 4)), (SIDE, SIDE, 3)))


def test_layers_of_nnx_and_of_plain_flax_have_the_paths_of_their_parameters():
    made = functools.partial(own_parts.Nnx, 4)
    for module, layers in ((nnx_bridge.as_linen(made), ["conv", "norm"]), (own_parts.Plain(4), ["Conv_0", "Conv_1"])):
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        variables = module.init(keys, jnp.zeros((1, 8, 8, 3)))
        found = inside.layers(module.apply, variables, (8, 8, 3))
        assert [layer.name for layer in found if layer.name in layers] == layers
        net = Network(module.apply, variables, rows=4)
        images = jnp.asarray(IMAGES[:, :, :, :], jnp.float32)
        images = jnp.pad(images, ((0, 0), (0, 2), (0, 2), (0, 0)))
        maps = cams.gradcam(net, images, TARGET, layer=inside.choose(found))
        assert maps.shape == (3, 8, 8) and np.isfinite(maps).all()
        assert not np.array_equal(
            gradients.guided_backprop(net, images, TARGET), gradients.gradient(net, images, TARGET)
        )


def test_layers_are_used_in_order_from_the_images_on():
    module = models.build(config.Model(name="cnn", width=1 / 16), config.Norm(), 4)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    order = inside.order_of_use(module.apply, variables, (8, 8, 3))
    assert order == ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "classifier"]


def in_a_scan(variables, images):
    def layer(x, kernel):
        return jnp.maximum(convolution.convolve(x, kernel, 1, 1), 0), None

    return jax.lax.scan(layer, images, variables["kernels"])[0].mean((1, 2))


def in_a_choice(variables, images):
    def layer(x):
        return jnp.maximum(x @ variables["kernel"], 0)

    return jax.lax.cond(images.sum() > 0, layer, lambda x: x @ variables["kernel"], images.mean((1, 2)))


def test_relus_and_kernels_inside_a_scan_or_a_choice_are_not_passed_over():
    scanned = Network(in_a_scan, {"kernels": np.random.default_rng(7).standard_normal((2, 3, 3, 3, 3))}, rows=3)
    with pytest.raises(UserError, match=r"^guided backpropagation: a ReLU lies inside the operation 'scan', where"):
        gradients.guided_backprop(scanned, IMAGES, TARGET % 3)
    lies = r"^layer-wise relevance propagation: a convolution or dense layer lies inside the operation "
    for net, name in ((scanned, "scan"), (Network(in_a_choice, {"kernel": WEIGHTS[:3]}, rows=3), "cond")):
        with pytest.raises(UserError, match=f"{lies}'{name}', where it cannot be changed") as caught:
            relevance.lrp(net, IMAGES, TARGET % 3)
        assert len(str(caught.value)) < 500
    assert np.isfinite(gradients.gradient(scanned, IMAGES, TARGET % 3)).all()  # other methods need no inside


def test_activations_with_a_relu_within_keep_their_gradient_and_are_no_relus():
    kernels = {name: np.random.default_rng(k).standard_normal((3, 3)) for k, name in enumerate("ab")}

    def network_of(first, second):
        def apply(variables, images):
            x = second(first(images @ variables["a"]) @ variables["b"])
            gain = jax.lax.map(jax.nn.hard_swish, x)  # one inside an operation that is not opened
            return gain.mean((1, 2))

        return Network(apply, kernels, rows=3)

    target = TARGET % 3
    for other in (jax.nn.hard_swish, jax.nn.relu6):
        found = gradients.guided_backprop(network_of(jax.nn.relu, other), IMAGES, target)
        wanted = gradients.gradient(network_of(inside._guided_relu, other), IMAGES, target)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
        with pytest.raises(UserError, match="changes the gradient of ReLUs, and this network has none"):
            gradients.guided_backprop(network_of(other, other), IMAGES, target)

    @jax.custom_vjp
    def block(x, kernel):
        return jnp.maximum(x @ kernel, 0)

    block.defvjp(lambda x, kernel: (block(x, kernel), (x, kernel)), lambda saved, dy: (dy @ saved[1].T, None))
    hidden = Network(lambda variables, images: block(images, variables["a"]).mean((1, 2)), kernels, rows=3)
    with pytest.raises(UserError, match="a ReLU lies inside the operation 'custom_vjp_call', where it cannot be"):
        gradients.guided_backprop(hidden, IMAGES, target)


def test_parameters_without_a_collection_keep_the_names_of_their_layers():
    def net(variables, images):
        x = jnp.maximum(convolution.convolve(images, variables["conv1"]["w"], 1, 1), 0)
        return x.mean((1, 2)) @ variables["top"]["w"]

    variables = {"conv1": {"w": NARROW}, "top": {"w": DENSE[:5]}}
    found = inside.layers(net, variables, IMAGES.shape[1:])
    assert [(layer.name, layer.shape) for layer in found] == [("conv1", (SIDE, SIDE, 5))]
    assert inside.order_of_use(net, variables, IMAGES.shape[1:]) == ["conv1", "top"]
    mixed = randomisation.mixed(variables, jax.tree.map(jnp.zeros_like, variables), ["top"])
    assert not mixed["top"]["w"].any() and mixed["conv1"]["w"] is NARROW


# Parts and devices


def test_neither_rows_nor_devices_change_an_explanation():
    module = models.build(config.Model(name="cnn", width=1 / 16), config.Norm(), 4).clone(dtype=jnp.float64)
    variables = drawn("cnn", module, (SIDE, SIDE, 3))
    mesh = meshes.make_mesh(4)
    one, two, four = (
        gradients.smoothgrad(Network(module.apply, each, rows, mesh), IMAGES, TARGET, samples=3)
        for each, rows, mesh in (
            (variables, 16, None),
            (variables, 2, None),
            (jax.device_put(variables, meshes.replicated(mesh)), 8, mesh),
        )
    )
    # Sums in another order: as TOLERANCE, of the largest value.
    np.testing.assert_allclose(two, one, rtol=0, atol=TOLERANCE * np.abs(one).max())
    np.testing.assert_allclose(four, one, rtol=0, atol=TOLERANCE * np.abs(one).max())


def test_parts_are_chosen_by_the_free_memory(monkeypatch):
    net, _, _ = alexnet()
    one = inside.bytes_of_image(net.apply, net.variables, (32, 32, 3))
    measured = network._gradients.lower(
        net.apply, None, net.variables, jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float64),
        jax.ShapeDtypeStruct((16,), jnp.int64),
    ).compile().memory_analysis().temp_size_in_bytes  # fmt: skip
    assert 16 * one >= measured > 16 * one / 20
    monkeypatch.setattr(network, "_free_bytes", lambda mesh: 20 * one)
    assert network.make(net.apply, net.variables, (32, 32, 3)).rows == 10
    assert network.make(net.apply, net.variables, (32, 32, 3), rows=3).rows == 3
    monkeypatch.setattr(network, "_free_bytes", lambda mesh: one)
    assert network.make(net.apply, net.variables, (32, 32, 3)).rows == 1


def test_a_call_has_few_sizes_and_hardly_more_images_than_it_needs():
    sizes = [network.size_of_call(count) for count in range(1, 300)]
    assert all(count <= size <= count * (1 + 1 / 8) for count, size in enumerate(sizes, start=1))
    assert len(set(sizes)) == 16 + 4 * 8 + 2 and sizes[:16] == list(range(1, 17)) and sizes[49] == 52


def test_large_images_go_through_a_cpu_in_small_parts(monkeypatch):
    monkeypatch.setattr(network, "_free_bytes", lambda mesh: 2**50)
    rows = {side: network.make(line, np.zeros((side * side, 2), np.float32), (side, side, 1)).rows for side in (8, 224)}
    assert rows == {8: network.MOST_ROWS, 224: network.MOST_PIXELS // 224**2}


def test_parts_are_equal_and_the_memory_of_compiling_is_given_back_once(monkeypatch):
    released, rows = [], []
    monkeypatch.setattr(network.malloc, "release", lambda: released.append(len(rows)))

    def mean(variables, images):
        rows.append(len(images))
        return images.mean((1, 2)) @ variables

    net = Network(mean, np.ones((1, 2), np.float32), rows=5)
    images = np.ones((8, 4, 4, 1), np.float32)
    assert np.array_equal(net.outputs(images), np.ones((8, 2))) and rows == [4], "two parts of four, not of five"
    net.outputs(images[:7])
    assert rows == [4] and released == [1]


def test_on_a_cpu_a_call_of_the_network_waits_for_the_one_before_it(monkeypatch):
    order, wait = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda made: order.append("waited") or wait(made))
    monkeypatch.setattr(network, "_outputs", lambda *given: order.append("called") or given[-1].mean((1, 2)))
    assert Network(line, WEIGHTS, rows=2).outputs(IMAGES).shape == (3, 3)
    assert order == ["called", "waited"] * 2


def test_dense_layers_are_not_copied():
    def dense(variables, images):
        return images.reshape(len(images), -1) @ variables

    def total(images, variables):
        return kernels.replaced(dense, kernels.in_order)(variables, images).sum()

    shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 32, 64, 1), (2048, 512)))
    made = jax.jit(jax.grad(total)).lower(*shapes).compile()
    assert made.memory_analysis().temp_size_in_bytes < 2048 * 512 * 4 / 4


def test_transformed_kernels_of_all_layers_are_not_kept_at_once():
    def deep(variables, images):
        for kernel in variables:
            images = jnp.maximum(convolution.convolve(images, kernel, 1, 1), 0)
        return images.mean((1, 2))

    random = np.random.default_rng(0)
    variables = [random.standard_normal((3, 3, 64, 64), np.float32) / 20 for _ in range(4)]
    images = random.standard_normal((8, 8, 8, 64), np.float32)
    plain, frugal = (
        jax.jit(call).lower(variables, images).compile() for call in (deep, kernels.replaced(deep, kernels.in_order))
    )
    np.testing.assert_array_equal(plain(variables, images), frugal(variables, images))
    ours, theirs = (each.memory_analysis().temp_size_in_bytes for each in (frugal, plain))
    kernel = variables[0].nbytes * 16 // 9  # of Winograd's method with tiles of two pixels
    assert theirs - ours > 2 * kernel  # of the four, one is there at a time


@pytest.mark.parametrize("name", ["kernel_shap", "lime"])
def test_images_may_have_segments_of_their_own(name):
    method, images = getattr(perturbations, name), IMAGES[:2]
    halves = np.zeros((2, *images.shape[1:3]), int)
    halves[0, : images.shape[1] // 2], halves[1, :, : images.shape[2] // 2] = 1, 1
    found = method(LINEAR, images, TARGET[:2], segments=halves)
    for k in range(2):
        alone = method(LINEAR, images[k : k + 1], TARGET[k : k + 1], segments=halves[k])
        np.testing.assert_array_equal(found[k], alone[0])
    with pytest.raises(UserError, match="segments are those of 1 images, but there are 2"):
        method(LINEAR, images, TARGET[:2], segments=halves[:1])


# Options


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_number_has_a_range_and_its_default_is_in_it(name):
    numbers = 0
    for each in inspect.signature(methods.find(name).call).parameters.values():
        if (
            each.kind != each.KEYWORD_ONLY
            or each.default in (None, inspect.Parameter.empty)
            or each.name in methods._GIVEN
        ):
            continue
        numbers += 1
        kind = type(each.default)
        assert methods.checked(name, {each.name: each.default}) == {each.name: each.default}
        for wrong in (
            math.nan,
            math.inf,
            -1,
            "3",
            True,
            None,
            2**70,
            10**400,
            -(10**5000),
            *([2.5] if kind is int else []),
        ):
            with pytest.raises(UserError, match=rf"^{name}\.{each.name}[ =]") as caught:
                methods.checked(name, {each.name: wrong})
            assert len(str(caught.value).splitlines()) == 1
        assert (
            type(methods.checked(name, {each.name: np.float32(1) if kind is float else np.int64(2)})[each.name]) is kind
        )
    assert numbers >= {"rise": 4, "lime": 4, "smoothgrad": 3, "occlusion": 2}.get(name, 0)


def test_squares_that_leave_gaps_are_refused():
    with pytest.raises(UserError, match=r"^occlusion: stride=3 must be at most window=2"):
        perturbations.occlusion(LINEAR, IMAGES, TARGET, window=2, stride=3)


def test_masks_are_made_in_parts(monkeypatch):
    whole = perturbations.occlusion(LINEAR, IMAGES, TARGET, window=2, stride=1)
    most = []
    hiding = perturbations._hiding
    monkeypatch.setattr(perturbations, "_PART_PIXELS", 3 * math.prod(IMAGES.shape[1:3]))
    monkeypatch.setattr(
        perturbations,
        "_hiding",
        lambda images, mask_of, baseline: hiding(images, lambda n: most.append(n) or mask_of(n), baseline),
    )
    np.testing.assert_allclose(perturbations.occlusion(LINEAR, IMAGES, TARGET, window=2, stride=1), whole, rtol=1e-5)
    assert len(most) > 1 and all(int(numbers.max()) < 3 for numbers in most)


def test_score_cam_makes_no_backward_pass(monkeypatch):
    def never(*given):
        raise AssertionError("a gradient")

    monkeypatch.setattr(network, "_at_layer", never)
    monkeypatch.setattr(network, "_gradients", never)
    variables = {"params": {"layer": {"kernel": NARROW}}}

    def net(variables, images):
        return convolution.convolve(images, variables["params"]["layer"]["kernel"], 1, 1).mean((1, 2))

    (layer,) = inside.layers(net, variables, IMAGES.shape[1:])
    assert cams.scorecam(Network(net, variables, rows=9), IMAGES, TARGET, layer=layer).shape == IMAGES.shape[:3]


def test_score_cam_enlarges_few_maps_at_a_time(monkeypatch):
    net, images, target = alexnet()
    chosen = inside.choose(inside.layers(net.apply, net.variables, images.shape[1:]), "bn2")
    whole = cams.scorecam(net, images, target, layer=chosen)
    seen, enlarged = [], cams.enlarged
    monkeypatch.setattr(cams, "enlarged", lambda maps, size: seen.append(maps.shape[-1]) or enlarged(maps, size))
    few = dataclasses.replace(net, rows=2 * len(images))
    np.testing.assert_allclose(cams.scorecam(few, images, target, layer=chosen), whole, rtol=1e-5, atol=1e-6)
    assert max(seen) == 2 < chosen.shape[-1]


METHODS_OF_FUNCTIONS = [
    gradients.gradient, gradients.input_x_gradient, gradients.smoothgrad, gradients.integrated_gradients,
    functools.partial(gradients.expected_gradients, references=IMAGES), relevance.lrp, perturbations.occlusion,
    perturbations.rise, perturbations.kernel_shap, perturbations.lime,
]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "target", "said"),
    [
        (IMAGES, 1, r"target must be whole numbers \[n\], the output .* of 3 images, but is int64 \[\]"),
        (IMAGES, TARGET[:2], r"target must be .* of 3 images, but is int64 \[2\]"),
        (IMAGES, TARGET[:, None], r"target must be .*, but is int64 \[3, 1\]"),
        (IMAGES, [0.0, 1.0, 2.0], r"target must be .*, but is float64 \[3\]"),
        (IMAGES, [0, 4, 1], "target has 4, but the network has 4 outputs: numbers from 0 to 3"),
        (IMAGES, [0, -1, 1], "target has -1, but the network has 4 outputs: numbers from 0 to 3"),
        (IMAGES[:0], TARGET[:0], "there is no image to explain"),
        (IMAGES[0], TARGET[:1], r"images must be normalised, floating-point .*, but are float64 \[6, 6, 3\]"),
        (IMAGES.astype(np.uint8), TARGET, r"images must be .*, but are uint8 \[3, 6, 6, 3\]"),
    ],
)
def test_images_and_targets_that_do_not_suit_the_network_are_refused(images, target, said):
    net = Network(line, WEIGHTS, rows=5)  # whose number of outputs is not known yet
    layer = inside.Layer("layer", 0, (SIDE, SIDE, 3))
    cam = [functools.partial(each, layer=layer) for each in (cams.gradcam, cams.gradcam_plus_plus, cams.scorecam)]
    for method in (*METHODS_OF_FUNCTIONS, *cam):
        with pytest.raises(UserError, match=f"^{said}$") as caught:
            method(net, images, target)
        assert len(str(caught.value)) < 500


def test_a_network_whose_outputs_have_no_second_axis_is_refused_before_it_is_compiled():
    net = Network(lambda variables, images: images.mean((1, 2, 3)) * variables, np.ones(()), rows=5)
    for method in (*METHODS_OF_FUNCTIONS, gradients.guided_backprop):
        with pytest.raises(UserError, match=r"^the network must return outputs \[n, k\], but of 1 image it returns \["):
            method(net, IMAGES, TARGET)


def test_the_network_is_not_traced_again_for_the_number_of_its_outputs():
    traced = []

    def counting(variables, images):
        traced.append(images.shape)
        return jnp.maximum(line(variables, images), 0)

    net = Network(counting, WEIGHTS, rows=5)
    net.outputs(IMAGES)
    assert len(traced) == 1 and net.checked(IMAGES, TARGET)[1] is TARGET and len(traced) == 1
    gradients.guided_backprop(net, IMAGES, TARGET)
    relevance.lrp(net, IMAGES, TARGET)
    for _ in range(3):
        net.with_guided_relus().checked(IMAGES, TARGET)
    assert len(traced) <= 3, "the programs of the two methods alone"
