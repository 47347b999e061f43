"""Signals, failing disks and failing arithmetic: a run always ends in order, and can go on."""

import re
import signal
import time

import pytest

from tests import runs

LONG = (*runs.DIGITS, "--config.model.width=0.25", "--config.run.epochs=100000.0")


def checkpoints(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


IN_CALLS = ("--config.run.steps_per_call=16",)


@pytest.mark.parametrize(("number", "flags"), [(signal.SIGTERM, ()), (signal.SIGINT, ()), (signal.SIGTERM, IN_CALLS)])
def test_a_signal_while_training_leaves_a_checkpoint_of_that_step_and_code_75(number, flags, tmp_path):
    flags = (*LONG, *flags, f"--workdir={tmp_path}")
    process = runs.start(*flags)
    runs.wait_for(process, "epoch 2")
    code, output, seconds = runs.stop(process, number)
    assert code == 75, output
    assert f"{signal.Signals(number).name} during" in output
    (step,) = re.findall(r"stopped with a checkpoint of step (\d+)", output)
    assert int(step) in checkpoints(tmp_path)
    assert seconds < 20
    assert "Traceback" not in output
    process = runs.start(*flags)
    runs.wait_for(process, f"resumed from the checkpoint of step {step}")
    runs.kill(process)


def test_a_signal_during_evaluation_does_not_wait_for_its_end_and_the_evaluation_is_made_up_for(tmp_path):
    flags = (
        "--config=configs/quickstart.py",
        "--config.data.source=synthetic:16x16x1:10:60000",
        "--config.data.val_examples=50000",
        "--config.run.steps=200",
        "--config.run.eval_every_epochs=0.0128",
        "--config.run.eval_batch_size=50",
        f"--workdir={tmp_path}",
    )
    for _ in range(5):  # a signal now and then meets one of the steps or saves between the long evaluations
        process = runs.start(*flags)
        runs.wait_for(process, "val accuracy")
        time.sleep(1)
        code, output, _ = runs.stop(process, signal.SIGTERM)
        assert code == 75, output
        if "during evaluate" in output:
            break
    assert "during evaluate" in output
    (step,) = re.findall(r"stopped with a checkpoint of step (\d+)", output)
    process = runs.start(*flags)
    output = runs.wait_for(process, "val accuracy")
    assert f"resumed from the checkpoint of step {step}" in output
    assert f"step {step}/200" in output.splitlines()[-1]
    runs.kill(process)


def test_a_signal_during_compilation_ends_the_process_at_once(tmp_path):
    process = runs.start(
        "--config=configs/resnet50_cifar10.py:smoke", f"--workdir={tmp_path}", JAX_ENABLE_COMPILATION_CACHE="0"
    )
    runs.wait_for(process, "loader resident")
    code, output, seconds = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert "SIGTERM during compile: stopped, nothing was lost" in output
    assert seconds < 5


def test_a_signal_during_data_preparation_ends_the_process_at_once(tmp_path):
    process = runs.start(
        "--config=configs/quickstart.py",
        "--config.data.source=synthetic:64x64x3:10:200000",
        f"--workdir={tmp_path}",
    )
    runs.wait_for(process, "reading")
    code, output, seconds = runs.stop(process, signal.SIGINT)
    assert code == 75, output
    assert "SIGINT during data: stopped, nothing was lost" in output
    assert seconds < 5


def test_a_second_signal_stops_at_once(tmp_path):
    # A step of a second or so, so that the second signal meets a run that is still waiting for it.
    process = runs.start(
        "--config=configs/quickstart.py",
        "--config.data.source=synthetic:32x32x3:10:3000",
        "--config.global_batch_size=512",
        "--config.run.log_every_steps=1",
        f"--workdir={tmp_path}",
    )
    runs.wait_for(process, "epoch 0")
    process.send_signal(signal.SIGTERM)
    runs.wait_for(process, "SIGTERM during")
    code, output, seconds = runs.stop(process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "stopped at once" in output
    assert seconds < 3


def test_a_command_with_nothing_to_save_ends_at_once(tmp_path):
    process = runs.start(
        "--config=configs/quickstart.py",
        "--config.data.source=synthetic:64x64x3:10:400000",
        "--config.augment.cutout=8",  # needs the mean of all images, which takes a while
        f"--out={tmp_path}/preview.png",
        module="jaxcnn.preview",
    )
    time.sleep(5)
    code, output, seconds = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert output.strip() == "jaxcnn: SIGTERM during start: stopped, nothing was lost; the same command starts it again"
    assert seconds < 3


def test_two_runs_on_one_workdir_the_second_is_refused(tmp_path):
    process = runs.start(*LONG, f"--workdir={tmp_path}")
    try:
        runs.wait_for(process, "parameters")
        code, output = runs.run(*LONG, f"--workdir={tmp_path}")
        assert code == 2
        assert f"is in use by process {process.pid}" in output
    finally:
        runs.kill(process)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    code, output = runs.run(
        *runs.DIGITS,
        "--config.optim.learning_rate=1e30",
        "--config.schedule.name=constant",
        "--config.checkpoint.every_steps=1",
        f"--workdir={tmp_path}",
    )
    assert code == 3
    (step,) = re.findall(r"step (\d+) is not finite", output)
    assert "last finite loss: " in output
    assert f"checkpoint {int(step) - 1} is from before it" in output
    assert max(checkpoints(tmp_path)) == int(step) - 1
    assert "Traceback" not in output


def test_a_full_disk_during_a_save_is_one_line_and_the_run_resumes(tmp_path):
    flags = (*runs.DIGITS, "--config.run.steps=40", "--config.checkpoint.every_steps=10", f"--workdir={tmp_path}")
    # A limit on the size of files is a disk that is full for large ones: metrics pass, arrays do not.
    code, output = runs.run(*flags, module="tests.small_files")
    assert code == 2, output
    assert "could not be saved" in output
    assert "Traceback" not in output
    assert runs.run(*flags)[0] == 0
