"""Figures of the tasks: those of scikit-learn, to 1e-6."""

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy import special

from jaxcnn.config import Task, UserError
from jaxcnn.data.batch import Constants
from jaxcnn.tasks import areas, by_name, classification, multilabel, regression, temperature

GENERATOR = np.random.default_rng(0)
NAMES = tuple("abcde")
HOT = (GENERATOR.random((300, 5)) < [0.5, 0.3, 0.1, 0.05, 0.02]).astype(np.uint8)
LOGITS = (GENERATOR.normal(size=(300, 5)) * 2 + 2 * HOT - 2).round(1).astype(np.float32)  # some are equal


def test_the_figures_of_sets_are_scikit_learns():
    figures = by_name.make(Task(name="multilabel"), 5).figures(LOGITS, HOT, NAMES)
    scores = special.expit(LOGITS)
    assert figures["mean_average_precision"] == pytest.approx(
        reference.average_precision_score(HOT, scores, average="macro"), abs=1e-6
    )
    for name, value in zip(NAMES, reference.average_precision_score(HOT, scores, average=None), strict=True):
        assert figures["average_precision"][name] == pytest.approx(value, abs=1e-6)
    guess = scores >= 0.5
    for kind, average in (("micro", "micro"), ("macro", "macro"), ("sample", "samples")):
        wanted = reference.f1_score(HOT, guess, average=average, zero_division=1.0 if kind == "sample" else 0.0)
        assert figures["at_half"][f"{kind}_f1"] == pytest.approx(wanted, abs=1e-6)
    assert figures["sample_f1"] == pytest.approx(figures["at_half"]["sample_f1"], abs=1e-6)
    assert figures["exact_match"] == pytest.approx(reference.accuracy_score(HOT, guess), abs=1e-6)
    assert figures["loss"] == pytest.approx(
        np.mean([reference.log_loss(h, s) for h, s in zip(HOT.T, scores.T, strict=True)]), rel=1e-6
    )


def test_the_areas_of_sets_are_scikit_learns_and_their_intervals_those_of_all_pairs_written_out():
    figures = by_name.make(Task(name="multilabel"), 5).figures(LOGITS, HOT, NAMES)
    scores, present = special.expit(LOGITS).astype(np.float64), HOT.astype(bool)
    assert figures["macro_auroc"] == pytest.approx(reference.roc_auc_score(HOT, scores, average="macro"), abs=1e-12)
    counts = present.sum(0), (~present).sum(0)
    moved = np.zeros(len(HOT))  # by each example, of the mean of the areas
    for k, name in enumerate(NAMES):
        mine, others = scores[present[:, k], k], scores[~present[:, k], k]
        pairs = (mine[:, None] > others) + 0.5 * (mine[:, None] == others)
        variance = pairs.mean(1).var(ddof=1) / counts[0][k] + pairs.mean(0).var(ddof=1) / counts[1][k]
        area, margin = pairs.mean(), 1.959963984540054 * np.sqrt(variance)
        assert figures["auroc"][name] == pytest.approx(area, abs=1e-12)
        assert figures["auroc_interval"][name] == pytest.approx([area - margin, min(1, area + margin)], abs=1e-12)
        scaled = [np.sqrt(count * (count - 1.0)) for count in (counts[0][k], counts[1][k])]
        moved[present[:, k]] += (pairs.mean(1) - area) / scaled[0] / 5
        moved[~present[:, k]] += (pairs.mean(0) - area) / scaled[1] / 5
    low, high = figures["macro_auroc_interval"]
    assert high - low == pytest.approx(2 * 1.959963984540054 * np.sqrt((moved**2).sum()), abs=1e-12)
    # One label twice: its mean is itself, and so is the interval, which independent labels would make narrower.
    twice = areas.figures(scores[:, [0, 0]], present[:, [0, 0]], ("a", "b"))
    assert twice["macro_auroc_interval"] == pytest.approx(figures["auroc_interval"]["a"], abs=1e-12)
    words = by_name.make(Task(name="multilabel"), 5).evaluation.describe(figures)[1]
    between = f"95% interval {100 * low:.2f} to {100 * high:.2f}%"
    assert words == f"AUROC {100 * figures['macro_auroc']:.2f}% ({between}), mean over classes"


def test_labels_without_examples_have_no_area_and_a_single_example_gives_no_interval():
    wanted = np.zeros((6, 3), bool)
    wanted[:3, 0], wanted[0, 1] = True, True
    scores = np.arange(18.0).reshape(6, 3)[::-1].copy()
    figures = areas.figures(scores, wanted, tuple("abc"))
    assert figures["auroc"] == {"a": 1.0, "b": 1.0, "c": None}
    assert figures["auroc_interval"] == {"a": [1.0, 1.0], "b": None, "c": None}
    assert figures["macro_auroc"] == 1 and figures["macro_auroc_interval"] is None
    none = areas.figures(scores, np.zeros((6, 3), bool), tuple("abc"))
    assert none["macro_auroc"] is None and areas.describe(none) == []


