"""Explanations of trained networks: scores, randomisation, from Python and by the command."""

import csv
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.config import UserError
from jaxcnn.explain import (
    attention_sheet,
    controls,
    evaluation,
    given,
    methods,
    page,
    pictures,
    randomisation,
    scores,
    write,
)
from jaxcnn.explain.network import Network
from jaxcnn.explain.subject import Subject
from jaxcnn.machine import mesh as meshes
from jaxcnn.train.trained import Trained
from tests import digits, runs, small

# Scores

WEIGHTS = np.zeros((16, 2), np.float32)
WEIGHTS[:4, 0] = 1  # the first output is the sum of the first row
IMAGES = np.ones((2, 4, 4, 1), np.float32)
TARGET = np.array([0, 0])


def line(variables, images):
    return images.reshape(len(images), -1) @ variables


NETWORK = Network(line, WEIGHTS, rows=8)
ROW = np.zeros((2, 4, 4))
ROW[:, 0] = [4, 3, 2, 1]


def whole(outputs):
    return outputs


def test_deletion_of_the_right_pixels_first_has_the_area_under_its_curve():
    area, curve = scores.deletion(NETWORK, IMAGES, TARGET, ROW, probability=whole, steps=16)
    np.testing.assert_array_equal(curve[:, 0], [4, 3, 2, 1, *[0] * 13])  # what is left of the row
    np.testing.assert_allclose(area, (4 / 2 + 3 + 2 + 1) / 16, rtol=1e-12)
    last, _ = scores.deletion(NETWORK, IMAGES, TARGET, -ROW, probability=whole, steps=16)
    np.testing.assert_allclose(last, (4 * 12 + 4 / 2 + 3 + 2 + 1) / 16, rtol=1e-12)


def test_insertion_goes_from_the_blurred_image_to_the_image():
    images = IMAGES * np.arange(4, dtype=np.float32)[None, :, None, None] - 1
    _, curve = scores.insertion(NETWORK, images, TARGET, ROW, probability=whole, steps=4)
    start = NETWORK.scores(scores.blurred(jnp.asarray(images)), TARGET)
    np.testing.assert_allclose(curve[0], start, rtol=1e-6)
    np.testing.assert_allclose(curve[1:, 0], -4, rtol=1e-6)  # the row is whole after the first quarter
    assert abs(start[0] + 4) > 0.1


def test_a_blurred_image_of_one_colour_stays_so():
    np.testing.assert_allclose(scores.blurred(jnp.asarray(IMAGES)), IMAGES, rtol=1e-6)


def test_the_weights_of_a_linear_network_are_faithful_and_do_not_change():
    shifts = scores.noise(IMAGES.shape, 5, 0.1, 0)
    weights = np.broadcast_to(WEIGHTS[:, 0].reshape(1, 4, 4, 1), IMAGES.shape)
    assert scores.infidelity(NETWORK, IMAGES, TARGET, weights, shifts).max() < 1e-10  # float32 rounds at 6e-8
    assert (scores.infidelity(NETWORK, IMAGES, TARGET, 2 * weights, shifts) > 1e-4).all()
    assert (scores.sensitivity(lambda images: weights, IMAGES, weights, shifts) == 0).all()
    nothing = np.concatenate([weights[:1], 0 * weights[1:]])  # no relative change: it has no score
    found = scores.sensitivity(lambda images: weights, IMAGES, nothing, shifts)
    assert found[0] == 0 and np.isnan(found[1])


def test_pointing_and_overlap_by_hand():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 0, :2] = True  # the two largest of the row
    assert scores.pointing(ROW, masks).tolist() == [1, 0]
    assert scores.overlap(ROW, masks).tolist() == [0.7, 0]
    assert scores.overlap(np.zeros((2, 4, 4)), masks).tolist() == [0, 0]


def test_edges_are_where_the_brightness_changes():
    images = np.zeros((1, 5, 5, 2), np.float32)
    images[:, :, 3:] = 1
    found = np.asarray(controls.edges(NETWORK, images, TARGET))[0]
    np.testing.assert_array_equal(found, np.broadcast_to([0, 0, 4, 4, 0], (5, 5)))


# Randomisation


def test_similarity_is_that_of_ranks_of_absolute_values_and_never_nan():
    first = np.array([[[1.0, -2.0], [3.0, 4.0]]])
    assert randomisation.similarity(first, np.exp(np.abs(first))) == 1
    assert randomisation.similarity(first, 1 / np.abs(first)) == -1
    assert randomisation.similarity(first, np.zeros_like(first)) == 0


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "digits"
    digits.run(folder, run={"tensorboard": False, "curves": False})
    return folder


