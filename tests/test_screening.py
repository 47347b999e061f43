"""The figures of medicine and remote sensing: those of scikit-learn and of closed forms."""

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy import special, stats

from jaxcnn.config import Config, Data, Task, check
from jaxcnn.tasks import by_name, classification, screening

GENERATOR = np.random.default_rng(0)


def made(classes, n=160):
    """Logits with equal values among them, and labels."""
    labels = GENERATOR.integers(classes, size=n).astype(np.int32)
    return (GENERATOR.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]).round(1).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_areas_precision_kappa_and_brier_score_are_scikit_learns(classes):
    logits, labels = made(classes)
    names = tuple("abcd"[:classes])
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    collector = by_name.evaluation(Task(specificity=0.9), classes).collector(None)
    collector.add(logits, labels)
    figures = collector.figures(names, {})
    for k, name in enumerate(names):
        of, own, scores = figures["screening"][name], labels == k, probabilities[:, k]
        assert of["auroc"] == pytest.approx(reference.roc_auc_score(own, scores), abs=1e-9)
        assert of["average_precision"] == pytest.approx(reference.average_precision_score(own, scores), abs=1e-9)
        assert of["sensitivity"] is of["threshold"] is None  # nothing was chosen on a validation split
    assert figures["kappa"] == pytest.approx(reference.cohen_kappa_score(labels, logits.argmax(-1)), abs=1e-9)
    wanted = reference.brier_score_loss(labels, probabilities if classes > 2 else probabilities[:, 1])
    assert figures["brier_score"] == pytest.approx(wanted, abs=1e-9)
    low, high = figures["macro_auroc_interval"]
    assert low < figures["macro_auroc"] < high


@pytest.mark.parametrize("classes", [2, 4])
def test_curves_are_the_best_points_of_those_of_scikit_learn(classes):
    logits, labels = made(classes)
    names = tuple("abcd"[:classes])
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    found = screening.curves(probabilities, labels, names)
    at = np.arange(101) / 100
    for k, name in enumerate(names):
        alarms, sensitivities, _ = reference.roc_curve(labels == k, probabilities[:, k], drop_intermediate=False)
        wanted = [sensitivities[alarms <= x + 1e-9].max() for x in at]
        np.testing.assert_allclose(found[name]["roc"], wanted, atol=1e-4)  # rounded to four digits
        precisions, recalls, _ = reference.precision_recall_curve(labels == k, probabilities[:, k])
        wanted = [precisions[:-1][recalls[:-1] >= x - 1e-9].max() for x in at]  # its last point is no threshold's
        np.testing.assert_allclose(found[name]["precision"], wanted, atol=1e-4)
    assert screening.curves(probabilities, np.zeros(len(labels), int), names) == {}
    assert screening.curves(np.zeros((2, 21)), np.array([0, 1]), tuple(map(str, range(21)))) == {}


def test_the_interval_of_delong_is_that_of_all_pairs_written_out():
    logits, labels = made(2, 60)
    scores, own = logits[:, 1].astype(np.float64), labels == 1
    area, interval = screening.auroc(scores, own)
    pairs = np.array([[(x > y) + 0.5 * (x == y) for y in scores[~own]] for x in scores[own]])
    of_rows, of_columns = pairs.mean(axis=1), pairs.mean(axis=0)
    variance = np.var(of_rows, ddof=1) / len(of_rows) + np.var(of_columns, ddof=1) / len(of_columns)
    assert area == pytest.approx(pairs.mean(), abs=1e-12)
    assert interval == pytest.approx(stats.norm.interval(0.95, pairs.mean(), np.sqrt(variance)), abs=1e-12)
    assert (pairs == 0.5).any()  # equal scores are among them


def test_the_bootstrap_of_two_classes_agrees_with_delong():
    logits, labels = made(2, 400)
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    _, delong = screening.auroc(probabilities[:, 1], labels == 1)
    drawn = screening.macro_interval(probabilities, labels)
    assert drawn == screening.macro_interval(probabilities, labels)  # the same draws
    # A 2.5 % quantile of 1000 draws has a standard error of 2.7 (sqrt(p q / n) / density) / sqrt(1000) = 0.085 standard
    # deviations; four of them, with a width of 3.92 standard deviations, are 9 % of the width.
    assert drawn == pytest.approx(delong, abs=0.09 * (delong[1] - delong[0]))


@pytest.mark.parametrize("specificity", [0.5, 0.9, 0.95])
def test_the_threshold_is_the_smallest_that_keeps_the_specificity_on_validation_and_is_applied_to_the_test(specificity):
    val, test = classification.Guesses(specificity), classification.Guesses(specificity)
    val_logits, val_labels = made(3)
    test_logits, test_labels = made(3)
    val.add(val_logits, val_labels)
    test.add(test_logits, test_labels)
    fitted = val.fitted()
    of_val = classification.probabilities(val_logits)
    of_test = classification.probabilities(test_logits)
    told = test.figures(("a", "b", "c"), fitted)["screening"]
    for k, name in enumerate("abc"):
        keeps = [t for t in of_val[:, k] if np.mean(of_val[val_labels != k, k] < t) >= specificity]
        assert told[name]["threshold"] == fitted["thresholds"][k] == min(keeps)
        found = of_test[:, k] >= min(keeps)
        assert told[name]["sensitivity"] == pytest.approx(reference.recall_score(test_labels == k, found), abs=1e-12)
        wanted = reference.recall_score(test_labels != k, ~found)
        assert told[name]["specificity"] == pytest.approx(wanted, abs=1e-12)


def test_no_example_is_found_where_no_score_keeps_the_specificity():
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    threshold = screening.thresholds(probabilities, np.array([1, 0, 1]), 0.99)[1]
    assert threshold == np.nextafter(0.9, 1)


def test_a_class_without_examples_has_no_figures_and_single_examples_no_interval():
    figures = screening.figures(np.full((3, 3), 1 / 3), np.array([0, 1, 1]), tuple("abc"), (None, 0.5, None))
    assert figures["screening"]["c"]["auroc"] is figures["screening"]["c"]["average_precision"] is None
    assert figures["screening"]["a"]["auroc"] == 0.5
    assert figures["screening"]["a"]["auroc_interval"] is None
    assert screening.describe({**figures}) and not screening.describe({})


def test_without_the_option_there_are_no_such_figures():
    logits, labels = made(3)
    collector = classification.Guesses()
    collector.add(logits, labels)
    assert collector.fitted().keys() == {"temperature"}
    assert not {"screening", "kappa"} & collector.figures(tuple("abc"), {}).keys()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(task=Task(name="regression", specificity=0.9)), "specificity is for config.task.name='classification'"),
        (Config(task=Task(specificity=0.9), data=Data(protocol="full")), "specificity needs a validation split"),
    ],
)
def test_the_option_is_refused_where_it_makes_no_sense(config, words):
    assert any(words in line for line in check(config))
