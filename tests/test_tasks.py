"""Whole runs of tasks other than plain classification: trained, resumed, evaluated and used for prediction."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.data.arrays import DIGITS
from jaxcnn.data.source import open_splits
from jaxcnn.train import assess, predict, trained
from tests import digits

pytestmark = pytest.mark.unoptimised

PLACES = [(1, "resident"), (8, "stream")]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Digits with other targets: whether even, prime or above 6; two numbers; and few of some classes."""
    folder = tmp_path_factory.mktemp("sets")
    with np.load(DIGITS) as file:
        images, labels = file["images"][..., None] * np.uint8(15), file["labels"].astype(np.int64)
    hot = np.stack([labels % 2 == 0, np.isin(labels, (2, 3, 5, 7)), labels > 6], axis=1)
    numbers = np.stack([100.0 + 10 * labels, images.mean(axis=(1, 2, 3))], axis=1)
    test = np.arange(len(labels)) % 5 == 0
    rare = ~test & (labels % 3 == 0) & (np.arange(len(labels)) % 8 > 0)
    found = {
        "multilabel": (~test, hot, ["even", "prime", "large"]),
        "regression": (~test, numbers, ["ten times", "brightness"]),
        "classification": (~test & ~rare, labels, [str(k) for k in range(10)]),
    }
    for name, (train, targets, names) in found.items():
        arrays = {"train_images": images[train], "train_labels": targets[train]}
        arrays |= {"test_images": images[test], "test_labels": targets[test], "names": names}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


def groups_of(sets, name, devices=1, loader="resident", **task):
    return {
        "task": configs.Task(name=name, **task),
        "data": {"source": f"npz:{sets / name}.npz", "val_examples": 200, "loader": loader},
        "parallel": {"devices": devices},
        "optim": {"learning_rate": 0.05},
        "augment": {"mixup": 0.2},
    }


@pytest.fixture(scope="module")
def several(sets, tmp_path_factory):
    """A finished run of several labels for each image."""
    folder = tmp_path_factory.mktemp("several") / "run"
    return folder, digits.run(folder, **groups_of(sets, "multilabel"))


def test_a_run_of_several_labels_is_judged_by_mean_average_precision(several):
    folder, summary = several
    assert summary["headline"] == "ema_mean_average_precision"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    of_val = [record["ema_mean_average_precision"] for record in records if record["kind"] == "val"]
    assert summary["val_best"]["mean_average_precision"] == max(of_val) > 0.7
    test = json.loads((folder / "test.json").read_text())
    assert test["ema_mean_average_precision"] == test["mean_average_precision"] > 0.7
    assert list(test["thresholds"]) == ["even", "prime", "large"]
    assert test["examples"] == 360


