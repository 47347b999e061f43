"""Several runs that answer together: the mean of their probabilities, in figures, for images, and from Python."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import scipy.special
from PIL import Image

import jaxcnn
import jaxcnn.api.ensemble
from jaxcnn.config import Task, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import averaging, by_name
from jaxcnn.train import ensemble, trained
from tests import digits, runs

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs that differ by their seed, of which the second has another network."""
    place = tmp_path_factory.mktemp("ensemble")
    for number in range(2):
        digits.run(place / str(number), seed=number)
    return [place / "0", place / "1"]


@pytest.fixture(scope="module")
def members(folders):
    return [trained.load(folder, "last", "", 1)[0] for folder in folders]


def test_averaged_outputs_have_the_mean_of_the_probabilities_also_where_these_are_too_small_for_a_float():
    logits = [np.random.default_rng(k).normal(0, 3, (5, 4)).astype(np.float32) for k in range(3)]
    wanted = np.mean([scipy.special.softmax(each.astype(np.float64), -1) for each in logits], axis=0)
    # Logits are rounded to float32: 2^-24 of at most 16, which moves a probability by as much of its own.
    np.testing.assert_allclose(scipy.special.softmax(averaging.of_softmax(logits), -1), wanted, rtol=2e-6)
    wanted = np.mean([scipy.special.expit(each.astype(np.float64)) for each in logits], axis=0)
    np.testing.assert_allclose(scipy.special.expit(averaging.of_sigmoid(logits)), wanted, rtol=2e-6)
    far = np.array([[0, 2000]], np.float32)
    np.testing.assert_array_equal(averaging.of_softmax([far, far]), [[-2000, 0]])
    np.testing.assert_array_equal(averaging.of_sigmoid([far, far]), far)


def test_the_figures_are_those_of_the_mean_probabilities_beside_the_members_own(folders, members):
    split = open_splits(members[0].config.data, members[0].config.task).test
    together = ensemble.of(folders, members)
    figures = together.evaluate(split)
    parts = [
        scipy.special.softmax(each.outputs(split, 0).astype(np.float64) / each.fitted["temperature"], -1)
        for each in members
    ]
    mean, labels = np.mean(parts, axis=0), split.targets
    assert figures["top1_accuracy"] == (mean.argmax(-1) == labels).mean() and figures["examples"] == len(split)
    # Logits and losses in float32: each rounds by at most 2^-24 of the largest logit, some 10.
    assert figures["loss"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), abs=2e-6)
    for one, member, folder in zip(figures["members"], members, folders, strict=True):
        alone = member.evaluate(split)
        assert one["workdir"] == str(folder)
        assert {name: alone[name] for name in ("top1_accuracy", "loss", "macro_auroc")}.items() <= one.items()
    assert all(member.fitted["temperature"] != 1 for member in members)
    lines = together.describe(figures)
    own = [f"accuracy {100 * one['top1_accuracy']:.2f}%" for one in figures["members"]]
    assert [line.split("  ")[0] for line in lines[-3:-1]] == [f"alone: {each}" for each in own]


def test_an_ensemble_of_one_network_twice_is_that_network(folders, members):
    twice = ensemble.of([folders[0]] * 2, [dataclasses.replace(members[0], fitted={})] * 2)
    split = open_splits(members[0].config.data, members[0].config.task).test
    figures, alone = twice.evaluate(split), members[0].evaluate(split)
    assert figures["confusion_matrix"] == alone["confusion_matrix"]
    assert figures["macro_auroc"] == pytest.approx(alone["macro_auroc"], abs=1e-6)


