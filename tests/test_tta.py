"""Test-time augmentation: the views, their weights, and the figures a run tells of."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.source import open_splits
from jaxcnn.learn import tta
from jaxcnn.tasks.classification import probabilities
from jaxcnn.train import assess, evaluate, summary, trained
from tests import digits

pytestmark = pytest.mark.usefixtures("kept_programs")


def images(count=5, height=7, width=6):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def views_by_definition(image):
    """The six views of airbench94's second level, and their weights: mirror images of three crops."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    height, width = image.shape[1:3]
    up, down = padded[:, :height, :width], padded[:, 2 : 2 + height, 2 : 2 + width]
    return [
        (one[:, :, ::turn], weight) for one, weight in ((image, 0.25), (up, 0.125), (down, 0.125)) for turn in (1, -1)
    ]


def test_views_are_the_image_its_mirror_image_and_both_moved_along_the_diagonal():
    image = images()
    expected = views_by_definition(image)
    views = [np.asarray(view) for view in tta.views(jnp.asarray(image), "flip_translate")]
    np.testing.assert_array_equal(views[0], image)
    assert len(views) == 6
    for view, (_, _, weight) in zip(views, tta.VIEWS["flip_translate"], strict=True):
        assert [w for other, w in expected if np.array_equal(view, other)] == [weight]
    for other, _ in expected:
        assert sum(np.array_equal(view, other) for view in views) == 1


@pytest.mark.parametrize("kind", tta.VIEWS)
def test_weights_sum_to_one_and_the_first_view_is_the_image_itself(kind):
    assert sum(view.weight for view in tta.VIEWS[kind]) == 1
    image = images()
    np.testing.assert_array_equal(tta.views(jnp.asarray(image), kind)[0], image)
    constant = tta.predict(lambda view: jnp.full((len(view), 4), 2.0), jnp.asarray(image), kind)
    np.testing.assert_array_equal(constant, 2.0)


def test_logits_are_the_weighted_mean_of_those_of_the_views():
    image = images().astype(np.float32)
    weights = np.random.default_rng(1).standard_normal((image[0].size, 4)).astype(np.float32)
    averaged = tta.predict(lambda view: view.reshape(len(view), -1) @ weights, jnp.asarray(image), "flip_translate")
    expected = sum(weight * (view.reshape(len(view), -1) @ weights) for view, weight in views_by_definition(image))
    # Six sums of 126 products below 256 * 4, in float32.
    np.testing.assert_allclose(averaged, expected, atol=126 * 1024 * 2**-24)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tta") / "run"
    return folder, digits.run(folder, run={"tta": "flip_translate"})


def test_the_test_is_told_with_and_without_and_validation_without(finished):
    folder, figures = finished
    test = figures["test"]
    assert figures["tta"] == "flip_translate"
    assert test["tta_top1_accuracy"] != test["top1_accuracy"]  # mirrored digits are no digits
    assert test["ema_tta_top1_accuracy"] != test["ema_top1_accuracy"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {name: value for name, value in records[-1].items() if name in test} == test
    assert not any("tta" in name for record in records if record["kind"] == "val" for name in record)
    line = summary.last_line(figures)
    assert f"test accuracy {100 * test['ema_top1_accuracy']:.2f}% (moving average, 360 examples), " in line
    assert f"{100 * test['ema_tta_top1_accuracy']:.2f}% with test-time augmentation (flip_translate)" in line


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_agrees_with_the_test_record_on_any_devices(finished, devices):
    folder, figures = finished
    for weights, prefix in (("last", ""), ("ema", "ema_")):
        network, _ = trained.load(folder, "last", weights, devices)
        found = assess.assess(network, folder, "test", "", 50)
        test = figures["test"]
        assert found["tta"] == "flip_translate"
        for name in ("top1_accuracy", "tta_top1_accuracy", "tta_top5_accuracy"):
            assert found[name] == test[prefix + name]
        assert found["tta_loss"] == pytest.approx(test[f"{prefix}tta_loss"], rel=1e-4)
        text = "\n".join(assess.describe(network, found))
        assert f"with test-time augmentation (flip_translate): top-1 {100 * found['tta_top1_accuracy']:.2f}%" in text


def test_the_averaged_logits_of_a_split_are_those_of_the_definition(finished):
    folder, _ = finished
    network, _ = trained.load(folder, "last", "last", 8)
    split = open_splits(network.config.data).test
    found = network.outputs(split, 64, "flip")
    plain = network.outputs(split, 64)
    assert plain.shape == found.shape == (360, 10)
    assert (plain.argmax(-1) != found.argmax(-1)).any()


def test_only_the_least_sure_share_gets_the_views_and_the_line_says_so(tmp_path, finished):
    figures = digits.run(tmp_path / "run", run={"tta": "flip_translate", "tta_share": 0.25})
    test, of_all = figures["test"], finished[1]["test"]
    plain = [name for name in of_all if "tta" not in name]
    assert {name: test[name] for name in plain} == {name: of_all[name] for name in plain}
    assert figures["tta"] == "flip_translate of the least sure 25% of images"
    for devices in (1, 8):
        network, _ = trained.load(tmp_path / "run", "last", "last", devices)
        split = open_splits(network.config.data).test
        whole, averaged = network.outputs(split, 64), network.outputs(split, 64, "flip_translate")
        chosen = np.sort(np.argsort(probabilities(whole).max(-1))[:90])  # of 360 images
        mixed = whole.copy()
        mixed[chosen] = averaged[chosen]
        found = assess.assess(network, tmp_path / "run", "test", "", 50)
        assert found["tta_top1_accuracy"] == np.mean(mixed.argmax(-1) == split.targets) == test["tta_top1_accuracy"]
        assert found["tta"] == figures["tta"] and found["examples"] == 360
        assert found["top1_accuracy"] == test["top1_accuracy"]
    assert len({test["tta_loss"], of_all["tta_loss"], test["loss"]}) == 3


def test_the_least_sure_images_are_in_their_order_and_the_first_of_equal_ones():
    logits = np.array([[9.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 5.0], [0.5, 0.6]], np.float32)
    assert evaluate.least_sure(evaluate.confidence(logits), 0.3).tolist() == [1, 2]
    assert [tta.chosen(10_000, share) for share in (0.25, 0.07, 1e-5, 1e-12)] == [2500, 700, 1, 1]
