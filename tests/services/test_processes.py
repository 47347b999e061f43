"""Workers as processes of this machine: shared trials, signals passed on, and what is killed replaced."""

import json
import os
import pathlib
import signal

import pytest

from tests import runs
from tests.test_sweep_command import TINY, TRIALS, same, states, sweep, wait_until

pytestmark = pytest.mark.services


def test_processes_share_the_trials_pass_on_a_signal_and_one_that_is_killed_is_replaced(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    # Both with as many cores to a worker: XLA cuts matrix products by them, and sums round as they are cut.
    two = ("--engine=processes", "--workers=2")
    assert sweep(*TINY, *two, f"--workdir={undisturbed}")[0] == 0
    command = (*TINY, *two, f"--workdir={disturbed}")
    process = runs.start(*command, module="jaxcnn.sweep")
    wait_until(process, lambda: len(states(disturbed)) >= 2)
    killed = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[-1]
    os.kill(int(killed), signal.SIGKILL)
    runs.wait_for(process, "a worker died (exit code -9) and is restarted")
    code, output, _ = runs.stop(process, signal.SIGTERM, seconds=100)
    assert code == 75, output
    assert "running" not in states(disturbed)
    code, output = sweep(*command)
    assert code == 0, output
    assert states(disturbed) == ["complete"] * TRIALS
    assert same(disturbed, undisturbed)
    rows = [json.loads(path.read_text()) for path in (disturbed / "trials").glob("*/trial.json")]
    assert sum(row["starts"] for row in rows) > TRIALS
