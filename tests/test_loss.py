"""The loss and the sums behind every figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from jaxcnn.learn import metrics
from jaxcnn.tasks import classification as losses
from jaxcnn.tasks.classes import Classes, Mixed

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(40, 7)).astype(np.float32) * 3
LABEL = GENERATOR.integers(7, size=40).astype(np.int32)
OTHER = GENERATOR.integers(7, size=40).astype(np.int32)
PLAIN = Classes(7).whole(LABEL)
PROBABILITY = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)


def cross_entropy(logits, target, label_smoothing):
    return losses.CrossEntropy(7).losses(logits, target, {"label_smoothing": label_smoothing}, None, None)


def test_plain_cross_entropy_is_scikit_learns():
    ours = cross_entropy(LOGITS, PLAIN, jnp.float32(0)).mean()
    assert float(ours) == pytest.approx(log_loss(LABEL, PROBABILITY, labels=range(7)), rel=1e-5)


def test_smoothing_and_mixing_are_the_cross_entropy_with_the_mixed_target():
    weight = GENERATOR.uniform(size=40).astype(np.float32)
    target = weight[:, None] * np.eye(7)[LABEL] + (1 - weight)[:, None] * np.eye(7)[OTHER]
    target = 0.8 * target + 0.2 / 7
    expected = -(target * np.log(PROBABILITY)).sum(-1)
    ours = cross_entropy(LOGITS, Mixed(LABEL, OTHER, weight), jnp.float32(0.2))
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_the_gradient_at_huge_logits_is_finite():
    gradient = jax.grad(lambda x: cross_entropy(x, PLAIN, jnp.float32(0.1)).sum())(LOGITS * 1e4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("k", [1, 5])
def test_top_k_is_scikit_learns(k):
    ours = losses.in_top_k(jnp.asarray(LOGITS), jnp.asarray(LABEL), k).mean()
    assert float(ours) == pytest.approx(top_k_accuracy_score(LABEL, LOGITS, k=k, labels=range(7)))


def test_ties_and_nan_do_not_count_as_hits():
    equal = jnp.zeros((1, 4))
    assert not losses.in_top_k(equal, jnp.array([0]), 1)[0]
    assert not losses.in_top_k(jnp.array([[jnp.nan, 1.0]]), jnp.array([0]), 1)[0]


def test_sums_leave_out_what_is_masked_even_where_it_is_not_finite():
    mask = np.arange(40) < 30
    logits = np.where(mask[:, None], LOGITS, np.nan)
    values = {"loss": cross_entropy(logits, PLAIN, jnp.float32(0)), "hits": losses.hits(logits, PLAIN, 1)}
    sums = metrics.summed(values, mask)
    assert float(sums["count"]) == 30
    assert float(sums["loss"]) == pytest.approx(30 * log_loss(LABEL[:30], PROBABILITY[:30], labels=range(7)), rel=1e-5)
    assert float(sums["hits"]) == (PROBABILITY[:30].argmax(-1) == LABEL[:30]).sum()
