"""Learning-rate schedules."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import Config, ConfigError, Schedule, from_config_dict, to_dict
from jaxcnn.learn.schedule import learning_rate_factor
from jaxcnn.train import curves
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, small


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


def all_factors(total=100, **fields):
    """`factors`, of all steps at once."""
    of_step = functools.partial(learning_rate_factor, Schedule(**fields), total_steps=total, steps_per_epoch=10.0)
    return np.array(jax.jit(jax.vmap(of_step))(jnp.arange(total)))


def test_restarts_repeat_a_cosine_each_so_many_times_as_long():
    values = all_factors(name="restarts", period=2.0, period_factor=2.0, final_factor=0.1, warmup=0.5)
    expected = [0.2, 0.4, 0.6, 0.8, 1.0]
    for length in (20, 40, 80):
        expected += [0.1 + 0.9 * (1 + np.cos(np.pi * t / length)) / 2 for t in range(length)]
    np.testing.assert_allclose(values, expected[:100], rtol=1e-5)
    same = all_factors(name="restarts", period=25.0, unit="steps")
    np.testing.assert_array_equal(same, np.tile(same[:25], 4))
    assert same[0] == 1
    longer = all_factors(total=200, name="restarts", period=2.0, period_factor=2.0, final_factor=0.1, warmup=0.5)
    np.testing.assert_array_equal(longer[:100], values)  # what comes later changes nothing


def test_a_trapezoid_falls_only_at_its_end():
    values = all_factors(name="trapezoid", warmup=1.0, cooldown=0.25, final_factor=0.2)
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_array_equal(values[10:76], 1)
    np.testing.assert_allclose(values[75:], 1 - 0.8 * np.arange(25) / 25, rtol=1e-6)
    assert (np.diff(all_factors(total=10, name="trapezoid", warmup=0.5, cooldown=1.0))[5:] < 0).all()


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"name": "cosine", "period": 3.0}, "config.schedule.period has no effect .* it is for 'restarts'"),
        ({"name": "constant", "patience": 3}, "config.schedule.patience has no effect .* it is for 'plateau'"),
        ({"name": "plateau", "decay_factor": 1.0}, "must be below 1 with schedule.name='plateau'"),
        ({"name": "restarts", "period_factor": 0.5}, "config.schedule.period_factor"),
    ],
)
def test_impossible_schedules_are_told(schedule, told):
    tree = to_dict(Config())
    tree["schedule"] |= schedule
    with pytest.raises(ConfigError, match=told):
        from_config_dict(tree)


def test_a_plateau_lowers_the_rate_and_a_resumed_run_does_so_at_the_same_steps_to_the_bit(tmp_path):
    changes = {
        "optim": {"learning_rate": 0.0625},
        "schedule": {"name": "plateau", "patience": 2, "decay_factor": 0.5, "final_factor": 0.2},
        "run": {"steps": 40, "eval_every_epochs": 0.2, "curves": False, "tensorboard": False, "log_every_steps": 1},
        "checkpoint": {"every_steps": 7},
    }
    digits.run(tmp_path / "whole", **changes)

    def after(step):
        def stop(at, score):
            if at >= step:
                raise KeyboardInterrupt

        return stop

    for step in (9, 16, 27):
        with small.programs_kept(), contextlib.suppress(KeyboardInterrupt):
            train(
                digits.config(**changes), tmp_path / "cut", command=digits.COMMAND, hooks=Hooks(evaluated=after(step))
            )
    digits.run(tmp_path / "cut", **changes)
    whole, cut = (curves.read_records(tmp_path / name) for name in ("whole", "cut"))
    timeless = [
        [{key: value for key, value in record.items() if "second" not in key} for record in records]
        for records in (whole, cut)
    ]
    assert timeless[0] == timeless[1]
    rates = [record["learning_rate"] for record in whole if record["kind"] == "train"]
    scores = [(record["step"], record["ema_top1_accuracy"]) for record in whole if record["kind"] == "val"]
    rate, best, waited, wanted = np.float32(0.0625), -1.0, 0, {}
    for step, score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited >= 2 and rate > np.float32(0.0625) * np.float32(0.2):
            rate, waited = max(rate * np.float32(0.5), np.float32(0.0625) * np.float32(0.2)), 0
        wanted |= dict.fromkeys(range(step + 1, 41), rate)
    assert rates == [wanted.get(step, np.float32(0.0625)) for step in range(1, 41)]
    assert len(set(rates)) > 1
