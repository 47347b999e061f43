"""Loggers beside `metrics.jsonl`: each record, continued runs, failures that end nothing."""

import json
import pathlib
import sys

import pytest

from jaxcnn.config import ConfigError, UserError
from jaxcnn.machine import extras
from jaxcnn.train.curves import read_records
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, small

# `make test-services` puts W&B and MLflow there: behind our own packages, of which they would bring other versions.
sys.path.append(str(pathlib.Path(__file__).parent.parent / "build" / "loggers"))

RECORDER = "tests.own_parts:Recorder"


def run(folder, logger=RECORDER, hooks=None):
    with small.programs_kept():
        return train(digits.config(run={"loggers": (logger,)}), folder, command=digits.COMMAND, hooks=hooks)


def recorded(folder):
    return [json.loads(line) for line in (folder / "recorded.jsonl").read_text().splitlines()]


def numbers(record):
    return {name: value for name, value in record.items() if name == "kind" or type(value) in (int, float)}


def test_a_logger_gets_every_record_and_the_end(tmp_path):
    run(tmp_path / "run")
    start, *records, end = recorded(tmp_path)
    assert start == {"start": None} and end == {"finished": True}
    assert records == [numbers(record) for record in read_records(tmp_path / "run")]
    assert json.loads((tmp_path / "run" / "loggers.json").read_text()) == {RECORDER: "run of cnn"}


def test_a_continued_run_goes_on_in_the_same_run_of_its_logger(tmp_path):
    """Records after the checkpoint come again, with the same values."""

    def killed(evaluation):
        if evaluation.step == 39:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "run", hooks=Hooks(after_evaluation=killed))
    run(tmp_path / "run")
    whole = recorded(tmp_path)
    assert [each["start"] for each in whole if "start" in each] == [None, "run of cnn"]
    assert [each["finished"] for each in whole if "finished" in each] == [False, True]
    seen = {}
    for each in whole:
        if "kind" in each:
            timeless = {name: value for name, value in each.items() if "second" not in name}
            assert seen.setdefault((each["kind"], each["step"]), timeless) == timeless


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Weights & Biases without a network, and MLflow with a store of files."""
    for name, value in (
        ("WANDB_MODE", "offline"),
        ("WANDB_SILENT", "true"),
        ("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri()),
        ("MLFLOW_ALLOW_FILE_STORE", "true"),  # newer versions want to be asked for it
    ):
        monkeypatch.setenv(name, value)


def stopped_and_continued(folder, logger):
    def killed(evaluation):
        if evaluation.step == 39:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(folder, logger, Hooks(after_evaluation=killed))
    before = json.loads((folder / "loggers.json").read_text())
    run(folder, logger)
    assert json.loads((folder / "loggers.json").read_text()) == before
    return before[logger]


def test_mlflow_has_the_whole_of_a_continued_run_as_one_run(tmp_path, offline):
    mlflow = pytest.importorskip("mlflow")
    name = stopped_and_continued(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "jaxcnn"]
    (only,) = client.search_runs([experiment.experiment_id])
    assert (only.info.run_id, only.info.status, only.info.run_name) == (name, "FINISHED", "run")
    assert only.data.params["global_batch_size"] == "64"
    kept = {}
    for metric in client.get_metric_history(name, "val/ema_top1_accuracy"):
        assert kept.setdefault(metric.step, metric.value) == metric.value
    records = [each for each in read_records(tmp_path / "run") if each["kind"] == "val"]
    assert kept == {each["step"]: each["ema_top1_accuracy"] for each in records} and len(kept) == 3


def test_wandb_has_the_whole_of_a_continued_run_as_one_run(tmp_path, offline):
    """Offline, each start writes a folder of the same run, which `wandb sync` joins."""
    pytest.importorskip("wandb")
    name = stopped_and_continued(tmp_path / "run", "wandb")
    starts = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{name}"))
    assert len(starts) == 2 and all(list(start.glob("*.wandb")) for start in starts)


def test_a_logger_that_fails_is_told_once_and_ends_nothing(tmp_path, capsys):
    assert run(tmp_path / "run", f"{RECORDER}(fails_at=20)")["steps"] == 40
    output = capsys.readouterr().out
    assert output.count("logs no more until the next start (ConnectionError: no route to the server)") == 1


def test_what_is_no_logger_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"one of wandb, mlflow, an entry point or .* not 'wandbb' \(did you mean"):
        small.config(run={"loggers": ("wandbb",)})
    with pytest.raises(UserError, match="there is no module 'nowhere'"):
        run(tmp_path / "run", "nowhere:logger")
    monkeypatch.setitem(extras.EXTRAS, "wandb", ("no_such_package",))
    with pytest.raises(UserError, match=r"pip install 'jaxcnn\[wandb\]'"):
        run(tmp_path / "run", "wandb")
