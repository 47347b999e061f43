"""The loggers of Weights & Biases and MLflow, with the real packages: `pip install wandb mlflow` before."""

import json

import pytest

from jaxcnn.train.curves import read_records
from tests.test_loggers import numbers, run

pytestmark = pytest.mark.services


def test_mlflow_has_all_values_of_a_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    name = json.loads((tmp_path / "run" / "loggers.json").read_text())["mlflow"]
    logged = client.get_run(name)
    assert logged.info.status == "FINISHED" and logged.data.params["model.name"] == "cnn"
    history = client.get_metric_history(name, "val/loss")
    expected = [(row["step"], row["loss"]) for row in read_records(tmp_path / "run") if row["kind"] == "val"]
    assert [(metric.step, metric.value) for metric in history] == expected


def test_wandb_keeps_a_run_offline_with_all_its_records(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    seen = []
    log = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda self, data, step: seen.append((step, data)) or log(self, data, step=step)
    )
    run(tmp_path / "run", "wandb")
    records = [numbers(record) for record in read_records(tmp_path / "run")]
    assert [step for step, _ in seen] == [record["step"] for record in records]
    assert seen[-1][1]["test/loss"] == records[-1]["loss"]
    name = json.loads((tmp_path / "run" / "loggers.json").read_text())["wandb"]
    assert [each.name for each in (tmp_path / "run" / "wandb").glob(f"offline-run-*-{name}")]
