"""Detection: boxes move with images, are assigned, lost and found as in closed forms, and figures are those of COCO."""

import dataclasses
import json
import pathlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import augment
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.deploy import finding
from jaxcnn.graphs.graph import Graph
from jaxcnn.tasks import assignment, box_geometry, found_boxes, suppression, task
from jaxcnn.tasks.coco_figures import FIGURES, CocoFigures
from jaxcnn.tasks.detection import Boxes, DetectionLoss
from jaxcnn.tasks.suppression import Rule
from tests import coco_cases, small, test_deploy

SIDES = (48, 64)  # height, width
POINTS = box_geometry.points(*SIDES)
MOST = 80  # more boxes than points


def targets(boxes, labels=None, most=MOST, crowd=()) -> dict[str, np.ndarray]:
    """The padded target of one image."""
    count = len(boxes)
    target = {
        "boxes": np.zeros((most, 4), np.float32),
        "label": np.zeros(most, np.int32),
        "valid": np.arange(most) < count,
        "crowd": np.isin(np.arange(most), crowd),
        "area": np.ones(most, np.float32),
        "frame": np.array([1, 1, 0, 0], np.float32),
    }
    target["boxes"][:count] = np.reshape(boxes, (count, 4))
    target["label"][:count] = labels or [0] * count
    return target


def batched(target, count=1):
    return {name: jnp.asarray(np.stack([leaf] * count)) for name, leaf in target.items()}


def augmented(config, count, first=0, box=(20, 10, 40, 30)):
    """Images whose only white pixels are those of a box, and the box, augmented at positions from `first`."""
    left, top, right, bottom = box
    image = np.zeros((count, *SIDES, 1), np.uint8)
    image[:, top:bottom, left:right] = 255
    number = jnp.arange(count, dtype=jnp.int32) + first
    batch = Batch(jnp.asarray(image), batched(targets([box]), count), number, number, jnp.ones(count, bool))
    key, zero, one = jax.random.key(3), jnp.zeros(1), jnp.ones(1)
    made = augment.augment(config, Boxes(1, MOST), batch, key, zero, one)
    return np.asarray(made.image)[..., 0], jax.device_get(made.target)


def test_large_scale_jitter_draws_factors_up_to_twenty_times_apart_and_boxes_follow():
    config = configs.Augment(normalize=False, scale_jitter=(0.1, 2.0))
    images, target = augmented(config, 96, box=(8, 8, 56, 40))
    factors = target["frame"][:, 0]
    assert factors.min() < 0.2 and factors.max() > 1.8 and abs(np.mean(factors) - 1.05) < 0.2
    for image, box, frame in zip(images, target["boxes"][:, 0], target["frame"], strict=True):
        # A pixel is white if its centre falls into the box; the matrix has 16 bits after the point.
        assert np.abs(np.array(extent(image)) - box).max() <= 0.5 + 64 * 2**-15
        whole = np.array([8, 8, 56, 40]) * frame[0] + np.tile(frame[2:], 2)
        np.testing.assert_allclose(box, np.clip(whole, 0, [64, 48, 64, 48]), atol=1e-2)


def extent(image):
    rows, columns = np.nonzero(image > 0.5)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_box_moves_with_its_mask_to_the_pixel_when_cropped_and_flipped():
    config = configs.Augment(normalize=False, crop="zero", crop_padding=25, flip="random")
    images, target = augmented(config, 64)
    assert len({tuple(box) for box in target["boxes"][:, 0].tolist()}) > 50
    for image, box, valid in zip(images, target["boxes"][:, 0], target["valid"][:, 0], strict=True):
        assert valid
        assert extent(image) == box.tolist()


