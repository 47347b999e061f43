"""Whole runs of a detector: trained, resumed, evaluated and used for prediction."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.deploy import latency, onnx_file, runtimes, verify
from jaxcnn.explain import alike, given, write
from jaxcnn.explain.subject import Subject
from jaxcnn.learn import programs
from jaxcnn.learn.metrics import COUNT, LOSS
from jaxcnn.machine import mesh as meshes
from jaxcnn.serve.service import Service
from jaxcnn.train import assess, features, normalization, predict, setup, trained
from tests import digits, runs, small

pytestmark = pytest.mark.unoptimised
NAMES = ("square", "disc", "frame")


def groups(devices=1, loader="resident", **augment):
    return {
        "global_batch_size": 8,
        "model": {"name": "yolo_cnn", "width": 1 / 32},
        "task": {"name": "detection", "most_boxes": 4, "most_found": 20},
        "data": {"source": "shapes:32:48", "val_examples": 8, "loader": loader},
        "augment": {"flip": "random", "zoom": 0.3} | augment,
        "optim": {"name": "adamw", "learning_rate": 0.01},
        "run": {"steps": 4, "tensorboard": False, "curves": False, "log_every_steps": 1},
        "parallel": {"devices": devices},
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of four steps on one device."""
    folder = tmp_path_factory.mktemp("detector") / "run"
    return folder, digits.run(folder, **groups())


def test_a_run_is_judged_by_the_average_precision_of_coco(run):
    folder, summary = run
    assert summary["headline"] == "ap" or summary["headline"] == "ema_ap"
    test = json.loads((folder / "test.json").read_text())
    assert set(test["ap_by_class"]) == set(NAMES)
    assert 0 <= test["ap"] <= test["ap50"] <= 1


def test_two_devices_and_the_other_loader_train_alike(run, tmp_path):
    digits.run(tmp_path, **groups(devices=2, loader="stream"))
    # The same sums, added in another order, in four steps.
    np.testing.assert_allclose(runs.losses(tmp_path), runs.losses(run[0]), rtol=1e-4)
    assert len(set(runs.losses(run[0]))) == 4


@pytest.mark.parametrize("devices", [4, 8])
def test_four_and_eight_devices_train_alike(run, devices):
    """The second loss is after an update. Only the step is compiled: a run would also compile its evaluation."""
    config = digits.config(**groups(devices=devices))
    found = setup.on(config, open_splits(config.data, config.task), meshes.make_mesh(devices))
    normal = normalization.read(run[0], True, 3)
    constants = found.constants(meshes.put(normal, meshes.replicated(found.mesh)))
    state, losses = small.initial_state(found.spec, found.mesh, config), []
    with small.programs_kept():
        step = programs.train_step(found.spec, found.mesh, "resident")
    with found.make_loader().train_inputs(found.splits.train, 0) as inputs:
        for _ in range(2):
            state, metrics = step(state, next(inputs), constants)
            losses.append(float(metrics.sums[LOSS]) / float(metrics.sums[COUNT]))
    np.testing.assert_allclose(losses, runs.losses(run[0])[:2], rtol=1e-4)  # as above


def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(run, tmp_path):
    digits.run_up_to(2, tmp_path, **groups())
    digits.run(tmp_path, **groups())
    assert digits.have_same_bits(tmp_path, run[0])


def test_evaluation_on_two_devices_and_a_page_of_its_own_give_the_figures_of_the_test(run):
    folder, _ = run
    network, _ = trained.load(folder, "last", "", 2)
    figures = assess.assess(network, folder, "test", "", 6)
    test = json.loads((folder / "test.json").read_text())
    for name in ("ap", "ap50", "ar"):
        assert figures[name] == pytest.approx(test[name], abs=1e-6)
    assert any(line.startswith("AP ") for line in assess.describe(network, figures))
    names = [path.name.removeprefix(f"eval-test-{network.step}") for path in assess.pictures(folder, figures)]
    assert names == [".png", "-hardest.png", "-hardest.html"]
    page = (folder / f"eval-test-{network.step}-hardest.html").read_text()
    assert page.index("Most missed objects") < page.index("Most false objects")
    assert page.count("<img") == page.count("data:image/jpeg;base64,") > 0 and "loss" not in page
    matrix = np.array(figures["confusion_matrix"])
    split = open_splits(network.config.data, network.config.task).test
    objects = split.targets["valid"] & ~split.targets["crowd"]
    assert matrix.shape == (4, 4) and matrix[:3].sum() == objects.sum()
    assert set(figures["at_thresholds"]["per_class"]) == set(NAMES), "those of validation, kept by the run"


def test_predictions_are_in_pixels_of_the_files_and_written_in_the_form_of_coco(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    split = open_splits(network.config.data, network.config.task).test
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    pixels = split.read(np.arange(1))[0]
    Image.fromarray(pixels).save(small)
    Image.fromarray(pixels.repeat(2, axis=0).repeat(2, axis=1)).save(large)
    results = predict.predict(network, [small, large], skip_unreadable=False)
    told = predict.as_json(network, results)
    assert [image["file_name"] for image in told["images"]] == [str(small), str(large)]
    assert [each["name"] for each in told["categories"]] == list(NAMES)
    assert told["annotations"] and {each["image_id"] for each in told["annotations"]} == {1, 2}
    for side, result in ((32, results[0]), (64, results[1])):
        x, y, width, height = np.array([each["bbox"] for each in result["boxes"]]).T
        assert min(x.min(), y.min()) >= 0 and max((x + width).max(), (y + height).max()) <= side + 1e-4
    assert max(each["bbox"][0] + each["bbox"][2] for each in results[1]["boxes"]) > 32
    assert predict.draw(network, results, tmp_path / "drawn.png") == []
    predict.write(network.spec.task.evaluation, results, tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text().startswith("file,boxes")
    assert predict.write_page(network, results, tmp_path / "found.html", run[0]) == []
    page = (tmp_path / "found.html").read_text()
    assert page.count("<article") == 2 and page.count("<rect class") <= sum(len(each["boxes"]) for each in results)


def test_a_server_answers_boxes_of_the_stored_image_as_predict_does(run, tmp_path):
    network = trained.load(run[0], "last", "", 1)[0]
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)).save(path)
    (wanted,) = predict.predict(network, [path], skip_unreadable=False)
    service = Service(network, 1, max_megapixels=1.0)
    (found,) = service.answers([service.decode(path.read_bytes())])

    def rows(answer):
        return sorted((each["category_id"], *np.round(each["bbox"], 1)) for each in answer["boxes"])

    # Programs of other batch sizes: the sums of float32 in another order, so 0.1 of a pixel at a border of rounding.
    np.testing.assert_allclose(rows(found), rows(wanted), atol=0.11)
    assert max(left + width for _, left, _, width, _ in rows(found)) > 60, "the image is wider than the network's"


