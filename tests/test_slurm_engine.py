"""Workers as Slurm jobs: what is submitted, and what is refused. Slurm's commands are stand-ins.

Jobs that run and are preempted are in `tests/services`, by submitit's local executor, and, by a real Slurm, in
`tests/hosts`.
"""

import os
import signal
import stat
import time

import pytest

from jaxcnn.config import UserError
from jaxcnn.study import spec, table
from jaxcnn.study.engines import Job, slurm
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupts
from tests import studies

ACCURACY = Accuracy.headline

SBATCH = '#!/bin/sh\ncp "$1" "$KEEP/submitted-$(ls "$KEEP" | wc -l).sh"\necho "Submitted batch job 4711"\n'
SACCT = '#!/bin/sh\necho "JobID|State|NodeList"\nfor n in 0 1 2; do echo "4711_$n|$STATE|node"; done\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands; where the scripts that are submitted are kept."""
    commands, keep = tmp_path / "bin", tmp_path / "keep"
    commands.mkdir()
    keep.mkdir()
    for name, text in {"sbatch": SBATCH, "sacct": SACCT, "srun": "#!/bin/sh\n", "squeue": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KEEP", str(keep))
    monkeypatch.setenv("STATE", "COMPLETED")
    return keep


def job(tmp_path, **options):
    study = studies.make(tmp_path / "sweep", spec.sweep(spec.values("optim.learning_rate", [0.1])))
    display = table.Display(table.Board(study.folder, 1, study.plan.planned, ACCURACY), table.Estimate({}))
    return Job(
        folder=study.folder,
        definition=study.definition,
        storage=study.storage(),
        url="postgresql://me:secret@host/database",
        command=["test"],
        until=None,
        workers=3,
        options=options,
        display=display,
        shared=Shared(),
        interrupts=Interrupts(),
    )


def test_an_array_of_workers_is_submitted_with_its_options_that_gives_notice_and_is_queued_again(cluster, tmp_path):
    slurm.run(job(tmp_path, partition="gpu", time="90", gpus_per_node="1"))
    (script,) = [path.read_text() for path in cluster.iterdir()]
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for wanted in (
        "#SBATCH --array=0-2%3",
        "#SBATCH --partition=gpu",
        "#SBATCH --time=90",
        "#SBATCH --gpus-per-node=1",
        f"#SBATCH --signal=USR2@{slurm.SAVE_SECONDS}",
        "#SBATCH --open-mode=append",
        "#SBATCH --job-name=test",
    ):
        assert wanted in lines, script
    assert "secret" not in script
    assert (tmp_path / "sweep" / "slurm" / "jobs.json").exists()


def test_jobs_that_still_run_are_not_submitted_again(cluster, tmp_path, monkeypatch):
    ready = job(tmp_path)
    monkeypatch.setattr(slurm, "watch", lambda *_: None)
    monkeypatch.setenv("STATE", "RUNNING")
    slurm.run(ready)
    slurm.run(ready)
    assert len(list(cluster.iterdir())) == 1


def test_an_unknown_option_or_no_slurm_is_one_line(cluster, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="partitoin"):
        slurm.run(job(tmp_path, partitoin="gpu"))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="srun"):
        slurm.make_executor(tmp_path, {}, "test")


def test_passwords_of_the_storage_are_for_the_user_alone(cluster, tmp_path):
    slurm.run(job(tmp_path))
    assert stat.S_IMODE((tmp_path / "sweep" / "slurm").stat().st_mode) == stat.S_IRWXU


def test_a_worker_that_a_signal_stopped_without_notice_starts_again_and_its_job_does_not_end(tmp_path, monkeypatch):
    counted = tmp_path / "starts"
    script = f'echo "$@" >> {counted}; test $(wc -l < {counted}) = 2 || exit 75'
    monkeypatch.setattr(slurm, "worker_command", lambda _, timeout: ["sh", "-c", script, "sh", str(timeout)])
    monkeypatch.setattr(slurm, "STAY_SECONDS", 1.0)
    assert slurm.Worker(tmp_path, "sqlite:///study.db", time.time() + 1000)() == 0
    left = [float(line) for line in counted.read_text().split()]
    assert 990 < left[1] < left[0] - 1 < 999, "the time limit is that of the command, not of each start"


def test_a_worker_that_fails_fails_its_job(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "worker_command", lambda *_: ["false"])
    with pytest.raises(RuntimeError, match="exit code 1"):
        slurm.Worker(tmp_path, "sqlite:///study.db")()


def test_the_notice_to_a_job_does_not_end_its_worker(tmp_path, monkeypatch):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(slurm, "worker_command", lambda *_: ["sh", "-c", "kill -USR2 $$; exit 0"])
    assert slurm.Worker(tmp_path, "sqlite:///study.db")() == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before, "this process is still told"
