"""The hardest images of a split: which they are, and the picture and the page that show them."""

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Task
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.tasks import by_name
from jaxcnn.tasks.kept import Kept
from jaxcnn.train import assess, mistakes, mistakes_page, predict, trained
from tests import digits

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes") / "run"
    digits.run(folder)
    network, _ = trained.load(folder, "last", "", 1)
    return folder, network, open_splits(network.config.data).test


def hardest(network, split, outputs):
    of_each = programs.loss_of_each(network.spec, network.mesh, outputs, split.targets, network.constants)
    return mistakes.hardest(network.spec.task, split, outputs, split.targets, of_each, network.constants, {})


def test_the_hardest_images_are_those_of_the_highest_loss_and_the_surest_mistakes(finished):
    _, network, split = finished
    outputs = network.outputs(split, 64)
    found = hardest(network, split, outputs)
    probabilities = np.exp(outputs - outputs.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    losses = -np.log(probabilities[np.arange(360), split.targets])
    assert [one.index for one in found.losses] == np.argsort(-losses, kind="stable")[: mistakes.MOST].tolist()
    assert found.losses[0].loss == pytest.approx(losses.max(), rel=1e-5)
    wrong = np.flatnonzero(probabilities.argmax(-1) != split.targets)
    surest = wrong[np.argsort(-probabilities.max(-1)[wrong], kind="stable")]
    assert found.wrong == len(wrong) > 0
    assert [one.index for one in found.mistakes] == surest[: mistakes.MOST].tolist()
    first = found.mistakes[0]
    assert first.label == f"class {split.targets[first.index]}"
    assert first.answer.startswith(f"class {probabilities[first.index].argmax()} ")
    assert (first.image == split.read(np.array([first.index]))[0]).all()


def test_an_evaluation_leaves_a_picture_and_a_page_without_other_files(finished):
    folder, network, split = finished
    figures = assess.assess(network, folder, "test", "", 0)
    stem = f"eval-test-{network.step}"
    beside = [path.name for path in assess.pictures(folder, figures)]
    assert beside == [f"{stem}.png", f"{stem}-hardest.png", f"{stem}-hardest.html"]
    page = (folder / f"{stem}-hardest.html").read_text()
    assert page.index("Most confident mistakes") < page.index("Highest loss")
    first = hardest(network, split, network.outputs(split, 64)).losses[0]
    assert f"<br>{split.name_of(first.index)}</span>" in page
    assert page.count("data:image/png;base64,") == page.count("<img") > mistakes.MOST
    assert "http" not in page.replace("http-equiv", "")
    assert Image.open(folder / f"{stem}-hardest.png").size[0] > 500


def test_tasks_other_than_classification_show_the_highest_losses():
    class Split:
        class_names = ("height",)
        targets = np.array([[1.0], [2.0], [3.0]], np.float32)

        def read(self, indices):
            return np.zeros((len(indices), 4, 4, 1), np.float32) + indices[:, None, None, None]

    class Constants:
        task = {"target_mean": np.zeros(1, np.float32), "target_std": np.ones(1, np.float32)}  # noqa: RUF012

    outputs = np.array([[1.0], [0.0], [2.5]], np.float32)
    task = by_name.make(Task(name="regression"), 1)
    of_each = {"loss": np.array([0.0, 4.0, 0.25], np.float32)}
    found = mistakes.hardest(task, Split(), outputs, Split.targets, of_each, Constants, {})
    assert [(one.index, one.label, one.answer) for one in found.losses] == [
        (1, "2", "0"), (2, "3", "2.5"), (0, "1", "1"),
    ]  # fmt: skip
    assert found.mistakes is None and found.pictured == found.losses
    assert "Most confident" not in mistakes_page.page(found, "<run>", "") and "&lt;run&gt;" in mistakes_page.page(
        found, "<run>", ""
    )


def test_images_of_any_type_are_shown_as_rgb():
    assert mistakes.as_rgb(np.full((1, 2, 2, 1), 65535, np.uint16)).tolist() == np.full((1, 2, 2, 3), 255).tolist()
    assert mistakes.as_rgb(np.array([0.0, 0.5, 1.0, np.nan], np.float32).reshape(1, 2, 2, 1))[0, :, :, 0].tolist() == [
        [0, 128], [255, 0],
    ]  # fmt: skip
    assert mistakes.as_rgb(np.zeros((1, 2, 2, 4), np.uint8)).shape == (1, 2, 2, 3)


def test_predictions_are_drawn_with_their_files_and_answers(finished, tmp_path):
    _, network, split = finished
    for k, image in enumerate(split.read(np.arange(3))):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(tmp_path / f"{k}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    paths, _ = predict.find_images([str(tmp_path)])
    results = predict.predict(network, paths, skip_unreadable=True)
    out = tmp_path / "drawn.png"
    assert predict.draw(network, results, out) == [f"{out} has 3 of 4 images"]
    assert Image.open(out).size[0] > 300
    assert predict.in_words(results[0]).startswith(f"{results[0]['label']} ")
    assert predict.in_words({"labels": ["cat", "7"]}) == "cat, class 7"
    assert predict.in_words({"values": {"height": 1.25}}) == "1.25"


def test_outputs_that_are_too_many_are_not_kept():
    kept = Kept(by_name.make(Task(), 2).evaluation.collector(None), most=5)
    kept.add(np.zeros((2, 2), np.float32), np.zeros(2, np.int32))
    assert kept.whole()[0].shape == (2, 2)
    kept.add(np.zeros((1, 2), np.float32), np.zeros(1, np.int32))
    assert kept.whole() is None
