"""Runs of several hosts under a real Slurm equal the run of one process, whatever happens to them."""

import os
import pathlib
import re
import signal
import sys
import time

import pytest

from tests import runs
from tests.hosts.lab import ROOT, Lab

SMOKE = ("--config=configs/alexnet_cifar10.py:smoke", "--config.run.tensorboard=False", "--config.global_batch_size=24")
# Long enough to be hit several times, with a checkpoint every ten steps.
INTERVAL = 10
LONG = (
    *SMOKE, "--config.run.steps=800", f"--config.checkpoint.every_steps={INTERVAL}", "--config.run.eval_every_epochs=5"
)  # fmt: skip
RESUMED = "resumed from the checkpoint of step "
# Sums of three or more terms have another order among processes than among the devices of one: that is 6e-8 relative,
# and twelve steps at a calm rate make 2e-7 of it. Statistics of a part of the batch would show at 1e-4. The rate of the
# config is too high for so few steps: a ReLU or max-pool that falls the other way by rounding changes a gradient by
# 6e-5, of which the loss would soon make a thousandth.
CALM = (*SMOKE, "--config.optim.learning_rate=0.01", "--config.run.log_every_steps=1")
FIRST_ROUNDING, ROUNDING = 1e-6, 1e-5
CPU = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "PYTHONUNBUFFERED": "1",
    "JAXCNN_PYTHON": sys.executable,
}


def submit(lab: Lab, nodes: int, workdir: pathlib.Path, *flags: str, options: tuple[str, ...] = (), **variables) -> int:
    return lab.sbatch(
        f"--nodes={nodes}", f"--output={workdir}.log", *options, str(ROOT / "launch/slurm/train.sbatch"),
        f"--workdir={workdir}", *flags,
        JAXCNN_HOME=str(ROOT), JAXCNN_CACHE=os.environ["JAXCNN_CACHE"], **CPU, **variables,
    )  # fmt: skip


def launch(lab: Lab, nodes: int, workdir: pathlib.Path, *flags: str) -> int:
    """`submit` by the command for it."""
    variables = [f"{name}={value}" for name, value in (CPU | {"JAXCNN_CACHE": os.environ["JAXCNN_CACHE"]}).items()]
    command = [sys.executable, "-m", "jaxcnn.launch", "slurm", f"--nodes={nodes}", "--time=10"]
    command += [f"--sbatch=--output={workdir}.log", "--", *flags, f"--workdir={workdir}"]
    told = lab.on(0, "env", *variables, *command)
    job = int(told.removeprefix("job ").partition(":")[0])
    assert lab.job(job, "TimeLimit") == "00:10:00" and lab.job(job, "JobName") == workdir.name
    return job


def log(workdir: pathlib.Path) -> str:
    return pathlib.Path(f"{workdir}.log").read_text()


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    """Equal arrays, and an equal log; the norm of the gradient, which is only told, is summed in another order."""
    assert runs.seals(one) == runs.seals(other)
    assert_same_log(one, other, rounding=0.0)


def assert_same_log(one: pathlib.Path, other: pathlib.Path, rounding: float) -> None:
    here, there = runs.records(one), runs.records(other)
    assert len(here) == len(there)
    for mine, its in zip(here, there, strict=True):
        norms = mine.pop("grad_norm", 1.0), its.pop("grad_norm", 1.0)
        assert norms[0] == pytest.approx(norms[1], rel=max(rounding, 1e-6))
        if rounding:
            assert mine.pop("loss") == pytest.approx(its.pop("loss"), rel=rounding)
            assert {mine[key] for key in ("kind", "step")} == {its[key] for key in ("kind", "step")}
        else:
            assert mine == its


@pytest.mark.parametrize("nodes", [2, pytest.param(3, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.long)])
def test_a_job_of_several_hosts_is_the_run_of_one_process_with_as_many_devices(lab, alone, tmp_path, nodes):
    if nodes == 2:
        one, job = alone(2, *SMOKE), launch(lab, 2, tmp_path / "many", *SMOKE)
    else:
        one = alone(nodes, *CALM, **runs.UNOPTIMISED)
        job = submit(lab, nodes, tmp_path / "many", *CALM, **runs.UNOPTIMISED)
    assert lab.wait(job, "COMPLETED", "FAILED") == "COMPLETED", log(tmp_path / "many")
    assert f"{nodes} x cpu of {nodes} processes" in log(tmp_path / "many")
    assert log(tmp_path / "many").count("jaxcnn: finished") == 1, "only process 0 writes the log"
    if nodes == 2:  # a sum of two has one order
        assert_same_run(one, tmp_path / "many")
    else:
        first = [runs.records(run)[0]["loss"] for run in (one, tmp_path / "many")]
        assert first[0] == pytest.approx(first[1], rel=FIRST_ROUNDING)
        assert_same_log(one, tmp_path / "many", rounding=ROUNDING)


def newest(workdir: pathlib.Path) -> int:
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.exists() else 0


def wait_for_checkpoint(lab: Lab, job: int, workdir: pathlib.Path, after: int, seconds: float = 120) -> int:
    """Wait until a checkpoint newer than `after` is there; its step."""
    deadline = time.monotonic() + seconds
    while (step := newest(workdir)) <= after:
        assert time.monotonic() < deadline, log(workdir)
        lab.hurry(job)
        time.sleep(0.2)
    return step