def test_a_zoomed_box_is_its_mask_to_half_a_pixel_and_depends_on_the_position_alone():
    config = configs.Augment(normalize=False, zoom=0.5, crop="zero", crop_padding=8, flip="random")
    images, target = augmented(config, 64)
    sides = target["boxes"][:, 0, 2] - target["boxes"][:, 0, 0]
    assert sides.min() < 13 and sides.max() > 26  # of 20: factors from 1/2 to 3/2
    for image, box, valid in zip(images, target["boxes"][:, 0], target["valid"][:, 0], strict=True):
        if valid:
            # A pixel is white if its centre falls into the box; the matrix has 16 bits after the point.
            assert np.abs(np.array(extent(image)) - box).max() <= 0.5 + 64 * 2**-15
        else:
            assert image.max() == 0
    images, part = augmented(config, 8, first=16)
    for name in target:
        assert np.array_equal(part[name], target[name][16:24]), name
    frames, boxes = target["frame"], target["boxes"][:, 0]
    back = (boxes - np.tile(frames[:, 2:], 2)) / np.tile(frames[:, :2], 2)
    whole = ((boxes > 0) & (boxes < [64, 48, 64, 48])).all(axis=1)
    np.testing.assert_allclose(np.sort(back[whole][:, ::2]), np.tile([20, 40], (whole.sum(), 1)), atol=1e-3)


def test_what_a_crop_leaves_of_a_box_is_cut_off_and_too_little_of_it_counts_as_a_crowd():
    config = configs.Augment(normalize=False, crop="zero", crop_padding=30)
    _, target = augmented(config, 256, box=(0, 10, 20, 30))
    boxes, valid, crowd = target["boxes"][:, 0], target["valid"][:, 0], target["crowd"][:, 0]
    share = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 400
    assert np.array_equal(valid, share > 0) and not valid.all()
    assert np.array_equal(crowd[valid], share[valid] < 0.2) and crowd[valid].any()
    assert not boxes[~valid].any()


def test_overlaps_are_those_of_the_closed_form():
    one, other = jnp.array([0.0, 0, 4, 4]), jnp.array([[2.0, 0, 6, 4], [0, 0, 4, 4], [8, 0, 12, 4], [1, 1, 1, 1]])
    assert box_geometry.overlap(one, other).tolist() == pytest.approx([1 / 3, 1, 0, 0])
    # 8 of 24 with nothing left over; equal; apart by 4 of 12 columns; a point inside: 0 - (16 - 16) / 16.
    assert box_geometry.generalized_overlap(one, other).tolist() == pytest.approx([1 / 3, 1, -1 / 3, 0], abs=1e-6)


def test_points_lie_in_the_middle_of_their_cells_level_by_level():
    points = box_geometry.points(40, 64)
    assert len(points) == 5 * 8 + 3 * 4 + 2 * 2
    assert points[[0, 1, 40, -1]].tolist() == [[4, 4, 8], [12, 4, 8], [8, 8, 16], [48, 48, 32]]


@jax.jit
def assigned(answers, target):
    """The assignment of one image, compiled once."""
    columns = (target[name] for name in ("boxes", "label", "valid", "crowd"))
    return assignment.assign(answers[:, :4], answers[:, 4:], jnp.asarray(POINTS), *columns)


@jax.jit
@jax.value_and_grad
def loss_and_gradient(answers, target, mean):
    constants = Constants(jnp.zeros(1), jnp.ones(1), {"boxes_per_image": mean})
    of_all = jax.tree.map(lambda leaf: leaf[None], target)
    return DetectionLoss(2, SIDES).losses(answers[None], of_all, {}, constants, None)[0]


def loss_of(answers, target, mean=1.0):
    return float(loss_and_gradient(answers, target, np.float32(mean))[0])


def perfect(target):
    """Answers of which every point that is assigned to the first box has it, surely, and all others nothing."""
    answers = np.concatenate(
        [np.tile(target["boxes"][0], (len(POINTS), 1)), np.full((len(POINTS), 2), -30, np.float32)], axis=1
    )
    positive = np.asarray(assigned(answers, target).positive)
    answers[~positive, :4] = [0, 0, 1, 1]
    answers[positive, 4 + target["label"][0]] = 30
    return answers, positive


def test_a_perfect_answer_loses_nothing_and_every_fault_costs():
    target = targets([(9, 7, 42, 40)], [1])  # no two points cost the same
    answers, positive = perfect(target)
    assert 1 <= positive.sum() <= assignment.CANDIDATES
    assert loss_of(answers, target) == pytest.approx(0, abs=1e-5)
    wrong_class, shifted, missed = answers.copy(), answers.copy(), answers.copy()
    wrong_class[:, 4:] = wrong_class[:, [5, 4]]
    shifted[positive, :4] += 4
    missed[:, 4:] = -30
    assert min(loss_of(each, target) for each in (wrong_class, shifted, missed)) > 0.3
    # The sum is divided by the mean number of boxes of the training split, whatever the batch.
    assert loss_of(missed, target, mean=4.0) == pytest.approx(loss_of(missed, target) / 4, rel=1e-6)


