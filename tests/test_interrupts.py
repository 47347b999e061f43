"""A run that Python code makes is stopped by KeyboardInterrupt or a condition: the process lives, the run goes on."""

import _thread
import os
import signal
import threading
import time

import pytest

from jaxcnn.study import folder as files
from jaxcnn.study import spec, worker
from jaxcnn.train import session
from jaxcnn.train.interrupts import AGAIN_SECONDS, Interrupted, Interrupts
from jaxcnn.train.loop import train
from tests import digits, runs, studies

pytestmark = pytest.mark.usefixtures("kept_programs")

THIN = {"model": {"width": 0.25}}


class At(Interrupts):
    """Does something when a run comes into a phase for the n-th time."""

    def __init__(self, phase: str, act=_thread.interrupt_main, count: int = 1) -> None:
        super().__init__()
        self._at, self._act, self._left = phase, act, count
        self.phases: list[str] = []

    def enter(self, phase: str) -> None:
        super().enter(phase)
        self.phases.append(phase)
        self._left -= phase == self._at
        if self._left == 0:
            self._left = -1
            self._act()
            deadline = time.monotonic() + 60
            while threading.current_thread().name == "jaxcnn-run" and not self.received:
                assert time.monotonic() < deadline  # the main thread looks every LOOK_SECONDS
                time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The workdir of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    digits.run(folder, **THIN)
    return folder


@pytest.fixture
def untouched(monkeypatch):
    """Nothing ends the process, and nothing changes how it takes signals."""
    for module, name in ((os, "_exit"), (signal, "signal"), (signal, "set_wakeup_fd")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name} was called"))


def same(one, other):
    return runs.kept(one) == runs.kept(other)


@pytest.mark.parametrize(
    ("phase", "count", "steps"),
    [("start", 1, 0), ("data", 1, 0), ("compile", 1, 0), ("train", 2, 20), ("evaluate", 2, 39), ("save", 2, 39),
     ("finish", 1, 40)],
)  # fmt: skip
def test_a_keyboard_interrupt_in_any_phase_leaves_the_process_alive_and_the_run_resumable(
    phase, count, steps, tmp_path, undisturbed, untouched
):
    interrupts = At(phase, count=count)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(digits.config(**THIN), tmp_path, command=["test"], interrupts=interrupts)
    assert interrupts.received is None, "it was that run's alone"
    assert files.newest_checkpoint(tmp_path) >= steps
    if phase in ("train", "evaluate"):
        assert f"stopped with a checkpoint of step {files.newest_checkpoint(tmp_path)} of 40" in str(caught.value)
    summary = train(digits.config(**THIN), tmp_path, command=["test"], interrupts=interrupts)
    assert summary["starts"] == (1 if phase in ("start", "data", "compile", "finish") else 2)
    assert same(tmp_path, undisturbed)


def test_a_signal_to_the_process_is_a_keyboard_interrupt_like_any_other_and_a_second_one_tears_nothing(
    tmp_path, undisturbed, untouched
):
    def twice() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.3)

    with pytest.raises(KeyboardInterrupt, match="stopped with a checkpoint of step"):
        train(digits.config(**THIN), tmp_path, command=["test"], interrupts=At("evaluate", twice))
    digits.run(tmp_path, **THIN)
    assert same(tmp_path, undisturbed)


def test_a_condition_stops_a_run_in_a_thread_that_is_not_the_main_one(tmp_path, undisturbed, untouched):
    stop, ended = threading.Event(), []

    class Button(At):
        def __init__(self):
            super().__init__("evaluate", stop.set)
            self._stop_requested = stop.is_set

    def work() -> None:
        try:
            train(digits.config(**THIN), tmp_path, command=["test"], interrupts=Button())
        except Interrupted as error:
            ended.append(str(error))
        stop.clear()
        ended.append(digits.run(tmp_path, **THIN))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (
        ended[0]
        == f"stop requested: stopped with a checkpoint of step 20 of 40; the same call with {tmp_path} continues"
    )
    assert ended[1]["starts"] == 2
    assert same(tmp_path, undisturbed)


