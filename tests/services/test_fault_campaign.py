"""Two minutes of the fault campaign: whatever strikes, each run ends with its own bits."""

import json

import pytest

from tests import runs

pytestmark = pytest.mark.services


def test_runs_that_random_faults_strike_end_with_the_bits_of_undisturbed_ones(tmp_path):
    flags = ("--minutes=2", "--seed=3", "--shapes=1", f"--folder={tmp_path}", f"--page={tmp_path}/faults.md")
    code, output = runs.run(*flags, module="tests.campaign", fresh=True, seconds=1200)
    assert code == 0, output
    outcomes = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert outcomes and any(fault["hit"] for outcome in outcomes for fault in outcome["faults"])
    assert "faults struck" in (tmp_path / "faults.md").read_text()