def test_an_image_without_boxes_teaches_background_and_a_crowd_teaches_nothing():
    answers, _ = perfect(targets([(8, 8, 40, 40)]))
    # Surely something: sigmoid 1 against 0 costs its logit, 30, at each positive point.
    assert loss_of(answers, targets([])) == pytest.approx(30 * (answers[:, 4:] > 0).sum(), rel=1e-5)
    assert loss_of(answers, targets([(0, 0, 64, 48)], crowd=[0])) == pytest.approx(0, abs=1e-5)


def test_a_box_of_one_pixel_and_more_boxes_than_points_have_finite_losses_and_gradients():
    answers, _ = perfect(targets([(8, 8, 40, 40)]))
    corner = np.random.default_rng(0).integers(0, 40, (MOST, 2))
    for target in (targets([(9, 9, 10, 10)]), targets(np.concatenate([corner, corner + 5], axis=1))):
        assert np.asarray(assigned(answers, target).positive).any()
        loss, gradient = loss_and_gradient(answers, target, np.float32(1))
        assert np.isfinite(loss) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def overlap(one, other):
    width, height = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    sides = [box[2:] - box[:2] for box in (one, other)]
    return width * height / (sides[0].prod() + sides[1].prod() - width * height)


def one_by_one(boxes, most_overlap):
    """Suppression as its definition goes: each box in turn, unless a survivor hides it."""
    kept = []
    for place in range(len(boxes)):
        if all(overlap(boxes[place], boxes[other]) <= most_overlap for other in kept):
            kept.append(place)
    return np.isin(np.arange(len(boxes)), kept)


def test_suppression_in_rounds_is_suppression_one_by_one():
    random = np.random.default_rng(0)
    run = jax.jit(suppression.survivors)
    for most_overlap in (0.3, 0.65):
        corner = random.integers(0, 40, (60, 2))
        boxes = np.concatenate([corner, corner + random.integers(5, 40, (60, 2))], axis=1).astype(np.float32)
        kept = np.asarray(run(boxes, most_overlap))
        assert np.array_equal(kept, one_by_one(boxes, most_overlap))
        assert 1 < kept.sum() < 60
    chain = np.array([[x, 0, x + 10, 10] for x in range(0, 100, 4)], np.float32)  # each hides the next: many rounds
    assert np.array_equal(run(chain, 0.3), np.arange(25) % 2 == 0)


def softly(boxes, scores, softness, most):
    """Soft suppression as its definition goes: take the best, and lower those that remain."""
    left, taken = dict(enumerate(scores.astype(float))), []
    while left and len(taken) < most:
        best = max(left, key=left.__getitem__)
        taken.append((best, left.pop(best)))
        left = {k: score * np.exp(-(overlap(boxes[best], boxes[k]) ** 2) / softness) for k, score in left.items()}
    return taken


def test_soft_suppression_is_that_of_its_definition():
    random = np.random.default_rng(1)
    corner = random.integers(0, 40, (60, 2))
    boxes = np.concatenate([corner, corner + random.integers(5, 40, (60, 2))], axis=1).astype(np.float32)
    scores = random.uniform(size=60).astype(np.float32)
    for softness, most in ((0.5, 20), (0.1, 80)):
        kept, rows = suppression.softened(jnp.asarray(boxes), jnp.asarray(scores), softness, most)
        wanted = softly(boxes.astype(float), scores, softness, most)
        assert rows.tolist() == [place for place, _ in wanted] and len(rows) == min(most, 60)
        assert sorted(rows.tolist()) != rows.tolist()
        # A score is a product of at most 60 factors, each rounded a few times at 2^-24.
        np.testing.assert_allclose(kept, [score for _, score in wanted], rtol=60 * 4 * 2**-24)
        assert (kept[1:] <= kept[:-1]).all()


