"""The launchers beside Slurm: mpirun, and ssh's script with hosts that have only addresses."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from tests import runs
from tests.hosts.lab import ROOT
from tests.hosts.test_slurm import CPU, SMOKE, assert_same_run, newest

MIDDLING = (*SMOKE, "--config.run.steps=40", "--config.checkpoint.every_steps=10")
ENVIRONMENT = CPU | {"JAXCNN_HOME": str(ROOT)}


def test_two_processes_under_mpirun_are_the_run_of_one_process_to_the_bit(alone, tmp_path):
    options = "--allow-run-as-root --oversubscribe --mca oob_tcp_if_include lo --mca btl_tcp_if_include lo"
    variables = os.environ | ENVIRONMENT | {"HOSTS": "localhost:2", "MPIRUN_OPTIONS": options}
    done = subprocess.run(
        ["launch/mpi/train.sh", *SMOKE, f"--workdir={tmp_path}/two"],
        cwd=ROOT, env=variables, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 x cpu of 2 processes" in done.stdout
    assert_same_run(alone(2, *SMOKE), tmp_path / "two")


def start_by_address(lab, tmp_path: pathlib.Path, workdir: pathlib.Path, *flags: str, **variables: str):
    """launch/ssh/train.sh on h1 and h2, with a command in place of ssh that enters these hosts."""
    enter = tmp_path / "enter"
    enter.write_text(
        "#!/bin/sh\nexec nsenter --net=/run/netns/jaxcnn-$1 unshare --uts --mount sh -c "
        f'\'hostname $1; mount --bind {lab.folder}/hosts /etc/hosts; exec sh -c "$2"\' sh "$1" "$2"\n'
    )
    enter.chmod(0o755)
    (tmp_path / "hosts.txt").write_text("# the first is the coordinator\nh1\n\nh2\n")
    return subprocess.Popen(
        ["launch/ssh/train.sh", str(tmp_path / "hosts.txt"), *flags, f"--workdir={workdir}"],
        cwd=ROOT, env=os.environ | ENVIRONMENT | {"REMOTE": str(enter)} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_two_hosts_by_address_are_the_run_of_one_process_and_a_stopped_run_goes_on_there_or_elsewhere(
    lab, alone, tmp_path
):
    process = start_by_address(lab, tmp_path, tmp_path / "two", *MIDDLING)
    runs.wait_for(process, "step 4/")
    code, output, _ = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert "stopped with a checkpoint of step" in output
    step = newest(tmp_path / "two")
    shutil.copytree(tmp_path / "two", tmp_path / "moved")
    process = start_by_address(lab, tmp_path, tmp_path / "two", *MIDDLING)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert f"resumed from the checkpoint of step {step}" in output
    assert_same_run(alone(2, *MIDDLING), tmp_path / "two")

    code, output = runs.run(*MIDDLING, f"--workdir={tmp_path}/moved", devices=4)
    assert code == 0, output
    assert "it was made on 2 x cpu of 2 processes; from here on 4 x cpu" in output
    here, there = runs.records(tmp_path / "moved"), runs.records(tmp_path / "two")
    assert [(r["kind"], r["step"]) for r in here] == [(r["kind"], r["step"]) for r in there]
    for mine, other in zip(here, there, strict=True):
        if mine["step"] <= 30:  # later, rounding has grown with the steps
            assert abs(mine["loss"] - other["loss"]) < 1e-4 * other["loss"]


def test_the_doctor_sees_both_hosts_and_their_clocks(lab, tmp_path):
    flags = [f"--workdir={tmp_path}", "--config=configs/alexnet_cifar10.py:smoke"]
    job = lab.sbatch(
        "--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path}/log",
        f"--wrap=srun {sys.executable} -m jaxcnn.doctor {' '.join(flags)}", f"--chdir={ROOT}",
        JAXCNN_CACHE=os.environ["JAXCNN_CACHE"], COLUMNS="200", **CPU,
    )  # fmt: skip
    state = lab.wait(job, "COMPLETED", "FAILED")
    output = (tmp_path / "log").read_text()
    assert state == "COMPLETED", output
    assert "2 processes on 2 hosts met; clocks within" in output
    assert "1 MiB summed over 2 devices" in output
    assert "0 failures" in output
