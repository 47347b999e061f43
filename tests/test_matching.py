"""Found objects beside annotated ones: the confusion matrix with background, and thresholds for each class."""

import itertools

import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.data.selection import whole_targets
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import by_name, coco_pictures, matching
from jaxcnn.tasks.coco_figures import CocoFigures
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.tasks.matching import IGNORED, NONE, Objects
from tests import coco_cases


def collected(seed):
    outputs, target, classes = coco_cases.case(seed)
    collector = CocoFigures()
    collector.add(outputs, target)
    return collector, outputs, target, classes


def overlaps(found, true, crowd):
    """Intersection over union of boxes (left, top, right, bottom); over the found one alone for a crowd."""
    table = np.zeros((len(found), len(true)))
    for (i, a), (j, b) in itertools.product(enumerate(found.astype(float)), enumerate(true.astype(float))):
        width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        common = max(width, 0) * max(height, 0)
        own, other = np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])
        table[i, j] = common / (own if crowd[j] else own + other - common)
    return table


def defined(outputs, target, classes):
    """The confusion matrix by its definition: again and again the pair of the largest overlap among those left."""
    matrix = np.zeros((classes + 1, classes + 1), int)
    for rows, *columns in zip(outputs, *(target[name] for name in ("boxes", "label", "crowd", "valid")), strict=True):
        boxes, label, crowd = (column[columns[-1]] for column in columns[:-1])
        rows = rows[rows[:, 4] >= matching.SCORE]
        table = overlaps(rows[:, :4], boxes, crowd)
        left = [(i, j) for i, j in np.ndindex(table.shape) if table[i, j] >= matching.OVERLAP and not crowd[j]]
        found, true = set(range(len(rows))), {j for j in range(len(boxes)) if not crowd[j]}
        while left:
            i, j = max(left, key=lambda pair: (table[pair], rows[pair[0], 4]))
            matrix[label[j], int(rows[i, 5])] += 1
            found, true = found - {i}, true - {j}
            left = [pair for pair in left if pair[0] != i and pair[1] != j]
        for j in true:
            matrix[label[j], classes] += 1
        for i in found:
            within = crowd & (label == rows[i, 5]) & (table[i] >= matching.OVERLAP)
            matrix[classes, int(rows[i, 5])] += not within.any()
    return matrix


def test_the_confusion_matrix_is_that_of_its_definition():
    confused = 0
    for seed in range(coco_cases.CASES):
        collector, outputs, target, classes = collected(seed)
        matrix = matching.confusion(collector.objects(), classes).dense()
        assert matrix.tolist() == defined(outputs, target, classes).tolist(), seed
        confused += matrix[:-1, :-1].sum() - np.trace(matrix)
    assert confused > 20


def objects(score, found, true, overlap, crowd=None):
    crowd = np.zeros(len(true), bool) if crowd is None else np.array(crowd, bool)
    table = np.array(overlap, np.float64).reshape(len(found), len(true))
    return Objects(np.array(score, np.float32), np.array(found, int), np.array(true, int), crowd, table)


def test_objects_are_matched_by_hand():
    # Two found objects on one true one: the larger overlap has it, though its class and its score are worse.
    one = objects([0.9, 0.6], [0, 1], [0], [0.6, 0.8])
    judged = matching.judge(one)
    assert judged.of_found.tolist() == [NONE, 0] and judged.of_true.tolist() == [1]
    assert matching.confusion([one], 2).dense().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    # Below the score nothing was found, so the object is missed; at an overlap of just 0.5 it is found.
    assert matching.confusion([one], 2, score=0.95).dense().tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert matching.judge(objects([0.9], [0], [0], [0.5])).missed == 0
    # A found object whose first choice is taken has its second.
    chain = objects([0.9, 0.8], [0, 0], [0, 0], [[0.9, 0.7], [0.8, 0.0]])
    assert matching.judge(chain).of_found.tolist() == [0, NONE]
    swapped = objects([0.9, 0.8], [0, 0], [0, 0], [[0.8, 0.7], [0.9, 0.0]])
    assert matching.judge(swapped).of_found.tolist() == [1, 0]
    # In a crowd of its class it is neither right nor false; of another class it is false. A crowd is never missed.
    crowd = matching.judge(objects([0.9, 0.8], [0, 1], [0], [0.9, 0.9], crowd=[True]))
    assert crowd.of_found.tolist() == [IGNORED, NONE] and crowd.of_true.tolist() == [IGNORED]
    assert (crowd.missed, crowd.false) == (0, 1)
    nothing = objects([], [], [], [])
    assert matching.confusion([nothing], 1).dense().tolist() == [[0, 0], [0, 0]]


