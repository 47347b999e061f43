"""What is lost, changed or damaged in a workdir is told in one line; nothing of it changes a figure in silence."""

import json
import os
import shutil
import zlib

import pytest

from jaxcnn.config import UserError
from jaxcnn.train import checkpoint, curves, summary, trained
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, runs

pytestmark = pytest.mark.usefixtures("kept_programs")

# The accuracy is highest at step 15; soon after, the rate is 40 times as high.
PEAK = {
    "optim": {"ema_decay": 0.0},
    "schedule": {"name": "multistep", "boundaries": (1.1,), "decay_factor": 40.0},
    "run": {"eval_every_epochs": 0.25, "test_with": "best"},
    "checkpoint": {"every_steps": 10, "keep_last": 1, "keep_every_steps": 0},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of 40 steps with checkpoints at steps 20, 39 and 40."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    digits.run(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def half(run):
    """A copy of the run as it was after step 39."""
    (run / "summary.json").unlink()
    (run / "test.json").unlink()
    shutil.rmtree(run / "checkpoints" / "40")
    return run


class Stop(Exception):
    """Ends a run from a hook."""


def stop_after(step: int) -> Hooks:
    """Hooks that end a run at the first evaluation after a step."""

    def evaluated(at: int, accuracy: float) -> None:
        if at > step:
            raise Stop

    return Hooks(evaluated=evaluated)


def change(path, **values):
    """Change values in a JSON file, and nothing of its checksum."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_all_that_a_workdir_keeps_is_the_same_after_stops_the_best_checkpoint_of_an_earlier_start_too(tmp_path):
    digits.run(tmp_path / "undisturbed", **PEAK)
    for step in (20, 30):
        with pytest.raises(Stop):
            train(digits.config(**PEAK), tmp_path / "run", command=[], hooks=stop_after(step))
    digits.run(tmp_path / "run", **PEAK)
    assert runs.kept(tmp_path / "run") == runs.kept(tmp_path / "undisturbed")
    assert list(runs.kept(tmp_path / "run")["checkpoints"]) == ["15", "40"]
    network, remarks = trained.load(tmp_path / "run", "best", "", 1)
    assert (network.step, remarks) == (15, [])


def test_a_lost_best_checkpoint_is_told_before_training_and_in_evaluation(tmp_path):
    with pytest.raises(Stop):
        more = PEAK | {"checkpoint": PEAK["checkpoint"] | {"keep_last": 2}}
        train(digits.config(**more), tmp_path, command=[], hooks=stop_after(30))
    shutil.rmtree(tmp_path / "checkpoints" / "15")
    with pytest.raises(
        UserError, match=r"the best checkpoint so far, of step 15, is not in .*; restore it, or continue"
    ):
        digits.run(tmp_path, **PEAK)
    _, (remark,) = trained.load(tmp_path, "best", "", 1)
    assert remark.startswith("the best step was 15 (")
    assert digits.run(tmp_path, **PEAK | {"run": PEAK["run"] | {"test_with": "last"}})["test"]["of_step"] == 40


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("normalization.json", '{"split": "digits", "examples": 1237, "mean": [0.1], "std": [0.2]}'),
        ("normalization.json", "{}"),
        ("normalization.json", '{"mean": [0.5, 0.5], "std": [1, 1]}'),
        ("normalization.json", '{"mean": [0.5], "std": null}'),
        ("normalization.json", '{"mean": [0.5], "std": [0.0]}'),
        ("data.json", '{"class_names": ["1", "0"], "image_shape": [8, 8, 1], "train_examples": 1237}'),
        ("data.json", '{"class_names": 10, "image_shape": [8, 8, 1], "train_examples": 1237}'),
        ("data.json", "[]"),
        ("data.json", "[" * 5000),
        ("normalization.json", "[" * 5000),
        ("config.json", '{"optim": {"learning_rate": 0.1}}'),
        ("config.json", "\x00"),
    ],
)
def test_a_network_is_not_used_with_a_file_that_its_checkpoint_was_not_made_with(file, text, run):
    (run / file).write_text(text)
    with pytest.raises(UserError, match=f"{file} ") as error:
        trained.load(run, "last", "", 1)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("file", ["normalization.json", "data.json"])
def test_one_changed_figure_is_found_by_the_checksum_of_its_file(file, run):
    change(run / file, examples=1238)
    with pytest.raises(UserError, match=rf"{file} has changed since it was written \(its checksum differs\)"):
        trained.load(run, "last", "", 1)


@pytest.mark.parametrize("file", ["normalization.json", "data.json"])
def test_a_file_of_another_run_is_refused_though_it_is_whole(file, half, tmp_path):
    digits.run(tmp_path / "other", data={"val_examples": 300}, run={"steps": 1})
    shutil.copy(tmp_path / "other" / file, half / file)
    with pytest.raises(UserError, match=f"{file} has changed since checkpoint 39|{file} was computed from|differ from"):
        digits.run(half)
    with pytest.raises(UserError, match=f"{file} has changed since checkpoint 39"):
        trained.load(half, "last", "", 1)


def test_without_its_config_file_a_run_is_still_of_the_config_of_its_checkpoints(half):
    (half / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.optim\.learning_rate: 0\.2 in checkpoint 39, 0\.01 now"):
        digits.run(half, optim={"learning_rate": 0.01})
    digits.run(half)
    assert (half / "config.json").exists()


def test_a_config_file_that_was_edited_does_not_hide_what_the_checkpoints_were_made_with(half):
    tree = json.loads((half / "config.json").read_text())
    tree["optim"]["learning_rate"] = 0.01
    (half / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"0\.2 in checkpoint 39, 0\.01 now"):
        digits.run(half, optim={"learning_rate": 0.01})


@pytest.mark.parametrize("byte", [b"\xff", b"\x00"])
def test_a_damaged_line_of_the_log_is_told_at_the_start_and_keeps_no_run_from_its_end(byte, half, finished, capfd):
    log = bytearray((half / "metrics.jsonl").read_bytes())
    place = log.index(b"\n") + 20
    log[place : place + 1] = byte
    (half / "metrics.jsonl").write_bytes(log)
    figures = digits.run(half)
    output = capfd.readouterr().out
    assert output.index("metrics.jsonl: line 2 is damaged, and skipped") < output.index("finished:")
    assert figures["test"] == summary.read(finished)["test"]
    whole = curves.read_records(finished)
    assert [r["step"] for r in curves.read_records(half)] == [r["step"] for r in whole[:1] + whole[2:]]


def test_a_log_that_another_hand_changed_is_told_though_every_line_is_sound(half, capfd):
    log = (half / "metrics.jsonl").read_text()
    (half / "metrics.jsonl").write_text(log.replace('"epoch": 0.2', '"epoch": 0.3', 1))
    digits.run(half)
    assert "metrics.jsonl has changed since the checkpoint of step 39" in capfd.readouterr().out


def test_a_damaged_environment_file_stops_nothing_and_is_kept_beside(half):
    (half / "environment.json").write_text("{ half of")
    digits.run(half)
    assert (half / "environment-damaged.json").read_text() == "{ half of"
    assert json.loads((half / "environment.json").read_text())["earlier"] == []


def test_where_all_checkpoints_are_gone_the_run_says_so_and_keeps_the_log(half, finished, capfd):
    shutil.rmtree(half / "checkpoints")
    before = (half / "metrics.jsonl").read_bytes()
    digits.run(half)
    assert (
        "but no checkpoint: the run starts from the beginning, and the log is kept as metrics-lost.jsonl"
        in capfd.readouterr().out
    )
    assert (half / "metrics-lost.jsonl").read_bytes() == before
    assert runs.records(half) == runs.records(finished)


def test_a_run_draws_no_curves_where_none_are_wanted(finished):
    assert (finished / "summary.json").exists() and not (finished / "curves.png").exists()


def test_a_drawing_that_fails_does_not_keep_a_finished_run_from_its_summary(half, monkeypatch, capfd):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(curves, "draw", fail)
    digits.run(half, run={"curves": True})
    assert "curves.png could not be drawn (RuntimeError: no font)" in capfd.readouterr().out
    assert (half / "summary.json").exists()


@pytest.mark.parametrize("text", ["{}", "{ half of", "[]", '{"headline": 3}'])
def test_a_damaged_summary_is_told_with_the_way_to_make_it_anew(text, run, finished):
    (run / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json is damaged; remove it, and the same command creates it again"):
        digits.run(run)
    (run / "summary.json").unlink()
    assert digits.run(run)["test"] == summary.read(finished)["test"]


def test_checkpoints_that_this_orbax_cannot_read_are_not_called_damaged(half, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("format 9")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "restore", refuse)
    with pytest.raises(UserError, match=r"orbax-checkpoint .* cannot read .*NotImplementedError: format 9"):
        digits.run(half)
    assert sorted(path.name for path in (half / "checkpoints").iterdir()) == ["20", "39"]


def test_what_changes_no_result_may_change_on_resume(half, finished):
    digits.run(half, run={"log_every_steps": 4}, checkpoint={"keep_last": 5, "every_steps": 7})
    assert runs.seals(half) == runs.seals(finished)
    assert summary.read(half)["test"] == summary.read(finished)["test"]


def test_a_finished_run_goes_on_for_longer_as_if_it_had_been_asked_for_that_from_the_start(tmp_path, finished):
    digits.run(tmp_path, run={"steps": 20})
    figures = digits.run(tmp_path)
    assert runs.seals(tmp_path) == runs.seals(finished)
    assert figures["test"] == summary.read(finished)["test"]
    assert figures["earlier_tests"] == [20]
    assert json.loads((tmp_path / "summary-20.json").read_text())["steps"] == 20
    assert (tmp_path / "test-20.json").exists()
    assert digits.run(tmp_path) == figures  # finished


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ({"schedule": {"name": "cosine"}}, r"what config\.schedule\.name='cosine' does depends on the length"),
        ({"schedule": {"warmup": 30.0, "unit": "steps"}}, r"what config\.schedule\.warmup=30 steps does depends on"),
        ({"augment": {"small_sides": (4,), "small_until": (0.5,)}}, r"what config\.augment\.small_until does depends"),
        ({}, "a run can only be made longer, not shorter"),
    ],
)
def test_a_run_whose_fields_depend_on_its_length_says_which(groups, reason, run):
    before = 40 if not groups else 20
    config = digits.config(**groups, run={"steps": before})
    from jaxcnn.train import workdir

    workdir.write_config(run, config)
    shutil.rmtree(run / "checkpoints")
    after = 20 if not groups else 40
    with pytest.raises(UserError, match=rf"config\.run\.steps: {before} in the workdir, {after} now \({reason}"):
        workdir.check_config(run, digits.config(**groups, run={"steps": after}))


def test_the_log_of_a_run_is_sealed_by_its_checkpoints(half):
    record = json.loads((half / "checkpoints" / "39" / "record" / "metadata").read_text())["progress"]
    log = (half / "metrics.jsonl").read_bytes()[: record["log_bytes"]]
    assert record["log_crc32"] == zlib.crc32(log)


@pytest.mark.parametrize("damage", [b"\xa7\x16 no text", b"{}x", None])
def test_a_finished_run_tells_of_a_test_that_is_not_what_was_written(run, capsys, damage):
    digits.run(run)
    assert "test.json" not in capsys.readouterr().out.partition("is finished")[0]
    written = (run / "test.json").read_bytes()
    (run / "test.json").write_bytes(damage or written.replace(b"0.", b"0.1", 1))
    digits.run(run)
    told = capsys.readouterr().out
    assert f"--mode=eval --workdir={run} measures the test split again\n" in told and "is finished" in told


@pytest.mark.parametrize("lost", ["checkpoints/40", "checkpoints", "checkpoints/40/record"])
def test_a_finished_run_tells_that_its_last_checkpoint_is_lost(run, capsys, lost):
    digits.run(run)
    assert "whole checkpoint" not in capsys.readouterr().out
    shutil.rmtree(run / lost)
    digits.run(run)
    told = capsys.readouterr().out
    assert f"{run}/checkpoints has no whole checkpoint of the last step 40; restore it from a backup\n" in told


def test_a_pipe_in_place_of_a_file_is_not_waited_for(run, capsys):
    (run / "test.json").unlink()
    os.mkfifo(run / "test.json")
    digits.run(run)
    assert "test.json is not a regular file; --mode=eval" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["state/manifest.ocdbt", "record/metadata"])
def test_a_pipe_in_a_checkpoint_is_damage(half, capsys, name):
    (half / "checkpoints" / "39" / name).unlink()
    os.mkfifo(half / "checkpoints" / "39" / name)
    digits.run(half)
    told = capsys.readouterr().out
    assert f"checkpoint 39 is damaged ({name} is not a regular file); using the previous checkpoint" in told


@pytest.mark.parametrize("name", ["config.json", "data.json", "normalization.json", "metrics.jsonl"])
@pytest.mark.parametrize("how", ["missing", "empty", "digit", "pipe"])
def test_a_finished_run_tells_of_each_file_that_is_not_as_it_was_left(run, capsys, name, how):
    written = (run / name).read_bytes()
    (run / name).unlink()
    if how == "pipe":
        os.mkfifo(run / name)
    elif how != "missing":
        first = next(place for place, byte in enumerate(written) if chr(byte).isdigit())
        other = b"%d" % ((int(chr(written[first])) + 1) % 10)
        (run / name).write_bytes(written[:first] + other + written[first + 1 :] if how == "digit" else b"")
    try:
        digits.run(run)
    except UserError as error:
        told = str(error)
    else:
        told = capsys.readouterr().out
    assert name.partition(".")[0] in told


def test_a_folder_in_place_of_the_log_is_one_line(half):
    (half / "metrics.jsonl").unlink()
    (half / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl is not a regular file; move it away"):
        digits.run(half)
