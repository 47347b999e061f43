"""Whatever state the folders are in, a report knows what is there, what is not, and why."""

import json
import os

import pytest

from jaxcnn.config import UserError
from jaxcnn.reporting import charts, write
from jaxcnn.reporting.cautions import cautions
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from jaxcnn.train.workdir import write_sealed
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
    assert reasons["running"] == "its last record is from step 20 (epoch 2.00)"


def test_a_trial_that_says_complete_without_a_summary_is_not_finished(tmp_path):
    folder = folders.write_sweep(tmp_path)
    (folder / "trials" / "0000" / "summary.json").unlink()
    run = read([folder]).runs[0]
    assert run.state == "unfinished"
    assert run.notes == ["trial.json says complete, but there is no summary.json"]


def test_a_figure_that_was_changed_after_it_was_written_is_told_and_left_out(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    figures = json.loads((folder / "summary.json").read_text())
    write_sealed(folder / "summary.json", figures)
    assert read([folder]).runs[0].notes == []
    text = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(text.replace('"starts": 1', '"starts": 2'))
    (run,) = read([folder]).runs
    assert run.summary is None
    assert "summary.json has changed since it was written (its checksum differs)" in run.notes


def test_a_damaged_line_of_a_log_is_told_and_the_others_are_read(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    whole = read([folder]).runs[0].records
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n")
    lines[2] = b"\xff" + lines[2]
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines))
    (run,) = read([folder]).runs
    assert run.records == whole[:2] + whole[3:]
    assert any("metrics.jsonl: line 3 is damaged, and skipped" in note for note in run.notes)


