"""Definitions of sweeps: what they list, what they draw, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcnn.config import Config, ConfigError
from jaxcnn.study import spec

SIZES = spec.values("global_batch_size", [32, 64])
RATES = spec.values("optim.learning_rate", [0.1, 0.01, 0.001])


def test_a_product_lists_every_combination_the_last_part_fastest():
    cells = spec.cells(spec.product(SIZES, RATES))
    assert [(c["global_batch_size"], c["optim.learning_rate"]) for c in cells] == [
        (size, rate) for size in (32, 64) for rate in (0.1, 0.01, 0.001)
    ]


def test_zipped_parts_go_together():
    pairs = spec.zipped(spec.values("model.name", ["alexnet", "vgg16"]), spec.values("model.dropout", [0.5, 0.0]))
    assert spec.cells(pairs) == [
        {"model.name": "alexnet", "model.dropout": 0.5},
        {"model.name": "vgg16", "model.dropout": 0.0},
    ]
    with pytest.raises(ConfigError, match="parts of equal length, but their lengths are 2, 3"):
        spec.zipped(SIZES, RATES)


def test_a_chain_makes_once_what_its_parts_have_in_common():
    chained = spec.chain(
        spec.product(SIZES, spec.values("optim.learning_rate", [0.1])),
        spec.product(spec.values("global_batch_size", [64]), RATES),
    )
    assert len(spec.cells(chained)) == 2 + 3 - 1
    assert spec.varied(chained) == ["global_batch_size", "optim.learning_rate"]


def test_one_field_cannot_be_varied_twice_in_a_trial():
    with pytest.raises(ConfigError, match=r"config\.global_batch_size is varied twice in one trial"):
        spec.cells(spec.product(SIZES, SIZES))


RANGES = {
    "uniform": spec.uniform("optim.learning_rate", 0.1, 0.4),
    "log-uniform": spec.log_uniform("optim.learning_rate", 1e-4, 1e-1),
    "integers": spec.integers("global_batch_size", 2, 5),
    "integers, log": spec.integers("global_batch_size", 8, 512, log=True),
}


@pytest.mark.parametrize("name", RANGES)
def test_random_ranges_stay_inside_and_are_uniform(name):
    drawn_from = RANGES[name]
    generator = np.random.default_rng(0)
    drawn = [spec.sample(drawn_from, generator)[drawn_from.key] for _ in range(4000)]
    assert all(drawn_from.low <= value <= drawn_from.high for value in drawn)
    assert all(isinstance(value, int) == drawn_from.integer for value in drawn)
    scale = math.log if drawn_from.log else float
    width = 0.5 if drawn_from.integer else 0.0
    low, high = scale(drawn_from.low - width), scale(drawn_from.high + width)
    middle = np.mean([scale(value) for value in drawn])
    # The standard error of the mean of 4000 draws is (high - low) / sqrt(12 * 4000); rounding moves it by less yet.
    assert abs(middle - (low + high) / 2) < 6 * (high - low) / math.sqrt(12 * 4000)
    if name == "integers":
        counts = np.bincount(drawn, minlength=6)[2:]
        assert counts.min() > 0.85 * len(drawn) / 4, "the ends are as likely as the rest"


@given(st.integers(0, 2**32 - 1))
def test_what_is_drawn_is_a_function_of_the_generator(seed):
    space = spec.product(SIZES, RANGES["log-uniform"])
    one, other = (spec.sample(space, np.random.default_rng(seed)) for _ in range(2))
    assert one == other
    assert set(one) == {"global_batch_size", "optim.learning_rate"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: spec.values("seed", []), "needs a list of at least one value"),
        (lambda: spec.values("model.name", "vgg16"), "needs a list of at least one value"),
        (lambda: spec.rows([3]), "needs a list of mappings"),
        (lambda: spec.uniform("optim.momentum", 0.9, 0.1), "needs low < high, but is 0.9 to 0.1"),
        (lambda: spec.log_uniform("optim.momentum", 0.0, 0.1), "must be above 0, but starts at 0.0"),
        (lambda: spec.integers("global_batch_size", 2.0, 8), "needs low < high"),
        (lambda: spec.sweep(SIZES, seeds=[1, 1]), "must be distinct integers"),
        (lambda: spec.cells(RANGES["uniform"]), "is a random range, which has no list of values"),
        (lambda: spec.dimensions(spec.chain(SIZES, RATES)), "a chain is a list of trials, not a space"),
    ],
)
def test_a_definition_that_makes_no_sense_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spec.values("optim.learning_rat", [0.1]), r"unknown key config\.optim\.learning_rat \(did you mean config\.o"),
        (spec.values("optim", [0.1]), r"unknown key config\.optim, which is a group of fields"),
        (
            spec.values("model.name", ["vgg61"]),
            r"config\.model\.name must be one of .* \(in the trial with model\.name",
        ),
        (spec.values("global_batch_size", [128, "64"]), r"config\.global_batch_size must be of type int, not '64'"),
        (spec.uniform("model.dropout", 0.5, 1.5), r"config\.model\.dropout must be in \[0, 1\), but is 1\.5"),
        (
            spec.product(spec.values("optim.accumulate_steps", [1, 3]), SIZES),
            r"config\.global_batch_size=32 is not divisible by config\.optim\.accumulate_steps=3",
        ),
    ],
)
def test_trials_are_checked_against_the_config_before_anything_runs(space, message):
    with pytest.raises(ConfigError, match=message) as caught:
        spec.check(spec.sweep(space), Config())
    assert all(line.startswith("sweep: ") for line in str(caught.value).splitlines())


def test_overrides_change_their_fields_and_no_others():
    base = Config()
    changed = spec.apply(base, {"optim.learning_rate": 1, "schedule.boundaries": [5.0], "schedule.name": "multistep"})
    assert changed.optim.learning_rate == 1.0
    assert changed.schedule.boundaries == (5.0,)
    assert changed.model == base.model
    assert base == Config()


def test_seeds_are_a_list_or_a_count():
    assert spec.sweep(SIZES, seeds=3).seeds == (0, 1, 2)
    assert spec.sweep(SIZES, seeds=[7, 5]).seeds == (7, 5)
    with pytest.raises(ConfigError, match="varied by values and by seeds"):
        spec.check(spec.sweep(spec.values("seed", [1, 2]), seeds=2), Config())
