"""Whole runs of a small Mask R-CNN: trained, resumed, on two devices, evaluated and used for prediction."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.deploy import onnx_file, runtimes, verify
from jaxcnn.explain import given
from jaxcnn.explain.subject import Subject
from jaxcnn.tasks import run_length
from jaxcnn.tasks.pasting import from_grid
from jaxcnn.train import assess, predict, predictions_page, trained
from tests import digits, runs

pytestmark = pytest.mark.unoptimised


def groups(devices=1, loader="resident"):
    return {
        "global_batch_size": 4,
        "model": {"name": "mask_rcnn_cnn", "width": 1 / 64},
        "task": {"name": "instances", "most_boxes": 4, "most_found": 8, "most_overlap": 0.5, "mask_side": 32},
        "data": {"source": "shapes:32:16", "val_examples": 4, "loader": loader},
        "augment": {"flip": "random", "zoom": 0.3},
        "optim": {"name": "sgd", "learning_rate": 0.01},
        "run": {"steps": 4, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": devices},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four steps on one device."""
    folder = tmp_path_factory.mktemp("instances") / "run"
    return folder, digits.run(folder, **groups())


def test_a_run_is_judged_by_the_average_precision_of_masks_and_told_that_of_boxes(run):
    folder, summary = run
    assert summary["headline"] in ("mask_ap", "ema_mask_ap")
    test = json.loads((folder / "test.json").read_text())
    assert 0 <= test["mask_ap"] <= test["mask_ap50"] <= 1 and 0 <= test["ap"] <= test["ap50"] <= 1
    assert set(test["mask_ap_by_class"]) == {"square", "disc", "frame"}


def test_two_devices_and_the_other_loader_learn_the_same(run, tmp_path):
    digits.run_up_to(3, tmp_path, **groups(devices=2, loader="stream"))
    # The same sums in another order, so the losses of later steps differ by a few 2^-24 each. Under AdamW, which makes
    # much of a gradient that is only rounding, other proposals would be chosen after the first step.
    np.testing.assert_allclose(runs.losses(tmp_path)[:3], runs.losses(run[0])[:3], rtol=1e-5)
    assert len(set(runs.losses(run[0]))) == 4


def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(run, tmp_path):
    digits.run_up_to(2, tmp_path, **groups())
    digits.run(tmp_path, **groups())
    assert digits.have_same_bits(tmp_path, run[0])


def test_evaluation_gives_the_figures_of_the_test_and_predictions_have_masks_of_the_files(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    figures = assess.assess(network, run[0], "test", "", 4)
    test = json.loads((run[0] / "test.json").read_text())
    assert figures["mask_ap"] == pytest.approx(test["mask_ap"], abs=1e-6)
    split = open_splits(network.config.data, network.config.task).test
    path = tmp_path / "large.png"
    Image.fromarray(split.read(np.arange(1))[0].repeat(2, axis=0).repeat(2, axis=1)).save(path)
    results = predict.predict(network, [path], skip_unreadable=False)
    told = predict.as_json(network, results)
    json.dumps(told)
    assert told["annotations"]
    for each in told["annotations"]:
        mask = run_length.decode(each["segmentation"])
        assert mask.shape == (64, 64) and each["area"] == mask.sum()
        x, y, width, _ = each["bbox"]
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert x - 1 <= columns.min() and columns.max() <= x + width and y - 1 <= rows.min()
    assert predict.draw(network, results, tmp_path / "drawn.png") == []
    assert predict.write_page(network, results, tmp_path / "found.html", run[0]) == []
    drawn = [each for each in results[0]["boxes"] if each["score"] >= predictions_page.LEAST]
    assert (tmp_path / "found.html").read_text().count("<g class") == len(drawn)
    assert (run[0] / f"eval-test-{network.step}-hardest.html").exists()


def test_a_file_of_onnx_finds_the_boxes_and_masks_of_the_run(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    split, _ = assess.open_split(network, run[0], "test", "")
    onnx_file.write(network, tmp_path / "a.onnx")
    file = runtimes.of_file(tmp_path / "a.onnx")
    assert file.facts["output"].startswith("instances: float32")
    found, wanted = file.call(np.asarray(split.read(np.arange(len(split))))), network.outputs(split, 4)
    assert (wanted[..., 4] > 0).sum() > 8 and (np.abs(found - wanted).max(axis=2) < 1e-3).mean() > 0.9
    verdict = verify.verify(network, file, split, 4)
    assert verdict.agreement == 1.0 and {name for name, *_ in verdict.figures} >= {"ap", "mask_ap"}
    other = np.array(wanted)
    other[..., 6:] = 1 - other[..., 6:]  # the same boxes, other masks
    sure = wanted[wanted[..., 4] >= 0.3]
    assert not len(sure) or network.spec.task.finds.agreement(wanted, other) < 0.5


def test_the_surest_box_of_a_class_is_explained_with_its_score(run):
    network, _ = trained.load(run[0], "last", "", 1)
    with pytest.raises(UserError, match="finds within the network"):
        runtimes.of_run(network, finding=False)
    subject = Subject(network)
    images = given.of_split(subject, "test", 2, 0)
    seen = subject.normalised(images.pixels)
    outputs = subject.outputs(seen)
    assert outputs.shape == (2, 3)
    answers = predict.answers(network, images.pixels)
    target = subject.targets("predicted", outputs)
    boxes, sure = subject.boxes(seen, target), subject.probability(outputs)
    for number, answer in enumerate(answers):
        for each in answer["boxes"]:
            of_class = sure[number, each["category_id"] - 1]
            # float32: a probability of p by its odds and back, with a rounding of 2^-24 / (1 - p) in 1 - p
            assert each["score"] <= of_class + 1e-5
        if answer["boxes"] and answer["boxes"][0]["category_id"] - 1 == target[number]:
            first = answer["boxes"][0]
            assert first["score"] == pytest.approx(float(sure[number].max()), abs=1e-5)
            np.testing.assert_allclose(boxes[number, :2], first["bbox"][:2], atol=1e-3)
    found = subject.explain("gradcam", seen, target)
    assert found.layer == "pyramid_in2" and found.maps.shape == (2, 32, 32) and found.maps.max() > 0


class Added:
    """A collector that keeps the targets that it gets."""

    def __init__(self):
        self.targets = []

    def add(self, outputs, target):
        self.targets.append(target)

    def fitted(self):
        return {}

    def figures(self, names, fitted):
        return {}


@pytest.mark.parametrize("devices, loader", [(1, "resident"), (2, "stream")])
def test_each_example_is_judged_once_by_its_own_outlines_by_both_loaders(run, devices, loader):
    network, _ = trained.load(run[0], "last", "", devices)
    data = dataclasses.replace(network.config.data, loader=loader)
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, data=data))
    split, added = open_splits(data, network.config.task).train, Added()
    network.evaluate(split, 8, added)  # the last batch is padded
    seen = {name: np.concatenate([each[name] for each in added.targets]) for name in added.targets[0]}
    assert len(split) == len(seen["outline"]) == 12 and (seen["stored"] == 32).all()
    for mask, box, counts, valid in zip(
        *(seen[name] for name in ("mask", "mask_box", "outline", "valid")), strict=True
    ):
        for place in np.flatnonzero(valid):  # exact, as they are small
            own = run_length.decode({"size": [32, 32], "counts": counts[place]}) != 0
            assert np.array_equal(own, from_grid(mask[place], box[place], (32, 32)))
    assert seen["valid"].sum() > 12 and len({text for row in seen["outline"] for text in row if text}) > 12
