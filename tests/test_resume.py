"""A killed run, resumed, is the run that was never killed, to the bit."""

import pathlib
import random
import shutil
import time

import pytest

from tests import runs

FLAGS = (
    *runs.DIGITS,
    "--config.model.width=0.25",
    "--config.run.steps=70",
    "--config.run.log_every_steps=3",
    "--config.run.eval_every_epochs=0.5",
    "--config.checkpoint.every_steps=7",
    "--config.optim.ema_decay=0.9",
    "--config.augment.mixup=0.2",
    "--config.augment.erasing=0.5",
)


# The same with all checkpoints kept, at steps 7, 14, …, 70, and the best.
AGAIN = (*FLAGS, "--config.checkpoint.keep_every_steps=7")


def differences(workdir: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What two runs keep that differs, checkpoints aside that only one was to keep, or that were found damaged."""
    here, there = runs.kept(workdir), runs.kept(other)
    for kept in (here, there):
        del kept["config.json"], kept["summary.json"]["loader"]
    best = str(there["summary.json"]["val_best"]["step"])
    mine, its = (kept.pop("checkpoints") for kept in (here, there))
    sound = {name for name in mine if name.isdigit()}
    wanted = {best, *sorted(its, key=int)[-2:]}
    found = [f"checkpoint {name} is missing" for name in sorted(wanted - sound)]
    found += runs.differences(here, there)
    for name in sorted(sound, key=int):
        found += runs.differences(mine[name], its.get(name), f"checkpoint {name}")
    return found


def kill_at(workdir: pathlib.Path, flags: tuple[str, ...], step: int, delay: float) -> bool:
    """Start a run and SIGKILL it `delay` seconds after it logged `step`; return whether it was still under way."""
    process = runs.start(*flags, f"--workdir={workdir}")
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if runs.records(workdir)[-1]["step"] >= step:
                break
        except (OSError, ValueError, IndexError):
            pass  # not there yet, or half a line
        time.sleep(0.005)
    time.sleep(delay)
    runs.kill(process)
    return process.returncode == -9


WAYS = {
    "resident": ("--config.data.loader=resident",),
    "stream": ("--config.data.loader=stream",),
    "in calls": ("--config.run.steps_per_call=5",),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with several checkpoints, made step by step with the resident loader."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, output = runs.run(*AGAIN, f"--workdir={workdir}")
    assert code == 0, output
    assert "loader resident" in output
    return workdir


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_at_any_step_and_resumed_ends_with_the_bits_of_the_undisturbed_one(way, finished, tmp_path):
    flags = (*FLAGS, *WAYS[way])
    moments = random.Random(way)
    hits = sum(kill_at(tmp_path, flags, step, moments.random() * 0.1) for step in (3, 30))
    assert hits >= 1, "the kills came too late to test anything"
    code, output = runs.run(*flags, f"--workdir={tmp_path}")
    assert code == 0, output
    assert "resumed from the checkpoint of step" in output
    assert f"loader {'stream' if way == 'stream' else 'resident'}" in output
    assert differences(tmp_path, finished) == []
    assert len(list((tmp_path / "checkpoints").iterdir())) <= 3, "the last two and the best"


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the finished run that has forgotten it is finished, its newest checkpoint at step 63."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "summary.json").unlink()
    (workdir / "test.json").unlink()
    for checkpoint in (workdir / "checkpoints").iterdir():
        if int(checkpoint.name) > 63:
            shutil.rmtree(checkpoint)
    return workdir


def damage_missing(step: pathlib.Path) -> None:
    shutil.rmtree(step / "state" / "d")


def damage_flipped(step: pathlib.Path) -> None:
    # orbax restores flipped bytes of array data without a word; only our checksums see them.
    for file in (step / "state").rglob("d/*"):
        data = bytearray(file.read_bytes())
        for place in range(len(data) // 3, len(data), 97):
            data[place] ^= 0x10
        file.write_bytes(bytes(data))


def damage_truncated(step: pathlib.Path) -> None:
    file = step / "record" / "metadata"
    file.write_bytes(file.read_bytes()[:40])


def damage_record(step: pathlib.Path) -> None:
    file = step / "record" / "metadata"
    text = file.read_text()
    assert '"images": ' in text
    file.write_text(text.replace('"images": ', '"images": 1'))


@pytest.mark.parametrize("damage", [damage_missing, damage_flipped, damage_truncated, damage_record])
def test_a_damaged_checkpoint_is_set_aside_for_the_newest_sound_one(damage, unfinished, finished):
    damage(unfinished / "checkpoints" / "63")
    code, output = runs.run(*AGAIN, f"--workdir={unfinished}")
    assert code == 0, output
    assert "checkpoint 63 is damaged" in output
    assert "Traceback" not in output
    assert "resumed from the checkpoint of step 56" in output
    assert (unfinished / "checkpoints" / "damaged-63").is_dir()
    assert differences(unfinished, finished) == []


def test_without_a_sound_checkpoint_the_run_stops_and_says_so(unfinished):
    for step in (unfinished / "checkpoints").iterdir():
        if step.name.isdigit():
            damage_truncated(step)
    code, output = runs.run(*AGAIN, f"--workdir={unfinished}")
    assert code == 2
    assert "no undamaged checkpoint is left" in output
    assert "Traceback" not in output


def test_a_changed_config_is_refused_with_the_keys_that_differ(finished):
    code, output = runs.run(*AGAIN, "--config.optim.learning_rate=0.5", "--config.seed=4", f"--workdir={finished}")
    assert code == 2
    assert "config.optim.learning_rate: 0.2 in the workdir, 0.5 now" in output
    assert "config.seed: 0 in the workdir, 4 now" in output
    assert output.count("in the workdir") == 2


def test_a_finished_run_is_not_run_again(finished):
    before = (finished / "metrics.jsonl").read_bytes()
    code, output = runs.run(*AGAIN, f"--workdir={finished}")
    assert code == 0
    assert "is finished" in output
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(unfinished):
    other = ("--config.model.width=0.5", "--config.run.steps=8", f"--workdir={unfinished}.other")
    code, output = runs.run(*AGAIN, *other, **runs.UNOPTIMISED)
    assert code == 0, output
    shutil.rmtree(unfinished / "checkpoints")
    shutil.copytree(pathlib.Path(f"{unfinished}.other") / "checkpoints", unfinished / "checkpoints")
    code, output = runs.run(*AGAIN, f"--workdir={unfinished}")
    assert code == 2
    assert "config.model.width: 0.5 in checkpoint 8, 0.25 now" in output
    assert "Traceback" not in output


def test_a_start_that_was_refused_does_not_pin_its_config(tmp_path):
    workdir = tmp_path / "run"
    code, output = runs.run(*FLAGS, "--config.data.val_examples=4999", f"--workdir={workdir}")
    assert code == 2, output
    code, output = runs.run(*FLAGS, f"--workdir={workdir}")
    assert code == 0, output


def test_other_data_under_the_same_name_is_refused(tmp_path):
    import numpy as np

    generator = np.random.default_rng(0)
    arrays = {
        "train_images": generator.integers(0, 255, (64, 8, 8, 1)).astype(np.uint8),
        "train_labels": np.arange(64) % 4,
        "test_images": generator.integers(0, 255, (16, 8, 8, 1)).astype(np.uint8),
        "test_labels": np.arange(16) % 4,
    }
    np.savez(tmp_path / "set.npz", **arrays)
    flags = (
        *runs.DIGITS,
        f"--config.data.source=npz:{tmp_path}/set.npz",
        "--config.data.val_examples=16",
        "--config.global_batch_size=16",
        "--config.model.width=0.25",
        "--config.run.steps=4",
        f"--workdir={tmp_path}/run",
    )
    code, output = runs.run(*flags, **runs.UNOPTIMISED)
    assert code == 0, output
    (tmp_path / "run" / "summary.json").unlink()
    np.savez(tmp_path / "set.npz", **arrays | {"train_labels": 3 - arrays["train_labels"]})
    code, output = runs.run(*flags, **runs.UNOPTIMISED)
    assert code == 2, output
    assert "labels_crc32 differ" in output


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(unfinished, finished):
    # What a kill leaves between the renaming of the old checkpoint and the end of the new one.
    (unfinished / "checkpoints" / "63").rename(unfinished / "checkpoints" / "replaced-63")
    code, output = runs.run(*AGAIN, f"--workdir={unfinished}")
    assert code == 0, output
    assert "resumed from the checkpoint of step 63" in output
    assert differences(unfinished, finished) == []


def test_the_best_of_equals_is_the_first_and_is_kept_for_the_test(tmp_path):
    code, output = runs.run(
        *FLAGS,
        "--config.optim.learning_rate=0.0",
        "--config.optim.ema_decay=0.0",
        "--config.norm.momentum=0.999999",
        "--config.checkpoint.keep_last=1",
        "--config.run.test_with=best",
        "--config.run.steps=30",
        f"--workdir={tmp_path}",
        **runs.UNOPTIMISED,
    )
    assert code == 0, output
    (test,) = [record for record in runs.records(tmp_path) if record["kind"] == "test"]
    first = next(record for record in runs.records(tmp_path) if record["kind"] == "val")
    assert test["of_step"] == first["step"] < 30
