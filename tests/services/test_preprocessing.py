"""The shipped sweep over ways to prepare images goes from one command to its page."""

import json

import pytest

from jaxcnn.reporting import write
from tests.test_sweep_command import states, sweep

pytestmark = pytest.mark.services


def test_every_way_to_prepare_images_trains_and_stands_in_the_report(tmp_path):
    folder = tmp_path / "sweep"
    config = "--config=configs/sweeps/preprocessing.py:smoke"
    code, output = sweep(config, f"--workdir={folder}", "--nomeasure", "--config.run.steps=10", seconds=600)
    assert code == 0, output
    assert states(folder) == ["complete"] * 14
    write.report([folder], tmp_path / "out", command="python -m jaxcnn.report …")
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(figures["settings"]) == 7
    assert all(setting["validation"]["n"] == 2 for setting in figures["settings"])
    names = " ".join(setting["setting"] for setting in figures["settings"])
    assert all(word in names for word in ("cutout 8", "mixup 0.2", "cutmix 1", "policy randaugment"))
