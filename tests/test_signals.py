"""Signals, failing disks and failing arithmetic: a run always ends in order, and can go on."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from jaxcnn import at_start
from jaxcnn.command import signals
from jaxcnn.command.signals import Signals
from jaxcnn.train import interrupts
from jaxcnn.train.interrupts import Interrupted
from tests import held, runs

pytestmark = pytest.mark.unoptimised

LONG = (*runs.DIGITS, "--config.model.width=0.25", "--config.run.epochs=100000.0")


def checkpoints(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


SECONDS = 60  # for what takes a moment, unless it is broken
IN_CALLS = ("--config.run.steps_per_call=16",)


@pytest.mark.parametrize(("number", "flags"), [(signal.SIGHUP, ()), (signal.SIGINT, ()), (signal.SIGTERM, IN_CALLS)])
def test_a_signal_while_training_leaves_a_checkpoint_of_that_step_and_code_75(number, flags, tmp_path):
    flags = (*LONG, *flags, f"--workdir={tmp_path}")
    process = runs.start(*flags)
    runs.wait_for(process, "epoch 2")
    code, output, _ = runs.stop(process, number)
    assert code == 75, output
    assert f"{signal.Signals(number).name} during" in output
    assert "did not finish within" not in output
    (step,) = re.findall(r"stopped with a checkpoint of step (\d+)", output)
    assert int(step) in checkpoints(tmp_path)
    assert "Traceback" not in output
    process = runs.start(*flags)
    runs.wait_for(process, f"resumed from the checkpoint of step {step}")
    runs.kill(process)


def test_a_signal_during_evaluation_does_not_wait_for_its_end_and_the_evaluation_is_made_up_for(tmp_path):
    # An evaluation of four batches, held before the third of them.
    evaluation = ("--config.run.eval_every_epochs=1.0", "--config.run.eval_batch_size=50")
    flags = (*LONG, *evaluation, f"--workdir={tmp_path}/run")
    process, gate = held.start(tmp_path, "jaxcnn.train.interrupts:Interrupts.check", *flags, call=3)
    process.send_signal(signal.SIGTERM)
    runs.wait_for(process, "SIGTERM during evaluate: saving a checkpoint and stopping")
    held.let_go(gate)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    (step,) = re.findall(r"stopped with a checkpoint of step (\d+)", output)
    assert "val accuracy" not in output
    assert int(step) in checkpoints(tmp_path / "run")
    assert "val" not in {record["kind"] for record in runs.records(tmp_path / "run")}
    process = runs.start(*flags)
    output = runs.wait_for(process, "val accuracy")
    assert f"resumed from the checkpoint of step {step}" in output
    assert f"step {step}/" in output.splitlines()[-1]
    runs.kill(process)


def test_a_signal_during_compilation_ends_the_process_at_once(tmp_path):
    process = runs.start(
        "--config=configs/resnet50_cifar10.py:smoke", f"--workdir={tmp_path}", JAX_ENABLE_COMPILATION_CACHE="0"
    )
    runs.wait_for(process, "loader resident")
    code, output, _ = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert "SIGTERM during compile: stopped, nothing was lost" in output
    assert "compiled in" not in output, "it waited for the end of the compilation"


def test_a_signal_during_data_preparation_ends_the_process_at_once(tmp_path):
    process = runs.start(
        "--config=configs/quickstart.py",
        "--config.data.source=synthetic:64x64x3:10:200000",
        f"--workdir={tmp_path}",
    )
    runs.wait_for(process, "reading")
    code, output, _ = runs.stop(process, signal.SIGINT)
    assert code == 75, output
    assert "SIGINT during data: stopped, nothing was lost" in output
    assert "loader resident" not in output, "it waited for the end of the preparation"


def test_a_second_signal_stops_at_once(tmp_path):
    # A run that would never go on to save: it is held before a step, and nobody opens the gate.
    process, _ = held.start(
        tmp_path, "jaxcnn.train.interrupts:Interrupts.agree", *LONG, f"--workdir={tmp_path}/run", call=3
    )
    process.send_signal(signal.SIGTERM)
    runs.wait_for(process, "SIGTERM during train")
    code, output, _ = runs.stop(process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, output
    assert "stopped at once" in output


def test_a_command_with_nothing_to_save_ends_at_once(tmp_path):
    # It is held where it reads images, which may take a while, and nobody opens the gate.
    process, _ = held.start(
        tmp_path, "jaxcnn.data.source:open_splits", "--config=configs/quickstart.py", f"--out={tmp_path}/preview.png",
        module="jaxcnn.preview",
    )  # fmt: skip
    code, output, _ = runs.stop(process, signal.SIGTERM)
    assert code == 75, output
    assert output.strip() == "jaxcnn: SIGTERM during start: stopped, nothing was lost; the same command starts it again"


@pytest.fixture
def left(monkeypatch):
    """The exit codes with which the process would have ended, as they come; the words that it would have said last."""
    found, words = [], []

    def leave(code):
        found.append(code)
        raise SystemExit  # the thread that would have ended the process

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("jaxcnn.command.signals.last_words", words.append)
    return found, words


def send(number, watch):
    """Send a signal to this process, and wait until the watching thread has dealt with it."""
    dealt, came = threading.Event(), watch._came

    def tell(number):
        try:
            came(number)
        finally:
            dealt.set()

    watch._came = tell
    try:
        os.kill(os.getpid(), number)
        assert dealt.wait(SECONDS)
    finally:
        watch._came = came
    with watch._lock:
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_no_timer_outlives_the_run_and_what_came_is_handed_on(number, left):
    with Signals() as watch:
        with watch.one_run():
            watch.grace_seconds = 10 * SECONDS
            watch.enter("finish")
            send(number, watch)
            timer = watch._timer
        timer.join(SECONDS)
        assert not timer.is_alive(), "it was not cancelled"
        with pytest.raises(Interrupted, match=number.name):
            watch.check()
    name = number.name
    assert left == (
        [],
        [f"{name} during finish: stopping after the last files are written (a second signal stops it at once)"],
    )
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_does_not_stop_is_left_after_the_grace(left):
    with Signals() as watch, watch.one_run():
        watch.grace_seconds = 0.1
        watch.enter("save")
        send(signal.SIGTERM, watch)
        watch._timer.join(SECONDS)
    assert left[0] == [75]
    assert left[1][1].startswith("save did not finish within 0 s of the signal; stopped with the newest finished")


def test_the_last_files_of_a_run_delay_the_exit_less_than_a_step_which_would_be_lost():
    asked = {}
    for phase in ("train", "finish"):
        with Signals() as watch, watch.one_run():
            watch.enter(phase)
            send(signal.SIGTERM, watch)
            asked[phase] = watch._timer.interval
    assert asked["train"] == interrupts.GRACE_SECONDS and asked["finish"] + signals.LEAVING_SECONDS < 15.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_only_who_insists_ends_a_save_a_closed_terminal_sends_sighup_more_than_once(left):
    with Signals() as watch, watch.one_run():
        watch.enter("save")
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            send(number, watch)
        assert left[0] == []
        send(signal.SIGTERM, watch)
        assert left[0] == [128 + signal.SIGTERM]
        watch._thread.join(SECONDS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_signal_after_a_command_has_done_all_it_does_keeps_its_exit_code(left):
    watch = Signals()
    before = {number: signal.getsignal(number) for number in at_start.numbers()}
    with watch:
        watch.end(0)
        send(signal.SIGTERM, watch)
        watch._thread.join(SECONDS)
    try:
        assert left == ([0], [])
    finally:
        watch._code = None
        watch.__exit__()
    assert {number: signal.getsignal(number) for number in before} == before


def test_signals_that_a_parent_ignores_stay_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_while_a_command_imports_is_told_in_one_line():
    # Sent by an import hook, when the first of the libraries that a command needs is asked for.
    code = (
        "import os, runpy, signal, sys\n"
        "class At:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'ml_collections':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, At())\n"
        "runpy.run_module('jaxcnn.main', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=runs.ROOT, capture_output=True, text=True, timeout=60)
    words = "SIGINT during start: stopped, nothing was lost; the same command starts it again"
    assert (done.returncode, done.stderr) == (75, f"\njaxcnn: {words}\n")


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
    assert f"checkpoint {int(step) - 1} was saved before this step" in output
    assert max(checkpoints(tmp_path)) == int(step) - 1
    assert "Traceback" not in output


def test_a_full_disk_during_a_save_is_one_line_and_the_run_resumes(tmp_path):
    flags = (*runs.DIGITS, "--config.run.steps=20", "--config.checkpoint.every_steps=10", f"--workdir={tmp_path}")
    # A limit on the size of files is a disk that is full for large ones: metrics pass, arrays do not.
    code, output = runs.run(*flags, module="tests.small_files", **runs.UNOPTIMISED)
    assert code == 2, output
    assert "could not be saved: File too large; free some space" in output
    assert "Traceback" not in output
    assert runs.run(*flags, **runs.UNOPTIMISED)[0] == 0