@pytest.fixture(scope="module")
def run(workdir):
    return jaxcnn.load(workdir, devices=1)


@pytest.fixture(scope="module")
def images(run):
    return run._subject.splits.test.read(np.arange(5))


def test_layers_drawn_anew_change_the_maps_of_the_network_but_not_edges(run, images):
    subject = run._subject
    order = randomisation.layers_from_the_top(subject.network, subject.image_shape)
    assert order == ["classifier", "bn3", "conv3", "bn2", "conv2", "bn1", "conv1"]
    seen, target = subject.normalised(images), np.zeros(5, np.int32)
    initial = subject.initial(1)

    def maps(name):
        return lambda network: subject.explain(name, seen, target, using=network).maps

    found = list(randomisation.cascading(subject.network, initial, order, maps("gradient")))
    assert all(np.isfinite(stage.similarity).all() for stage in found)  # BatchNorm is among them
    assert found[-1].similarity.mean() < 0.6
    alone = list(randomisation.independent(subject.network, initial, order, maps("gradient")))
    assert (alone[0].similarity == found[0].similarity).all()
    assert (alone[-1].similarity != found[-1].similarity).any()
    of_edges = list(randomisation.independent(subject.network, initial, order[:1], maps("edges")))
    np.testing.assert_allclose(of_edges[0].similarity, 1)

    mixed = randomisation.mixed(subject.network.variables, initial, ["bn2", "conv3"])
    before, after = subject.network.variables, jax.device_get(mixed)
    assert (after["batch_stats"]["bn2"]["mean"] == 0).all() and (after["batch_stats"]["bn2"]["var"] == 1).all()
    assert (after["params"]["conv3"]["kernel"] == initial["params"]["conv3"]["kernel"]).all()
    assert (after["params"]["conv1"]["kernel"] == before["params"]["conv1"]["kernel"]).all()


# From Python


def test_a_run_explains_images_as_arrays_and_pictures(run, images, tmp_path):
    found = run.explain(images, "gradcam")
    assert found.maps.shape == (5, 8, 8) and np.asarray(found).shape == (5, 8, 8) and len(found) == 5
    assert found.layer == "bn3" and (found.maps >= 0).all()
    assert found.target.tolist() == run.network(images).argmax(1).tolist()
    assert "data:image/png" in found._repr_html_() and repr(found) == "<gradcam of 5 images, 8x8>"
    assert [path.name for path in found.save(tmp_path)][:2] == ["gradcam.npy", "0-gradcam.png"]
    np.testing.assert_array_equal(np.load(tmp_path / "gradcam.npy"), found.maps)


def test_integrated_gradients_of_a_run_tell_their_gap(run, images):
    found = run.explain(images, "integrated_gradients", target=3, steps=40, baseline="black")
    black = np.zeros_like(images[:1])
    change = run.network(images)[:, 3] - run.network(black)[0, 3]
    np.testing.assert_allclose(found.maps.sum((1, 2)) - change, found.gap, atol=1e-4)  # of float32 outputs about 10
    assert np.abs(found.gap).max() < 0.05 * np.abs(change).max()
    again = run.explain(images, "integrated_gradients", target="3", steps=40, baseline=black[0])
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "magic"}, "there is no method 'magic'; there are gradient, "),
        ({"method": ["gradcam"]}, "there is no method ['gradcam']; there are gradient, "),
        ({"method": {}}, "there is no method {}; there are gradient, "),
        ({"method": None}, "there is no method None; there are gradient, "),
        ({"method": "x\n" * 500}, r"there is no method 'x\nx\n"),
        ({"target": "zebra"}, "target=zebra: the network has no such output; it has '0', '1', "),
        ({"target": [1, 2]}, "target has 2 outputs for 5 images"),
        ({"layer": "conv9"}, "the network has no layer 'conv9' with feature maps; it has conv1 (8x8), "),
        ({"steps": 3}, "method 'gradcam' has no option 'steps'; it has none"),
        ({"method": "lime", "steps": 3}, "method 'lime' has no option 'steps'; it has segments, cells, samples, "),
        ({"method": "rise", "baseline": "white"}, "baseline=white: it must be mean or black"),
        ({"target": "label"}, "target=label: the classes of the images are not known; take"),
    ],
)
def test_mistakes_are_one_line(arguments, said, run, images):
    with pytest.raises(UserError, match="^" + re.escape(said)) as caught:
        run.explain(images, **arguments)
    assert len(str(caught.value)) < 500 and len(str(caught.value).splitlines()) == 1


