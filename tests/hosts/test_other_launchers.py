"""The launchers beside Slurm: mpirun, and the script for ssh, with hosts that have only addresses."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests import runs
from tests.hosts.lab import ROOT, Lab
from tests.hosts.test_slurm import CPU, SMOKE, assert_same_run, newest

MIDDLING = (*SMOKE, "--config.run.steps=40", "--config.checkpoint.every_steps=10")
ENVIRONMENT = CPU | {"JAXCNN_HOME": str(ROOT)}


def enter(lab: Lab, tmp_path: pathlib.Path, *before: str) -> pathlib.Path:
    """A command in place of ssh: it enters the host that its first argument names, and runs the rest by a shell."""
    path = tmp_path / "enter"
    path.write_text(
        f"#!/bin/sh\nexec {' '.join(before)} nsenter --net=/run/netns/jaxcnn-$1 unshare --uts --mount sh -c "
        f'\'hostname $1; mount --bind {lab.folder}/hosts /etc/hosts; shift; exec sh -c "$*"\' sh "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "flags",
    [("--config.data.loader=stream",), pytest.param(("--config.hosts.join=mpi4py",), marks=pytest.mark.long)],
    ids=["of JAX", "of mpi4py"],
)
def test_two_hosts_under_mpirun_by_the_detection_of_each_are_the_run_of_one_process_to_the_bit(
    lab, alone, tmp_path, flags
):
    if "mpi4py" in flags[0]:
        pytest.importorskip("mpi4py", reason="needs jaxcnn[mpi]", exc_type=ImportError)
    # ssh brings no variables of its caller along.
    agent = enter(lab, tmp_path, "env", "-i", '"PATH=$PATH"', f"TMPDIR={tmp_path}")
    interfaces = "--mca oob_tcp_if_include eth0 --mca btl tcp,self --mca btl_tcp_if_include eth0"
    options = f"--allow-run-as-root --mca plm_rsh_agent {agent} {interfaces}"
    variables = ENVIRONMENT | {"HOSTS": "h1,h2", "MPIRUN_OPTIONS": options}
    variables |= {"JAXCNN_SETUP": 'echo "set up on $(hostname)"'}
    done = subprocess.run(
        lab.command(1, "launch/mpi/train.sh", *SMOKE, *flags, f"--workdir={tmp_path}/two"),
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 x cpu of 2 processes" in done.stdout
    assert "set up on h1\n" in done.stdout and "set up on h2\n" in done.stdout, "JAXCNN_SETUP came to both hosts"
    assert_same_run(alone(2, *SMOKE), tmp_path / "two")  # its loader is the resident one


def start_by_address(lab, tmp_path: pathlib.Path, workdir: pathlib.Path, *flags: str, **variables: str):
    """launch/ssh/train.sh on h1 and h2, with a command in place of ssh that enters these hosts."""
    (tmp_path / "hosts.txt").write_text("# the first is the coordinator\nh1\n\nh2\n")
    return subprocess.Popen(
        ["launch/ssh/train.sh", str(tmp_path / "hosts.txt"), *flags, f"--workdir={workdir}"],
        cwd=ROOT, env=os.environ | ENVIRONMENT | {"REMOTE": str(enter(lab, tmp_path))} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_two_hosts_by_address_are_the_run_of_one_process_and_go_on_after_a_stopped_process_and_a_signal(
    lab, alone, tmp_path
):
    process = start_by_address(lab, tmp_path, tmp_path / "two", *MIDDLING, JAXCNN_GRACE="3")
    runs.wait_for(process, "step 4/")
    while newest(tmp_path / "two") < 10:
        time.sleep(0.1)
        assert process.poll() is None
    stopped = lab.processes(2, str(tmp_path / "two"))[-1]
    os.kill(stopped, signal.SIGSTOP)  # the others give it up after the heartbeat's default, 20 s
    runs.wait_for(process, "process 1 on h2 is silent for 20 s")
    runs.wait_for(process, "start 1 of 5 after a failure")
    assert not pathlib.Path(f"/proc/{stopped}").exists(), "it was killed before the run was started again"
    runs.wait_for(process, "resumed from the checkpoint of step ")
    runs.wait_for(process, "/40 epoch")
    code, output, _ = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert "stopped with a checkpoint of step" in output
    step = newest(tmp_path / "two")
    process = start_by_address(lab, tmp_path, tmp_path / "two", *MIDDLING)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert f"resumed from the checkpoint of step {step}" in output
    assert_same_run(alone(2, *MIDDLING), tmp_path / "two")


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
