"""A sweep whose workers are jobs of a real Slurm, and are preempted in the middle of their trials."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from tests.hosts.lab import ROOT, Lab
from tests.hosts.test_slurm import CPU

# So long that both workers are in the middle of a trial when the urgent job comes.
LONG = ("--config=tests/tiny_sweep.py", "--config.run.steps=12000", "--config.run.eval_every_epochs=100.0")


def tasks(lab: Lab) -> list[int]:
    """The jobs of the sweep: Slurm numbers each task of an array when it begins."""
    return [int(number) for number in lab.on(0, "squeue", "-h", "-r", "-p", "low", "-o", "%A").split()]


def begun(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The folders of trials that have a checkpoint."""
    saved = [path for path in workdir.glob("trials/*/checkpoints/*") if path.name.isdigit()]
    return sorted({path.parents[1] for path in saved})


@pytest.mark.long
def test_workers_that_an_urgent_job_preempts_are_queued_again_and_their_trials_go_on(lab, tmp_path):
    workdir = tmp_path / "sweep"
    variables = lab.env | CPU | {"JAXCNN_CACHE": os.environ["JAXCNN_CACHE"]}
    command = [
        *(sys.executable, "-m", "jaxcnn.sweep", *LONG, f"--workdir={workdir}", "--nomeasure", "--heartbeat=20"),
        *(f"--storage=journal:{tmp_path}/study.log", "--engine=slurm", "--workers=2", "--slurm=partition=low,time=60"),
    ]
    with (tmp_path / "log").open("w") as log:
        sweep = subprocess.Popen(lab.command(0, *command), cwd=ROOT, env=variables, stdout=log, stderr=log)

    def told() -> str:
        return "\n".join(path.read_text() for path in (tmp_path / "log", *sorted(workdir.glob("slurm/*/*_log.*"))))

    deadline = time.monotonic() + 400
    try:
        while len(begun(workdir)) < 2:
            assert time.monotonic() < deadline and sweep.poll() is None, told()
            time.sleep(0.2)
        hit = begun(workdir)
        options = ("--partition=urgent", "--nodes=4", "--exclusive", f"--output={tmp_path}/urgent", "--wrap=true")
        urgent = lab.sbatch(*options)
        assert lab.wait(urgent, "COMPLETED", "FAILED") == "COMPLETED"
        assert [lab.job(task, "Restarts") for task in tasks(lab)] == ["1", "1"], told()
        while sweep.poll() is None:
            assert time.monotonic() < deadline, told()
            for task in tasks(lab):
                lab.hurry(task)
            time.sleep(1)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, told()
    found = {path.parent: json.loads(path.read_text()) for path in workdir.glob("trials/*/trial.json")}
    assert [row["state"] for row in found.values()] == ["complete"] * 3, told()
    assert {folder: row["starts"] for folder, row in found.items()} == {
        folder: 2 if folder in hit else 1 for folder in found
    }
    assert len(re.findall(r"^trial \d continues$", told(), re.MULTILINE)) == 2, told()