@pytest.mark.parametrize("devices", [1, 8])
def test_evaluation_of_several_labels_counts_every_example_once_on_any_devices(several, devices):
    folder, summary = several
    network, _ = trained.load(folder, "last", "", devices)
    figures = assess.assess(network, folder, "test", "", 50)
    test = json.loads((folder / "test.json").read_text())
    assert figures["examples"] == 360
    for name in ("mean_average_precision", "at_half", "at_thresholds", "exact_match"):
        wanted = summary["test"]["ema_exact_match"] if name == "exact_match" else test[name]
        assert figures[name] == pytest.approx(wanted, abs=1e-6)
    split = open_splits(network.config.data, network.config.task).test
    expected = network.spec.task.figures(network.outputs(split, 64), split.targets, network.class_names)
    assert figures["mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=1e-6)
    assert any("mean average precision" in line for line in assess.describe(network, figures))
    assert (folder / f"eval-test-{digits.STEPS}.png").exists()


def test_predictions_of_several_labels_are_a_list_of_names_and_a_column_for_each(several, tmp_path):
    from PIL import Image

    network, _ = trained.load(several[0], "last", "", 1)
    split = open_splits(network.config.data, network.config.task).test
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, pixels in zip(paths, split.read(np.arange(3)), strict=True):
        Image.fromarray(pixels[..., 0]).save(path)
    results = predict.predict(network, paths, skip_unreadable=False)
    assert set(results[0]) == {"file", "labels", "probabilities"}
    for result in results:
        wanted = [n for n, p in result["probabilities"].items() if p >= network.fitted["thresholds"][SETS.index(n)]]
        assert result["labels"] == wanted
    predict.write(network.spec.task.evaluation, results, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "file,labels,even,prime,large,error"


SHORT = {"log_every_steps": 1, "tensorboard": False}
SETS = ["even", "prime", "large"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("multilabel", {"focal_gamma": 1.0, "class_weights": "auto"}),
        ("regression", {"error": "absolute"}),
        (
            "classification",
            {"class_weights": "auto", "focal_gamma": 0.5, "logit_adjustment": 1.0, "generalized_q": 0.5},
        ),
    ],
)
def test_a_task_trains_alike_on_any_devices_with_both_loaders_and_resumes(name, task, sets, tmp_path):
    ends = []
    for devices, loader in PLACES:
        folder = tmp_path / f"{devices}"
        groups = groups_of(sets, name, devices, loader, **task)
        if devices == 1 or name == "classification":  # else without a stop: a step on 8 devices is saved as any other
            digits.run(folder, **groups | {"run": SHORT | {"steps": 6}})
        digits.run(folder, **groups | {"run": SHORT | {"steps": 9}})  # the same, made longer
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        ends.append({(record["kind"], record["step"]): record["loss"] for record in records})
    both = ends[0].keys() & ends[1].keys()
    assert {kind for kind, _ in both} == {"train", "val", "test"} and len(both) >= 11
    np.testing.assert_allclose([ends[0][each] for each in both], [ends[1][each] for each in both], rtol=1e-3)
    assert len(set(ends[0].values())) > 1, "the run must move for the comparison to mean anything"


def test_numbers_are_told_in_their_own_units_and_less_is_better(sets, tmp_path):
    summary = digits.run(tmp_path / "run", **groups_of(sets, "regression"))
    best, test = summary["val_best"]["mean_absolute_error"], summary["test"]["ema_mean_absolute_error"]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert best == min(record["ema_mean_absolute_error"] for record in records if record["kind"] == "val")
    assert 0 < test < 15, "a constant guess is wrong by 25 in the first number"
    network, _ = trained.load(tmp_path / "run", "best", "", 1)
    figures = assess.assess(network, tmp_path / "run", "test", "", 0)
    assert list(figures["by_name"]) == ["ten times", "brightness"]
    split = open_splits(network.config.data, network.config.task).test
    answers = network.spec.task.evaluation.answers(
        network.outputs(split, 0), network.class_names, network.constants, {}
    )
    guess = np.array([list(answer["values"].values()) for answer in answers])
    assert figures["mean_absolute_error"] == pytest.approx(np.abs(guess - split.targets).mean(), rel=1e-6)


def test_a_student_learns_from_a_teacher_whose_weights_are_inputs_of_the_step_and_must_stay(sets, tmp_path):
    digits.run(tmp_path / "teacher", **groups_of(sets, "classification"))
    student = groups_of(sets, "classification", teacher=str(tmp_path / "teacher"), teacher_share=0.99)
    student |= {"run": {"steps": 10, "tensorboard": False}}
    digits.run(tmp_path / "student", **student)
    digits.run(tmp_path / "alone", **student | {"task": configs.Task()})
    network, alone = (trained.load(tmp_path / name, "last", "", 1)[0] for name in ("student", "alone"))
    teacher, _ = trained.load(tmp_path / "teacher", "last", "", 1)
    split = open_splits(network.config.data).test
    theirs, mine, without = (jax.nn.softmax(each.outputs(split, 0)) for each in (teacher, network, alone))
    assert np.abs(mine - theirs).mean() < np.abs(without - theirs).mean()
    shutil.rmtree(tmp_path / "teacher" / "checkpoints" / f"{digits.STEPS}")  # so that an earlier one is its last
    changed = "the network in config.task.teacher, have changed since checkpoint 10"
    with pytest.raises(configs.UserError, match=re.escape(changed)):
        digits.run(tmp_path / "student", **student | {"run": {"steps": 12, "tensorboard": False}})
