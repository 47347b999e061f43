"""The queue of trials: every trial is one worker's at a time, and what a dead worker leaves is taken up again."""

import contextlib
import dataclasses
import os
import platform
import sqlite3
import threading
import time

import pytest
from optuna.trial import TrialState

from jaxcnn.config import UserError
from jaxcnn.study import folder as files
from jaxcnn.study import spec, trial
from jaxcnn.study.lease import Nothing
from jaxcnn.study.trial_queue import MAX_LOSSES
from tests import studies

SWEEP = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2, 0.3]))
STORES = ("sqlite", "journal")


@pytest.fixture(params=STORES)
def study(request, tmp_path):
    url = f"journal:{tmp_path / 'study.journal'}" if request.param == "journal" else ""
    return studies.make(tmp_path, SWEEP, url=url)


def states(study):
    return [trial.state for trial in study.queue().study.get_trials(deepcopy=False)]


def test_two_workers_never_have_the_same_trial(study):
    one, other = study.queue(), study.queue()
    leases = [one.take(), other.take(), one.take()]
    assert [lease.number for lease in leases] == [0, 1, 2]
    assert [lease.overrides for lease in leases] == [{"optim.learning_rate": rate} for rate in (0.1, 0.2, 0.3)]
    assert one.take() is Nothing.WAIT
    assert other.take() is Nothing.WAIT


def test_all_trials_end_once_and_then_there_is_nothing_left(study):
    queue = study.queue()
    for _ in range(3):
        lease = queue.take()
        assert queue.finish(lease, "complete", {"val_accuracy": 0.5}, None)
        lease.lock.release()
        assert not queue.finish(lease, "complete", {"val_accuracy": 0.9}, None), "an end is told once"
    assert queue.take() is Nothing.DONE
    assert states(study) == [TrialState.COMPLETE] * 3
    assert [trial.value for trial in queue.study.trials] == [0.5] * 3


def test_a_trial_whose_worker_died_on_this_machine_is_taken_up_at_once_under_its_number(study):
    dead, living = study.queue(), study.queue()
    left = dead.take()
    assert living.take().number == 1, "its worker lives, as its lock is held"
    left.lock.release()  # the kernel does this when a process ends
    taken = living.take()
    assert (taken.number, taken.overrides) == (left.number, left.overrides)
    assert not dead.is_mine(left)
    assert living.is_mine(taken)
    assert not dead.finish(left, "complete", {"val_accuracy": 0.9}, None)
    assert living.finish(taken, "complete", {"val_accuracy": 0.4}, None)
    assert living.study.trials[left.number].value == 0.4


def age(study, queue, lease):
    """Put the last heartbeat of a trial an hour back."""
    file = study.folder / "study.db"
    if file.exists():
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-3600 seconds')")
    else:
        an_hour_ago = time.time() - 3600
        os.utime(queue._lock_file(lease.number), (an_hour_ago, an_hour_ago))


def test_a_trial_of_another_machine_is_left_alone_while_its_heart_beats(study):
    elsewhere, here = study.queue(), study.queue()
    elsewhere.worker = f"another-{platform.node()}:1"
    left = elsewhere.take()
    left.lock.release()  # as on a file system that does not carry locks between machines
    age(study, elsewhere, left)
    beat, beaten = elsewhere.beat, threading.Event()
    elsewhere.beat = lambda *trial: (beat(*trial), beaten.set())
    elsewhere.definition = dataclasses.replace(elsewhere.definition, heartbeat=0.1)
    with elsewhere.beating(left):
        assert beaten.wait(60)
        others = [here.take(), here.take()]
        assert [lease.number for lease in others] == [1, 2]
        assert here.take() is Nothing.WAIT
    age(study, elsewhere, left)
    assert here.take().number == left.number, "a silent worker's trial was not taken up"


def test_a_trial_that_was_let_go_is_anybodys(study):
    one, other = study.queue(), study.queue()
    one.worker = "another-machine:1"
    lease = one.take()
    one.let_go(lease)
    lease.lock.release()
    assert other.take().number == lease.number


def test_a_trial_that_kills_its_workers_is_given_up_but_progress_starts_the_count_anew(study):
    queue = study.queue()
    for times in range(1, MAX_LOSSES + 1):
        lease = queue.take()
        assert lease.number == 0
        assert not queue.killed_too_often(lease), times
        lease.lock.release()
    lease = queue.take()
    assert f"vanished {MAX_LOSSES} times after step 0" in queue.killed_too_often(lease)
    (files.trial_folder(study.folder, 0) / "checkpoints" / "20").mkdir(parents=True)
    lease.lock.release()
    assert not queue.killed_too_often(queue.take())


def test_a_failed_trial_is_retried_in_its_folder_and_counts_as_one(study):
    queue = study.queue()
    leases = [queue.take() for _ in range(3)]
    for lease, state in zip(leases, ("failed", "diverged", "complete"), strict=True):
        queue.finish(lease, state, {"val_accuracy": 0.5}, "because")
        lease.lock.release()
    assert queue.retry({"failed", "diverged"}) == 2
    assert queue.retry({"failed", "diverged"}) == 0, "they wait already"
    again = [queue.take(), queue.take()]
    assert [(lease.number, lease.overrides) for lease in again] == [(c.number, c.overrides) for c in leases[:2]]
    assert queue.finish(again[0], "complete", {"val_accuracy": 0.6}, None)
    assert study.queue().take() is Nothing.WAIT, "planned cells are not queued anew"


def test_a_search_whose_worker_died_while_it_drew_draws_another(tmp_path):
    sweep = spec.sweep(spec.log_uniform("optim.learning_rate", 0.1, 0.2))
    study = studies.make(tmp_path, sweep, sampler="tpe", trials=2)
    queue = study.queue()
    queue.study.ask()  # a trial that has been made, but has no parameters
    leases = [queue.take(), queue.take()]
    assert [lease.number for lease in leases] == [1, 2]
    assert queue.take() is Nothing.WAIT
    assert states(study) == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]


def test_workers_prefer_trials_of_the_program_that_they_have(tmp_path):
    sweep = spec.sweep(
        spec.product(spec.values("optim.learning_rate", [0.1, 0.2]), spec.values("global_batch_size", [32, 64]))
    )
    study = studies.make(tmp_path, sweep)
    first, second = study.queue(), study.queue()
    one = first.take()
    programs = [trial["program"] for trial in study.plan.planned]
    assert programs[0] == programs[1] != programs[2] == programs[3], "trials that share a program are neighbours"
    other = second.take(programs[2])
    assert (one.number, other.number) == (0, 2)
    assert first.take(one.program).number == 1


def test_a_store_cannot_name_code_that_the_sweep_does_not_name(tmp_path):
    named = "tests.own_parts:Plain"
    study = studies.make(tmp_path, spec.sweep(spec.values("model.name", [named, "cnn"])))
    storage, queue = study.storage(), study.queue()
    for given in queue.study.trials:
        if given.user_attrs["overrides"] == {"model.name": "cnn"}:
            storage.set_trial_user_attr(given._trial_id, "overrides", {"model.name": "tests.own_parts:Ours"})
    told = []
    for lease in (queue.take(), queue.take()):
        try:
            told.append(trial.config_of(tmp_path, study.definition.base, lease).model.name)
        except UserError as error:
            told.append(str(error).partition(",")[0])
        lease.lock.release()
    assert sorted(told) == ["tests.own_parts:Plain", "the study's store names 'tests.own_parts:Ours'"]