def wait_for_start(lab: Lab, job: int, workdir: pathlib.Path, count: int, seconds: float = 120) -> None:
    """Wait until the job has gone on from a checkpoint so many times."""
    deadline = time.monotonic() + seconds
    while log(workdir).count(RESUMED) < count:
        assert time.monotonic() < deadline, log(workdir)
        lab.hurry(job)
        time.sleep(0.2)


def wait_for_words(workdir: pathlib.Path, words: str, count: int = 1, seconds: float = 60) -> float:
    began = time.monotonic()
    while log(workdir).count(words) < count:
        assert time.monotonic() < began + seconds, log(workdir)
        time.sleep(0.1)
    return time.monotonic() - began


def ended_within(seconds: float, processes: list[int]) -> bool:
    """Whether all processes are gone in that time."""
    deadline = time.monotonic() + seconds
    while left := [number for number in processes if pathlib.Path(f"/proc/{number}").exists()]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return not left


def repeated(text: str) -> list[int]:
    """How many steps each start repeated of those that the process which told its end had started."""
    found, stopped = [], None
    for match in re.finditer(rf"stopped at step (\d+)|{RESUMED}(\d+)", text):
        if match[1]:
            stopped = max(stopped or 0, int(match[1]))
        elif stopped is not None:
            found.append(stopped - int(match[2]))
            stopped = None
    return found


@pytest.mark.long
def test_a_job_that_is_hit_again_and_again_ends_as_if_nothing_had_happened(lab, alone, tmp_path):
    one = alone(2, *LONG)
    workdir = tmp_path / "hit"
    job = submit(lab, 2, workdir, *LONG, "--config.hosts.heartbeat_seconds=5", JAXCNN_RESTARTS="4")

    def process(host: int) -> int:
        return lab.processes(host, str(workdir))[-1]

    step = wait_for_checkpoint(lab, job, workdir, 0)
    survivor = process(1)
    os.kill(process(2), signal.SIGKILL)
    assert wait_for_words(workdir, "process 0 of 2 on h1 stopped at step") < 30
    wait_for_words(workdir, "process 1 on h2 is gone: it was killed, or it crashed; the newest checkpoint is that of")
    assert ended_within(30, [survivor])
    wait_for_words(workdir, "exit code 137, restart 1 of 4 from step")

    step = wait_for_checkpoint(lab, job, workdir, step)
    survivor = process(2)
    os.kill(process(1), signal.SIGKILL)  # the coordinator
    wait_for_words(workdir, "process 1 of 2 on h2 stopped at step", seconds=30)
    wait_for_words(workdir, "process 0 on h1 is gone: it was killed, or it crashed; the newest checkpoint is that of")
    assert ended_within(30, [survivor])
    wait_for_words(workdir, "exit code 137, restart 1 of 4 from step", 2, seconds=30)

    step = wait_for_checkpoint(lab, job, workdir, step)
    survivor = process(1)
    os.kill(process(2), signal.SIGSTOP)
    wait_for_words(workdir, "process 1 on h2 is silent for 5 s", seconds=30)
    assert ended_within(30, [survivor])
    wait_for_words(workdir, "exit code 75, restart 1 of 4 from step")

    step = wait_for_checkpoint(lab, job, workdir, step)
    lab.link(2, "down")
    time.sleep(2)
    lab.link(2, "up")  # healed within the heartbeat: nothing happens

    step = wait_for_checkpoint(lab, job, workdir, step)
    lab.on(0, "scontrol", "update", f"JobId={job}", "TimeLimit=2")  # Slurm looks every 30 s who is to be warned
    wait_for_words(workdir, "time limit near, restart 1 of 4 from step")
    lab.on(0, "scontrol", "update", f"JobId={job}", "TimeLimit=60")

    wait_for_checkpoint(lab, job, workdir, newest(workdir))
    lab.on(0, "scontrol", "update", "NodeName=h2", "State=DRAIN", "Reason=test")
    lab.on(0, "scontrol", "requeue", str(job))
    wait_for_start(lab, job, workdir, 5)  # not for a checkpoint: the job saves one as it is stopped
    first, second = lab.hosts_of(job)
    assert "h2" not in (first, second), "the drained host is not used again"

    wait_for_checkpoint(lab, job, workdir, newest(workdir))
    survivor = lab.processes(int(first[1:]), str(workdir))[-1]
    lab.link(int(second[1:]), "down")  # for good
    try:
        assert wait_for_words(workdir, f"process 1 on {second} is silent for 5 s") < 30
        assert ended_within(30, [survivor])
        assert lab.wait(job, "COMPLETED", "FAILED") == "COMPLETED", log(workdir)
        assert not {"h2", second} & set(lab.hosts_of(job))
    finally:
        lab.link(int(second[1:]), "up")
        lab.on(0, "scontrol", "update", "NodeName=h2", "State=RESUME")
    assert log(workdir).count(RESUMED) == 6, log(workdir)
    # A loss while a checkpoint is still being written behind the steps costs the interval before it as well.
    lost = repeated(log(workdir))
    assert len(lost) >= 4 and max(lost) < 2 * INTERVAL, lost
    assert_same_run(one, workdir)