def test_thresholds_give_the_best_f1_of_each_class_on_the_split_that_they_are_fitted_to():
    collector = multilabel.Probabilities()
    for part in (slice(0, 100), slice(100, 300)):
        collector.add(LOGITS[part], HOT[part])
    fitted = collector.fitted()
    scores = special.expit(LOGITS)
    for k, threshold in enumerate(fitted["thresholds"]):
        mine = reference.f1_score(HOT[:, k], scores[:, k] >= threshold)
        best = max(reference.f1_score(HOT[:, k], scores[:, k] >= each) for each in np.unique(scores[:, k]))
        assert mine == pytest.approx(best, abs=1e-12)
    figures = collector.figures(NAMES, fitted)
    assert figures["at_thresholds"]["macro_f1"] > figures["at_half"]["macro_f1"]
    (answer,) = multilabel.SetFigures().answers(LOGITS[:1], NAMES, None, fitted)
    assert answer["labels"] == [n for n, s, t in zip(NAMES, scores[0], fitted["thresholds"], strict=True) if s >= t]


def test_temperature_calibration_and_area_of_classes_are_those_of_the_references():
    labels = GENERATOR.integers(5, size=300).astype(np.int32)
    logits = (GENERATOR.normal(size=(300, 5)) + 2 * np.eye(5)[labels]).astype(np.float32) * 4  # too certain
    figures = by_name.make(Task(), 5).figures(logits, labels, NAMES)
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    area = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert figures["macro_auroc"] == pytest.approx(area, abs=1e-6)
    assert figures["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(labels, logits.argmax(-1)), abs=1e-6
    )
    collector = classification.Guesses()
    collector.add(logits, labels)
    fitted = collector.fitted()["temperature"]
    losses = {t: reference.log_loss(labels, special.softmax(logits / t, axis=-1)) for t in np.linspace(1, 10, 901)}
    assert fitted == pytest.approx(min(losses, key=losses.get), abs=0.02)
    scaled = collector.figures(NAMES, {"temperature": fitted})
    assert scaled["calibrated_error"] < scaled["calibration_error"] == figures["calibration_error"]


def test_answers_without_a_mistake_say_nothing_about_the_temperature():
    labels = np.arange(24, dtype=np.int32) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    assert temperature.best_temperature(logits, labels) == 1.0
    assert temperature.best_temperature(3 * logits, np.roll(labels, 1)) == pytest.approx(20, rel=1e-3)  # all wrong
    labels[0] = 1
    assert 0.05 < temperature.best_temperature(logits, labels) < 1


def test_the_figures_of_numbers_are_scikit_learns_in_their_units():
    wanted = GENERATOR.normal(size=(200, 2)).astype(np.float32) * [10, 3] + [100, -5]
    targets = by_name.targets(Task(name="regression"), 2)
    task = by_name.make(Task(name="regression"), 2)
    facts = targets.facts(wanted.astype(np.float32))
    constants = Constants(None, None, task.loss.constants(Task(), ("x", "y"), facts, None))
    outputs = ((wanted - facts["mean"]) / facts["std"] + GENERATOR.normal(size=(200, 2)) * 0.3).astype(np.float32)
    guess = np.asarray(regression.in_units(outputs, constants))
    figures = task.figures(outputs, wanted.astype(np.float32), ("x", "y"), constants)
    assert figures["mean_absolute_error"] == pytest.approx(reference.mean_absolute_error(wanted, guess), rel=1e-6)
    assert figures["mean_squared_error"] == pytest.approx(reference.mean_squared_error(wanted, guess), rel=1e-6)
    for k, name in enumerate(("x", "y")):
        assert figures["by_name"][name]["r2"] == pytest.approx(reference.r2_score(wanted[:, k], guess[:, k]), abs=1e-6)
    assert figures["loss"] == pytest.approx(np.square((guess - wanted) / facts["std"]).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        ("classification", np.zeros((4, 3), np.int64), "labels are int64 of shape .4, 3., but labels must be class"),
        ("multilabel", np.array([[0, 1], [2, 0]]), "label 2 at index 1 is neither 0 nor 1"),
        ("multilabel", np.array([[0, 1, 1]]), "not .images, 2 classes."),
        ("multilabel", np.array([0, 2]), "label 2 is out of range for 2 classes"),
        ("regression", np.array([[0.5, np.nan]]), "the label at index 0 is not a finite number"),
        ("regression", np.array([[0.5, 1.0, 2.0]]), "not .images, 2 numbers."),
    ],
)
def test_labels_of_another_kind_are_refused(name, labels, words):
    with pytest.raises(UserError, match=f"a set train: .*{words}"):
        by_name.targets(Task(name=name), 2).read(labels, "a set", "train")
