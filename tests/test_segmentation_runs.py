"""Whole runs of a network for segmentation: trained, resumed, evaluated, used for prediction, served and exported."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.deploy import onnx_file, predictor
from jaxcnn.explain import alike, given, objects, write
from jaxcnn.explain.subject import Subject
from jaxcnn.learn import network as learnt
from jaxcnn.serve.service import Service
from jaxcnn.tasks.regions import label_map
from jaxcnn.train import assess, predict, trained
from tests import digits, runs

pytestmark = pytest.mark.unoptimised
NAMES = ("background", "square", "disc", "frame")


def groups(devices=1, loader="resident"):
    return {
        "global_batch_size": 8,
        "model": {"name": "unet_small", "width": 1 / 16},
        "task": {"name": "segmentation", "dice_share": 0.5, "class_weights": "auto"},
        "data": {"source": "shapes:16:24", "val_examples": 8, "loader": loader},
        "augment": {"flip": "random", "zoom": 0.3},
        "optim": {"learning_rate": 0.05, "label_smoothing": 0.1},
        "run": {"steps": 4, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": devices},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four steps on one device."""
    folder = tmp_path_factory.mktemp("segmentation") / "run"
    return folder, digits.run(folder, **groups())


def test_a_run_is_judged_by_the_mean_overlap_and_says_each_class(run):
    folder, summary = run
    assert summary["headline"] == "ema_mean_iou"
    test = json.loads((folder / "test.json").read_text())
    assert tuple(test["iou_by_class"]) == NAMES and 0 <= test["mean_iou"] <= test["mean_dice"] <= 1
    assert np.sum(test["confusion_matrix"]) == 6 * 16 * 16


def test_two_devices_and_the_other_loader_train_alike(run, tmp_path):
    digits.run(tmp_path, **groups(devices=2, loader="stream"))
    # The same sums, added in another order, in four steps.
    np.testing.assert_allclose(runs.losses(tmp_path), runs.losses(run[0]), rtol=1e-4)
    assert len(set(runs.losses(run[0]))) == 4


def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(run, tmp_path):
    digits.run_up_to(2, tmp_path, **groups())
    digits.run(tmp_path, **groups())
    assert runs.losses(tmp_path) == runs.losses(run[0])
    ends = [trained.load(folder, "last", "last", 1)[0].variables for folder in (tmp_path, run[0])]
    leaves = [map(np.asarray, jax.tree.leaves(end)) for end in ends]
    assert all(np.array_equal(one, other) for one, other in zip(*leaves, strict=True))


def test_evaluation_prediction_server_and_export_answer_alike(run, tmp_path):
    folder, _ = run
    network = trained.load(folder, "last", "", 1)[0]
    figures = assess.assess(network, folder, "test", "", 6)
    test = json.loads((folder / "test.json").read_text())
    assert figures["confusion_matrix"] == test["confusion_matrix"]
    assert any(line.startswith("mean IoU ") for line in assess.describe(network, figures))
    names = [path.name.removeprefix(f"eval-test-{network.step}") for path in assess.pictures(folder, figures)]
    assert names == [".png", "-hardest.png", "-hardest.html"]
    page = (folder / f"eval-test-{network.step}-hardest.html").read_text()
    assert "Most wrong pixels" in page and "% of the pixels wrong" in page

    split = open_splits(network.config.data, network.config.task).test
    pixels = split.read(np.arange(6))
    found = predict.outputs_of(network, pixels)
    matrix = np.zeros((4, 4), int)
    np.add.at(matrix, (split.targets, found), 1)
    assert matrix.tolist() == test["confusion_matrix"]

    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(pixels[0]).save(small)
    Image.fromarray(pixels[0].repeat(2, axis=0).repeat(2, axis=1)).save(large)
    results = predict.predict(network, [small], skip_unreadable=False)
    assert np.array_equal(label_map(results[0]), found[0])
    service = Service(network, 1, max_megapixels=1.0)
    (served,) = service.answers([service.decode(small.read_bytes())])
    assert served["regions"] == results[0]["regions"]
    told = predict.as_json(network, results)
    assert [each["name"] for each in told["categories"]] == list(NAMES)
    assert sum(each["area"] for each in told["annotations"]) == 16 * 16
    predict.write(network.spec.task.evaluation, results, tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text().startswith("file,background")
    assert predict.draw(network, results, tmp_path / "drawn.png") == []
    assert predict.write_page(network, results, tmp_path / "found.html", folder) == []
    assert (tmp_path / "found.html").read_text().count("<path") == len(results[0]["regions"])

    onnxruntime = pytest.importorskip("onnxruntime")
    onnx_file.write(network, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    assert np.array_equal(session.run(None, {predictor.INPUT: pixels})[0], found)
    assert "number of the class of each pixel" in session.get_modelmeta().custom_metadata_map["output"]


def test_the_mean_logit_of_a_class_is_explained_and_scored_on_its_true_pixels(run, tmp_path):
    network = trained.load(run[0], "last", "", 1)[0]
    subject = Subject(network)
    images = given.of_split(subject, "test", 3, 0)
    seen = subject.normalised(images.pixels)
    outputs = subject.outputs(seen)
    model = learnt.network(network.spec)
    np.testing.assert_allclose(
        outputs, model.apply(network.variables, seen, train=False).mean((1, 2)), rtol=1e-5, atol=1e-6
    )
    target = subject.targets("predicted", outputs)
    assert (target == outputs[:, 1:].argmax(1) + 1).all(), "the first class is the background"
    assert (subject.targets("disc", outputs) == 2).all()
    disc = np.array([2, 2, 2])
    assert np.array_equal(objects.of_targets(subject, images.targets, disc), images.targets == 2)
    request = write.Request(["gradcam", "integrated_gradients"], target="disc", score=True)
    result = write.explained(subject, images, request, lambda line: None)
    assert result.found["gradcam"].layer == "up2_2", "the last that is coarser than the image"
    # 50 steps of a path on which the logits stay within some units.
    assert np.abs(result.found["integrated_gradients"].gap).max() < 0.05
    assert {"insertion", "deletion"} <= set(result.scores.of_each["gradcam"])
    write.write(subject, result, request, tmp_path, "a map")
    assert "Explained: the mean logit over all pixels of the class disc." in (tmp_path / "index.html").read_text()
    with pytest.raises(UserError, match="--neighbours: a network with a class for each pixel has no features"):
        alike.nearest(subject, images, 1, 10, 0)