def test_across_classes_boxes_suppress_each_other_and_softly_they_only_lose():
    boxes = jnp.array([[0, 0, 20, 20], [1, 0, 21, 20], [30, 10, 50, 40]], jnp.float32)
    logits = jnp.array([[2, -20], [-20, 1], [-20, 0]], jnp.float32)

    def found(**rule):
        rows = np.asarray(suppression.found_in(boxes, logits, SIDES, 4, Rule(0.5, **rule)))
        return {(int(left), int(label)): float(score) for left, _, _, _, score, label in rows if score > 0.01}

    one, two, three = (1 / (1 + np.exp(-x)) for x in (2.0, 1.0, 0.0))
    assert found() == pytest.approx({(0, 0): one, (1, 1): two, (30, 1): three}, rel=1e-6)
    assert found(across=True) == pytest.approx({(0, 0): one, (30, 1): three}, rel=1e-6)
    assert found(softness=0.5) == found()
    fallen = two * np.exp(-((19 / 21) ** 2) / 0.5)
    assert found(softness=0.5, across=True) == pytest.approx({(0, 0): one, (30, 1): three, (1, 1): fallen}, rel=1e-6)


def test_found_boxes_are_the_best_first_per_class_cut_at_the_border_and_padded():
    boxes = np.array([[-5, 0, 20, 20], [-4, 0, 20, 20], [30, 10, 50, 60]], np.float32)
    logits = np.array([[1, -9], [2, 3], [-9, 0]], np.float32)
    found = np.asarray(suppression.found_in(jnp.asarray(boxes), jnp.asarray(logits), SIDES, 5, Rule(0.5)))
    sigmoid = 1 / (1 + np.exp(-np.array([3, 2, 0.0])))
    np.testing.assert_allclose(found[:3, 4], sigmoid, rtol=1e-6)
    assert found[:3, 5].tolist() == [1, 0, 1]
    assert found[:3, :4].tolist() == [[0, 0, 20, 20], [0, 0, 20, 20], [30, 10, 50, 48]]
    assert not found[3:].any()


def test_figures_are_those_of_pycocotools():
    goldens = json.loads((pathlib.Path(__file__).parent / "goldens" / "coco_goldens.json").read_text())
    assert len(goldens) == coco_cases.CASES
    for seed, golden in enumerate(goldens):
        outputs, target, classes = coco_cases.case(seed)
        collector = CocoFigures()
        for image in range(len(outputs)):  # batches of any size
            collector.add(outputs[image : image + 1], {name: leaf[image : image + 1] for name, leaf in target.items()})
        figures = collector.figures(tuple(f"class {k}" for k in range(classes)), {})
        for name, value in zip(FIGURES, golden, strict=True):
            wanted = (0.0 if name == "ap" else None) if value == -1 else pytest.approx(value, abs=1e-9)
            assert figures[name] == wanted, (seed, name)


def test_figures_do_not_change_when_images_are_letterboxed():
    outputs, target, classes = coco_cases.case(3)
    names = tuple(map(str, range(classes)))
    plain, boxed = CocoFigures(), CocoFigures()
    plain.add(outputs, target)
    half = np.tile(np.array([0.5, 0.5, 0, 16], np.float32), (len(outputs), 1))
    move = lambda boxes: boxes * np.float32(0.5) + np.array([0, 16, 0, 16], np.float32)  # noqa: E731
    small = target | {"boxes": move(target["boxes"]), "frame": half}
    boxed.add(np.concatenate([move(outputs[..., :4]), outputs[..., 4:]], axis=-1), small)
    assert plain.figures(names, {}) == boxed.figures(names, {})


def test_at_most_100_boxes_of_a_class_in_an_image_count_as_in_coco():
    corner = 40.0 * np.stack(np.meshgrid(np.arange(12), np.arange(10)), axis=-1).reshape(-1, 2)
    true = targets(np.concatenate([corner, corner + 20], axis=1), most=120)
    found = np.concatenate([true["boxes"], np.linspace(0.9, 0.3, 120)[:, None], np.zeros((120, 1))], axis=1)
    for most in (100, 120):
        collector = CocoFigures()
        collector.add(found[None, :most].astype(np.float32), jax.device_get(batched(true)))
        figures = collector.figures(("a",), {})
        assert figures["ar"] == pytest.approx(100 / 120) and figures["ap"] == pytest.approx(84 / 101)