def test_every_method_of_the_table_names_its_source_and_gives_a_map():
    network = Network(lambda variables, images: jnp.maximum(line(variables[0], images), 0) @ variables[1],
                      (WEIGHTS, np.eye(2, dtype=np.float32)), rows=64)  # fmt: skip
    options = {"smoothgrad": {"samples": 4}, "rise": {"masks": 30}, "lime": {"samples": 30}}
    options |= {"kernel_shap": {"cells": 2}, "expected_gradients": {"references": IMAGES, "samples": 4}}
    for name, method in methods.METHODS.items():
        if {"layer", "gate"} & set(method.needs):
            continue
        maps = methods.as_maps(method, method.call(network, IMAGES, TARGET, **options.get(name, {})))
        assert maps.shape == (2, 4, 4) and np.isfinite(maps).all() and method.source, name
        assert method.gives == methods.SIGNED or (maps >= 0).all(), name


def untrained(task: str, dtype: str = "float32", **model) -> Subject:
    """A network with its initial variables, of four outputs."""
    config = small.config(task={"name": task}, model={"dtype": dtype, **model})
    spec, mesh = small.spec_of(config), meshes.make_mesh(1)
    variables = small.initial_state(spec, mesh, config).variables()
    names = ("a", "b", "c", "d")
    return Subject(Trained(config, spec, mesh, 0, "last", variables, small.constants(mesh), names, {}))


@pytest.mark.parametrize(("task", "dtype"), [("multilabel", "float32"), ("regression", "bfloat16")])
def test_other_tasks_and_types_are_explained(task, dtype):
    subject = untrained(task, dtype)
    seen = subject.normalised(small.split(3)[0])
    outputs = subject.outputs(seen)
    assert subject.targets("c", outputs).tolist() == [2, 2, 2]
    if task == "regression":
        with pytest.raises(
            UserError, match="--target=predicted: a regression has no highest output; choose one of 'a'"
        ):
            subject.targets("predicted", outputs)
        np.testing.assert_array_equal(subject.probability(outputs), outputs)
    else:
        assert subject.targets("predicted", outputs).tolist() == outputs.argmax(1).tolist()
        np.testing.assert_allclose(subject.probability(outputs), 1 / (1 + np.exp(-outputs)), rtol=1e-5)
    found = subject.explain("gradcam", seen, np.full(3, 2))
    assert found.maps.dtype == np.float32 and np.isfinite(found.maps).all()
    values = subject.explain("integrated_gradients", seen, np.full(3, 2), steps=16)
    assert np.isfinite(values.maps).all() and np.abs(values.values).max() > 0


# Pictures and the page


def test_the_middle_of_signed_colours_is_zero():
    values = np.array([[-2.0, 0.0], [1.0, 2.0]])
    assert pictures.scaled(values, methods.SIGNED)[0, 1] in (127, 128)
    assert pictures.palette(methods.SIGNED)[128].min() > 240
    assert pictures.scaled(np.full((2, 2), np.nan), methods.SIZE).tolist() == [[0, 0], [0, 0]]


def test_names_of_classes_and_files_are_text_on_the_page():
    image = np.zeros((2, 2, 3), np.uint8)
    item = page.Item("<b>.png", image, "<i>cat", "x&y", "<u>", False, 0.5, (0,), {"gradient": image[..., 0]})
    made = page.page("<title>", [], [item], ["x&y"])
    assert "<i>cat" not in made and "&lt;i&gt;cat" in made and "<b>.png" not in made and "x&amp;y" in made


def test_the_table_of_scores_has_mean_spread_and_number():
    rows = evaluation.table(
        {"gradcam": {"deletion": np.array([0.1, 0.3])}, "random": {"deletion": np.array([0.5, 0.5])}}
    )
    assert rows[0] == evaluation.Row("gradcam", "deletion", 0.2, pytest.approx(0.02**0.5), 2)
    assert list(csv.reader(evaluation.as_csv(rows).splitlines()))[1][:4] == ["gradcam", "deletion", "lower", "0.2"]
    assert evaluation.as_lines(rows)[1].split("  ") == ["gradcam", "0.2 ± 0.14"]
    assert dataclasses.replace(rows[0], images=1).words == "0.2"


# What is written


