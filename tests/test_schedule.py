"""Learning-rate schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import Schedule
from jaxcnn.learn.schedule import learning_rate_factor


def factors(total=100, steps_per_epoch=10.0, **fields):
    schedule = Schedule(**fields)
    return np.array(
        [
            learning_rate_factor(schedule, jnp.int32(step), total_steps=total, steps_per_epoch=steps_per_epoch)
            for step in range(total)
        ]
    )


def test_constant_is_one_throughout():
    np.testing.assert_array_equal(factors(name="constant"), 1)


def test_cosine_is_half_a_cosine_over_what_warm_up_leaves():
    values = factors(name="cosine", warmup=2.0, final_factor=0.1)
    np.testing.assert_allclose(values[:20], np.arange(1, 21) / 20, rtol=1e-6)
    expected = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(80) / 80)) / 2
    np.testing.assert_allclose(values[20:], expected, rtol=1e-5)


def test_linear_reaches_its_end_at_the_end():
    np.testing.assert_allclose(factors(name="linear", final_factor=0.5), 1 - 0.5 * np.arange(100) / 100, rtol=1e-6)


@pytest.mark.parametrize(("unit", "boundaries", "warmup"), [("epochs", (5.0, 8.0), 1.0), ("steps", (50.0, 80.0), 10.0)])
def test_multistep_drops_at_its_boundaries_counted_from_the_start_of_the_run(unit, boundaries, warmup):
    values = factors(name="multistep", unit=unit, boundaries=boundaries, warmup=warmup, decay_factor=0.2)
    np.testing.assert_allclose(values[10:50], 1, rtol=1e-6)
    np.testing.assert_allclose(values[50:80], 0.2, rtol=1e-6)
    np.testing.assert_allclose(values[80:], 0.04, rtol=1e-6)


def test_onecycle_rises_to_its_peak_and_falls_to_its_end():
    values = factors(name="onecycle", warmup=3.0)
    assert values[0] == pytest.approx(1 / 25)
    assert values.argmax() == 30
    assert (np.diff(values[:31]) > 0).all()
    assert (np.diff(values[30:]) < 0).all()
    assert values[-1] == pytest.approx(1 / 70, rel=1e-4)
    assert factors(name="onecycle").argmax() == 30  # of 100 steps, the default rise


def test_warm_up_in_steps_and_in_epochs_are_the_same_length():
    in_epochs = factors(name="cosine", warmup=1.5)
    in_steps = factors(name="cosine", warmup=15.0, unit="steps")
    np.testing.assert_array_equal(in_epochs, in_steps)


def test_a_warm_up_longer_than_the_run_never_reaches_one():
    values = factors(total=10, name="cosine", warmup=2.0, unit="epochs", steps_per_epoch=10.0)
    assert values.max() <= 1
    assert (np.diff(values) > 0).all()