def test_a_box_is_explained_and_stays_the_explained_one(run, tmp_path):
    network = trained.load(run[0], "last", "", 1)[0]
    subject = Subject(network)
    images = given.of_split(subject, "test", 3, 0)
    seen = subject.normalised(images.pixels)
    outputs = subject.outputs(seen)
    assert outputs.shape == (3, 21 * 3)  # the points of strides 8, 16 and 32 in 32 pixels, and the classes
    best = predict.answers(network, images.pixels)
    target = subject.targets("predicted", outputs)
    for answer, box, label, sure in zip(
        best, subject.boxes(seen, target), subject.classes(target), subject.probability(outputs).max(1), strict=True
    ):
        first = answer["boxes"][0]
        assert first["label"] == NAMES[label]
        np.testing.assert_allclose([*first["bbox"][:2], first["score"]], [*box[:2], sure], rtol=1e-4, atol=1e-3)
    discs = subject.targets("disc", outputs)
    assert (subject.classes(discs) == 1).all()
    np.testing.assert_array_equal(outputs[range(3), discs], outputs.reshape(3, 21, 3)[:, :, 1].max(1))
    request = write.Request(["gradcam"], score=True)
    result = write.explained(subject, images, request, lambda line: None)
    assert result.found["gradcam"].layer == "neck_down0/bn" and result.found["gradcam"].maps.shape == (3, 32, 32)
    write.write(subject, result, request, tmp_path, "a detector")
    with np.load(tmp_path / "maps.npz") as file:
        assert file["boxes"].shape == (3, 4) and set(file["target"]) <= {0, 1, 2}
    assert "Explained: the surest box." in (tmp_path / "index.html").read_text()


def test_what_needs_one_output_for_each_class_is_refused_in_one_line(run, tmp_path):
    network = trained.load(run[0], "last", "", 1)[0]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="--neighbours: a detector has no features of the whole image"):
        alike.check(Subject(network), "--neighbours")
    with pytest.raises(UserError, match="sees several maps; name another layer"):
        features.of_files(network, [tmp_path / "a.png"], skip_unreadable=False)


def test_a_file_of_onnx_finds_what_the_run_finds_also_with_int8(run, tmp_path):
    network, _ = trained.load(run[0], "last", "", 1)
    split, _ = assess.open_split(network, run[0], "val", "")
    boxes = network.outputs(split, 8)
    assert (boxes[..., 4] > 0).sum() > 20
    onnx_file.write(network, tmp_path / "a.onnx")
    whole = runtimes.of_file(tmp_path / "a.onnx")
    assert whole.facts["output"].startswith("boxes: float32")
    found = whole.call(np.asarray(split.read(np.arange(len(split)))))
    # Scores that are equal but for rounding may change places.
    assert (np.abs(found - boxes).max(axis=2) < 1e-3).mean() > 0.9
    verdict = verify.verify(network, whole, split, 8)
    assert verdict.agreement == 1.0 and verdict.difference is None
    assert {name for name, *_ in verdict.figures} >= {"ap", "ap50"}
    assert all(of_file == pytest.approx(of_run, abs=1e-3) for _, of_run, of_file in verdict.figures)
    int8 = onnx_file.int8_graph_of(network, split, 8, "mse")
    onnx_file.write_graph(int8, network, tmp_path / "b.onnx", quantize="int8")
    quantized = runtimes.of_file(tmp_path / "b.onnx")
    assert verify.verify(network, quantized, split, 8).agreement > 0.5
    heads = [node.output for node in int8.nodes if node.op == "Concat"]
    assert not any(int8.maker(name).op == "QuantizeLinear" for name in heads), "answers stay float32"


def test_latency_is_that_of_the_answer_with_or_without_its_suppression(run, monkeypatch):
    network = trained.load(run[0], "last", "", 1)[0]
    split = open_splits(network.config.data, network.config.task).test
    monkeypatch.setattr(latency, "LEAST_CALLS", 2)
    whole, alone = runtimes.of_run(network), runtimes.of_run(network, finding=False)
    assert whole.name.endswith(", with finding what the outputs say") and alone.name.endswith(", the outputs alone")
    size = predict.BATCH  # the program of prediction
    (timing,) = latency.measure(whole, [size], 0.0, given=split.read(np.arange(3)))
    assert timing.calls == 2 and timing.p50 > 0
    pixels = np.resize(split.read(np.arange(2)), (size, 32, 32, 3))
    assert whole.call(pixels).shape == (size, 20, 6)
    assert alone.call(pixels).shape == (size, 21, 4 + 3)  # the points of strides 8, 16 and 32 in 32 pixels