def test_hits_at_any_score_are_those_of_cocos_average_precision():
    grid = np.linspace(0, 1, 101)
    compared = 0
    for seed in range(coco_cases.CASES):
        collector, _, _, classes = collected(seed)
        names = tuple(f"class {k}" for k in range(classes))
        figures, images = collector.figures(names, {}), collector.objects()
        for label, name in enumerate(names):
            _, hit, number = matching.all_hits(images, label)
            wanted = figures["ap50_by_class"][name]
            assert (wanted is None) == (number == 0)
            if number:
                right = np.cumsum(hit)
                recall, precision = right / number, right / np.arange(1, len(hit) + 1)
                highest = [precision[recall >= at].max(initial=0.0) for at in grid]
                assert np.mean(highest) == pytest.approx(wanted, abs=1e-9), (seed, name)
                np.testing.assert_allclose(figures["curves"]["by_class"][name], highest, atol=5.1e-5)  # 4 digits
                compared += 1
        if figures["curves"] is not None:
            known = [of for of in figures["curves"]["by_class"].values() if of is not None]
            np.testing.assert_allclose(figures["curves"]["mean"]["0.5"], np.mean(known, axis=0), atol=5.2e-5)
    assert compared > 50


def test_thresholds_have_the_best_f1_of_all_and_serve_another_split():
    for seed in range(12):
        collector, _, _, classes = collected(seed)
        images, fitted = collector.objects(), collector.fitted()
        for label, threshold in enumerate(fitted["thresholds"]):
            scores, hit, number = matching.all_hits(images, label)

            def f1(at, scores=scores, hit=hit, number=number):
                told = scores >= at
                return 2 * hit[told].sum() / max(told.sum() + number, 1)

            best = max([0.0, *map(f1, scores)])
            assert f1(np.float32(threshold)) == best or best == 0, (seed, label)
        names = tuple(map(str, range(classes)))
        told = collector.figures(names, fitted)["at_thresholds"]
        assert {name: row["threshold"] for name, row in told["per_class"].items()} == {
            name: fitted["thresholds"][k] if k < len(fitted["thresholds"]) else matching.SCORE
            for k, name in enumerate(names)
        }
        there = [row["f1"] for row in told["per_class"].values() if row["f1"] is not None]
        assert told["macro_f1"] == pytest.approx(np.mean(there)) if there else told["macro_f1"] is None
    assert "at_thresholds" not in collector.figures(names, {})


def test_figures_tell_the_matrix_in_words_and_a_picture_shows_it(tmp_path):
    collector, _, _, classes = collected(2)
    names = (*(f"class {k}" for k in range(classes - 1)), "background")
    figures = collector.figures(names, collector.fitted())
    assert figures["confusion_classes"][-1] != "background" and len(set(figures["confusion_classes"])) == classes + 1
    matrix = Confusion.from_json(figures["confusion_matrix"]).dense()
    row = figures["per_class"]["class 0"]
    assert row["recall"] == matrix[0, 0] / matrix[0].sum() and row["precision"] == matrix[0, 0] / matrix[:, 0].sum()
    missed, false = matrix[:-1, -1].sum(), matrix[-1].sum()
    right, there = np.trace(matrix), matrix[:-1].sum()
    first, second = matching.in_words(figures)
    assert first == (
        f"from a score of 0.25: {right} of {there} found, {there - right - missed} as another class, "
        f"{missed} missed, {false} false"
    )
    assert second.startswith("from the scores chosen on validation: precision ") and "  F1 " in second
    coco_pictures.draw(figures, names, tmp_path / "eval.png")
    assert (tmp_path / "eval.png").stat().st_size > 10_000
    empty = CocoFigures().figures(("a",), {})
    assert empty["confusion_matrix"] == [[0, 0], [0, 0]] and empty["per_class"]["a"]["recall"] is None
    coco_pictures.draw(empty, ("a",), tmp_path / "empty.png")


def test_instances_are_matched_by_their_masks():
    task = configs.Task(name="instances", most_boxes=4, most_found=8, mask_side=32)
    train = open_splits(configs.Data(source="shapes:32:16", val_examples=4), task).train
    four = np.arange(4)
    targets = whole_targets(train, {name: column[four] for name, column in train.targets.items()}, four)
    found = np.zeros((4, 8, 6 + 28 * 28), np.float32)
    for image, place in zip(*np.nonzero(targets["valid"]), strict=True):
        grid = np.zeros((28, 28), np.float32)
        grid[: 28 if place % 2 else 7] = 1  # of every other object, only the upper quarter
        row = [*targets["boxes"][image, place], 0.9, targets["label"][image, place], *grid.ravel()]
        found[image, place] = row
    evaluation = by_name.make(task, 3, sides=(32, 32)).evaluation
    collector = evaluation.collector(None)
    collector.add(found, targets)
    figures = collector.figures(("a", "b", "c"), collector.fitted())
    matrix = Confusion.from_json(figures["confusion_matrix"]).dense()
    assert figures["matched"]["of"] == "masks" and figures["ap50"] == 1 > figures["mask_ap50"]
    quarters = int((targets["valid"] & (np.arange(4) % 2 == 0)).sum())
    assert matrix[:-1, -1].sum() == matrix[-1].sum() >= quarters // 2 > 0
    assert evaluation.describe(figures | {"loss": 0.0})[-2].startswith("from a score of 0.25: ")
