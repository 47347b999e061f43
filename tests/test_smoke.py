"""Every network trains from its config, from the command line to the last file."""

import json
import math

import pytest

from tests import runs


@pytest.mark.parametrize(
    ("config", "flags"),
    [
        ("alexnet_cifar100:smoke", ()),
        (
            "vgg16_cifar10:smoke",
            ("--config.data.loader=stream", "--config.model.head=dense4096", "--config.model.dropout=0.5"),
        ),
        ("resnet50_cifar100:strong+smoke", ()),
        ("speedrun_cifar10:smoke", ("--config.data.loader=stream",)),
    ],
)
def test_a_smoke_run_leaves_all_that_a_result_needs(config, flags, tmp_path):
    file, variant = config.split(":")
    command = f"--config=configs/{file}.py:{variant}", *flags, f"--workdir={tmp_path}"
    code, output = runs.run(*command, **runs.UNOPTIMISED)
    assert code == 0, output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 12
    assert summary["test"]["examples"] == 256
    assert summary["time_to_first_step_seconds"] > summary["compile_seconds"] > 0
    assert summary["wall_seconds"] > summary["train_seconds"] > 0
    losses = [record["loss"] for record in runs.records(tmp_path) if record["kind"] == "train"]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    left = {path.name for path in tmp_path.iterdir()}
    files = "metrics.jsonl summary.json curves.png config.json environment.json data.json normalization.json"
    assert left >= {*files.split(), "checkpoints", "tensorboard"}