def test_the_commands_and_python_say_the_same(folders, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    together = jaxcnn.ensemble([jaxcnn.load(folders[0]), folders[1]])
    probabilities = together.probabilities(images)
    parts = [jaxcnn.load(folder).network.probabilities(images) for folder in folders]
    np.testing.assert_allclose(probabilities, np.mean(parts, axis=0), atol=1e-6)
    beside = f"--workdir={folders[0]}", f"--ensemble={folders[1]}"
    out = tmp_path / "found.json"
    code, told = runs.run("--mode=predict", *beside, f"--images={tmp_path}", f"--json={out}")
    assert code == 0, told
    for found, answer, row in zip(json.loads(out.read_text()), together.predict(images), probabilities, strict=True):
        assert found["label"] == answer["label"] == str(row.argmax())
        assert found["probability"] == pytest.approx(row.max(), abs=1e-6)
    code, told = runs.run("--mode=eval", *beside, f"--json={tmp_path}/figures.json")
    assert code == 0 and "mean of the probabilities of 2 networks" in told, told
    figures = together.evaluate()
    assert json.loads((tmp_path / "figures.json").read_text())["top1_accuracy"] == figures["top1_accuracy"]
    assert not list(folders[0].glob("eval-*"))


def test_runs_that_cannot_answer_together_are_refused_in_one_line(folders, members):
    first, second = members
    renamed = dataclasses.replace(second, class_names=tuple("abcdefghij"))
    larger = dataclasses.replace(second, spec=dataclasses.replace(second.spec, image_shape=(16, 16, 1)))
    data = dataclasses.replace(second.config.data, resize="pad")
    padded = dataclasses.replace(second, config=dataclasses.replace(second.config, data=data))

    def of_task(name, network):
        task = by_name.make(Task(name=name), 10, sides=(8, 8), network="cnn")
        config = dataclasses.replace(network.config, task=dataclasses.replace(network.config.task, name=name))
        return dataclasses.replace(network, spec=dataclasses.replace(network.spec, task=task), config=config)

    for one, other, words in (
        (first, renamed, "has other classes than"),
        (first, larger, "takes images of 16x16x1, .* of 8x8x1"),
        (first, padded, r"config\.data\.resize='pad'"),
        (first, of_task("multilabel", second), r"config\.task\.name='multilabel', .* 'classification'"),
        (of_task("regression", first), of_task("regression", second), "no probabilities to average"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            ensemble.of(folders, [one, other])
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    with pytest.raises(UserError, match="at least two runs"):
        ensemble.of(folders[:1], members[:1])


def test_a_split_that_a_member_may_have_learnt_is_refused(folders, members, monkeypatch):
    together = ensemble.of(folders, members)
    for split in ("train", "val", "test"):
        ensemble.check_split(together, split)
    read = ensemble.workdir.read_data_facts

    def otherwise(folder: pathlib.Path):
        facts = read(folder)
        return facts if folder == folders[0] else {**facts, "labels_crc32": {**facts["labels_crc32"], "val": 1}}

    monkeypatch.setattr(ensemble.workdir, "read_data_facts", otherwise)
    ensemble.check_split(together, "test")
    with pytest.raises(UserError, match="has another val split than"):
        ensemble.check_split(together, "val")


def test_equal_labels_of_another_fold_or_seed_are_no_equal_split(folders, members, monkeypatch):
    """Stratified parts of a set that is ordered by class have the same labels in the same order."""
    together = ensemble.of(folders, members)
    how = iter(())
    facts = {"labels_crc32": {"val": 7}}
    monkeypatch.setattr(ensemble.workdir, "read_data_facts", lambda folder: facts | {"splits": {"val": next(how)}})
    for one, other, same in (
        ("digits train (fold 0 of 5 by split_seed=0, stratified)", "digits train (fold 1 of 5 by split_seed=0)", False),
        ("folder:/a b/c train (9 held out by split_seed=0)", "folder:/a b/c train (9 held out by split_seed=1)", False),
        ("folder:/a b (old)/c train[:90%] + val", "folder:/d/c train[:80%] + val", False),
        (
            "folder:/a b (old)/c train (9 held out by split_seed=0)",
            "folder:/d train (9 held out by split_seed=0)",
            True,
        ),
    ):
        how = iter((one, other))
        if same:
            ensemble.check_split(together, "val")
            continue
        with pytest.raises(UserError, match="has another val split than"):
            ensemble.check_split(together, "val")


def test_networks_whose_best_was_chosen_by_other_figures_or_that_have_figures_of_a_function_answer_together(
    folders, members
):
    def of_task(network, **task):
        changed = dataclasses.replace(network.config.task, **task)
        made = by_name.make(changed, 10, sides=(8, 8), network="cnn").trained
        config = dataclasses.replace(network.config, task=changed)
        return dataclasses.replace(network, spec=dataclasses.replace(network.spec, task=made), config=config)

    first = of_task(members[0], monitor="macro_f1")
    second = of_task(members[1], evaluation="tests.own_parts:brightness")
    for pair in ([first, second], [second, first]):
        together = ensemble.of(folders, pair)
        outputs = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
        assert np.isfinite(together._averaged([outputs, outputs])).all()
    with pytest.raises(UserError, match="no probabilities"):
        ensemble.of(
            folders, [of_task(each, name="regression", evaluation="tests.own_parts:brightness") for each in members]
        )


def test_remarks_on_the_split_are_logged(folders, members, monkeypatch, caplog):
    together = jaxcnn.ensemble(folders)
    monkeypatch.setattr(jaxcnn.api.ensemble.assess, "open_split", lambda *_: (None, ["the images have changed"]))
    monkeypatch.setattr(ensemble.Ensemble, "evaluate", lambda *_: {})
    together.evaluate()
    assert "the images have changed" in caplog.text
