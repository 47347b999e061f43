"""Whatever state the folders are in, a report knows what is there, what is not, and why."""

import json

import pytest

from jaxcnn.config import UserError
from jaxcnn.reporting.read import read
from tests import report_folders as folders


def test_the_workdir_of_one_run(tmp_path):
    (run,) = read([folders.write_run(tmp_path / "one", seed=3, model__width=0.5)]).runs
    assert (run.name, run.state, run.seed, run.sweep) == ("one", "complete", 3, "")
    assert run.config["model.width"] == 0.5
    assert [record["kind"] for record in run.records] == ["train", "val"] * 3
    assert run.notes == []


def test_a_folder_of_runs_is_searched_and_nothing_counts_twice(tmp_path):
    folders.write_run(tmp_path / "a")
    folders.write_run(tmp_path / "deep" / "b")
    folders.write_run(tmp_path / "a" / "checkpoints" / "not a run")
    material = read([tmp_path, tmp_path / "a", tmp_path / "deep"])
    assert [run.folder.name for run in material.runs] == ["a", "b"]


def test_a_sweep_knows_its_trials_their_ends_and_what_is_missing(tmp_path):
    material = read([folders.write_sweep(tmp_path / "sweep")])
    (sweep,) = material.sweeps
    assert sweep.runs == material.runs
    assert [run.state for run in material.runs] == [
        "complete", "complete", "complete", "complete", "complete", "complete", "running", "complete", "pruned",
        "diverged", "failed",
    ]  # fmt: skip
    assert [(m["overrides"]["optim.learning_rate"], m["seed"]) for m in sweep.missing] == [
        (0.01, 1),
        (0.01, 2),
        (0.01, 2),
    ]
    reasons = {run.state: run.reason for run in material.runs}
    assert reasons["diverged"] == "step 3 is not finite"
    assert reasons["running"] == "its last record is of step 20 (epoch 2.00)"


def test_a_trial_that_says_complete_without_a_summary_is_not_finished(tmp_path):
    folder = folders.write_sweep(tmp_path)
    (folder / "trials" / "0000" / "summary.json").unlink()
    run = read([folder]).runs[0]
    assert run.state == "unfinished"
    assert run.notes == ["trial.json says complete, but there is no summary.json"]


def test_files_cut_off_or_damaged_are_notes_and_no_end(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "val", "st')
    (folder / "environment.json").write_text('{"command": [')
    (folder / "data.json").write_text("[1, 2]")
    (run,) = read([folder]).runs
    assert len(run.records) == 6
    assert any(note.startswith("environment.json cannot be read") for note in run.notes)
    assert "data.json holds no JSON object" in run.notes


def test_runs_kept_without_a_config_are_told_by_their_summary(root):
    runs = {run.name: run for run in read([root / "results"]).runs}
    alexnet = runs["results/alexnet_cifar10_cpu"]
    assert not alexnet.whole_config
    assert (alexnet.config["model.name"], alexnet.config["data.source"]) == ("alexnet", "tfds:cifar10")
    assert alexnet.test is not None
    assert len(alexnet.test["confusion_matrix"]) == 10
    assert runs["results/speedrun_cifar10"].config["data.protocol"] == "full"


def test_scaling_measurements_are_found(tmp_path):
    folders.write_json(tmp_path / "scaling.json", {"mode": "strong", "rows": [{"devices": 1, "images_per_second": 10}]})
    (facts,) = read([tmp_path]).scalings
    assert facts["mode"] == "strong"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None, lambda path: path.write_text("")])
def test_a_path_with_nothing_of_ours_is_one_line(make, tmp_path):
    path = tmp_path / "empty"
    make(path)
    with pytest.raises(UserError, match="empty") as caught:
        read([path])
    assert "\n" not in str(caught.value)


def test_a_trial_that_failed_before_its_config_has_that_of_the_sweep(tmp_path):
    folder = folders.write_sweep(tmp_path)
    sweep = json.loads((folder / "sweep.json").read_text())
    folders.write_json(folder / "sweep.json", sweep | {"base": folders.config(model__name="resnet50")})
    failed = read([folder]).runs[-1]
    assert failed.state == "failed"
    assert failed.whole_config
    assert (failed.config["model.name"], failed.config["optim.learning_rate"], failed.seed) == ("resnet50", 9.0, 1)


def test_a_sweep_that_has_not_begun_is_all_missing(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    planned = json.loads((folder / "sweep.json").read_text())["planned"]
    for trial in (folder / "trials").iterdir():
        for file in trial.iterdir():
            file.unlink()
        trial.rmdir()
    (sweep,) = read([folder]).sweeps
    assert sweep.missing == planned
