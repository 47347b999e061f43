"""The endurance command in small: all of it works, and no answer is wrong. Its limits are for many more steps."""

import json

import pytest

from tests import runs

pytestmark = pytest.mark.services


def test_steps_and_requests_are_made_sampled_and_judged(tmp_path):
    flags = ("--steps=2000", "--requests=3000", f"--page={tmp_path}/endurance.md")
    code, output = runs.run(*flags, module="tests.endurance", fresh=True, seconds=1200)
    record = json.loads((tmp_path / "endurance.json").read_text())
    assert code in (0, 1) and "Traceback" not in output
    assert record["steps"]["figures"]["done"] >= 1900 and record["requests"]["figures"]["done"] == 3000
    swings = ("memory grew", "threads grew", "the last tenth took")  # of so few steps and requests, these still change
    wrong = [each for name in ("steps", "requests") for each in record[name]["wrong"] if not each.startswith(swings)]
    assert wrong == []
    assert "| open files |" in (tmp_path / "endurance.md").read_text()
