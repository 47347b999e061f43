"""Explanations by examples and objects: nearest training images, maps of features, masks, removal without a trace."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn.config import UserError
from jaxcnn.explain import alike, evaluation, feature_chart, feature_map, given, objects, page, removal, write
from jaxcnn.explain.network import Network
from jaxcnn.train import features, predict
from tests import digits

# Removal


def test_a_hole_in_a_ramp_is_filled_with_the_ramp():
    rows, columns = np.mgrid[:9, :11].astype(np.float64)
    image = np.stack([rows, columns, 2 * rows - 3 * columns], axis=-1)  # each pixel is the mean of its neighbours
    hole = np.zeros((9, 11), bool)
    hole[2:7, 3:8] = True
    hole[4, 5] = False
    np.testing.assert_allclose(removal.imputed(image * ~hole[..., None], hole), image, atol=1e-12)


def test_a_removed_pixel_is_the_mean_of_its_neighbours_also_at_the_border():
    random = np.random.default_rng(0)
    image, removed = random.normal(size=(5, 6, 2)), random.random((5, 6)) < 0.6
    found = removal.imputed(image, removed)
    weights = {(i, j): (1 / 6 if i == 0 or j == 0 else 1 / 12) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j}
    for row, column in np.argwhere(removed):
        near = {(row + i, column + j): w for (i, j), w in weights.items() if 0 <= row + i < 5 and 0 <= column + j < 6}
        mean = sum(w * found[place] for place, w in near.items()) / sum(near.values())
        np.testing.assert_allclose(found[row, column], mean, atol=1e-12)
    np.testing.assert_array_equal(found[~removed], image[~removed])
    assert removed[0].any() and removed[:, 0].any()


def test_road_is_above_0_for_the_right_order_and_below_for_the_reverse():
    weights = np.zeros((16, 1), np.float32)
    weights[:4] = 1  # the output is the sum of the first row
    network = Network(lambda variables, images: images.reshape(len(images), -1) @ variables, weights, rows=8)
    image = np.zeros((1, 4, 4, 1), np.float32)
    image[:, 0] = 0.25
    order = -np.arange(16.0).reshape(1, 4, 4)
    found, both = removal.road(network, image, [0], order, probability=lambda outputs: outputs)
    reverse, _ = removal.road(network, image, [0], -order, probability=lambda outputs: outputs)
    assert (both[1, :7] == 1).all()  # without up to 11 of the 12 pixels that do not count
    assert (np.abs(both[0, 2:]) < 0.1).all()  # of the row nothing is left but the noise, 0.01 for each pixel
    assert found[0] > 0.5 and reverse[0] < -0.5


# Objects


def test_boxes_become_masks_of_the_pixels_whose_centre_they_have():
    records = {
        "boxes": np.array([[[0, 0, 2, 1], [1.6, 1, 3, 3]], [[0, 0, 3, 3], [0, 0, 0, 0]]], np.float32),
        "label": np.array([[1, 1], [0, 1]]),
        "valid": np.array([[True, True], [True, False]]),
    }
    masks = objects.in_boxes(records, np.array([1, 1]), (3, 3))
    assert masks[0].astype(int).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert not masks[1].any()  # it has no box of the class


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "digits"
    digits.run(folder, run={"tensorboard": False, "curves": False, "steps": 20})
    return jaxcnn.load(folder, devices=1)


@pytest.fixture(scope="module")
def subject(run):
    return run._subject


def test_masks_have_the_names_of_images_and_are_scored(subject, tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 1  # 0 and 1, as many tools write them
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    found = objects.of_files(subject, tmp_path / "masks", ["photos/a.jpg"])
    assert (found[0] == (mask == 1)).all()
    with pytest.raises(UserError, match=r"--masks=.*: no mask for photos/b.jpg; its name must be b.png"):
        objects.of_files(subject, tmp_path / "masks", ["photos/b.jpg"])
    with pytest.raises(UserError, match=r"^--masks=/nowhere: this file or folder does not exist$"):
        objects.of_files(subject, pathlib.Path("/nowhere"), ["photos/a.jpg"])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"^--masks=.*/none: no images in this folder"):
        objects.of_files(subject, tmp_path / "none", ["photos/a.jpg"])


def test_images_without_the_object_do_not_count():
    rows = evaluation.table({"gradcam": {"pointing": np.array([1.0, np.nan, 0.0]), "overlap": np.array([np.nan] * 3)}})
    assert [(row.score, row.mean, row.images) for row in rows] == [("pointing", 0.5, 2)]
    rows.append(evaluation.Row("gradcam", "road", 0.1, 0.1, 3))
    assert "over 3 images, pointing over 2. " in page._scores(rows)


# Examples


def test_the_nearest_training_images_are_those_of_the_features_and_never_the_image_itself(subject):
    images = given.of_split(subject, "train", 5, 0)
    near = alike.nearest(subject, images, 3, 10_000, 0)
    split = subject.splits.train
    among = features.of_split(subject.trained, split).values.astype(np.float64)
    among /= np.linalg.norm(among, axis=1, keepdims=True)
    own = features.of_pixels(subject.trained, images.pixels)
    for name, row, found in zip(images.names, own, near, strict=True):
        similar = among @ row / np.linalg.norm(row)
        order = [k for k in np.argsort(-similar, kind="stable") if given.full_name(split, int(k)) != name][:3]
        np.testing.assert_allclose([each.similarity for each in found], similar[order], rtol=1e-6)
        assert [each.label for each in found] == [subject.class_names[k] for k in np.asarray(split.targets)[order]]
        np.testing.assert_array_equal(found[0].image[..., 0], split.read(np.array(order[:1]))[0, ..., 0])
        assert name not in {f"{split.name} {each.name}" for each in found}


def test_the_number_of_training_images_is_bounded(subject):
    images = given.of_split(subject, "test", 2, 0)
    few = alike.nearest(subject, images, 3, 10, 0)
    allowed = np.random.Generator(np.random.PCG64(0)).permutation(len(subject.splits.train))[:10]
    assert {each.name for found in few for each in found} <= {str(given.name_of(subject.splits.train, int(k))) for k in allowed}  # fmt: skip  # noqa: E501


# The map


def test_principal_components_are_those_of_the_covariance_and_do_not_turn_over():
    values = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 0.5, 0.2, 0.1]
    places, kept = feature_map.pca(values)
    lengths, axes = np.linalg.eigh(np.cov(values.T))
    np.testing.assert_allclose(places.var(0, ddof=1), lengths[::-1][:2], rtol=1e-10)
    np.testing.assert_allclose(np.abs(places), np.abs((values - values.mean(0)) @ axes[:, ::-1][:, :2]), atol=1e-10)
    np.testing.assert_allclose(kept, lengths[-2:].sum() / lengths.sum(), rtol=1e-10)
    again, _ = feature_map.pca(values @ np.diag([1, 1, 1, 1, 1, 1.0]))
    np.testing.assert_array_equal(again, places)
    assert feature_map.pca(np.ones((4, 1)))[0].tolist() == [[0, 0]] * 4


def test_t_sne_keeps_groups_together():
    pytest.importorskip("sklearn")
    groups = np.repeat([0, 20], 15)
    values = np.random.default_rng(0).normal(size=(30, 5)) + groups[:, None]
    places = feature_map.tsne(values, 0)
    away = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag([np.inf] * 30)
    assert (groups[away.argmin(1)] == groups).all() and places.shape == (30, 2)


def test_examples_and_the_map_are_written_and_on_the_page(subject, tmp_path):
    images = given.of_split(subject, "test", 4, 0)
    request = write.Request(["edges"], neighbours=2, among=50, feature_map="pca", points=40)
    told = []
    files = write.write(subject, write.explained(subject, images, request, told.append), request, tmp_path, "a run")
    assert [file.name for file in files] == [
        "maps.npz",
        "features.csv",
        "features.png",
        "figure.png",
        "figure.pdf",
        "index.html",
    ]
    rows = list(csv.DictReader((tmp_path / "features.csv").open()))
    wrong = sum(row["label"] != row["answer"] for row in rows)
    assert len(rows) == 40 and told[-1].endswith(f"of the variance; {wrong} mistakes")
    there = len(subject.splits.train)
    assert told[-2] == f"nearest training images: among 50 random ones of {there:,}"
    text = (tmp_path / "index.html").read_text()
    assert text.count('data-wrong="1"') == wrong and text.count("<title>test ") == 40
    assert text.count("Nearest training images") == 4 and text.count('class="near"') == 4
    assert text.count("among 50 random ones of ") == 4
    split = subject.splits.test
    chosen = np.sort(np.random.Generator(np.random.PCG64(0)).permutation(len(split))[:40])
    seen, outputs = features.and_outputs(subject.trained, split, chosen)
    np.testing.assert_allclose(seen, features.of_split(subject.trained, split, places=chosen).values, rtol=1e-5)
    assert seen.shape[1] > outputs.shape[1] == len(subject.class_names)
    answers = predict.outputs_of(subject.trained, split.read(chosen)).argmax(1)
    assert [row["answer"] for row in rows] == [subject.class_names[k] for k in answers]
    assert [row["label"] for row in rows] == [subject.class_names[k] for k in np.asarray(split.targets)[chosen]]


def test_names_are_text_in_the_map():
    points = feature_map.Points("tsne", "test split", ("<b>",), np.zeros((1, 2)), np.array([0]), np.array([1]), None)
    made = feature_chart.section(points, ("<i>", "x&y"))
    assert "<b>" not in made and "<i>" not in made and "&lt;b&gt;: &lt;i&gt;, answered x&amp;y" in made


def test_a_map_of_classes_needs_classes(subject):
    trained = subject.trained
    config = dataclasses.replace(trained.config, task=dataclasses.replace(trained.config.task, name="regression"))
    other = type(subject)(dataclasses.replace(trained, config=config))
    with pytest.raises(UserError, match=r"--feature_map: config.task.name='regression' has no classes to colour"):
        feature_map.check(other, "pca")
