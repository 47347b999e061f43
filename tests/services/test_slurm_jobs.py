"""Jobs of the Slurm engine that run, by submitit's local executor: its signals, checkpoints and queue are the same."""

import json
import os
import pathlib
import signal
import time

import pytest

from jaxcnn.study import folder as files
from jaxcnn.study import start
from jaxcnn.study.engines import slurm
from tests.test_sweep_command import TINY, TRIALS, same, states, sweep

pytestmark = pytest.mark.services
LONG = (*TINY, "--config.run.steps=3000")


def test_a_job_that_is_preempted_saves_its_trial_and_goes_on_when_it_is_queued_again(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    undisturbed, preempted = tmp_path / "undisturbed", tmp_path / "preempted"
    assert sweep(*LONG, f"--workdir={undisturbed}")[0] == 0
    assert sweep(*LONG, f"--workdir={preempted}", "--timeout=0")[0] == 0
    logs = preempted / "slurm"
    logs.mkdir()
    executor = slurm.make_executor(logs, {"cluster": "local", "timeout_min": "5"}, "test")
    job = executor.submit(slurm.Worker(preempted, start.default_url(preempted)))
    first, deadline = files.trial_folder(preempted, 0), time.monotonic() + 120
    while files.newest_checkpoint(first) < 200:
        assert time.monotonic() < deadline, job.stderr()
        time.sleep(0.01)
    worker = (first / ".lock").read_text().split()[1]
    parent = pathlib.Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(parent), signal.SIGUSR2)  # Slurm's notice, to the process of the job
    assert job.result() == 0
    assert states(preempted) == ["complete"] * TRIALS
    assert same(preempted, undisturbed)
    rows = [json.loads((files.trial_folder(preempted, n) / "trial.json").read_text()) for n in range(TRIALS)]
    assert [row["starts"] for row in rows] == [2] + [1] * (TRIALS - 1)
    assert "Calling checkpoint method" in job.stderr() + job.stdout()


def test_the_engine_runs_a_sweep_by_local_jobs(tmp_path):
    code, output = sweep(
        *TINY, f"--workdir={tmp_path}", "--engine=slurm", "--slurm=cluster=local,timeout_min=5", "--workers=1"
    )
    assert code == 0, output
    assert states(tmp_path) == ["complete"] * TRIALS
