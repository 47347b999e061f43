"""A whole run of a small Faster R-CNN: trained on boxes alone, resumed, judged, and used for prediction."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.source import open_splits
from jaxcnn.deploy import onnx_file, runtimes, verify
from jaxcnn.serve.service import Service
from jaxcnn.train import assess, predict, trained
from tests import digits, runs

pytestmark = pytest.mark.unoptimised


def groups(devices=1):
    return {
        "global_batch_size": 4,
        "model": {"name": "faster_rcnn_cnn", "width": 1 / 64},
        "task": {"name": "detection", "most_boxes": 4, "most_found": 8, "most_overlap": 0.5},
        "data": {"source": "shapes:32:16", "val_examples": 4},
        "augment": {"flip": "random"},
        "optim": {"name": "sgd", "learning_rate": 0.01},
        "run": {"steps": 2, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": devices},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two steps on one device."""
    folder = tmp_path_factory.mktemp("faster") / "run"
    return folder, digits.run(folder, **groups())


def test_a_run_is_judged_by_the_average_precision_of_boxes(run):
    folder, summary = run
    assert summary["headline"] in ("ap", "ema_ap")
    test = json.loads((folder / "test.json").read_text())
    assert 0 <= test["ap"] <= test["ap50"] <= 1 and test["loss"] > 0
    assert set(test["ap_by_class"]) == {"square", "disc", "frame"}


def test_two_devices_train_alike(run, tmp_path):
    digits.run(tmp_path, **groups(devices=2))
    np.testing.assert_allclose(runs.losses(tmp_path), runs.losses(run[0]), rtol=1e-5)  # the same sums in another order


def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(run, tmp_path):
    digits.run_up_to(1, tmp_path, **groups())
    digits.run(tmp_path, **groups())
    assert digits.have_same_bits(tmp_path, run[0]) and len(set(runs.losses(tmp_path))) == 2


def test_predictions_are_in_pixels_of_the_files_also_from_a_server(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    split = open_splits(network.config.data, network.config.task).test
    path = tmp_path / "large.png"
    Image.fromarray(split.read(np.arange(1))[0].repeat(2, axis=0).repeat(2, axis=1)).save(path)
    results = predict.predict(network, [path], skip_unreadable=False)
    told = predict.as_json(network, results)
    json.dumps(told)
    assert told["annotations"]
    x, y, width, height = np.array([each["bbox"] for each in told["annotations"]]).T
    assert min(x.min(), y.min()) >= 0 and 32 < max((x + width).max(), (y + height).max()) <= 64 + 1e-4
    assert predict.draw(network, results, tmp_path / "drawn.png") == []
    service = Service(network, 1, max_megapixels=1.0)
    (found,) = service.answers([service.decode(path.read_bytes())])
    assert len(found["boxes"]) == len(results[0]["boxes"])


def test_a_file_of_onnx_finds_what_the_run_finds_in_any_number_of_images(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    split, _ = assess.open_split(network, run[0], "val", "")
    onnx_file.write(network, tmp_path / "a.onnx")
    file = runtimes.of_file(tmp_path / "a.onnx")
    assert file.facts["output"].startswith("boxes: float32")
    images = np.asarray(split.read(np.arange(len(split))))
    found, boxes = file.call(images), network.outputs(split, 4)
    assert np.array_equal(np.concatenate([file.call(each[None]) for each in images]), found)
    assert (boxes[..., 4] > 0).sum() > 8 and (np.abs(found - boxes).max(axis=2) < 1e-3).mean() > 0.9
    verdict = verify.verify(network, file, split, 4)
    assert verdict.agreement == 1.0 and {name for name, *_ in verdict.figures} >= {"ap", "ap50"}
