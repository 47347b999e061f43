"""Evaluation of a finished run: figures of merit, each example counted once whatever the devices and the batch."""

import dataclasses
import errno
import functools
import json

import numpy as np
import pytest
import sklearn.metrics

from jaxcnn.config import Task, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.learn import sharded
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name, classification, confusion
from jaxcnn.text import distinct
from jaxcnn.train import assess, trained, workdir
from jaxcnn.train.checkpoint import Checkpoints
from tests import digits

pytestmark = pytest.mark.usefixtures("kept_programs")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assess") / "run"
    summary = digits.run(folder)
    return folder, summary


@functools.cache
def load(folder, checkpoint="last", weights="", devices=1):
    network, remarks = trained.load(folder, checkpoint, weights, devices)
    assert remarks == []
    return network


def evaluate(folder, split="test", picture=False, **choices):
    with pytest.MonkeyPatch.context() as patched:
        if not picture:  # which takes most of the time
            patched.setattr(assess, "_draw", lambda *_: None)
        return assess.assess(load(folder, **choices), folder, split, "", 0)


def measure(logits, labels, names):
    return by_name.make(Task(), len(names)).figures(logits, labels, names)


def test_evaluation_agrees_with_the_test_record_of_the_run(finished):
    folder, summary = finished
    for weights, prefix in (("last", ""), ("ema", "ema_")):
        figures = evaluate(folder, weights=weights)
        test = summary["test"]
        assert figures["examples"] == test["examples"] == 360
        assert figures["top1_accuracy"] == test[f"{prefix}top1_accuracy"]
        assert figures["top5_accuracy"] == test[f"{prefix}top5_accuracy"]
        # The record is a sum in float32 on the device: 360 terms, each addition rounds by at most 2^-24 of the sum.
        assert figures["loss"] == pytest.approx(test[f"{prefix}loss"], rel=360 * 2**-24)
    assert test["top1_accuracy"] != test["ema_top1_accuracy"], "the run cannot tell the two kinds of weights apart"


def test_figures_are_told_where_the_workdir_cannot_be_written(finished, monkeypatch, caplog):
    folder, _ = finished
    figures = evaluate(folder)
    assert assess.is_kept(folder, figures)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(workdir, "write_json", refuse)
    assert evaluate(folder) == figures
    told = [record.getMessage() for record in caplog.records if record.name == "jaxcnn"]
    assert told == [f"{folder} cannot be written (Read-only file system): the results are only shown here"]
    assert not assess.is_kept(folder, figures | {"loss": 0.0}), "an earlier evaluation is not this one"


def test_the_moving_average_is_the_default_where_the_run_keeps_one(finished):
    folder, _ = finished
    assert evaluate(folder)["weights"] == "ema"


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_every_example_is_counted_once_on_any_devices_and_batch_size(finished, devices, batch_size):
    folder, summary = finished
    network = load(folder, devices=devices)
    labels = open_splits(network.config.data).test.targets
    logits = network.outputs(open_splits(network.config.data).test, batch_size)
    matrix = np.array(measure(logits, labels, network.class_names)["confusion_matrix"])
    assert logits.shape == (360, 10)
    assert matrix.sum(axis=1).tolist() == np.bincount(labels).tolist()
    assert matrix.trace() == round(360 * summary["test"]["ema_top1_accuracy"])
    # Other batches and partitions round other intermediate sums: a few units in the last place of float32.
    alone = load(folder).outputs(open_splits(network.config.data).test, 360)
    np.testing.assert_allclose(logits, alone, rtol=0, atol=np.abs(alone).max() * 2**-24 * 64)
    assert logits.argmax(-1).tolist() == alone.argmax(-1).tolist()


def test_the_one_look_at_the_test_split_leaves_what_an_evaluation_would_find(finished):
    folder, summary = finished
    kept = json.loads((folder / "test.json").read_text())
    assert {key: kept[key] for key in summary["test"]} == summary["test"]
    figures = evaluate(folder)
    assert kept["confusion_matrix"] == figures["confusion_matrix"]
    assert kept["per_class_accuracy"] == figures["per_class_accuracy"]
    assert np.trace(kept["confusion_matrix"]) == round(360 * kept["ema_top1_accuracy"])
    # A mean of confidences, each in [0, 1] and known to a few units in the last place of logits of order 10.
    assert kept["calibration_error"] == pytest.approx(figures["calibration_error"], abs=8 * 10 * 2**-24)


def test_each_split_has_its_own_examples(finished):
    folder, _ = finished
    figures = {split: evaluate(folder, split) for split in ("train", "val", "test")}
    assert {split: f["examples"] for split, f in figures.items()} == {"train": 1237, "val": 200, "test": 360}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [r for r in records if r["kind"] == "val"][-1]
    assert figures["val"]["top1_accuracy"] == last["ema_top1_accuracy"]
    assert figures["train"]["split"] == "train"


