"""Another figure than the task's own decides: `task.monitor`, and the least step of `run.patience`."""

import json
import math
from unittest import mock

import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.api.progress import _value
from jaxcnn.config import ConfigError, Task
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import by_group, by_name, kept, monitor
from jaxcnn.tasks import figures as monitors
from jaxcnn.tasks.task import Finding
from jaxcnn.train import checkpoint, setup, trained
from jaxcnn.train import summary as summaries
from jaxcnn.train.progress import Progress
from tests import digits

P = "tests.own_parts"


def validations(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "val"]


@pytest.mark.parametrize("task", list(monitors.OF_TASKS))
def test_every_figure_may_decide_and_an_evaluation_stays_what_it_is(task):
    own = by_name.evaluation(Task(name=task), 4)
    assert own.headline.name in monitors.OF_TASKS[task]
    label, less, percent = monitors.kind_of(own.headline.name, task, "auto")
    assert (own.headline.label, own.headline.better == "lower", own.headline.percent) == (label, less, percent)
    for name in monitors.OF_TASKS[task]:
        found = by_name.evaluation(Task(name=task, monitor=name), 4)
        assert found.headline.name == name and isinstance(found, type(own))
        assert isinstance(found, Finding) == isinstance(own, Finding)
        assert found == by_name.evaluation(Task(name=task, monitor=name), 4) and (found == own) == (
            name == own.headline.name
        )
        assert found.collects or name in ("loss", *own.metrics)
    assert type(by_name.evaluation(Task(name=task, monitor=own.headline.name), 4)) is type(own)
    assert by_name.headline(Task(name=task, monitor="loss", monitor_mode="max")).better == "higher"


def test_macro_f1_of_several_labels_is_within_reach():
    task = by_name.make(Task(name="multilabel", monitor="macro_f1"), 3)
    generator = np.random.default_rng(0)
    logits, hot = generator.normal(size=(50, 3)).astype(np.float32), generator.integers(0, 2, (50, 3)).astype(np.uint8)
    figures = task.figures(logits, hot, list("abc"))
    assert figures["macro_f1"] == figures["at_half"]["macro_f1"] == task.evaluation.recorded(figures)["macro_f1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": {"monitor": "accuracy"}}, "did you mean 'top1_accuracy'"),
        ({"task": {"monitor": "auroc"}}, "did you mean 'macro_auroc'"),
        ({"task": {"monitor": "balanced_acuracy"}}, "did you mean 'balanced_accuracy'"),
        ({"task": {"monitor": "mean_iou"}}, "is no figure of config.task.name='classification'"),
        ({"task": {"monitor_mode": "min"}}, "has no effect without config.task.monitor"),
        ({"task": {"monitor": "loss"}, "data": {"protocol": "full"}}, "needs a validation split"),
        ({"run": {"min_delta": 0.1}}, "has no effect without config.run.patience"),
    ],
)
def test_a_figure_that_cannot_decide_is_refused(changes, told):
    tree = configs.to_dict(configs.Config())
    for group, values in changes.items():
        tree[group] |= values
    with pytest.raises(ConfigError, match=told) as error:
        by_name.headline(configs.from_config_dict(tree).task)
    assert len(str(error.value)) < 500


def test_balanced_accuracy_decides_which_checkpoint_is_best_and_is_recorded(tmp_path):
    """Also in a run that is stopped and continued; the figures of the network are those of a run without it."""
    digits.run(tmp_path / "own")
    digits.run_up_to(20, tmp_path / "run", task=Task(monitor="balanced_accuracy"))
    summary = digits.run(tmp_path / "run", task=Task(monitor="balanced_accuracy"))
    found = validations(tmp_path / "run")
    values = [record["ema_balanced_accuracy"] for record in found]
    assert len(values) == 3 and summary["headline"] == "ema_balanced_accuracy"
    assert summary["val_best"] == {"balanced_accuracy": max(values), "step": found[values.index(max(values))]["step"]}
    assert f"test balanced accuracy {100 * summary['test']['ema_balanced_accuracy']:.2f}%" in summaries.last_line(
        summary
    )
    assert [record["loss"] for record in found] == [record["loss"] for record in validations(tmp_path / "own")]
    network, _ = trained.load(tmp_path / "run", "best", "", 1)
    assert network.step == summary["val_best"]["step"]


def test_a_figure_of_the_users_own_decides(tmp_path):
    task = Task(evaluation=f"{P}:brightness", monitor="mean_output", monitor_mode="min")
    assert by_name.headline(task).better == "lower"
    assert by_name.headline(Task(evaluation=f"{P}:brightness", monitor="my_error")).better == "lower"
    with pytest.raises(configs.UserError, match=r"monitor='absent': the validation split has no such figure.*has loss"):
        digits.run(tmp_path, task=Task(evaluation=f"{P}:brightness", monitor="absent"), run={"steps": 20})


