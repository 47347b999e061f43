"""Every number has a bound, told in one line, before a run hangs or is ended for want of memory."""

import dataclasses
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn import config as configs
from jaxcnn.config import Config, ConfigError, UserError, from_config_dict
from jaxcnn.data.source import Splits, open_splits
from jaxcnn.learn.step_spec import make_spec
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name
from jaxcnn.train import limits
from jaxcnn.train.due import rhythm
from tests import small

KEYS = sorted(configs.flatten(configs.to_dict(Config())))
EXTREMES = [
    0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**53, 2**63, 10**12, 10**400, 0.0, 0.3, 1.0, 1e-9, 1e-45, 1e-320, 1e9, 1e30,
    1e39, 1e308, float("inf"), float("nan"), True, None, "", "x", "1e9", "none", [], [1e308], (2**40,), ["x"],
    {}, {"x": 1}, b"x", "x" * 5000, 10**5000,
]  # fmt: skip


def changed(*changes: tuple[str, object]) -> dict:
    """The default config with some fields changed, by their flat keys."""
    tree = configs.to_dict(Config())
    for key, value in changes:
        *groups, leaf = key.split(".")
        group = tree
        for name in groups:
            group = group[name]
        group[leaf] = value
    return tree


@pytest.mark.parametrize("long", ["x" * 5000, "module:" + "x" * 5000, ["x" * 5000], [["x" * 5000, 0.0]]])
def test_a_long_value_of_any_field_is_told_in_a_short_line(long):
    told = 0
    for key in KEYS:
        try:
            from_config_dict(changed((key, long)))
        except ConfigError as error:
            told += 1
            assert all("config." in line and len(line) < 600 for line in str(error).splitlines()), key
    assert told > len(KEYS) / 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(EXTREMES)), min_size=1, max_size=3))
def test_any_value_of_any_field_is_taken_or_refused_in_lines_that_name_fields(changes):
    try:
        config = from_config_dict(changed(*changes))
        make = dict(task=by_name.make(configs.Task(), 10), image_shape=(32, 32, 3), train_examples=50_000)
        limits.check_spec(config, make_spec(config, **make))
    except ConfigError as error:
        for line in str(error).splitlines():
            assert "config." in line and len(line) < 500
    else:
        for value in configs.flatten(configs.to_dict(config)).values():
            if isinstance(value, float):
                assert np.isfinite(np.float32(value))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.width", 1e9, "must be at most 1024, but is 1e+09"),
        ("data.workers", 1_000_000, "must be at most 1024"),
        ("run.eval_batch_size", 10**12, "must be at most 2147483647"),
        ("data.image_size", 100_000, "must be at most 16384"),
        ("optim.learning_rate", 1e308, "config.optim.learning_rate=1e+308 is outside the range of float32"),
        ("norm.epsilon", 1e-320, "is outside the range of float32"),
        ("optim.beta2", 1 - 1e-12, "must be in [0, 1)"),
        ("optim.learning_rate", 10**400, "must be a finite number"),
        ("schedule.boundaries", (1e308,), "is outside the range of float32"),
        ("augment.small_sides", (10**12,), "must be at most 2147483647"),
        ("hosts.join_seconds", 10**12, "must be at most 1000000"),
        ("hosts.process", -2, "must be at least -1"),
    ],
)
def test_numbers_beyond_any_use_are_refused_before_there_is_data(key, value, words):
    with pytest.raises(ConfigError) as caught:
        from_config_dict(changed((key, value)))
    assert any(f"config.{key}" in line and words in line for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"run": {"eval_every_epochs": 1e-9}}, "eval_every_epochs=1e-09 is 3e-09 steps; the minimum is one step, 0.33"),
        ({"checkpoint": {"every_epochs": 1e-9}}, "config.checkpoint.every_epochs=1e-09 is 3e-09 steps"),
        ({"augment": {"crop": "zero", "crop_padding": 9}}, "crop_padding=9 is more than 8 pixels, for images with"),
        ({"augment": {"cutout": 17}}, "config.augment.cutout=17 is more than 16 pixels"),
        ({"schedule": {"name": "multistep", "boundaries": (1e9,)}}, "are above the limit of 2^31 steps"),
        ({"model": {"name": "airbench"}, "optim": {"whitening_bias_epochs": 1e9}}, "is above the limit of 2^31 steps"),
    ],
)  # fmt: skip
def test_numbers_beyond_what_the_set_allows_are_refused_in_one_line(groups, words):
    config = small.config(**groups)
    with pytest.raises(ConfigError) as caught:
        limits.check_spec(config, small.spec_of(config))
    (line,) = str(caught.value).splitlines()
    assert words in line


