"""A report shows the confused pairs of a run with maps for its answer and for the truth, where it is asked to."""

import dataclasses
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn.config import UserError
from jaxcnn.explain import confused, pictures
from jaxcnn.reporting import explained, page
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.train import predict
from tests import digits, runs
from tests import report_folders as folders


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained") / "digits"
    digits.run(folder, run={"tensorboard": False, "curves": False})
    return folder


@pytest.fixture(scope="module")
def subject(workdir):
    return jaxcnn.load(workdir, devices=1)._subject


def test_the_pairs_are_the_most_frequent_mistakes_and_the_images_the_most_confident_of_them(subject):
    found, looked = confused.of_split(subject, "test", "gradcam", pairs=3, each=2)
    split = subject.splits.test
    outputs = np.concatenate([
        predict.outputs_of(subject.trained, split.read(np.arange(len(split))[k : k + predict.BATCH]))
        for k in range(0, len(split), predict.BATCH)
    ])  # fmt: skip
    outputs /= temperature_of(subject.trained.fitted)
    labels, answers = np.asarray(split.targets), outputs.argmax(1)
    matrix = Confusion.of(labels, answers, 10).dense()
    wrong = matrix - np.diag(np.diag(matrix))
    assert looked == len(split) and [pair.count for pair in found] == sorted(wrong.ravel())[::-1][:3]
    for pair in found:
        assert pair.count == wrong[pair.label, pair.answer] and pair.examples == (labels == pair.label).sum()
        sure = [each.probability for each in pair.shown]
        assert len(sure) == min(2, pair.count) and sure == sorted(sure, reverse=True)
        among = (labels == pair.label) & (answers == pair.answer)
        softmax = np.exp(outputs[among] - outputs[among].max(1, keepdims=True))
        np.testing.assert_allclose(sure[0], (softmax.max(1) / softmax.sum(1)).max(), rtol=1e-5)
    first = found[0].shown[0]
    row = int(first.name.removeprefix("test image "))
    images = subject.normalised(split.read(np.array([row])))
    for target, ours in ((found[0].answer, first.for_answer), (found[0].label, first.for_label)):
        np.testing.assert_allclose(subject.explain("gradcam", images, np.array([target])).maps[0], ours, atol=1e-5)


def test_tasks_without_single_classes_and_absent_splits_are_refused(subject):
    trained = subject.trained
    config = dataclasses.replace(trained.config, task=dataclasses.replace(trained.config.task, name="regression"))
    other = type(subject)(dataclasses.replace(trained, config=config))
    with pytest.raises(UserError, match=r"config.task.name='regression' has no pairs of classes that are confused"):
        confused.of_split(other, "test", "gradcam")


def test_the_page_has_a_section_of_pairs_and_their_maps(workdir, tmp_path):
    findings, remarks = find(read([workdir])), []
    tables, drawn = explained.sections(findings, "gradcam", tmp_path, remarks, set())
    assert remarks == [] and len(tables) == 1 and 1 <= len(drawn) <= confused.PAIRS
    (table,) = tables.values()
    assert table.columns[:3] == ["class", "taken for", "mistakes"] and len(table.rows) == len(drawn)
    text = page.render("a run", findings, tables, drawn, remarks, "python -m jaxcnn.report …")
    assert text.count('href="#confused"') == 1 and text.count('class="pair"') == len(drawn)
    assert text.count('aria-label="the image"') * 2 == text.count('alt="map for ')
    assert "Grad-CAM (Selvaraju et al. 2017)" in text and "Both maps have one scale" in text
    for plot, _ in drawn:
        with Image.open(tmp_path / f"{plot.name}.png") as picture:
            assert picture.width == 3 * 224 + 2 * explained.GAP


def test_both_maps_of_an_image_have_one_scale():
    quiet, loud = np.zeros((2, 2)), np.array([[0.0, 1.0], [2.0, 4.0]])
    mistake = confused.Mistake("a", np.zeros((2, 2, 3), np.uint8), 0.9, 0.1, quiet + loud / 4, loud)
    first, second = explained._scaled(mistake, "positive")
    assert second[1, 1] == 255 and 60 <= first[1, 1] <= 68  # a quarter of it
    with Image.open(io.BytesIO(pictures.palette_png(first, "positive"))) as picture:
        assert picture.size == (2, 2)


def test_without_a_checkpoint_there_is_one_line(workdir, tmp_path):
    folders.write_run(tmp_path / "run", confusion=[[8, 2], [1, 9]])
    remarks = []
    made = explained.sections(find(read([tmp_path / "run"])), "gradcam", tmp_path, remarks, set())
    assert made == ({}, []) and len(remarks) == 1
    assert re.fullmatch(r"--explain=gradcam: .* no finished run of the chosen setting has a checkpoint", remarks[0])
    shutil.copytree(workdir, tmp_path / "broken")
    for file in (tmp_path / "broken" / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    remarks = []
    assert explained.sections(find(read([tmp_path / "broken"])), "gradcam", tmp_path, remarks, set()) == ({}, [])
    assert len(remarks) == 1 and "\n" not in remarks[0]


def test_a_method_that_does_not_exist_is_refused_with_the_list(workdir):
    code, said = runs.run(str(workdir), "--explain=magic", module="jaxcnn.report")
    assert code == 2 and len(said.splitlines()) == 1, said
    assert "--explain: there is no method 'magic'; there are gradient, input_x_gradient, " in said