def test_maps_scores_and_a_page_are_written(run, tmp_path):
    subject = run._subject
    images = given.of_split(subject, "test", 6, 0)
    request = write.Request(["gradcam", "input_x_gradient"], target="label", score=True, randomise=True)
    told = []
    files = write.write(subject, write.explained(subject, images, request, told.append), request, tmp_path, "a run")
    assert [file.name for file in files] == [
        "maps.npz",
        "scores.csv",
        "curves.csv",
        "curves.png",
        "randomisation.csv",
        "randomisation.png",
        "figure.png",
        "figure.pdf",
        "index.html",
    ]
    assert told[0] == "gradcam: 6 images, layer bn3"
    with np.load(tmp_path / "maps.npz") as file:
        assert file["gradcam"].shape == file["edges"].shape == (6, 8, 8)
        assert (file["labels"] == file["target"]).all() and file["outputs"].shape == (6, 10)
    table = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert {row["method"] for row in table} == {"gradcam", "input_x_gradient", "random", "edges"}
    assert {row["images"] for row in table} == {"6"}
    curves = list(csv.DictReader((tmp_path / "curves.csv").open()))
    assert len(curves) == 4 * 2 * 33 and {row["images"] for row in curves} == {"6"}
    first, *_, last = [row for row in curves if (row["method"], row["curve"]) == ("gradcam", "deletion")]
    assert (first["share"], last["share"]) == ("0", "1") and float(first["mean"]) > float(last["mean"])
    assert len((tmp_path / "randomisation.csv").read_text().splitlines()) == 1 + 2 * 7
    text = (tmp_path / "index.html").read_text()
    assert text.count('class="card"') == 6 and "Grad-CAM" in text and "://" not in text
    assert len(list((tmp_path / "maps").glob("*.png"))) == 12
    (tmp_path / "maps" / "mine.png").write_bytes(b"")
    fewer = write.Request(["edges"])
    less = write.explained(subject, given.of_split(subject, "test", 1, 0), fewer, told.append)
    files = write.write(subject, less, fewer, tmp_path, "a run")
    assert [file.name for file in files] == ["maps.npz", "figure.png", "figure.pdf", "index.html"]
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert left == ["figure.pdf", "figure.png", "index.html", "maps.npz", "maps/0-edges.png", "maps/mine.png"]


def test_images_are_scored_in_parts(run, monkeypatch):
    subject, some = run._subject, given.of_split(run._subject, "test", 3, 0)
    request = write.Request(["gradient"], score=True)
    whole = write.explained(subject, some, request, lambda line: None).scores
    monkeypatch.setattr("jaxcnn.explain.subject.BATCH", 2)
    parts = write.explained(subject, some, request, lambda line: None).scores
    for name in ("deletion", "insertion"):  # the others have noise, which depends on the place in the part
        np.testing.assert_allclose(parts.of_each["gradient"][name], whole.of_each["gradient"][name], atol=1e-5)
    assert parts.of_each["gradient"]["sensitivity"].shape == (3,)
    np.testing.assert_allclose(parts.curves["edges"]["deletion"], whole.curves["edges"]["deletion"], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"methods": ["edges"], "layer": "conv1"}, "--layer=conv1 is for class activation maps and attention"),
        ({"methods": ["edges"], "baseline": "black"}, "--baseline=black is for methods that hide pixels"),
        ({"methods": ["edges", "gradcam"], "layer": "conv9"}, "the network has no layer 'conv9' with feature maps"),
        ({"methods": ["edges", "rise"], "options": {"rise": {"cells": 0}}}, "rise.cells must be above 0, but is 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(run, fields, said):
    told = []
    with pytest.raises(UserError, match="^" + re.escape(said)):
        write.explained(run._subject, given.of_split(run._subject, "test", 1, 0), write.Request(**fields), told.append)
    assert not told


def test_layers_drawn_anew_alone_have_a_table_and_a_panel_of_their_own(run, tmp_path):
    subject = run._subject
    request = write.Request(["edges"], randomise=True, independent=True)
    images = given.of_split(subject, "test", 2, 0)
    files = write.write(
        subject, write.explained(subject, images, request, lambda line: None), request, tmp_path, "a run"
    )
    assert [file.name for file in files][1:4] == [
        "randomisation.csv", "randomisation_independent.csv", "randomisation.png"
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "randomisation_independent.csv").open()))
    assert [row["random_alone"] for row in rows] == ["classifier", "bn3", "conv3", "bn2", "conv2", "bn1", "conv1"]
    assert {row["rank_correlation"] for row in rows} == {"1.0000"} and {row["images"] for row in rows} == {"2"}
    text = (tmp_path / "index.html").read_text()
    assert "random down to</th>" in text and "random alone</th>" in text