def test_a_split_without_any_box_has_figures():
    collector = CocoFigures()
    collector.add(np.zeros((2, 3, 6), np.float32), jax.device_get(batched(targets([]), 2)))
    figures = collector.figures(("a", "b"), {})
    assert figures["ap"] == 0 and figures["ap50"] is None and figures["ap_by_class"] == {"a": None, "b": None}


WRONG = [
    ({"model": {"name": "cnn"}}, "needs a network that answers boxes"),
    ({"augment": {"mixup": 0.2}}, "config.augment.mixup does not move boxes"),
    ({"augment": {"policy": "randaugment"}}, "config.augment.policy does not move boxes"),
    ({"augment": {"crop": "reflect"}}, "repeats objects without boxes"),
    ({"augment": {"scale_jitter": (0.1, 2.0), "zoom": 0.5}}, "draws the size of images; leave out config.augment.zoom"),
    ({"augment": {"scale_jitter": (0.05, 2.0)}}, "must be two rising factors from 0.1 to 4"),
    ({"optim": {"label_smoothing": 0.1}}, "config.optim.label_smoothing is for one answer for each image"),
    ({"run": {"tta": "flip"}}, "config.run.tta is for one answer for each image"),
    ({"task": {"name": "classification"}}, "answers boxes; set config.task.name='detection'"),
    ({"task": {"name": "regression", "most_found": 5}}, "config.task.most_found is for config.task.name='detection'"),
]


@pytest.mark.parametrize(("change", "line"), WRONG)
def test_settings_without_sense_for_boxes_are_refused_in_one_line(change, line):
    tree = configs.to_dict(configs.Config())
    tree["model"] |= {"name": "yolo_cnn"}
    tree["task"] |= {"name": "detection"}
    configs.from_config_dict(tree)
    for group, values in change.items():
        tree[group] = tree[group] | values
    with pytest.raises(ConfigError, match=line.replace("(", r"\(")):
        configs.from_config_dict(tree)


def test_the_operators_of_a_file_suppress_as_the_compiled_program_does():
    onnxruntime = pytest.importorskip("onnxruntime")
    evaluation = found_boxes.Detections(SIDES, 12, Rule(0.5))
    trained = SimpleNamespace(spec=SimpleNamespace(task=task.Task(None, None, evaluation)))
    generator = np.random.default_rng(5)
    centres = generator.uniform(0, 64, (4, 9, 1, 2)) + generator.normal(0, 3, (4, 9, 8, 2))
    sides = generator.uniform(6, 20, (4, 9, 8, 2))
    boxes = np.concatenate([centres - sides, centres + sides], axis=-1).reshape(4, 72, 4)
    logits = generator.normal(-4, 3, (4, 72, 3))
    logits[3] = -20.0  # nothing is found in the last image
    outputs = np.concatenate([boxes, logits], axis=-1).astype(np.float32)
    wanted = np.asarray(jax.jit(evaluation.found, compiler_options=small.UNOPTIMISED)(outputs))
    made = finding.added(Graph(output="image"), trained, jax.ShapeDtypeStruct((72, 7), jnp.float32))
    model = test_deploy.model_of(made, (72, 7), ("b", "most", 6)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": outputs})
    number = (wanted[..., 4] > 0).sum(axis=1)
    assert number[:3].min() > 5 and number[3] == 0
    # Scores differ by the rounding of the sigmoid; their order does not.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    few = dataclasses.replace(evaluation, most_found=300, rule=Rule(0.5, across=True))  # more than can be: padded
    trained.spec.task = task.Task(None, None, few)
    made = finding.added(Graph(output="image"), trained, jax.ShapeDtypeStruct((72, 7), jnp.float32))
    session = onnxruntime.InferenceSession(test_deploy.model_of(made, (72, 7), ("b", "most", 6)).SerializeToString())
    (found,) = session.run(None, {"image": outputs})
    np.testing.assert_allclose(
        found, np.asarray(jax.jit(few.found, compiler_options=small.UNOPTIMISED)(outputs)), rtol=0, atol=1e-5
    )
    trained.spec.task = task.Task(None, None, dataclasses.replace(evaluation, rule=Rule(0.5, softness=0.5)))
    with pytest.raises(UserError, match=r"soft_suppression=0\.5 has no operator of ONNX"):
        finding.check(trained)
