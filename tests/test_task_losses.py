"""Losses of the tasks: PyTorch's values and gradients, and the definitions of the papers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ConfigError, Task
from jaxcnn.data.batch import Constants
from jaxcnn.tasks import weights
from jaxcnn.tasks.classes import Classes
from jaxcnn.tasks.classification import CrossEntropy
from jaxcnn.tasks.distillation import Distilled, divergence
from jaxcnn.tasks.multilabel import BinaryCrossEntropy

GOLDENS = dict(np.load(pathlib.Path(__file__).parent / "goldens" / "torch_losses.npz"))
LOGITS = GOLDENS["logits"].astype(np.float32)
PLAIN = Classes(7).whole(GOLDENS["label"].astype(np.int32))
HOT = GOLDENS["hot"].astype(np.float32)


def settings(**values):
    return {"label_smoothing": jnp.zeros(())} | {name: jnp.asarray(value, float) for name, value in values.items()}


def weighted(kind):
    return Constants(None, None, {"class_weights": GOLDENS["weight"].astype(kind)})


CASES = {
    "weighted": lambda x: CrossEntropy(7, weighted=True).losses(
        x, PLAIN, settings(label_smoothing=0.1), weighted(x.dtype), None
    ),
    "focal": lambda x: CrossEntropy(7, focal=True).losses(x, PLAIN, settings(focal_gamma=2), None, None),
    "binary": lambda x: BinaryCrossEntropy(7, weighted=True).losses(x, HOT, settings(), weighted(x.dtype), None),
    "binary_focal": lambda x: BinaryCrossEntropy(7, focal=True).losses(x, HOT, settings(focal_gamma=1.5), None, None),
    "distilled": lambda x: divergence(x, GOLDENS["teacher"].astype(x.dtype), jnp.asarray(4, x.dtype)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("kind", "off"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_losses_and_gradients_are_pytorchs(name, kind, off):
    with jax.enable_x64(kind is np.float64):
        logits = GOLDENS["logits"].astype(kind)
        loss, gradient = CASES[name](logits), jax.grad(lambda x: CASES[name](x).sum())(logits)
        assert loss.dtype == gradient.dtype == kind
        np.testing.assert_allclose(loss, GOLDENS[name], rtol=off / 10, atol=off / 100)
        np.testing.assert_allclose(gradient, GOLDENS[f"{name}_gradient"], rtol=off, atol=off / 50)


def test_logit_adjustment_is_the_cross_entropy_of_logits_shifted_by_the_logarithm_of_the_frequencies():
    counts = np.array([500, 100, 50, 20, 10, 5, 1])
    constants = Constants(None, None, {"log_frequencies": weights.log_frequencies(counts)})
    loss = CrossEntropy(7, adjusted=True)
    ours = loss.losses(LOGITS, PLAIN, settings(logit_adjustment=1.5), constants, None)
    shifted = (LOGITS + 1.5 * np.log(counts / counts.sum())).astype(np.float32)
    np.testing.assert_allclose(ours, CrossEntropy(7).losses(shifted, PLAIN, settings(), None, None), rtol=1e-5)
    reported = loss.reported(LOGITS, PLAIN, constants)
    np.testing.assert_array_equal(reported, CrossEntropy(7).reported(LOGITS, PLAIN, None))


@pytest.mark.parametrize("q", [1e-4, 0.3, 0.7, 1.0])
def test_generalised_cross_entropy_lies_between_cross_entropy_and_the_distance_of_probabilities(q):
    loss = CrossEntropy(7, generalized=True)
    ours = np.asarray(loss.losses(LOGITS, PLAIN, settings(generalized_q=q), None, None))
    own = np.exp(-np.asarray(CrossEntropy(7).losses(LOGITS, PLAIN, settings(), None, None), np.float64))
    np.testing.assert_allclose(ours, (1 - own**q) / q, rtol=2e-5, atol=1e-6)
    assert (ours < 1 / q).all() and loss.settings == ("generalized_q",) and loss.plain == CrossEntropy(7)
    wrong = np.array([[0.0, 200.0, 0.0]], np.float32)  # the gradient of a label that the network rules out
    target = Classes(3).whole(np.array([0], np.int32))
    generalized = CrossEntropy(3, generalized=True)
    sum_of = lambda x: generalized.losses(x, target, settings(generalized_q=q), None, None).sum()  # noqa: E731
    assert np.isfinite(jax.grad(sum_of)(wrong)).all()


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_the_gradient_of_focal_losses_is_finite_where_the_network_is_certain(gamma):
    certain = np.array([[200.0, 0, 0], [0, 200.0, 0]], np.float32)
    target, hot = Classes(3).whole(np.array([0, 0], np.int32)), np.array([[1, 0, 0], [1, 0, 0]], np.float32)
    for loss, wanted in ((CrossEntropy(3, focal=True), target), (BinaryCrossEntropy(3, focal=True), hot)):
        sum_of = lambda x: loss.losses(x, wanted, settings(focal_gamma=gamma), None, None).sum()  # noqa: B023, E731
        assert np.isfinite(jax.grad(sum_of)(certain)).all()


def test_automatic_weights_are_the_inverse_frequencies_with_a_mean_of_1_and_names_replace_them():
    counts = np.array([100, 50, 10])
    found = weights.class_weights(Task(class_weights="auto"), "abc", counts)
    np.testing.assert_allclose(found * counts, found[0] * 100, rtol=1e-6)
    assert found.mean() == pytest.approx(1, abs=1e-6)
    config = Task(class_weights="auto", weights_by_name=(("b", 7.0),))
    np.testing.assert_allclose(weights.class_weights(config, "abc", counts), [found[0], 7, found[2]])
    with pytest.raises(ConfigError, match=r"names 'bb', which is no class \(did you mean 'b'\?\)"):
        weights.class_weights(Task(weights_by_name=(("bb", 7.0),)), "abc", counts)


class Fixed:
    """A teacher that says the same for every image."""

    def outputs(self, constants, of_teacher, image):
        return of_teacher


def test_distillation_is_the_weighted_mean_of_the_losses_for_labels_and_teacher():
    loss = Distilled(CrossEntropy(7), Fixed())
    constants = Constants(None, None, {"teacher": GOLDENS["teacher"].astype(np.float32)})
    ours = loss.losses(LOGITS, PLAIN, settings(teacher_share=0.3, temperature=4), constants, None)
    of_labels = CrossEntropy(7).losses(LOGITS, PLAIN, settings(), None, None)
    np.testing.assert_allclose(ours, 0.7 * of_labels + 0.3 * GOLDENS["distilled"], rtol=1e-5)
    assert loss.settings == ("temperature", "teacher_share") and loss.plain == CrossEntropy(7)
