"""YOLOX whole: answers, derivatives, names and shapes of its own code, files with other classes, and its loss."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jaxcnn import config, models
from jaxcnn.config import UserError, networks
from jaxcnn.data.batch import Constants
from jaxcnn.graphs import graph, lowering
from jaxcnn.models import context, csp
from jaxcnn.tasks import assignment, box_geometry, by_name, objectness
from jaxcnn.train import same_network
from jaxcnn.weights import fit, layout
from tests.goldens import make_yolox_goldens as yolox
from tests.small import UNOPTIMISED
from tests.test_backbones import GOLDENS, LAYOUTS
from tests.test_deploy import session_of
from tests.test_detection import POINTS, SIDES, targets
from tests.test_weight_names import numbered, shapes_of

MODEL = config.Model(name="yolox_s", width=0.125)
CLASSES = yolox.CLASSES
QUICK = re.compile(r"head/level2_|head/level\d_\w+_out/")  # the gradients of the others take long to compile


@functools.cache
def zeros(count: int) -> dict[str, np.ndarray]:
    return {key: np.zeros(shape) for key, shape in shapes_of(MODEL, count, 64).items()}


def fitted(count: int = CLASSES, **options) -> fit.Fitted:
    file = {name: yolox.drawn(name, tuple(shape)) for name, shape in LAYOUTS["whole"].items()}
    return fit.fit(file, MODEL, zeros(count), source="a file", head="head", **options)


def derivatives(wanted: re.Pattern[str], train: bool, *images: np.ndarray):
    """The answers in the form of YOLOX; derivatives of their weighted sum along one direction of some arrays, by name.

    The form is centre, width, height, and the probabilities of an object and of each class.
    """
    found = fitted()
    assert found.naming == "yolox" and {row.status for row in found.rows} == {fit.LOADED}
    params = {key: value for key, value in found.arrays.items() if key.startswith("params/")}
    part = {key: value for key, value in params.items() if wanted.match(key.removeprefix("params/"))}

    def weighted(part):
        variables = traverse_util.unflatten_dict(found.arrays | part, sep="/")
        outputs, _ = network.apply(variables, np.stack(images), train=train, mutable=["batch_stats"])
        corners, logits, of_object = outputs[..., :4], outputs[..., 4:-1], outputs[..., -1:]
        middle, sides = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
        shares = jax.nn.sigmoid(jnp.concatenate([of_object, logits], axis=-1))
        answers = jnp.concatenate([middle, sides, shares], axis=-1)
        return (answers * yolox.direction("answers", answers.shape)).sum(), answers

    with jax.enable_x64(True), context.portable():
        network = models.build(MODEL, config.Norm(epsilon=1e-3), CLASSES).clone(dtype=jnp.float64)
        both = jax.jit(jax.value_and_grad(weighted, has_aux=True), compiler_options=UNOPTIMISED)
        (_, answers), gradient = both(part)
    along = {}
    for leaf in layout.leaves("yolox", MODEL, {key: value.shape for key, value in params.items()}, "head"):
        (name,) = leaf.theirs
        if leaf.key in part:
            theirs = layout.to_theirs("yolox", leaf, np.asarray(gradient[leaf.key]))
            along[name] = (yolox.direction(name, theirs.shape) * theirs).sum()
    order = sorted(name for name in LAYOUTS["whole"] if not re.search("running", name))
    places = [place for place, name in enumerate(order) if name in along]
    return np.asarray(answers), np.array([along[order[place]] for place in places]), places


def test_answers_and_derivatives_are_those_of_its_own_code():
    answers, along, places = derivatives(QUICK, False, yolox.image())
    assert len(along) == 33
    # Sums of some hundred terms in float64 in up to 50 layers.
    np.testing.assert_allclose(answers[0], GOLDENS["answers"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(along, GOLDENS["derivatives"][places], rtol=1e-6, atol=1e-7)


@pytest.mark.services
def test_the_derivatives_of_all_its_arrays_in_training_are_those_of_its_own_code():
    _, along, places = derivatives(re.compile(""), True, yolox.image(), yolox.image(1))
    assert len(places) == len(GOLDENS["derivatives_in_training"])
    np.testing.assert_allclose(along, GOLDENS["derivatives_in_training"], rtol=1e-6, atol=1e-7)


def test_names_and_shapes_are_those_of_its_own_code_and_what_is_written_is_read_to_the_bit():
    model = config.Model(name="yolox_m")
    leaves = layout.leaves("yolox", model, shapes_of(model, 80, 64), "head")
    written = {leaf.theirs[0]: layout.to_theirs("yolox", leaf, numbered(leaf.shape)) for leaf in leaves}
    assert {key: list(value.shape) for key, value in written.items()} == LAYOUTS["yolox_m"]
    for leaf in leaves:
        assert np.array_equal(layout.to_ours("yolox", leaf, written[leaf.theirs[0]]), numbered(leaf.shape))


@pytest.mark.parametrize("name", networks.YOLOX)
def test_every_size_has_the_channels_and_blocks_of_its_own_code(name):
    first, blocks = csp.SIZES[name.replace("yolox", "csp")]
    assert LAYOUTS[name]["backbone.backbone.stem.conv.conv.weight"][0] == first
    found = (
        re.match(r"backbone\.(?:backbone\.)?(dark\d|C3_\w\d).*\.m\.(\d+)\.conv1\.conv", each) for each in LAYOUTS[name]
    )
    count = collections.Counter(each[1] for each in found if each)
    assert [count[f"dark{stage}"] for stage in (2, 3, 4, 5)] == list(blocks)
    assert {count[each] for each in ("C3_p4", "C3_p3", "C3_n3", "C3_n4")} == {blocks[0]}


def test_the_head_of_other_classes_is_new_or_taken_by_name_and_boxes_and_objectness_stay():
    new = fitted(2, classes=("cat", "dog"))
    left = {row.ours for row in new.rows if row.status == fit.LEFT_OUT}
    assert left == {f"params/head/level{level}_class_out/{leaf}" for level in range(3) for leaf in ("kernel", "bias")}
    assert "3 classes without names, not 2: a new head" in {row.why for row in new.rows}
    named = fitted(2, classes=("cat", "dog"), given_classes=("bird", "dog", "fish"))
    status = collections.Counter(row.status for row in named.rows)
    assert status == {fit.LOADED: len(named.rows) - 6, fit.ADAPTED: 6}
    bias = yolox.drawn("head.cls_preds.1.bias", (3,))
    assert named.arrays["params/head/level1_class_out/bias"].tolist() == [0, bias[1]]
    assert {row.status for row in fitted(classes=("a", "b", "c")).rows} == {fit.LOADED}


def test_another_epsilon_and_the_file_of_a_backbone_alone_are_refused():
    with pytest.raises(UserError, match=r"set --config\.norm\.epsilon=0\.001"):
        same_network.check_epsilon(config.Config(model=MODEL), "file:a.npz", "yolox")
    file = {name: yolox.drawn(name, tuple(shape)) for name, shape in LAYOUTS["whole"].items() if "dark" in name}
    with pytest.raises(UserError, match=r"a file .* lacks head/.* of the network; choose the network"):
        fit.fit(file, MODEL, zeros(CLASSES), source="a file", head="head")


def task(network: str = "yolox_s"):
    return by_name.make(config.Task(name="detection", most_found=20), 2, sides=SIDES, network=network)


def drawn_outputs(seed: int = 0) -> np.ndarray:
    """Boxes around the points, and logits of two classes and of an object."""
    random = np.random.default_rng(seed)
    half = POINTS[:, 2:] * random.uniform(0.5, 2, (len(POINTS), 2))
    logits = random.normal(0, 2, (len(POINTS), 3))
    return np.concatenate([POINTS[:, :2] - half, POINTS[:, :2] + half, logits], axis=1).astype(np.float32)


def quick(function, *values):
    return jax.jit(function, compiler_options=UNOPTIMISED)(*values)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_scores_are_products_of_two_probabilities_and_extreme_logits_have_finite_gradients():
    outputs = drawn_outputs()
    boxes, logits = quick(task().evaluation.of_places, outputs)
    np.testing.assert_allclose(sigmoid(logits), sigmoid(outputs[:, 4:6]) * sigmoid(outputs[:, 6:]), rtol=1e-5)
    assert np.array_equal(boxes, outputs[:, :4])
    assert task("yolo_cnn").evaluation.of_places(outputs[:, :6])[1].shape == (len(POINTS), 2)
    pairs = np.array([[a, b] for a in (-300, -9, 0, 9, 300) for b in (-300, -9, 0, 9, 300)], np.float32)
    one, other = quick(jax.grad(lambda pairs: objectness.joined(pairs[:, :1], pairs[:, 1:]).sum()), pairs).T
    a, b = pairs.T.astype(np.float64)
    # d/da of a + b - log(1 + e^a + e^b), for logits whose powers do not overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = 1 - np.exp(a - np.logaddexp(0, np.logaddexp(a, b)))
    np.testing.assert_allclose(one, wanted, atol=1e-6)
    np.testing.assert_allclose(np.sort(one), np.sort(other), atol=1e-6)


def test_the_loss_is_that_of_yolox_over_the_mean_number_of_boxes():
    outputs, target = (
        drawn_outputs(),
        targets([(8, 8, 40, 40), (30, 4, 60, 30), (0, 40, 20, 64)], [1, 0, 1], crowd=(2,)),
    )
    constants = Constants(jnp.zeros(1), jnp.ones(1), {"boxes_per_image": np.float32(4.0)})
    columns = [target[name] for name in ("boxes", "label", "valid", "crowd")]

    def parts(outputs):
        whole = objectness.joined(outputs[:, 4:6], outputs[:, 6:])
        found = assignment.assign(outputs[:, :4], whole, jnp.asarray(POINTS), *columns)
        return found, 1 - box_geometry.generalized_overlap(outputs[:, :4], jnp.asarray(target["boxes"])[found.box])

    found, apart = quick(parts, outputs)
    positive, ignored = np.asarray(found.positive), np.asarray(found.ignored)
    assert positive.sum() > 3 and ignored.any() and set(np.asarray(found.box)[positive]) == {0, 1}

    def entropy(logits, wanted):
        return -(wanted * np.log(sigmoid(logits)) + (1 - wanted) * np.log(1 - sigmoid(logits)))

    own = np.eye(2)[target["label"][found.box]] * np.asarray(found.quality)[:, None]
    of_classes = entropy(outputs[:, 4:6], own).sum(axis=1)[positive].sum()
    of_object = entropy(outputs[:, 6], positive)[~ignored].sum()
    wanted = (of_classes + of_object + 5 * float(np.asarray(apart)[positive].sum())) / 4
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), target)
    both["valid"][1] = False  # the second image has no box
    loss = task().loss
    losses = jax.jit(lambda outputs: loss.losses(outputs, both, {}, constants, None), compiler_options=UNOPTIMISED)
    of_both = losses(np.stack([outputs, outputs]))
    assert float(of_both[0]) == pytest.approx(wanted, rel=1e-5)
    assert float(of_both[1]) == pytest.approx(entropy(outputs[:, 6], 0).sum() / 4, rel=1e-5)
    assert of_both[0] == losses(np.stack([outputs, drawn_outputs(1)]))[0], "no other image counts"


def test_the_operators_of_onnx_find_what_is_found():
    outputs = np.stack([drawn_outputs(), drawn_outputs(1)])
    expected = np.asarray(quick(task().evaluation.found, outputs))
    assert ((expected[..., 4] > 0).sum(axis=1) > 5).all()
    made = graph.simplified(
        lowering.lower(task().evaluation.found, jax.ShapeDtypeStruct(outputs.shape[1:], jnp.float32), "image"), True
    )
    (found,) = session_of(made, outputs.shape[1:], ("b", "n", "six")).run(None, {"image": outputs})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
