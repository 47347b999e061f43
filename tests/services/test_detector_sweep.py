"""A small sweep of a detector on synthetic shapes runs to its report; half a minute of processor time."""

import pytest

import jaxcnn
from tests import small

pytestmark = [pytest.mark.services, pytest.mark.unoptimised]


def test_a_sweep_of_a_detector_is_compared_by_ap_and_reported(tmp_path):
    with small.programs_kept():
        found = jaxcnn.sweep("sweeps/detector:smoke", tmp_path / "sweep", progress=False)
    assert [(each["state"], each["overrides"]) for each in found.trials] == [
        ("complete", {"optim.learning_rate": rate}) for rate in (0.0, 0.01)
    ]
    page = jaxcnn.report(tmp_path / "sweep").page.read_text()
    assert "optim.learning_rate" in page and "AP50" in page
