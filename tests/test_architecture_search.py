"""Searches over networks: lists drawn place by place, several objectives, weights taken over from earlier trials."""

import dataclasses
import json

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jaxcnn.config import ConfigError, UserError, from_config_dict
from jaxcnn.study import elements, inherit, objectives, outcome, spec, store, table
from jaxcnn.study import folder as files
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train import workdir
from tests import digits, studies

pytestmark = pytest.mark.unoptimised
STAGES = spec.product(
    *(spec.integers(f"model.stage_blocks[{stage}]", 1, 3) for stage in range(3)),
    spec.values("model.attention", ["none", "eca"]),
)


def test_a_list_is_drawn_place_by_place_and_a_trial_has_it_whole():
    kinds = store.distributions(STAGES)
    assert list(kinds) == [*(f"model.stage_blocks[{stage}]" for stage in range(3)), "model.attention"]
    params = {**{f"model.stage_blocks[{stage}]": stage + 1 for stage in range(3)}, "model.attention": "eca"}
    whole = {"model.stage_blocks": [1, 2, 3], "model.attention": "eca"}
    assert store.overrides(STAGES, params) == whole
    assert spec.varied(STAGES) == ["model.stage_blocks", "model.attention"]
    assert len(spec.sample(STAGES, np.random.default_rng(0))["model.stage_blocks"]) == 3
    grid = spec.product(spec.values("augment.mean[1]", [0.2]), spec.values("augment.mean[0]", [0.1, 0.3]))
    assert spec.cells(grid) == [{"augment.mean": [0.1, 0.2]}, {"augment.mean": [0.3, 0.2]}]
    base = from_config_dict({"model": {"name": "resnet20"}})
    assert spec.apply(base, whole).model.stage_blocks == (1, 2, 3)
    spec.check(spec.sweep(STAGES), base)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"a[0]": 1, "a[2]": 1}, r"config.a\[1\] is missing"),
        ({"a[0]": 1, "a": [1]}, "config.a is varied twice"),
    ],
)
def test_a_list_with_a_gap_is_refused(overrides, told):
    with pytest.raises(ConfigError, match=told):
        elements.joined(overrides)


def trial_of(number, x, kind, value):
    kinds = {"x": FloatDistribution(0.0, 10.0), "kind": CategoricalDistribution(["a", "b"])}
    made = optuna.trial.create_trial(params={"x": x, "kind": kind}, distributions=kinds, values=[value, 1.0])
    made.number = number
    return made


def test_the_parent_is_the_nearest_finished_trial_and_of_equals_the_best(tmp_path):
    definition = dataclasses.replace(_definition(), directions={"val_accuracy": "maximize", "flops": "minimize"})
    mine = trial_of(9, 5.0, "a", 0.0)
    others = [trial_of(0, 5.0, "b", 0.9), trial_of(1, 9.0, "a", 0.8), trial_of(2, 1.0, "a", 0.7)]
    assert inherit.parent_of(definition, mine, []) is None
    assert (
        inherit.parent_of(definition, mine, others) == 1
    )  # 0.4 away, as the third, which is worse; the first is 1 away
    fewer = dataclasses.replace(definition, directions={"val_mean_absolute_error": "minimize"})
    assert inherit.parent_of(fewer, mine, others) == 2
    others[1].set_user_attr("as", 0)
    assert inherit.parent_of(definition, mine, others) == 2
    failed = optuna.trial.create_trial(
        state=optuna.trial.TrialState.FAIL, params=mine.params, distributions=mine.distributions
    )
    assert inherit.parent_of(definition, mine, [*others, failed]) == 2


def _definition():
    plain = {"name": "x", "study": "x", "storage": "x", "sampler": "tpe", "pruner": "none", "space": None}
    return files.Definition(**plain, base=digits.config(), directions={}, trials=1, seed=0, heartbeat=60)


WIDTHS = spec.values("model.width", [n / 32 for n in range(2, 12)])
SEARCHED = spec.sweep(WIDTHS, objectives=("parameters", "flops"), inherit=True)


@pytest.mark.parametrize(
    ("sweep", "options", "told"),
    [
        (SEARCHED, {"sampler": "gp", "trials": 2}, "--sampler=gp takes one objective, but the sweep has several"),
        (SEARCHED, {"sampler": "grid"}, "--sampler=grid plans all trials beforehand; none can inherit weights"),
        (SEARCHED, {"sampler": "tpe", "trials": 2, "pruner": "median"}, "two objectives cannot be pruned"),
    ],
)
def test_what_a_search_over_networks_cannot_have_is_refused(sweep, options, told, tmp_path):
    with pytest.raises(UserError, match=told):
        studies.make(tmp_path, sweep, **options)
    with pytest.raises(ConfigError, match="unknown objective 'speed'; use some of train_seconds"):
        spec.sweep(STAGES, objectives=("speed",))


def test_trials_inherit_weights_and_are_judged_by_several_objectives(tmp_path):
    study = studies.make(tmp_path, SEARCHED, trials=3, run={"steps": 2, "epochs": 0.0})
    study.work()
    first, second, _ = trials = study.trials()
    assert not any("as" in each for each in trials), "another seed of the sampler is needed: a trial repeats another"
    assert "started_from" not in first and second["started_from"] == 0
    assert list(study.definition.directions) == ["val_accuracy", "parameters", "flops"]
    for each in trials:
        summary = json.loads((files.trial_folder(tmp_path, each["number"]) / "summary.json").read_text())
        assert each["values"]["parameters"] == summary["parameters"]
        a, b = round(32 * each["overrides"]["model.width"]), round(64 * each["overrides"]["model.width"])
        # 8x8 grey images: 2 operations for each of 9 taps, inputs and outputs at each position, and the classifier.
        assert each["values"]["flops"] == 2 * (64 * 9 * (a + a * b) + 16 * 9 * b * b + 10 * b)
    config = workdir.read_config(files.trial_folder(tmp_path, 1))
    assert config.init.partial and config.init.source.endswith("trials/0000")
    board = table.Board(study.folder, 3, None, Accuracy(10).headline)
    lines = outcome.summarize(study.folder, study.definition, board, study.queue().study)
    assert "  Pareto front of validation accuracy and parameters and operations:" in lines
    assert any(line.endswith(" Mflop") and " parameters, " in line for line in lines)


def test_the_latency_of_a_trial_is_measured_only_if_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(objectives, "_milliseconds", lambda folder: 3.5)
    summary = {"train_seconds": 1.0, "val_best": None, "parameters": 7}
    found = objectives.values(summary, digits.config(), tmp_path, None, ("latency",))
    assert found == {"train_seconds": 1.0, "latency": 3.5}
    assert [objectives.shown(*pair) for pair in found.items()] == [" in 1.0 s", ", 3.50 ms"]
