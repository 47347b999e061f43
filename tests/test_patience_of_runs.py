"""Runs that stop early, after validations without a new best (`run.patience`)."""

import pytest

from jaxcnn.config import ConfigError, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.study import folder as files
from jaxcnn.study import spec, worker
from jaxcnn.study import together as populations
from jaxcnn.train.curves import read_records
from jaxcnn.train.due import Due
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, small, studies

# The network keeps its first weights, so its first validation, at step 5, stays the best.
STILL = {
    "optim": {"learning_rate": 0.0, "ema_decay": 0.0},
    "checkpoint": {"keep_every_steps": 0},
}


def still(folder, patience, hooks=None, **run):
    """Train without learning, validated every five steps."""
    run = {"patience": patience, "eval_every_epochs": 5 * 64 / 1237, **run}
    with small.programs_kept():
        return train(digits.config(**STILL, run=run), folder, command=digits.COMMAND, hooks=hooks)


def validated(folder):
    return [row["step"] for row in read_records(folder) if row["kind"] == "val"]


def test_evaluations_are_counted_after_the_best_one():
    due = Due(frozenset({5, 10, 15, 20}), frozenset({20}))
    assert [due.since(best, last) for best, last in ((5, 5), (5, 15), (0, 20), (15, 20))] == [0, 2, 4, 1]


def test_a_run_stops_after_validations_without_a_new_best_and_tests_once(tmp_path):
    summary = still(tmp_path, patience=3)
    assert validated(tmp_path) == [5, 10, 15, 20]
    assert (summary["steps"], summary["stopped_early"]) == (20, True)
    assert summary["val_best"]["step"] == 5 and summary["test"]["examples"] == 360
    assert max(int(each.name) for each in (tmp_path / "checkpoints").iterdir() if each.name.isdigit()) == 20
    assert still(tmp_path, patience=3) == summary  # the same command finds it finished


def test_a_run_that_improves_or_has_no_patience_goes_on(tmp_path):
    assert still(tmp_path, patience=0)["steps"] == 40
    assert not still(tmp_path / "more", patience=8)["stopped_early"]


@pytest.mark.parametrize("after", [10, 20])
def test_a_stopped_and_continued_run_stops_at_the_same_step(after, tmp_path):
    """Also if it was stopped between its last validation and the test."""

    def killed(evaluation):
        if evaluation.step == after:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        still(tmp_path, patience=3, hooks=Hooks(after_evaluation=killed))
    summary = still(tmp_path, patience=3)
    assert validated(tmp_path) == [5, 10, 15, 20] and summary["steps"] == 20


def test_members_of_a_population_stop_as_their_trials_alone(tmp_path):
    sweep = spec.sweep(spec.values("optim.learning_rate", [0.0, 0.2]))
    rhythm = {"optim": {"ema_decay": 0.0}, "run": {"patience": 2, "eval_every_epochs": 5 * 64 / 1237}}
    study = studies.make(tmp_path, sweep, **rhythm, model={"width": 0.25})
    with small.programs_kept():
        worker.work(
            study.folder, study.definition, study.storage(), ["test"], population=populations.Settings(2, "in_turn")
        )
    still, learning = (validated(files.trial_folder(study.folder, number)) for number in range(2))
    assert still == [5, 10, 15] and len(learning) > 3
    with pytest.raises(UserError, match=r"needs config\.run\.patience=0"):
        populations.check(study.plan, _shared(), populations.Settings(2, "in_turn", pbt_every_epochs=1.0))


def _shared():
    class Shared:
        def splits(self, data, task):
            return open_splits(data, task)

    return Shared()


def test_patience_needs_validation():
    with pytest.raises(ConfigError, match=r"config\.run\.patience needs a validation split"):
        small.config(run={"patience": 3}, data={"protocol": "full"})
