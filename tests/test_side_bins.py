"""Boxes by distributions of their sides: PyTorch's values and gradients, closed forms, and a run with its file."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.deploy import onnx_file, runtimes, verify
from jaxcnn.tasks import box_geometry, side_bins
from jaxcnn.tasks.detection import BOX_WEIGHT
from jaxcnn.train import assess, trained
from tests import digits, runs
from tests.goldens import make_side_bins_goldens as goldens
from tests.test_detection import POINTS, assigned, loss_of, targets
from tests.test_detection_runs import groups

pytestmark = pytest.mark.unoptimised
BINS = goldens.BINS


def test_boxes_losses_and_gradients_are_those_of_pytorch():
    golden = np.load(pathlib.Path(goldens.__file__).parent / "side_bins_goldens.npz")
    with jax.enable_x64(True):
        logits, points, boxes = map(jnp.asarray, goldens.drawn())

        def loss(logits):
            of_boxes = 1 - box_geometry.generalized_overlap(side_bins.in_pixels(logits, points), boxes)
            of_sides = side_bins.focal(logits, points, boxes)
            return (BOX_WEIGHT * of_boxes + side_bins.WEIGHT * of_sides).sum(), (of_boxes, of_sides)

        (_, (of_boxes, of_sides)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
        # Some twenty roundings of 2^-53, of numbers up to 300.
        close = {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(side_bins.in_pixels(logits, points), golden["boxes"], **close)
        np.testing.assert_allclose(of_boxes, golden["of_boxes"], **close)
        np.testing.assert_allclose(of_sides, golden["of_sides"], **close)
        np.testing.assert_allclose(gradient, golden["gradient"], **close)
    assert np.abs(golden["gradient"]).max(axis=1).min() > 1e-3


def test_a_side_between_two_bins_is_learnt_as_their_shares_and_found_again():
    point, box = jnp.array([[40.0, 24.0, 8.0]]), jnp.array([[22.0, 24.0, 42.0, 32.0]])  # distances 2.25, 0, 0.25, 1
    shares = np.full((1, 4, BINS), 1e-30, np.float32)
    for side, (bin, share) in enumerate([(2, 0.75), (0, 1.0), (0, 0.75), (1, 1.0)]):
        shares[0, side, bin], shares[0, side, bin + 1] = share, max(1 - share, 1e-30)
    logits = jnp.log(shares.reshape(1, -1))
    assert side_bins.in_pixels(logits, point).tolist() == [pytest.approx(box[0].tolist(), rel=1e-5)]
    # The least loss is the entropy of the shares.
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert float(side_bins.focal(logits, point, box)[0]) == pytest.approx(2 * entropy / 4, rel=1e-5)
    far = jnp.array([[-1000.0, 25.0, 1000.0, 1000.0]])  # beyond the bins, and to the other side of the point
    ends = jnp.zeros((1, 4, BINS)).at[0, [0, 2, 3], -1].set(50.0).at[0, 1, 0].set(50.0).reshape(1, -1)
    assert float(side_bins.focal(ends, point, far)[0]) == pytest.approx(0, abs=1e-5)


def test_the_loss_of_an_image_has_the_share_of_its_positive_points():
    target, points = targets([(8, 8, 40, 40)], [1]), jnp.asarray(POINTS)
    bins = jnp.asarray(np.random.default_rng(0).normal(size=(len(POINTS), 4 * BINS)).astype(np.float32))
    answers = jnp.concatenate([side_bins.in_pixels(bins, points), jnp.full((len(POINTS), 2), 2.0)], axis=1)
    found = assigned(answers, target)
    assert 0 < found.positive.sum() < len(POINTS)
    of_sides = jax.jit(side_bins.focal)(bins, points, jnp.asarray(target["boxes"])[found.box])[found.positive].sum()
    more = loss_of(jnp.concatenate([answers, bins], axis=1), target) - loss_of(answers, target)
    assert more == pytest.approx(0.25 * float(of_sides), rel=1e-3)  # a difference of two sums of some hundred terms


def test_a_run_resumes_to_the_bit_and_its_file_finds_what_it_finds(tmp_path):
    tree = groups()
    tree["model"] = tree["model"] | {"box_bins": BINS}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    digits.run(whole, **tree)
    digits.run_up_to(2, parts, **tree)
    digits.run(parts, **tree)
    assert runs.losses(parts) == runs.losses(whole) and len(set(runs.losses(whole))) == 4
    ends = [trained.load(folder, "last", "last", 1)[0].variables for folder in (whole, parts)]
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, ends), strict=True))
    assert ends[0]["params"]["head"]["level0_box_out"]["kernel"].shape[-1] == 4 * BINS
    network, _ = trained.load(whole, "last", "", 1)
    onnx_file.write(network, tmp_path / "a.onnx")
    split, _ = assess.open_split(network, whole, "val", "")
    verdict = verify.verify(network, runtimes.of_file(tmp_path / "a.onnx"), split, 8)
    assert verdict.agreement == 1.0 and (network.outputs(split, 8)[..., 4] > 0).sum() > 20


def test_one_bin_and_bins_of_another_network_are_refused():
    tree = configs.to_dict(configs.Config())
    tree["model"] |= {"name": "yolo_cnn", "box_bins": 1}
    tree["task"] |= {"name": "detection"}
    with pytest.raises(ConfigError, match=r"config\.model\.box_bins=1 is a single place for a side"):
        configs.from_config_dict(tree)
    tree["model"] |= {"name": "faster_rcnn_cnn", "box_bins": 17}
    with pytest.raises(ConfigError, match=r"config\.model\.box_bins=17 is for yolo_cnn, .*faster_rcnn_cnn has no such"):
        configs.from_config_dict(tree)