def test_patience_counts_from_the_last_best_that_was_better_by_min_delta():
    progress = Progress()
    scores = [0.5, 0.505, 0.51, 0.52, 0.525]
    assert [progress.validated(step, score, 0.01) for step, score in enumerate(scores, start=1)] == [True] * 5
    assert (progress.best_step, progress.advanced_step, progress.advanced_score) == (5, 4, 0.52)
    older = {"best_score": 0.5, "best_step": 3, "evaluated": 7, "score": 0.4}
    assert Progress.of_record(older, ()).advanced_step == 3


def test_a_run_stops_when_it_no_longer_gets_better_by_min_delta(tmp_path):
    run = {"patience": 2, "min_delta": 1.0, "eval_every_epochs": 5 * 64 / 1237, "steps": 40, "tensorboard": False}
    summary = digits.run(tmp_path, run=run | {"curves": False})
    assert [record["step"] for record in validations(tmp_path)] == [5, 10, 15] and summary["stopped_early"]


def test_a_notebooks_table_shows_shares_in_per_cent():
    assert _value("mean_average_precision", 0.7123) == "71.23 %" and _value("ema_top1_accuracy", 0.5) == "50.00 %"
    assert _value("loss", 0.7123) == "0.7123" == _value("mean_absolute_error", 0.7123)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_no_new_best(bad):
    progress = Progress()
    found = [progress.validated(step, score, 0.0) for step, score in enumerate([bad, 0.5, bad, 0.9, bad], start=1)]
    assert found == [False, True, False, True, False]
    assert (progress.best_step, progress.best_score, progress.advanced_step) == (4, 0.9, 4)
    older = Progress(best_score=math.nan, best_step=1, advanced_score=math.nan, advanced_step=1)
    assert older.validated(2, 0.5, 0.0) and older.advanced_step == 2
    assert checkpoint._ranked(range(4), {0: bad, 1: 0.5, 2: 0.7, 3: None}.get) == [2, 1]


def test_a_run_without_any_finite_figure_ends_without_a_best(tmp_path):
    task, run = Task(evaluation="tests.test_monitor:not_a_number", monitor="own"), {"test_with": "best", "steps": 20}
    summary = digits.run(tmp_path, task=task, run=run | {"tensorboard": False, "curves": False})
    assert summary["val_best"] == {"own": None, "step": 0} and summary["test"]["of_step"] == 20


def not_a_number(outputs, targets):
    return {"own": math.nan}


def test_a_figure_of_half_decides_also_beside_those_of_a_function():
    config = Task(name="multilabel", evaluation=f"{P}:brightness", monitor="micro_f1")
    task = by_name.make(config, 3)
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    figures = task.figures(logits, np.eye(3, dtype=np.uint8)[np.arange(50) % 3], list("abc"))
    assert task.evaluation.recorded(figures)["micro_f1"] == figures["at_half"]["micro_f1"]


@pytest.mark.parametrize(
    "config",
    [
        Task(monitor="macro_f1"),
        Task(evaluation=f"{P}:brightness", monitor="agreement"),
        Task(name="multilabel", monitor="macro_f1"),
        Task(name="multilabel", evaluation=f"{P}:brightness", monitor="agreement"),
    ],
)
def test_the_worst_group_is_named_by_the_figure_that_decides(config, monkeypatch):
    monkeypatch.setattr(by_group, "of_each", lambda task, outputs, *_: {"loss": np.zeros(len(outputs))})
    task = by_name.make(config, 3)
    logits = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    labels = np.arange(60) % 3
    collector = kept.of(task, None, np.array(["a", "b"])[np.arange(60) // 30], "site")
    collector.add(logits, np.eye(3, dtype=np.uint8)[labels] if config.name == "multilabel" else labels.astype(np.int32))
    figures = collector.figures(("x", "y", "z"), {})
    assert figures["groups"]["worst"] in ("a", "b") and figures["groups"]["figure"] == config.monitor


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_a_figure_that_validation_is_too_large_for_is_refused_at_the_start(name):
    monitor.check_size(Task(name=name, monitor="macro_auroc"), 1000, 2**25 // 1000)
    monitor.check_size(Task(name=name), 1000, 10**6)
    with pytest.raises(ConfigError, match=r"at most 33,554,432 probabilities .* validation has 1,000,000,000") as error:
        monitor.check_size(Task(name=name, monitor="macro_auroc"), 1000, 10**6)
    assert len(str(error.value)) < 500


def test_a_run_refuses_such_a_figure_before_it_trains():
    config = digits.config(task=Task(monitor="macro_auroc"))  # its validation has 2,000 probabilities
    with mock.patch("jaxcnn.tasks.classification.MOST_KEPT", 1999), pytest.raises(ConfigError, match="macro_auroc"):
        setup.spec_on(config, open_splits(config.data, config.task))