def test_figures_and_confusion_matrix_are_left_in_the_workdir(finished, monkeypatch):
    folder, _ = finished
    noted = dataclasses.replace(open_splits(load(folder).config.data), notes=("skipped 3 files",))
    monkeypatch.setattr(assess, "open_splits", lambda *_: noted)
    figures = evaluate(folder, picture=True)
    assert figures["notes"] == ["skipped 3 files"]
    assert json.loads((folder / f"eval-test-{digits.STEPS}.json").read_text()) == figures
    assert (folder / f"eval-test-{digits.STEPS}.png").read_bytes().startswith(PNG)


def test_the_checkpoint_that_the_run_was_tested_with_is_the_usual_one(finished, monkeypatch):
    folder, _ = finished
    config = workdir.read_config(folder)
    monkeypatch.setattr(trained.Checkpoints, "best", lambda _: 20)
    assert trained.load(folder, trained.TESTED, "", 1)[0].step == digits.STEPS
    tested = dataclasses.replace(config, run=dataclasses.replace(config.run, test_with="best"))
    monkeypatch.setattr(workdir, "read_config", lambda _: tested)
    monkeypatch.setattr(trained.origin, "check", lambda *_: None)
    assert trained.load(folder, trained.TESTED, "", 1)[0].step == 20


def test_a_checkpoint_is_chosen_by_step_or_as_the_best(finished):
    folder, _ = finished
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = {r["step"]: r for r in records if r["kind"] == "val"}
    early = min(validated)
    figures = evaluate(folder, "val", checkpoint=str(early), weights="last")
    assert figures["step"] == early < digits.STEPS
    assert figures["top1_accuracy"] == validated[early]["top1_accuracy"]
    best = evaluate(folder, "val", checkpoint="best")
    assert best["top1_accuracy"] == max(r["ema_top1_accuracy"] for r in validated.values())


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ("nonsense", "--checkpoint=nonsense is not tested, last, best or a step"),
        ("7", "has no checkpoint 7; it has 20, "),
        ("-1", "has no checkpoint -1"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_refused(finished, checkpoint, words):
    with pytest.raises(UserError, match=words):
        trained.load(finished[0], checkpoint, "", 1)


def test_a_workdir_without_a_checkpoint_is_refused(finished, tmp_path):
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(UserError, match="no checkpoint; train first"):
        trained.load(tmp_path, "last", "", 1)
    with pytest.raises(UserError, match="no checkpoint that was evaluated on a validation split"):
        trained.load(tmp_path, "best", "", 1)


def test_a_run_on_the_full_split_has_no_validation_split(finished):
    network = load(finished[0])
    data = dataclasses.replace(network.config.data, protocol="full")
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, data=data))
    with pytest.raises(UserError, match=r"--split=val: this run has none \(config\.data\.protocol='full'\)"):
        assess.assess(network, finished[0], "val", "", 0)


