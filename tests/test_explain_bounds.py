"""Explanations keep to their folder and their memory, tell what they leave out, and score nothing that says nothing."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxcnn.config import UserError
from jaxcnn.explain import evaluation, methods, out, page, pictures, randomisation, scores, write
from jaxcnn.explain.given import Given
from jaxcnn.explain.subject import Subject
from tests import runs, small
from tests.test_explain import IMAGES, NETWORK, ROW, TARGET, WEIGHTS, untrained

COUNT = 5


def images(**fields) -> Given:
    """Five images of no split, which can be read in any ranges."""
    pixels = small.split(COUNT)[0]
    made = Given([f"image {k}" for k in range(COUNT)], pixels.__getitem__, [0, 1, 2, 3, 0], list("abcda"))
    return dataclasses.replace(made, **fields)


def named(*names: str, **facts) -> Subject:
    subject = untrained("classification")
    return Subject(dataclasses.replace(subject.trained, class_names=names, **facts))


@pytest.fixture(scope="module")
def subject():
    return named("1", "10", "2", "3")


def explained(subject, given, told=None, **fields):
    request = write.Request(**{"methods": ["edges"], **fields})
    return write.explained(subject, given, request, [].append if told is None else told.append), request


# Which output, and how probable


def test_a_whole_number_is_the_place_of_an_output_and_text_is_a_name_first(subject):
    outputs = np.zeros((4, 4), np.float32)
    assert subject.targets([0, 1, 2, 3], outputs).tolist() == [0, 1, 2, 3]
    assert subject.targets(np.array([3, 1, 0, 2]), outputs).tolist() == [3, 1, 0, 2]
    assert subject.targets(["1", "10", "2", "3"], outputs).tolist() == [0, 1, 2, 3]
    assert subject.targets("0", outputs).tolist() == [0] * 4  # no name: a place
    for wrong in (4, -1, True, "7"):
        with pytest.raises(UserError, match="the network has no such output; it has '1', '10', '2', '3'"):
            subject.targets(wrong, outputs)


def test_probabilities_are_those_of_predictions_with_the_fitted_temperature():
    subject = named(*"abcd", fitted={"temperature": 2.5})
    outputs = np.array([[3.0, -1.0, 0.5, 0.0]], np.float32)
    found = np.asarray(subject.probability(outputs))
    np.testing.assert_allclose(found, softmax(outputs / 2.5, axis=1), rtol=1e-5)
    evaluation_of = subject.trained.spec.task.evaluation
    (answer,) = evaluation_of.answers(outputs, subject.class_names, subject.trained.constants, subject.trained.fitted)
    assert answer["probability"] == pytest.approx(found[0, 0], rel=1e-5)
    assert subject.prepared("rise")[1]["probability"](outputs)[0, 0] == found[0, 0]
    assert subject.prepared("rise")[1]["centred"] is False and untrained("regression").prepared("rise")[1]["centred"]


# The folder


def test_files_of_others_are_neither_replaced_nor_removed(subject, tmp_path):
    (tmp_path / "curves.png").write_text("of a training")
    found, request = explained(subject, images())
    write.write(subject, found, request, tmp_path, "a run")
    write.write(subject, found, request, tmp_path, "a run")  # its own files are replaced
    assert (tmp_path / "curves.png").read_text() == "of a training"
    scored = dataclasses.replace(request, score=True)
    with pytest.raises(UserError, match=r"curves\.png is there, and is not of python -m jaxcnn\.explain") as caught:
        write.explained(subject, images(), scored, print, folder=tmp_path)
    assert "\n" not in str(caught.value) and (tmp_path / "curves.png").is_file() and (tmp_path / "maps.npz").is_file()
    (tmp_path / "precious.txt").write_text("")
    with (tmp_path / out.LIST).open("a") as file:
        file.write("precious.txt\n../precious.txt\ncurves.png\n")
    out.Out(tmp_path, ["index.html"]).clear()
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"precious.txt", out.LIST}  # a list names only files that explain writes


def test_an_interruption_keeps_the_methods_that_are_done(subject, tmp_path, monkeypatch):
    def stop(network, images, target):
        raise KeyboardInterrupt

    monkeypatch.setitem(methods.METHODS, "random", dataclasses.replace(methods.find("random"), call=stop))
    monkeypatch.setattr("jaxcnn.explain.subject.BATCH", 2)
    given, request = images(), write.Request(["edges", "random"])
    with pytest.raises(KeyboardInterrupt):
        write.explained(subject, given, request, [].append, folder=tmp_path)
    with np.load(tmp_path / "maps.npz") as file:
        np.testing.assert_array_equal(file["edges"], np.concatenate([
            subject.explain("edges", subject.normalised(given.read(rows)), np.zeros(rows.stop - rows.start, int)).maps
            for rows in given.parts(2)
        ]))  # fmt: skip
        assert "random" not in file and file["outputs"].shape == (COUNT, 4)
    assert len(list((tmp_path / "maps").glob("*-edges.png"))) == COUNT


def test_images_are_read_some_at_a_time(subject, tmp_path, monkeypatch):
    sizes, pixels = [], small.split(COUNT)[0]
    monkeypatch.setattr("jaxcnn.explain.subject.BATCH", 2)
    given = images(read=lambda rows: sizes.append(rows.stop - rows.start) or pixels[rows])
    write.explained(subject, given, write.Request(["edges"]), [].append, folder=tmp_path)
    assert max(sizes) == 2 and len(np.load(tmp_path / "maps.npz")["edges"]) == COUNT


def test_flags_without_the_one_they_belong_to_are_refused(tmp_path):
    for flag, said in (
        ("--examples=1", "--examples is for --split"),
        ("--road", "--road is for --score"),
        ("--points=5", "--points is for --feature_map"),
        ("--among=3", "--among is for --neighbours"),
    ):
        code, output = runs.run(
            f"--workdir={tmp_path}", "--images=docs/digits", flag, f"--out={tmp_path / 'out'}", module="jaxcnn.explain"
        )
        assert code == 2 and said in output and len(output.splitlines()) == 1, output


# Maps that say nothing


def test_a_map_without_an_order_has_no_score():
    masks = np.zeros((2, 4, 4), bool)
    masks[:, 0, 0] = True
    flat = np.stack([np.zeros((4, 4)), ROW[0]])
    assert np.isnan(scores.pointing(flat, masks)[0]) and scores.pointing(flat, masks)[1] == 1
    area, curve = scores.deletion(NETWORK, IMAGES, TARGET, flat, probability=lambda outputs: outputs, steps=4)
    assert np.isnan(area[0]) and np.isnan(curve[:, 0]).all() and np.isfinite(area[1])


def test_maps_of_zeros_are_told_and_not_scored(subject, monkeypatch):
    nothing = dataclasses.replace(methods.find("edges"), call=lambda network, images, target: 0 * images[..., 0])
    monkeypatch.setitem(methods.METHODS, "edges", nothing)
    told = []
    masks = np.zeros((COUNT, 8, 8), bool)
    masks[:, 0, 0] = True
    found, _ = explained(subject, images(masks=masks), told, score=True, road=False)
    assert told[:2] == ["edges: 5 images", "edges: 5 of 5 maps are 0 everywhere and have no scores"]
    assert all(np.isnan(each).all() for each in found.scores.of_each["edges"].values())
    assert {row.method for row in evaluation.table(found.scores.of_each)} == {"random"}
    assert "edges" not in evaluation.curves_csv(found.scores)


# Scores of maps


def test_perturbations_are_drawn_one_at_a_time_and_the_same_each_time():
    shifts = scores.noise(IMAGES.shape, 3, 0.1, 0)
    first, again = np.stack(list(shifts)), np.stack(list(shifts))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.stack(list(dataclasses.replace(shifts, count=2))), first[:2])
    values = np.broadcast_to(2 * WEIGHTS[:, 0].reshape(1, 4, 4, 1), IMAGES.shape)
    error = scores.infidelity(NETWORK, IMAGES, TARGET, values, shifts)
    np.testing.assert_array_equal(error, scores.infidelity(NETWORK, IMAGES, TARGET, values, first))
    relative = scores.infidelity(NETWORK, IMAGES, TARGET, values, shifts, relative=True)
    np.testing.assert_allclose(relative, 1, rtol=1e-4)  # twice the change is wrong by the change


def test_a_map_of_what_each_pixel_adds_predicts_how_the_output_fades():
    shares = scores.Noise((2, 4, 4), 6, 0.3, 0, cells=2)
    right = np.broadcast_to(WEIGHTS[:, 0].reshape(1, 4, 4), (2, 4, 4))  # images are 1
    for scale, expected in ((1, 0), (100, 0), (-1, 1)):  # the unit does not count, and the sign does
        found = scores.faded(NETWORK, IMAGES, TARGET, scale * right, shares)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (scores.faded(NETWORK, IMAGES, TARGET, right[:, ::-1], shares) > 0.05).all()
    assert np.isnan(scores.faded(NETWORK, IMAGES, TARGET, 0 * right, shares)).all()


# What is told


def test_sums_are_told_with_their_share_of_the_change():
    subject = untrained("classification")
    seen, target = subject.normalised(small.split(3)[0]), np.array([0, 1, 2])
    references = seen[1:]
    found = subject.explain("expected_gradients", seen, target, references=references, samples=20)
    outputs = subject.outputs(seen)
    change = outputs[np.arange(3), target] - subject.outputs(references).mean(0)[target]
    np.testing.assert_allclose(found.change, change, atol=1e-5)
    np.testing.assert_allclose(found.gap, found.maps.sum((1, 2)) - change, atol=1e-4)
    np.testing.assert_allclose(found.relative_gap, found.gap / change, rtol=1e-3)
    told = []
    result, request = explained(subject, images(), told, methods=["lrp"])
    assert told[0].startswith("lrp: 5 images, lost to biases ") and told[0].endswith(" % (median)")
    kept = subject.explain("lrp", subject.normalised(images().pixels), result.answers.target)
    np.testing.assert_allclose(kept.change, result.answers.outputs.max(1), atol=1e-5)
    np.testing.assert_allclose(
        result.found["lrp"].relative_gap, kept.maps.sum((1, 2)) / kept.change - 1, rtol=1e-3, atol=1e-5
    )
    assert set(result.keeper.facts) >= {"gap_lrp", "relative_gap_lrp"}
    items = write._items(subject, result, request)
    assert all("lost to biases" in item.scores["lrp"] for item in items)


def test_the_first_images_are_randomised_and_the_page_and_the_terminal_say_so(subject, monkeypatch):
    monkeypatch.setattr("jaxcnn.explain.work.MOST_RANDOMISED", 2)
    calls, explain = [], Subject.explain

    def counted(self, name, images, *given, **options):
        calls.append(len(images))
        return explain(self, name, images, *given, **options)

    monkeypatch.setattr(Subject, "explain", counted)
    told = []
    found, _ = explained(subject, images(), told, randomise=True, independent=True)
    layers = len(found.stages["edges"])
    assert told[1] == "randomisation: the first 2 of 5 images"
    assert "over the first 2 of 5 images" in page._randomisation(found.stages, found.alone, COUNT)
    assert calls == [COUNT] + [2] * (2 * layers - 1)  # neither the trained maps nor the first stage is made twice
    assert found.alone["edges"][0] is found.stages["edges"][0]


def test_the_page_is_bounded_and_says_how_many_images_it_has(monkeypatch):
    image = np.arange(600 * 300 * 3).reshape(600, 300, 3).astype(np.uint8)
    small_one = pictures.at_most(image, pictures.ON_PAGE)
    assert small_one.shape == (224, 112, 3) and small_one.dtype == np.uint8
    np.testing.assert_allclose(pictures.at_most(np.full((600, 300), 2.5), 224), np.full((224, 112), 2.5))
    assert pictures.at_most(image[:8, :8], 224) is not image and pictures.at_most(image[:8, :8], 224).shape == (8, 8, 3)
    maps = {"edges": np.ones((8, 8), np.uint8)}
    items = [page.Item(str(k), image[:8, :8], "a", "a", "a", True, 0.5, (0,), maps) for k in range(4)]
    assert "The page has" not in page.page("t", [], items, ["a"])
    monkeypatch.setattr(page, "MOST_LETTERS", int(1.5 * len(page._card(items[0]))))
    made = page.page("t", [], items, ["a"], count=9)
    assert "The page has the first 2 of 9 images." in made and made.count('class="card"') == 2


def test_the_page_keeps_small_pictures_of_the_methods_on_it_and_not_of_controls(subject):
    result, _ = explained(subject, images(), methods=["gradient"], score=True)
    kept = {name: [(each.shape, each.dtype) for each in found.small] for name, found in result.found.items()}
    assert kept == {"gradient": [(subject.image_shape[:2], np.uint8)] * COUNT, "edges": [], "random": []}


def test_outputs_of_each_image_are_those_of_its_part(subject, monkeypatch):
    monkeypatch.setattr(Subject, "batch", 2)
    for wanted in ([3, 1, 0, 2, 3], np.array([3, 1, 0, 2, 3]), ["3", "10", "1", "2", "3"]):
        result, _ = explained(subject, images(), target=wanted)
        assert result.answers.target.tolist() == [3, 1, 0, 2, 3]
    with pytest.raises(UserError, match="target has 2 outputs for 5 images"):
        explained(subject, images(), target=[3, 1])


# Several labels


def test_images_of_several_labels_are_right_if_the_whole_set_is(subject):
    several = untrained("multilabel")
    with pytest.raises(
        UserError, match=r"^--target=label: an image has no single true class with config\.task\.name='mul"
    ):
        explained(several, images(labels=[None] * COUNT), target="label")
    answers = several.outputs(several.normalised(images().pixels)) >= 0
    sets = answers.copy()
    sets[0, 0] = ~sets[0, 0]
    found, request = explained(several, images(labels=[None] * COUNT, sets=sets))
    items = write._items(several, found, request)
    assert [item.right for item in items] == [False] + [True] * (COUNT - 1)
    assert all(set(np.flatnonzero(sets[k])) <= set(item.classes) for k, item in enumerate(items))


# Layers drawn anew


def test_a_residual_block_drawn_anew_is_not_switched_off():
    subject = untrained("classification", name="resnet20")
    seen = subject.normalised(small.split(2)[0])
    drawn = [randomisation.mixed(subject.network.variables, subject.initial(seed), ["block1_1"]) for seed in (1, 2)]
    first, second = (subject.network.with_variables(each).outputs(seen) for each in drawn)
    assert jnp.abs(first - second).max() > 1e-3