def test_files_cut_off_or_damaged_are_notes_and_no_end(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "val", "st')
    (folder / "environment.json").write_text('{"command": [')
    (folder / "data.json").write_text("[1, 2]")
    (run,) = read([folder]).runs
    assert len(run.records) == 6
    assert any(note.startswith("environment.json cannot be read") for note in run.notes)
    assert "data.json does not contain a JSON object" in run.notes


def change(path, **values):
    folders.write_json(path, json.loads(path.read_text()) | values)


@pytest.mark.parametrize(
    ("file", "values", "told"),
    [
        ("config.json", {"seed": "x", "model": {"name": ["a"], "width": 1e400}, "new": {}}, "config.seed cannot be"),
        ("config.json", {"optim": 3, "global_batch_size": 10**30, "data": None}, "config.global_batch_size cannot be"),
        (
            "summary.json",
            {"train_seconds": "long", "wall_seconds": True},
            "summary.json: train_seconds is not a number",
        ),
        ("summary.json", {"test": [1], "val_last": {}}, "summary.json: test is not an object"),
        ("summary.json", {"test": {"top1_accuracy": "all"}}, "summary.json: test: top1_accuracy is not a number"),
        ("summary.json", {"val_best": {"accuracy": 1e300}, "headline": []}, "val_best: accuracy is not a number"),
        ("summary.json", {"device": "² x GPU", "seed": 1.5, "images_per_second": 0}, "seed is not an integer"),
        ("test.json", {"confusion_matrix": [[1, 2], [3]], "per_class_accuracy": 7}, "confusion matrix is not square"),
        ("trial.json", {"overrides": {"a": {}}, "seed": [1], "state": {}, "as": "x"}, "overrides or seed cannot be"),
        (
            "trial.json",
            {"state": 5, "started": [], "ended": 1e300, "reason": {"a": 1}},
            "trial.json: state is not a string",
        ),
        ("environment.json", {"packages": 3, "command": {"a": 1}, "cores": [], "backend": {}}, ""),
        ("data.json", {"class_names": 3}, ""),
    ],
)
def test_parts_of_the_wrong_type_are_left_out_and_told_and_all_else_is_reported(
    file, values, told, tmp_path, monkeypatch
):
    monkeypatch.setattr(charts, "charts", lambda _: ())  # which take most of the time of a report
    folder = folders.write_run(tmp_path / "run", confusion=[[9, 1], [0, 10]])
    folders.write_json(folder / "trial.json", {"overrides": {}, "seed": 0, "state": "complete"})
    folders.write_json(folder / "data.json", {"class_names": ["a", "b"]})
    change(folder / file, **values)
    (run,) = read([folder]).runs
    assert any(told in note for note in run.notes) == bool(told), run.notes
    write.report([folder], tmp_path / "out", command="")
    assert (run.notes == []) or run.notes[0] in (tmp_path / "out" / "tables.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    "values", [{"planned": [3, {"overrides": 3}, {"seed": []}]}, {"planned": {}}, {"trials": "x", "base": 3}]
)
def test_a_sweep_with_odd_parts_says_so(values, tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    change(folder / "sweep.json", **values)
    (sweep,) = read([folder]).sweeps
    assert len(sweep.runs) == 11
    assert any("cannot be read" in note for note in sweep.notes)
    assert any(line.startswith("sweep batch_and_rate: sweep.json: ") for line in cautions(find(read([folder]))))


def test_odd_records_and_rows_lose_what_is_odd(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    odd = [3, None, {"kind": 3}, {"kind": "val", "epoch": "x", "top1_accuracy": 10**400, "train_seconds": None}]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in odd)
    (run,) = read([folder]).runs
    assert run.records[6:] == [{"kind": "val"}]
    rows = [
        {"devices": d, "images_per_second": s} for d, s in ((1, 10), (0, 10), (2, 0), (True, 5), (2.5, 5), ("2", 1))
    ]
    folders.write_json(tmp_path / "scaling.json", {"rows": [*rows, 3, {"devices": 2}]})
    (facts,) = read([tmp_path]).scalings
    assert facts["rows"] == [{"devices": 1, "images_per_second": 10}]


def test_what_is_no_file_to_be_read_is_told_and_nothing_waits_for_it(tmp_path):
    folder = folders.write_run(tmp_path / "run")
    for name in ("environment.json", "metrics.jsonl", "summary.json"):
        (folder / name).unlink()
    os.mkfifo(folder / "environment.json")
    os.mkfifo(folder / "metrics.jsonl")
    (folder / "summary.json").mkdir()
    (folder / "trial.json").symlink_to("trial.json")
    (folder / "data.json").write_text("[" * 10**5)
    (folder / "test.json").write_bytes(b"\xff\xfe{}")
    (run,) = read([tmp_path]).runs
    assert run.records == []
    for name in ("environment", "summary", "trial", "data", "test"):
        assert any(note.startswith(f"{name}.json") for note in run.notes), name


def test_a_folder_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    folders.write_run(tmp_path / "open")
    (tmp_path / "closed").mkdir()
    iterdir = type(tmp_path).iterdir

    def guarded(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(type(tmp_path), "iterdir", guarded)
    material = read([tmp_path])
    assert [run.name.rpartition("/")[2] for run in material.runs] == ["open"]
    assert material.notes == [f"{tmp_path}/closed cannot be read: Permission denied"]
    with pytest.raises(UserError, match=r"there is nothing to report: .*closed cannot be read: Permission denied"):
        read([tmp_path / "closed"])


def test_confusion_matrices_of_either_form_are_read_with_the_names_of_their_classes(tmp_path):
    folder = folders.write_run(tmp_path / "run", confusion=[[9, 1], [0, 10]])
    dense = read([folder]).runs[0]
    cells = [[0, 0, 9], [0, 1, 1], [1, 1, 10]]
    change(folder / "test.json", confusion_matrix={"classes": 2, "cells": cells})
    sparse = read([folder]).runs[0]
    assert dense.confusion.to_json() == sparse.confusion.to_json() == [[9, 1], [0, 10]]
    assert dense.class_names == sparse.class_names == ("class 0", "class 1")
    # A file that lost a class since two were of one name.
    change(folder / "test.json", confusion_matrix=[[1, 0, 0], [0, 2, 0], [0, 0, 3]])
    assert read([folder]).runs[0].class_names == ("0", "1", "2")
    folders.write_json(folder / "data.json", {"class_names": ["crane", "maillot", "crane"]})
    assert read([folder]).runs[0].class_names == ("crane (0)", "maillot", "crane (2)")


def test_runs_kept_without_a_config_are_told_by_their_summary(root):
    runs = {run.name: run for run in read([root / "results"]).runs}
    alexnet = runs["results/alexnet_cifar10_cpu"]
    assert not alexnet.whole_config
    assert (alexnet.config["model.name"], alexnet.config["data.source"]) == ("alexnet", "tfds:cifar10")
    assert alexnet.confusion is not None
    assert (alexnet.confusion.classes, len(alexnet.class_names)) == (10, 10)
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
