"""A study in a real PostgreSQL: two workers, killed at random moments, lose nothing and repeat nothing."""

import json
import os
import random
import signal
import time

import optuna
import pytest

from jaxcnn.study import folder as files
from jaxcnn.study import store
from tests import runs
from tests.test_sweep_command import TINY, TRIALS, same, states, sweep

pytestmark = pytest.mark.services
SEED = "JAXCNN_TEST_SEED"
LONG = (*TINY, "--config.run.steps=3000")


def workers(folder, url):
    """Start a worker."""
    return runs.start("--worker", f"--workdir={folder}", module="jaxcnn.sweep", JAXCNN_STORAGE=url)


def test_two_workers_killed_at_random_moments_end_every_trial_once_with_the_bits_of_an_undisturbed_sweep(
    postgresql, tmp_path
):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    code, output = sweep(*LONG, f"--workdir={undisturbed}")
    assert code == 0, output
    # The study is made ready; nothing runs yet.
    code, output = sweep(*LONG, f"--workdir={disturbed}", "--timeout=0", "--heartbeat=1", JAXCNN_STORAGE=postgresql)
    assert code == 0, output
    assert "3 of 3 are left" in output
    seed = int(os.environ.get(SEED, random.SystemRandom().randrange(10**6)))
    print(f"{SEED}={seed} makes the same moments of kills")  # pytest shows it where the test fails
    chance = random.Random(seed)
    running = [workers(disturbed, postgresql) for _ in range(2)]
    kills, caught, quiet = 0, 0, time.monotonic() + chance.uniform(5, 9)
    deadline = time.monotonic() + 270
    while any(process.poll() is None for process in running) or states(disturbed).count("complete") < TRIALS:
        assert time.monotonic() < deadline, states(disturbed)
        for place, process in enumerate(running):
            if process.poll() is not None:
                assert process.returncode in (0, -signal.SIGKILL), process.communicate()[0]
                if process.returncode or states(disturbed).count("complete") < TRIALS:
                    running[place] = workers(disturbed, postgresql)
        if kills < 5 and time.monotonic() > quiet:
            victim = chance.choice([process for process in running if process.poll() is None])
            caught += "running" in states(disturbed)
            runs.kill(victim)
            kills, quiet = kills + 1, time.monotonic() + chance.uniform(3, 8)
        time.sleep(0.02)
    assert kills >= 3
    assert caught, "no kill met a running trial"
    assert states(disturbed) == ["complete"] * TRIALS
    assert same(disturbed, undisturbed)
    rows = [json.loads((files.trial_folder(disturbed, n) / "trial.json").read_text()) for n in range(TRIALS)]
    assert sum(row["starts"] for row in rows) > TRIALS, "a killed trial was started again"
    logs = [(files.trial_folder(disturbed, n) / "log.txt").read_text() for n in range(TRIALS)]
    assert all(log.count("jaxcnn: finished: ") == 1 for log in logs), "each was trained to its end once"
    definition = files.read_definition(disturbed)
    study = store.load_study(definition, store.open_storage(postgresql, 1))
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * TRIALS
    assert [trial.value for trial in study.trials] == [row["values"]["val_accuracy"] for row in rows]
    assert "postgresql" in definition.storage
