"""A study in a real MariaDB, by MySQL's protocol: a worker that is killed loses nothing and repeats nothing."""

import json
import signal

import pytest

from jaxcnn.study import folder as files
from jaxcnn.study import store
from tests import runs
from tests.services.test_postgresql import workers
from tests.test_sweep_command import TINY, TRIALS, same, states, sweep, wait_until

pytestmark = pytest.mark.services


def test_two_workers_of_which_one_is_killed_end_every_trial_once(mariadb, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    code, output = sweep(*TINY, f"--workdir={undisturbed}")
    assert code == 0, output
    # The storage is a flag of its own word here: no file of the sweep may have its password.
    code, output = sweep(*TINY, f"--workdir={disturbed}", "--timeout=0", "--storage", mariadb)
    assert code == 0, output
    running = [workers(disturbed, mariadb) for _ in range(2)]
    first = files.trial_folder(disturbed, 0)
    wait_until(running[0], lambda: files.newest_checkpoint(first) >= 200)
    owner = next(process for process in running if str(process.pid) in (first / ".lock").read_text())
    runs.kill(owner)
    running.append(workers(disturbed, mariadb))
    for process in running:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == (-signal.SIGKILL if process is owner else 0), output
    assert states(disturbed) == ["complete"] * TRIALS
    assert same(disturbed, undisturbed)
    rows = [json.loads((files.trial_folder(disturbed, n) / "trial.json").read_text()) for n in range(TRIALS)]
    assert sum(row["starts"] for row in rows) == TRIALS + 1
    study = store.load_study(files.read_definition(disturbed), store.open_storage(mariadb, 1))
    assert [trial.value for trial in study.trials] == [row["values"]["val_accuracy"] for row in rows]
    kept = [path for path in disturbed.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert kept == []
