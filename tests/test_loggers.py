"""Loggers beside `metrics.jsonl`: each record, continued runs, failures that end nothing."""

import json

import pytest

from jaxcnn.config import ConfigError, UserError
from jaxcnn.machine import extras
from jaxcnn.train.curves import read_records
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, small

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
