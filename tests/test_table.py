"""What a sweep shows while it runs."""

import datetime
import io

import pytest
from rich.console import Console

from jaxcnn.study import folder as files
from jaxcnn.study import table
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train import workdir

ACCURACY = Accuracy.headline


def trial(root, number, state, *, seconds=10.0, accuracy=None, reason=None, program="a"):
    """Write the `trial.json` of a trial that took so long."""
    started = datetime.datetime.now(datetime.UTC).isoformat()
    record = {
        "number": number,
        "overrides": {"optim.learning_rate": 0.1 * (number + 1)},
        "seed": 0,
        "program": program,
        "state": state,
        "reason": reason,
        "starts": 1,
        "started": started,
        "values": {} if accuracy is None else {"val_accuracy": accuracy},
    }
    if state == "complete":
        record |= {"wall_seconds": seconds, "train_seconds": seconds / 2}
    place = files.trial_folder(root, number)
    place.mkdir(parents=True, exist_ok=True)
    workdir.write_json(place / files.TRIAL, record)


def board(root, programs="aaaa"):
    made = table.Board(root, len(programs), [{"program": program} for program in programs], ACCURACY)
    made.read()
    return made


def test_the_headline_counts_every_state_and_names_the_best_on_validation(tmp_path):
    trial(tmp_path, 0, "complete", accuracy=0.5)
    trial(tmp_path, 1, "complete", accuracy=0.75)
    trial(tmp_path, 2, "failed", reason="no memory")
    trial(tmp_path, 3, "running")
    line = board(tmp_path).headline(table.Estimate({}))
    assert line.startswith("2/4 done, 1 running, 1 failed, best 75.00% (trial 1), ETA 0:")


def test_the_time_left_is_the_plans_corrected_by_what_trials_took(tmp_path):
    estimate = table.Estimate({"a": 5.0, "b": 50.0})
    assert board(tmp_path, "aabb").seconds_left(estimate) == pytest.approx(55 / 2 * 4)
    trial(tmp_path, 0, "complete", seconds=10.0)
    # It took twice what was planned, so the rest (5 + 50 + 50) will too.
    assert board(tmp_path, "aabb").seconds_left(estimate) == pytest.approx(210, abs=0.1)
    estimate.workers = 2
    assert board(tmp_path, "aabb").seconds_left(estimate) == pytest.approx(105, abs=0.1)
    for number in (1, 2, 3):
        trial(tmp_path, number, "complete")
    assert board(tmp_path, "aabb").seconds_left(estimate) == 0
    assert board(tmp_path / "other").seconds_left(table.Estimate({})) is None


def test_without_a_terminal_there_is_one_line_for_each_trial_that_ends_and_none_twice(tmp_path):
    output = io.StringIO()
    trial(tmp_path, 0, "complete", accuracy=0.5)
    display = table.Display(board(tmp_path), table.Estimate({}), Console(file=output, width=200))
    with display:
        trial(tmp_path, 1, "running")
        display.update()
        trial(tmp_path, 1, "diverged", reason="step 3 is not finite")
        display.update()
        display.update()
    (line,) = output.getvalue().splitlines()
    assert line.startswith("trial 1: optim.learning_rate=0.2 seed=0: diverged: step 3 is not finite | 1/4 done")


def test_on_a_terminal_the_table_shows_what_runs_with_its_newest_metrics(tmp_path):
    trial(tmp_path, 0, "running")
    metrics = '{"kind": "train", "step": 40, "top1_accuracy": 0.625}\n{"kind": "tr'
    (files.trial_folder(tmp_path, 0) / "metrics.jsonl").write_text(metrics)
    trial(tmp_path, 1, "failed", reason="no memory")
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(table.Display(board(tmp_path), table.Estimate({}), console).render())
    shown = console.file.getvalue()
    assert "optim.learning_rate=0.1 seed=0" in shown
    assert "train 62.5%" in shown
    assert " 40 " in shown
    assert "failed: no memory" in shown
    assert "1 running, 1 failed" in shown
