"""The learning-rate range test: `python -m jaxcnn.find_rate`, `jaxcnn.find_rate`."""

import numpy as np
import pytest

import jaxcnn
import jaxcnn.config as configs
from jaxcnn.config import UserError
from jaxcnn.train import rate_range
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, runs, small


def quick(**groups):
    """A config whose step the other tests of finished runs have compiled."""
    return digits.config(**groups)


def measured(config, **options):
    with small.programs_kept():
        return rate_range.measure(config, say=lambda line: None, **options)


def test_the_test_is_the_start_of_training_with_a_growing_rate(tmp_path, monkeypatch):
    """Its first loss is that of the run, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    found = measured(quick(), steps=30, lowest=0.02, highest=1.0)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(found.rates, np.geomspace(0.02, 1.0, 30), rtol=1e-6)
    seen = []
    hooks = Hooks(after_step=lambda step: seen.append(step.metrics["loss"]))
    with small.programs_kept():
        train(quick(run={"steps": 1}), tmp_path / "run", command=digits.COMMAND, hooks=hooks)
    assert found.losses[0] == pytest.approx(seen[0], rel=1e-6)
    assert min(found.smoothed) < 0.9 * found.smoothed[0], "the digits are learnt in 30 steps"
    assert found.smoothed[-1] == pytest.approx(_average(found.losses))


def _average(losses):
    """The moving average, written out as one weighted mean."""
    weights = 0.9 ** np.arange(len(losses))[::-1]
    return float(np.average(losses, weights=weights))


def test_it_ends_when_the_loss_grows_too_large():
    found = measured(quick(), steps=40, lowest=0.01, highest=1e6)
    assert 10 <= len(found.losses) < 40
    assert found.suggestion == pytest.approx(found.lowest / 10, rel=0.05) and found.suggestion < 10
    assert found.steepest <= found.lowest


def test_suggestions_are_read_from_the_smoothed_loss():
    rates = tuple(np.geomspace(1e-5, 1.0, 11))
    smoothed = (2.0, 2.0, 2.0, 1.9, 1.4, 1.0, 0.8, 0.7, 0.9, 3.0, 9.0)
    found = rate_range.RateRange(rates, smoothed, smoothed, "x")
    assert found.lowest == pytest.approx(rates[7])
    assert found.suggestion == pytest.approx(rates[7] / 10, rel=0.05)
    assert found.steepest == pytest.approx(rates[4])  # between 1.9 and 1.0
    assert found._repr_png_().startswith(b"\x89PNG")


def test_the_rate_of_a_scaled_run_is_that_of_its_config(monkeypatch):
    """With `base_batch_size`, the step gets the scaled rate, and the suggestion is for the config."""
    one = measured(quick(), steps=10, lowest=0.01, highest=0.1)
    twice = measured(quick(optim={"base_batch_size": 32}), steps=10, lowest=0.005, highest=0.05)
    np.testing.assert_allclose(twice.losses, one.losses, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "below the highest"),
        ({"steps": 3}, "at least 10 steps"),
        ({"lowest": 0}, "above 0"),
    ],
)
def test_impossible_ranges_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        rate_range.measure(quick(), **options)


def test_the_command_and_the_call_suggest_a_rate(tmp_path, capsys):
    code, output = runs.run(
        "--config=quickstart",
        "--config.model.width=0.25",
        "--steps=10",
        f"--out={tmp_path / 'a.png'}",
        module="jaxcnn.find_rate",
    )
    assert code == 0 and "suggested: --config.optim.learning_rate=" in output
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    found = jaxcnn.find_rate(quick(), data=small.split(examples=120), steps=10, progress=False)
    assert len(found.rates) == 10 and capsys.readouterr().out == ""


def test_impossible_rates_are_told_by_their_flags():
    flags = ("--config=quickstart", "--lowest=1", "--highest=0.1")
    code, error = runs.run(*flags, module="jaxcnn.find_rate")
    assert code == 2 and "--lowest=1 must be above 0 and below --highest=0.1; they are" in error


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    code, error = runs.run("--config=quickstart", f"--out={tmp_path}", module="jaxcnn.find_rate")
    assert code == 2 and f"--out={tmp_path} is a folder" in error


def test_the_config_may_be_a_recipe():
    with pytest.raises(configs.ConfigError, match="there is no recipe 'nothing'"):
        jaxcnn.find_rate("nothing")