def test_files_in_folders_named_like_classes_have_their_class(run, images, tmp_path):
    from PIL import Image

    (tmp_path / "7").mkdir()
    (tmp_path / "other").mkdir()
    for name, image in zip(("7/a.png", "other/b.png"), images, strict=False):
        Image.fromarray(image[..., 0]).save(tmp_path / name)
    found, _ = given.of_files(run._subject, [str(tmp_path)])
    assert found.labels == [7, None] and found.words == ["7", ""]
    np.testing.assert_array_equal(found.pixels, images[:2])


# The command


def test_the_command_explains_files(workdir, tmp_path):
    code, said = runs.run(
        f"--workdir={workdir}", "--images=docs/digits", "--methods=edges", f"--out={tmp_path / 'out'}", "--devices=1",
        module="jaxcnn.explain",
    )  # fmt: skip
    assert code == 0 and "edges: 3 images" in said and (tmp_path / "out" / "index.html").is_file(), said


def test_bad_input_is_one_line_with_exit_code_2(workdir, tmp_path):
    code, output = runs.run(
        f"--workdir={workdir}", "--images=docs/digits", "--target=zebra", f"--out={tmp_path / 'out'}", "--devices=1",
        "--methods=edges", module="jaxcnn.explain",
    )  # fmt: skip
    assert code == 2 and len(output.splitlines()) == 1, output
    assert "--target=zebra: the network has no such output; it has '0', '1'" in output


def test_a_folder_that_cannot_be_is_told_before_the_work(workdir, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = runs.run(
        f"--workdir={workdir}", "--images=docs/digits", "--methods=edges", f"--out={tmp_path / 'file' / 'x'}",
        module="jaxcnn.explain",
    )  # fmt: skip
    assert code == 2 and "cannot be created: Not a directory" in output and len(output.splitlines()) == 1, output


def test_all_methods_leave_out_those_that_a_network_cannot_have():
    from jaxcnn.explain.__main__ import _possible

    names, remarks = _possible(
        untrained("classification", activation="silu"), ["gradient", "guided_backprop", "gradcam"]
    )
    assert names == ["gradient", "gradcam"]
    assert remarks[0].startswith(
        "--methods=all leaves out guided_backprop: guided backpropagation changes the gradient"
    )


def test_images_of_other_channels_are_refused(run, tmp_path):
    wide = tmp_path / "wide.npy"
    np.save(wide, np.zeros((8, 8, 5), np.uint8))
    with pytest.raises(UserError, match=r"cannot read image .*wide\.npy: ") as caught:
        given.of_files(run._subject, [str(wide)])
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        UserError, match=r"images has shape \(2, 8, 8, 3\), but the network takes images \[N, H, W, 1\]"
    ):
        run.explain(np.zeros((2, 8, 8, 3), np.uint8))


def test_attention_is_drawn_where_the_network_weighs_pixels(tmp_path):
    subject = untrained("classification", attention="cbam")
    seen = subject.normalised(small.split(3)[0])
    assert [gate.name for gate in subject.gates] == ["attention1", "attention2", "attention3"]
    found = subject.explain("attention", seen, np.array([0, 1, 2]))
    assert (found.layer, found.maps.shape) == (subject.gates[-1].name, seen.shape[:3])
    assert (found.maps == 0.5).all()  # a gate starts at one half
    other = subject.explain("attention", seen, np.array([2, 2, 2]), layer="attention1")
    assert other.layer == "attention1" and (other.maps == 0.5).all()
    with pytest.raises(UserError, match="has no attention layer 'bn1' that weighs pixels; it has attention1"):
        subject.explain("attention", seen, np.array([0, 1, 2]), layer="bn1")
    with pytest.raises(UserError, match="this network has none that does; SE and ECA weigh channels only"):
        untrained("classification", attention="se").explain("attention", seen, np.array([0, 1, 2]))
    pixels = small.split(3)[0]
    sheet = attention_sheet.maps_of(subject, pixels, most=2)
    assert list(sheet) == ["attention1", "attention3"]
    assert np.array_equal(sheet["attention3"][0], found.maps) and sheet["attention3"][1] == subject.gates[-1].shape
    words = ["cat", "dog", "$1"]
    images = given.Given(words, pixels.__getitem__, [None] * 3, words)
    attention_sheet.of_run(subject, images).savefig(tmp_path / "a.png")
    with pytest.raises(UserError, match="shows how attention weighs pixels, and this network has none that does"):
        attention_sheet.maps_of(untrained("classification", attention="se"), pixels)
