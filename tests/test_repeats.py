"""A trial that would be an earlier one again is not trained again, whoever draws it and whatever the first came to."""

import functools

import optuna
import pytest

from jaxcnn.reporting.read import read
from jaxcnn.study import folder as files
from jaxcnn.study import outcome, spec, table, trial
from jaxcnn.study import plan as plans
from jaxcnn.study.lease import Nothing
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train.hooks import Shared
from tests import digits, studies

ACCURACY = Accuracy.headline

THIN = {"model": {"width": 0.25}}
TWO = spec.sweep(spec.values("optim.nesterov", [True, False]), trials=8)


def trained(monkeypatch, state="complete"):
    """Let trials end at once, without a run; return the list of those that were to be trained."""
    numbers = []

    def quick(queue, lease, *_):
        numbers.append(lease.number)
        values = {"val_accuracy": 0.5 + 0.1 * lease.number}
        values = values if state == "complete" else {}
        write = functools.partial(trial._write, files.trial_folder(queue.folder, lease.number))
        record = trial._begin(queue, lease, files.trial_folder(queue.folder, lease.number))
        outcome = trial.Outcome(state, None if state == "complete" else "because", values)
        queue.finish(lease, state, values, outcome.reason, lambda: write(record, outcome))
        lease.lock.release()
        return outcome

    monkeypatch.setattr(trial, "run", quick)
    return numbers


@pytest.mark.parametrize("pieces", [[8], [1, 1, 1, 1, 1, 1, 1, 1]])
def test_a_trial_that_is_drawn_again_is_not_trained_again_and_has_the_outcome_of_the_first(
    pieces, tmp_path, monkeypatch
):
    numbers = trained(monkeypatch)
    for most in pieces:
        study = studies.make(tmp_path, TWO, sampler="tpe", **THIN)
        study.work(most)
    assert study.plan.trained == 2
    assert "has 2 different trials" in study.plan.remark
    rows = study.trials()
    assert [row["number"] for row in rows] == list(range(8))
    firsts = {row["overrides"]["optim.nesterov"]: row for row in reversed(rows)}
    assert numbers == sorted(row["number"] for row in firsts.values())
    for row, kept in zip(rows, study.queue().study.trials, strict=True):
        first = firsts[row["overrides"]["optim.nesterov"]]
        assert (row["state"], row["values"]) == ("complete", first["values"])
        assert row.get("as") == kept.user_attrs.get("as") == (None if row is first else first["number"])
        assert kept.value == first["values"]["val_accuracy"]
        assert (f"repeats trial {first['number']}" in table.line_of(row, ACCURACY)) == (row is not first)
    found = read([tmp_path])
    states = [run.state for run in found.runs]
    assert states.count("repeated") == 6
    assert found.sweeps[0].undrawn == 0
    assert {run.reason for run in found.runs if run.state == "repeated"} == {f"as trial {n:04d}" for n in numbers}


def test_a_repeat_of_a_trial_under_way_waits_for_its_outcome_whoever_has_it(tmp_path):
    one_choice = spec.sweep(spec.values("optim.nesterov", [True]), trials=3)
    study = studies.make(tmp_path, one_choice, sampler="tpe", **THIN)
    mine, other = study.queue(), study.queue()
    lease = mine.take()
    assert (lease.number, lease.first) == (0, None)
    assert other.take() is Nothing.WAIT
    assert len(mine.study.trials) == 3, "they have been drawn"
    lease.lock.release()  # its worker is gone
    again = other.take()
    assert (again.number, again.first) == (0, None), "the first is taken up, and no repeat of it"
    assert other.finish(again, "diverged", {}, "because")
    again.lock.release()
    for number in (1, 2):
        repeat = mine.take()
        assert (repeat.number, repeat.first.number) == (number, 0)
        outcome = trial.take_over(mine, repeat)
        assert (outcome.state, outcome.reason) == ("diverged", "because")
    assert mine.take() is Nothing.DONE
    assert mine.retry({"diverged"}) == 3
    tried = [mine.take(), mine.take()]
    assert (tried[0].number, tried[0].first, tried[1]) == (0, None, Nothing.WAIT)
    assert mine.finish(tried[0], "complete", {"val_accuracy": 0.5}, None)
    tried[0].lock.release()
    for number in (1, 2):
        repeat = mine.take()
        assert repeat.number == number
        assert trial.take_over(mine, repeat).values == {"val_accuracy": 0.5}


def test_a_repeat_of_a_pruned_trial_is_pruned_where_the_first_was(tmp_path):
    one_choice = spec.sweep(spec.values("optim.nesterov", [True]), trials=2)
    study = studies.make(tmp_path, one_choice, sampler="tpe", pruner="median", **THIN)
    mine = study.queue()
    lease = mine.take()
    for evaluation, accuracy in ((1, 0.25), (2, 0.375)):
        mine.report(lease, evaluation, accuracy)
    mine.finish(lease, "pruned", {}, "by median at step 3")
    lease.lock.release()
    assert trial.take_over(mine, mine.take()).state == "pruned"
    first, repeat = study.queue().study.trials
    assert (first.value, repeat.value) == (0.375, 0.375)
    assert repeat.state == optuna.trial.TrialState.PRUNED


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_sweep_of_which_no_trial_came_to_a_figure_does_not_end_with_code_0(state, tmp_path, monkeypatch):
    trained(monkeypatch, state)
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2])), **THIN)
    board = table.Board(tmp_path, 2, None, ACCURACY)
    board.read()
    assert outcome.exit_code(board) == 0, "none has ended"
    study.work(1)
    lines = outcome.summarize(tmp_path, study.definition, board, study.queue().study)
    assert outcome.exit_code(board) == {"diverged": 3, "failed": 2}[state]
    assert "  no trial has a result" in lines
    trained(monkeypatch)
    study.work()
    assert "  no trial has a result" not in outcome.summarize(tmp_path, study.definition, board, study.queue().study)
    assert outcome.exit_code(board) == 0


def test_random_trials_are_all_different_and_as_many_as_the_space_has():
    base = digits.config(**THIN)
    rows = [{"optim.nesterov": True}, {"optim.nesterov": False}, {"optim.nesterov": True}]
    space = spec.product(spec.rows(rows), spec.values("optim.momentum", [0.5, 0.9, 0.95]))
    plan = plans.make(spec.sweep(space), base, "random", 4, Shared())
    assert (len(plan.planned), plan.trials, plan.remark) == (4, 4, "")
    more = plans.make(spec.sweep(space), base, "random", 50, Shared())
    assert more.remark == "its space has 6 different trials, not 50"
    cells = [spec.identity(each["overrides"]) for each in more.planned]
    assert len(set(cells)) == more.trials == 6
    assert {spec.identity(each["overrides"]) for each in plan.planned} < set(cells), "a larger sweep has the smaller"
    whole = spec.integers("run.log_every_steps", 1, 2)
    assert plans.make(spec.sweep(whole), base, "random", 9, Shared()).trials == 2
    same = spec.rows([{}, {"optim.momentum": base.optim.momentum}, {"optim.momentum": 0.5}])
    grid = plans.make(spec.sweep(same), base, "grid", 0, Shared())
    assert [each["overrides"] for each in grid.planned] == [{}, {"optim.momentum": 0.5}]
    assert grid.remark == "its space has 2 different trials, not 3"
