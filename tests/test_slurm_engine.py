"""Workers as Slurm jobs: what is submitted, and what is refused. Slurm's commands are stand-ins.

Jobs that run and are preempted, by submitit's local executor, are in `tests/services`.
"""

import os
import stat

import pytest

from jaxcnn.config import UserError
from jaxcnn.study import spec, table
from jaxcnn.study.engines import Job, slurm
from jaxcnn.train.hooks import Shared
from tests import studies

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
    display = table.Display(table.Board(study.folder, 1, study.plan.planned), table.Estimate({}))
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
