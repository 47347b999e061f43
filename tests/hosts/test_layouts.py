"""Parallel modes over several processes: a cut state is trained, saved by all, restored, tested as by one process."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxcnn.config import Hosts
from jaxcnn.train import assess, loop, trained, workdir
from tests import runs
from tests.test_hosts import free_port
from tests.test_resume import damage_flipped
from tests.test_step import TOLERANCE  # derived there

pytestmark = pytest.mark.long
# Forty steps at a high rate let the rounding of sums grow further than the six steps of TOLERANCE.
ROUNDING = 20 * TOLERANCE
FLAGS = (
    *runs.DIGITS,
    "--config.model.width=0.25",
    "--config.run.steps=40",
    "--config.run.log_every_steps=5",
    "--config.checkpoint.keep_every_steps=20",
    "--config.optim.ema_decay=0.9",
    "--config.optim.clip_norm=1.0",
)
MODES = {
    "ZeRO-1": {"shard_optimizer": True},
    "FSDP beside model": {"shard_params": True, "model_devices": 2},
}


def run_several(folder: pathlib.Path, parallel: dict, count: int = 2, devices: int = 2) -> str:
    """A run of several processes with so many devices each, which meet by address; the output of process 0."""
    port = free_port()
    layout = [f"--config.parallel.{name}={value}" for name, value in parallel.items()]

    def start(process: int):
        place = {"coordinator": f"127.0.0.1:{port}", "processes": count, "process": process}
        flags = [f"--config.hosts.{name}={value}" for name, value in place.items()]
        return runs.start(*FLAGS, *layout, *flags, f"--workdir={folder}", devices=devices, **runs.UNOPTIMISED)

    processes = [start(process) for process in range(count)]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, "\n".join(outputs)
    return outputs[0]


def run_one(folder: pathlib.Path, like: pathlib.Path, devices: int, **parallel) -> None:
    """The run of another workdir, in this process."""
    config = workdir.read_config(like)
    parallel = dataclasses.replace(config.parallel, devices=devices, **parallel)
    loop.train(dataclasses.replace(config, parallel=parallel, hosts=Hosts()), folder, command=["test"])


def back_to_half(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A copy of a finished run as it was at its checkpoint of step 20."""
    copy = folder.with_name(name)
    shutil.copytree(folder, copy)
    (copy / "summary.json").unlink()
    for checkpoint in (copy / "checkpoints").iterdir():
        if checkpoint.name != "20":
            shutil.rmtree(checkpoint)
    return copy


def assert_same_curve(one: pathlib.Path, other: pathlib.Path) -> None:
    here, there = runs.records(one), runs.records(other)
    assert [(r["kind"], r["step"]) for r in here] == [(r["kind"], r["step"]) for r in there]
    assert len({record["loss"] for record in here}) > 5
    np.testing.assert_allclose([r["loss"] for r in here], [r["loss"] for r in there], rtol=ROUNDING)


@pytest.fixture(scope="module", params=MODES)
def two(request, tmp_path_factory) -> tuple[pathlib.Path, dict]:
    """The workdir of a finished run of two processes, and its layout."""
    folder, parallel = tmp_path_factory.mktemp("layouts") / "two", MODES[request.param]
    output = run_several(folder, parallel)
    axes = " (data 2 x model 2)" if "model_devices" in parallel else ""
    assert f"4 x cpu{axes} of 2 processes" in output
    assert "parts over data" in output, "the log says what is cut"
    return folder, parallel


def test_a_layout_over_two_processes_is_the_run_of_one(two, tmp_path):
    folder, parallel = two
    run_one(tmp_path / "one", folder, 4, **parallel)
    assert_same_curve(folder, tmp_path / "one")
    assert runs.seals(folder).keys() == runs.seals(tmp_path / "one").keys()


def test_the_test_of_two_processes_is_that_of_one_on_their_checkpoint(two):
    folder, _ = two
    network, remarks = trained.load(folder, "last", "", 1)
    assert remarks == []
    test = json.loads((folder / assess.TEST).read_text())
    one = assess.assess(network, folder, "test", "", 0)
    assert one["examples"] == test["examples"] == 360
    assert one["confusion_matrix"] == test["confusion_matrix"]
    assert one["top1_accuracy"] == pytest.approx(test["ema_top1_accuracy"])
    assert one["loss"] == pytest.approx(test["ema_loss"], rel=1e-5)


@pytest.fixture
def split(two) -> pathlib.Path:
    """The run whose state is cut over both axes; restoring is the same for all layouts."""
    folder, parallel = two
    if "model_devices" not in parallel:
        pytest.skip("restoring is the same for all layouts")
    return folder


def test_flipped_bytes_of_a_checkpoint_of_two_processes_are_noticed_and_the_one_before_goes_on_to_the_bit(split):
    again = split.with_name("again")
    shutil.copytree(split, again)
    (again / "summary.json").unlink()
    before, newest = sorted(int(path.name) for path in (again / "checkpoints").iterdir())[-2:]
    damage_flipped(again / "checkpoints" / str(newest))
    output = run_several(again, MODES["FSDP beside model"])
    assert f"checkpoint {newest} is damaged" in output and f"resumed from the checkpoint of step {before}" in output
    assert runs.seals(again) == runs.seals(split)
    assert runs.records(again) == runs.records(split)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_checkpoint_of_two_processes_goes_on_on_any_number_of_devices_of_one_up_to_rounding(split, devices, capsys):
    moved = back_to_half(split, f"moved-{devices}")
    run_one(moved, split, devices, shard_params=False, model_devices=1)
    made = f"it was saved on 4 x cpu (data 2 x model 2) of 2 processes; the run continues on {devices} x cpu"
    assert made in capsys.readouterr().out
    assert_same_curve(moved, split)


def test_a_checkpoint_of_two_processes_goes_on_on_four_up_to_rounding(split):
    moved = back_to_half(split, "four")
    output = run_several(moved, {"shard_params": True, "model_devices": 1}, count=4, devices=1)
    assert "of 2 processes; the run continues on 4 x cpu of 4 processes" in output
    assert_same_curve(moved, split)
