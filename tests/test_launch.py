"""`python -m jaxcnn.launch` fills in the batch script and refuses what could not run."""

import subprocess

import pytest

from jaxcnn import launch
from jaxcnn.config import UserError

FLAGS = ["--", "--config=configs/quickstart.py", "--workdir=/shared/runs/a"]


def test_the_script_is_filled_in_and_nothing_else_of_it_changes():
    original = launch.SCRIPT.read_text()
    wanted = ["--nodes=3", "--gpus-per-node=4", "--cpus-per-task=6", "--time=1:00:00", "--sbatch=--partition=a"]
    script = launch.submit(["slurm", *wanted, "--dry-run", *FLAGS])
    for line in (
        "nodes=3",
        "gpus-per-node=4",
        "ntasks-per-node=4",
        "cpus-per-task=6",
        "time=1:00:00",
        "job-name=a",
        "partition=a",
    ):
        assert script.count(f"#SBATCH --{line}\n") == 1
    assert script.splitlines()[0] == "#!/bin/sh"
    body = [line for line in script.splitlines() if not line.startswith("#SBATCH")]
    assert body == [line for line in original.splitlines() if not line.startswith("#SBATCH")]


def test_on_a_cpu_there_is_one_task_for_each_host_and_no_gpu_is_asked_for():
    script = launch.submit(["slurm", "--nodes=2", "--dry-run", *FLAGS])
    assert "#SBATCH --ntasks-per-node=1\n" in script and "gpus" not in [
        line.partition("=")[0] for line in script.splitlines() if line.startswith("#SBATCH")
    ]


@pytest.mark.parametrize("flags", [[], ["--", "--config=a.py"], ["--", "--workdir=/a"]])
def test_a_run_without_config_or_workdir_is_refused(flags):
    with pytest.raises(UserError, match="--workdir=… "):
        launch.submit(["slurm", "--nodes=2", *flags])


def test_a_workdir_with_spaces_is_quoted_as_sbatch_reads_it():
    script = launch.submit(["slurm", "--dry-run", "--", "--config=a.py", '--workdir=/shared/my "runs"/50%'])
    assert '#SBATCH --output="/shared/my \\"runs\\"/50%%/slurm-%j.log"\n' in script
    assert "#SBATCH --job-name=50%\n" in script


def test_the_job_is_told_without_its_cluster_and_its_log_as_the_shell_takes_it(monkeypatch, tmp_path):
    answer = subprocess.CompletedProcess([], 0, stdout="17;north\n")
    monkeypatch.setattr(launch.subprocess, "run", lambda command, **_: answer)
    told = launch.submit(["slurm", "--", "--config=a.py", f"--workdir={tmp_path}/my run"])
    assert told == f"job 17: squeue -j 17; tail -F '{tmp_path}/my run/slurm-17.log'; scancel 17"


def test_an_sbatch_that_does_not_answer_is_told_in_one_line(monkeypatch, tmp_path):
    def hang(command, **_):
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(launch.subprocess, "run", hang)
    with pytest.raises(UserError, match="did not answer"):
        launch.submit(["slurm", "--", "--config=a.py", f"--workdir={tmp_path}/run"])


def test_what_sbatch_says_is_told_in_one_line(monkeypatch, tmp_path):
    def refuse(command, **_):
        assert command[0] == "sbatch" and command[-2] == "--config=a.py"
        raise subprocess.CalledProcessError(1, command, stderr="sbatch: error: invalid partition\n")

    monkeypatch.setattr(launch.subprocess, "run", refuse)
    with pytest.raises(UserError, match="invalid partition"):
        launch.submit(["slurm", "--", "--config=a.py", f"--workdir={tmp_path}/run"])