def test_a_run_without_moving_average_is_evaluated_with_its_last_weights(finished, tmp_path):
    folder, summary = finished
    config = digits.config(optim={"ema_decay": 0.0})
    workdir.write_config(tmp_path, config)
    for name in ("data.json", "normalization.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    network = load(folder, weights="last")
    state = sharded.abstract_state(network.spec, network.mesh)
    theirs = Checkpoints(folder / "checkpoints", network.config.checkpoint, read_only=True)
    restored = theirs.restore(digits.STEPS, state, meshes.replicated(network.mesh))
    ours = Checkpoints(tmp_path / "checkpoints", config.checkpoint)
    ours.save(dataclasses.replace(restored.state, ema=None), {}, None)
    ours.wait()
    figures = evaluate(tmp_path)
    assert figures["weights"] == "last"
    assert figures["top1_accuracy"] == summary["test"]["top1_accuracy"]
    with pytest.raises(UserError, match="keeps no average"):
        trained.load(tmp_path, "last", "ema", 1)


def test_evaluation_on_other_pictures_than_the_run_began_with_is_told(finished, caplog, monkeypatch):
    folder, _ = finished
    facts = workdir.read_data_facts(folder)
    facts["content"]["test"] = "0" * 32
    monkeypatch.setattr(workdir, "read_data_facts", lambda _: facts)
    with caplog.at_level("WARNING", "jaxcnn"):
        evaluate(folder)
        evaluate(folder, "val")
    assert [record.message for record in caplog.records] == [
        "digits test has changed since the start of the run: different images in test"
    ]


def test_where_the_data_is_gone_the_flag_for_its_new_place_is_named(finished):
    network = load(finished[0])
    gone = dataclasses.replace(network.config.data, source="npz:/nowhere.npz")
    network = dataclasses.replace(network, config=dataclasses.replace(network.config, data=gone))
    with pytest.raises(UserError, match=r"npz:/nowhere\.npz': no data was found there; set --data=<path>"):
        assess.assess(network, finished[0], "test", "", 0)


def test_data_of_other_classes_are_refused(finished):
    folder, _ = finished
    network, _ = trained.load(folder, "last", "", 1)
    other = dataclasses.replace(network, class_names=tuple("abcdefghij"))
    with pytest.raises(UserError, match="does not have the classes and image size"):
        assess.assess(other, folder, "test", "", 0)


def test_figures_are_those_of_scikit_learn_on_the_same_logits():
    generator = np.random.default_rng(1)
    labels = np.concatenate([np.arange(12), generator.integers(12, size=188)]).astype(np.int32)
    logits = generator.normal(size=(200, 12)).astype(np.float32)
    logits[np.arange(200), labels] += 1.5
    names = tuple(f"class {k}" for k in range(12))
    figures = measure(logits, labels, names)
    guesses = logits.argmax(-1)
    exponentials = np.exp(logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    assert figures["top1_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, guesses), abs=1e-7)
    top5 = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    assert figures["top5_accuracy"] == pytest.approx(top5, abs=1e-7)
    # Each loss is of order 1 and rounds to float32 a few times on its way through log_softmax.
    assert figures["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=8 * 2**-24)
    assert figures["confusion_matrix"] == sklearn.metrics.confusion_matrix(labels, guesses).tolist()
    recall = sklearn.metrics.recall_score(labels, guesses, average=None)
    assert list(figures["per_class_accuracy"]) == list(names)
    assert list(figures["per_class_accuracy"].values()) == pytest.approx(recall.tolist(), rel=1e-12)
    error = classification.calibration_error(probabilities.max(-1), guesses == labels)
    assert figures["calibration_error"] == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("absent", [(), (3,), (0, 7, 11)])
def test_figures_of_each_class_and_their_means_are_those_of_scikit_learn(absent):
    generator = np.random.default_rng(2)
    there = [k for k in range(12) if k not in absent]
    labels, guesses = generator.choice(there, 300), generator.choice(np.arange(11), 300)  # class 11 is never predicted
    guesses[:150] = np.where(labels[:150] == 11, 0, labels[:150])
    names = [f"class {k}" for k in range(12)]
    figures = confusion.by_class(confusion.Confusion.of(labels, guesses, 12), names)
    expected = sklearn.metrics.precision_recall_fscore_support(labels, guesses, labels=there, zero_division=0)
    rows = [figures["per_class"][names[k]] for k in there]
    for name, values in zip(("precision", "recall", "f1", "examples"), expected, strict=True):
        assert [row[name] for row in rows] == pytest.approx(values.tolist(), rel=1e-12), name
    macro = sklearn.metrics.precision_recall_fscore_support(
        labels, guesses, labels=there, zero_division=0, average="macro"
    )
    assert [figures[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3], rel=1e-12)
    balanced = sklearn.metrics.balanced_accuracy_score(labels, guesses) if not absent else figures["macro_recall"]
    assert figures["balanced_accuracy"] == pytest.approx(balanced, rel=1e-12)
    for k in absent:
        row = figures["per_class"][names[k]]
        assert row == {"examples": 0, "precision": None, "recall": None, "f1": None}
        assert figures["per_class_accuracy"][names[k]] is None


def test_classes_of_one_name_are_numbered_and_none_is_lost():
    labels = np.array([0, 1, 2, 2], np.int32)
    figures = measure(np.eye(3, dtype=np.float32)[[0, 1, 0, 2]], labels, ("crane", "maillot", "crane"))
    assert figures["per_class_accuracy"] == {"crane (0)": 1.0, "maillot": 1.0, "crane (2)": 0.5}
    assert list(figures["per_class"]) == ["crane (0)", "maillot", "crane (2)"]
    assert distinct(["a", "a", "a (0)", "b"]) == ("a (0)'", "a (1)", "a (0)", "b")


@pytest.mark.parametrize("classes", [2, 20, 200, 201, 3000])
def test_a_confusion_matrix_is_read_as_it_was_written_and_grows_with_what_was_counted(classes):
    generator = np.random.default_rng(3)
    labels, guesses = generator.integers(classes, size=(2, 500))
    made = confusion.Confusion.of(labels.astype(np.int32), guesses, classes)
    written = json.loads(json.dumps(made.to_json()))
    assert isinstance(written, list) == (classes <= 200)
    assert len(json.dumps(written)) < 200_000
    read = confusion.Confusion.from_json(written)
    for name in ("true", "predicted", "counts", "totals", "guessed", "right"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    dense = made.dense()
    np.testing.assert_array_equal(dense, sklearn.metrics.confusion_matrix(labels, guesses, labels=range(classes)))
    np.testing.assert_array_equal(made.totals, dense.sum(1))
    other, often = made.most_confused()
    np.fill_diagonal(dense, 0)
    np.testing.assert_array_equal(often, dense.max(1))
    assert (other[often > 0] == dense.argmax(1)[often > 0]).all()
    pooled, width = made.pooled(100)
    assert len(pooled) <= 100
    assert pooled.sum() == 500
    assert width == -(-classes // 100)


@pytest.mark.parametrize(
    "value",
    [
        None, 3, "x", [], [[1, 2]], [[1, 2], [3]], [[1, -2], [3, 4]], [[1, 2.5], [3, 4]], [[1, None], [3, 4]], {},
        {"classes": 3}, {"classes": 3, "cells": [[0, 3, 1]]}, {"classes": 3, "cells": [[0, 1]]},
        {"classes": 10**9, "cells": []}, {"classes": 3, "cells": [[0, 1, 1], [0, 1, 2]]}, [[10**400]], [[[1]]],
    ],
)  # fmt: skip
def test_what_is_no_confusion_matrix_is_refused(value):
    with pytest.raises(ValueError, match="confusion matrix"):
        confusion.Confusion.from_json(value)


def test_logits_that_come_in_parts_give_the_figures_of_all(finished):
    network = load(finished[0])
    split = open_splits(network.config.data).test
    outputs, parts = network.outputs(split, 50), classification.Guesses()
    for first in range(0, len(split), 70):
        parts.add(outputs[first : first + 70], split.targets[first : first + 70])
    whole = measure(outputs, split.targets, network.class_names)
    assert parts.figures(network.class_names, {}).items() <= whole.items()


def test_an_evaluation_keeps_its_figures_though_its_picture_cannot_be_drawn(finished, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(confusion, "draw", fail)
    folder, _ = finished
    evaluate(folder, picture=True)  # as before
    with caplog.at_level("WARNING", logger="jaxcnn"):
        figures = evaluate(folder, "val", picture=True)
    assert json.loads((folder / f"eval-val-{digits.STEPS}.json").read_text()) == figures
    assert not (folder / f"eval-val-{digits.STEPS}.png").exists()
    assert caplog.messages[-1].endswith("could not be drawn: RuntimeError: no font")


def test_calibration_error_of_a_case_worked_by_hand():
    # Confidences 0.5, 0.5 (bin 8 of 15, one right): |1/2 - 0.5| = 0; 0.9, 0.9, 0.9 (bin 14, two right):
    # |2/3 - 0.9| = 0.7/3; 1.0 (bin 15, wrong): 1. Weighted by 2, 3 and 1 of 6: (0 + 0.7 + 1) / 6.
    confidence = np.array([0.5, 0.5, 0.9, 0.9, 0.9, 1.0])
    right = np.array([True, False, True, True, False, False])
    assert classification.calibration_error(confidence, right) == pytest.approx(1.7 / 6, abs=1e-12)


def test_a_class_without_examples_has_no_accuracy_and_few_classes_no_top_5_mistakes():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 0]]
    figures = measure(logits, np.array([0, 1, 1], np.int32), ("a", "b", "never seen"))
    assert figures["per_class_accuracy"] == {"a": 1.0, "b": 0.5, "never seen": None}
    assert figures["top5_accuracy"] == 1
    lines = classification.describe({**figures, "data": "a set", "step": 3, "weights": "last"})
    assert "never seen" not in "\n".join(lines)
    assert "top-1 66.67%" in lines[0]
    # Class a: 1 right of 2 guesses, of 1 example; b: 1 of 1, of 2. F1: 2 * 1 / (1 + 2) of both.
    told = "balanced accuracy 75.00%  precision 75.00%  recall 75.00%  f1 66.67%"
    assert lines[1] == f"{told}  AUROC 75.00% (means over classes, except 1 without examples in this split)"


@pytest.mark.parametrize("classes", [2, 100, 2500])
def test_confusion_matrices_of_few_and_many_classes_are_drawn(classes, tmp_path):
    labels, guesses = np.random.default_rng(0).integers(1, classes, (2, 5000))  # the split has none of the first class
    names = tuple(f"a long name {k} with $x_{{ and \\ and \n {'long ' * 50}" for k in range(classes))
    confusion.draw(confusion.Confusion.of(labels, guesses, classes), names, tmp_path / "eval-test-1.png")
    assert (tmp_path / "eval-test-1.png").read_bytes().startswith(PNG)