def test_a_condition_that_holds_already_stops_a_run_before_it_reads_any_data(tmp_path):
    with pytest.raises(Interrupted, match="stop requested before start: stopped, nothing was lost"):
        train(digits.config(), tmp_path, command=["test"], interrupts=Interrupts(lambda: True))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_what_a_signal_handler_of_the_callers_raises_stops_the_run_too(tmp_path):
    def handler(*_):
        raise TimeoutError("enough")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(TimeoutError, match="enough"):
            train(
                digits.config(**THIN), tmp_path, command=["test"],
                interrupts=At("evaluate", lambda: os.kill(os.getpid(), signal.SIGALRM)),
            )  # fmt: skip
    finally:
        signal.signal(signal.SIGALRM, before)
    assert files.newest_checkpoint(tmp_path) == 20


class Asked(At):
    """A signal to a command: it stays."""

    def __init__(self, phase, count=1):
        super().__init__(phase, lambda: setattr(self, "received", "SIGINT"), count)

    def _forget(self):
        pass


RATES = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2]))


@pytest.mark.parametrize(("count", "states"), [(1, ["complete"]), (2, ["complete", "complete"])])
def test_a_signal_while_a_trial_writes_its_last_files_stops_the_sweep_and_nothing_else(count, states, tmp_path):
    study = studies.make(tmp_path, RATES, **THIN, run={"steps": 4})
    interrupts = Asked("finish", count)

    def work() -> None:
        worker.work(study.folder, study.definition, study.storage(), ["test"], interrupts=interrupts)

    if count == 1:
        with pytest.raises(
            Interrupted, match=f"SIGINT: stopped between trials; the same call with {tmp_path} continues"
        ):
            work()
    else:
        work()  # nothing is left, so nothing was stopped
    assert [row["state"] for row in study.trials()] == states
    assert [outcome.state for outcome in study.work()] == ["complete"] * (2 - count)
    assert [row["starts"] for row in study.trials()] == [1, 1]


def test_an_interrupt_between_the_start_of_the_run_and_the_wait_for_it_stops_the_run(
    tmp_path, undisturbed, monkeypatch
):
    wait = Interrupts._wait

    def interrupted(self, running):
        monkeypatch.setattr(Interrupts, "_wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(Interrupts, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped with a checkpoint of step"):
        train(digits.config(**THIN), tmp_path, command=["test"])
    assert files.newest_checkpoint(tmp_path) < 40
    digits.run(tmp_path, **THIN)
    assert runs.seals(tmp_path) == runs.seals(undisturbed) and runs.records(tmp_path) == runs.records(undisturbed)


def test_an_interrupt_while_the_thread_of_the_run_starts_leaves_no_run_behind(monkeypatch):
    start, made = threading.Thread.start, []

    def interrupted(self):
        start(self)
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Interrupts().drive(lambda: pytest.fail("it ran"))
    made[0].join(60)
    assert not made[0].is_alive()


def test_a_second_interrupt_leaves_a_run_that_hangs_and_its_thread_writes_nothing_more():
    release, ended = threading.Event(), []

    def hangs() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(AGAIN_SECONDS + 0.5)
        os.kill(os.getpid(), signal.SIGINT)
        release.wait(60)
        for call in (interrupts.check, lambda: interrupts.enter("save")):
            with pytest.raises(Interrupted):
                call()
            ended.append(call)

    interrupts = Interrupts()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="interrupted again during start: left at once"):
        interrupts.drive(hangs)
    assert time.monotonic() - began < 50, "it did not wait for the function"
    release.set()
    for thread in threading.enumerate():
        if thread.name == "jaxcnn-run":
            assert thread.daemon, "a script that hangs in it could not end"
            thread.join(60)
    assert len(ended) == 2


def test_what_compiles_when_a_start_is_interrupted_is_not_waited_for():
    release, ended = threading.Event(), threading.Event()
    with pytest.raises(KeyboardInterrupt), session._compilers() as pool:
        pool.submit(lambda: (release.wait(60), ended.set()))
        raise KeyboardInterrupt
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)