def test_more_stops_than_could_be_listed_are_refused():
    config = small.config(global_batch_size=1, norm={"group_size": 1}, checkpoint={"every_steps": 1})
    with pytest.raises(ConfigError, match="every_steps=1 is due 2,000,000,000 times in 2,000,000,000 steps"):
        limits.check_spec(config, small.spec_of(config, steps=2 * 10**9))


def test_several_evaluations_in_a_step_are_one():
    assert rhythm(1e-9, 20, 100) == rhythm(0.01, 20, 100) == frozenset(range(1, 101))
    assert rhythm(0.25, 20, 12) == {5, 10, 12}


@pytest.fixture(scope="module")
def grey() -> Splits:
    return open_splits(configs.Data(source="synthetic:8x8x1", val_examples=200))


def checked(config: Config, splits: Splits, devices: int = 1, loader: str = "resident") -> None:
    make = dict(
        task=by_name.make(configs.Task(), 10), image_shape=splits.train.image_shape, train_examples=len(splits.train)
    )
    spec, mesh = make_spec(config, **make), meshes.make_mesh(devices)
    limits.check_memory(config, spec, mesh, loader, splits)
    compiled = types.SimpleNamespace(memory_analysis=lambda: types.SimpleNamespace(temp_size_in_bytes=2**30))
    limits.check_compiled(spec, mesh, loader, splits, [compiled])  # type: ignore[list-item]


def test_a_run_that_the_memory_cannot_hold_is_refused_before_it_compiles(grey, monkeypatch):
    monkeypatch.setattr(malloc, "obtainable", lambda: 2**30)
    checked(small.config(), grey)
    with pytest.raises(
        ConfigError, match=r"needs at least 103\.\d GiB of memory \(the parameters and the optimiser's "
    ):
        checked(small.config(model={"width": 500.0}), grey)
    with pytest.raises(ConfigError, match=r"needs at least 11\.\d GiB of memory \(a batch 11\.9\), but only 1\.0 GiB"):
        checked(small.config(run={"eval_batch_size": 2 * 10**8}), grey)


def test_what_the_compiled_step_works_with_counts_once_for_each_device_of_a_cpu(grey, monkeypatch):
    monkeypatch.setattr(malloc, "obtainable", lambda: 2**30)
    checked(small.config(), grey, devices=1)
    with pytest.raises(ConfigError, match=r"needs at least 2\.0 GiB of memory \(a step 1\.0\)"):
        checked(small.config(), grey, devices=2)
    monkeypatch.setattr(malloc, "obtainable", lambda: None)
    checked(small.config(), grey, devices=8)


@pytest.mark.parametrize(
    "numbers", ["9x9x3:1000000:5", "1000000x1000000x3", "8x8x3:10:2000000000000", "8x8x" + 5000 * "9", "8x8x3:2:3"]
)
def test_made_up_sets_beyond_memory_are_refused_in_one_line(numbers):
    with pytest.raises(UserError) as caught:
        open_splits(dataclasses.replace(Config().data, source=f"synthetic:{numbers}"))
    assert "\n" not in str(caught.value)
