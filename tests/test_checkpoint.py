"""Which checkpoints are kept, and that what is saved is the state of that moment.

Damaged checkpoints and those of other models are in test_resume.py, a full disk in test_signals.py.
"""

import dataclasses
import errno
import json
import os
import threading
import time
import zlib

import jax
import numpy as np
import pytest
import tensorstore
from orbax.checkpoint._src.serialization import tensorstore_utils

from jaxcnn import config as configs
from jaxcnn.config import UserError
from jaxcnn.learn.state import Hyper, State
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import saved
from jaxcnn.train.checkpoint import Checkpoints


def state_of(step: int, shape: tuple[int, ...] = (2, 3)) -> State:
    """A state of a few arrays, made from its step."""
    hyper = Hyper(*(np.float32(0.5) for _ in range(4)), np.uint32(7))
    params, batch_stats = ({"dense": {name: np.full(shape, step, np.float32)}} for name in ("kernel", "mean"))
    return jax.device_put(State(np.int32(step), params, batch_stats, (np.zeros(2, np.float32),), None, hyper))


def kept(folder, accuracies, first=1, **policy) -> list[int]:
    """Steps left after saving `first`, `first` + 1, … with these validation accuracies (None: not evaluated)."""
    checkpoints = Checkpoints(folder, configs.Checkpoint(**policy))
    for step, accuracy in enumerate(accuracies, start=first):
        checkpoints.save(state_of(step), {}, accuracy)
    checkpoints.wait()
    steps = checkpoints.steps()
    checkpoints.close()
    assert steps == sorted(int(path.name) for path in folder.iterdir())
    return steps


KEPT = pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({"keep_last": 1, "keep_best": 0}, [7]),
        ({"keep_last": 3, "keep_best": 0}, [5, 6, 7]),
        ({"keep_last": 1, "keep_best": 1}, [3, 7]),
        ({"keep_last": 2, "keep_best": 2}, [2, 3, 6, 7]),
        ({"keep_last": 1, "keep_best": 0, "keep_every_steps": 2}, [2, 4, 6, 7]),
        ({"keep_last": 1, "keep_best": 1, "keep_every_steps": 5}, [3, 5, 7]),
    ],
)
ACCURACIES = [0.1, 0.8, 0.9, None, 0.7, None, 0.6]


@KEPT
def test_the_last_the_best_and_every_so_many_are_kept(policy, left, tmp_path):
    assert kept(tmp_path, ACCURACIES, **policy) == left


@KEPT
def test_a_step_that_is_saved_again_is_kept_and_left_as_one_saved_once(policy, left, tmp_path):
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint(**policy))
    for step, accuracy in enumerate(ACCURACIES, start=1):
        for value in (None, accuracy):  # as after a stop that came before the evaluation, and at an exchange
            checkpoints.save(state_of(step), {}, value)
    checkpoints.wait()
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(step) for step in left]


def test_a_save_whose_folder_cannot_be_made_leaves_no_thread_that_waits_for_it(tmp_path):
    """Python waits for such threads when it ends: a read-only file system once kept a run from ending."""
    folder, before = tmp_path / "checkpoints", set(threading.enumerate())
    checkpoints = Checkpoints(folder, configs.Checkpoint())
    folder.rmdir()
    folder.write_text("no folder")
    with pytest.raises(UserError, match="could not be saved"):
        checkpoints.save(state_of(1), {}, None)
        checkpoints.wait()
    deadline = time.monotonic() + 5
    while left := [each.name for each in threading.enumerate() if each not in before and not each.daemon]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_nothing_is_saved_where_no_address_space_is_left_for_the_threads_that_save(tmp_path, monkeypatch):
    """Python would wait for ever for a thread that finds no memory to begin with."""
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    for left in (saved.ROOM, None):
        monkeypatch.setattr(malloc, "address_space_left", lambda left=left: left)
        checkpoints.save(state_of(1), {}, None)
    monkeypatch.setattr(malloc, "address_space_left", lambda: saved.ROOM - 1)
    with pytest.raises(
        UserError, match=r"step 2 could not be saved: .* \(ulimit -v\) leaves 63 MiB, and saving takes 64"
    ):
        checkpoints.save(state_of(2), {}, None)
    checkpoints.wait()
    checkpoints.close()
    assert checkpoints.steps() == [1]


def test_orbax_gets_what_tensorstore_says_of_a_place_without_the_call_that_leaks(tmp_path):
    for _ in range(2):  # once for each save
        saved.before_save()
    whole, own = tensorstore, tensorstore_utils.ts
    local = {"driver": "file", "path": f"{tmp_path}/"}
    assert own.KvStore.Spec(local).to_json() == whole.KvStore.Spec(local).to_json()
    other = {"driver": "ocdbt", "base": local}
    assert own.KvStore.Spec(other) == whole.KvStore.Spec(other) and own.Context is whole.Context
    for place in (local, own.KvStore.Spec(local), other):
        store = own.KvStore.open(place).result()
        store["a"] = b"b"
        assert isinstance(store, whole.KvStore) and store["a"] == b"b"


class Waiting:
    """In place of orbax's manager: its save ends when it is told to, or with an error."""

    def __init__(self, error=None):
        self.end, self.error = threading.Event(), error

    def wait_until_finished(self):
        self.end.wait(20)
        if self.error:
            raise self.error


def test_several_processes_do_not_wait_for_each_other_where_their_folder_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "LOOK", 0.02)
    manager, folder = Waiting(), tmp_path / "gone"
    with pytest.raises(FileNotFoundError):
        saved.wait(manager, folder, alone=False)
    folder.mkdir()
    threading.Timer(0.1, manager.end.set).start()
    saved.wait(manager, folder, alone=False)
    assert manager.end.is_set() and not list(folder.iterdir()), "it waited, and left no file"
    failed = Waiting(TimeoutError("of the library"))
    threading.Timer(0.1, failed.end.set).start()
    with pytest.raises(TimeoutError, match="of the library"):
        saved.wait(failed, folder, alone=False)


@KEPT
def test_what_is_kept_does_not_depend_on_where_a_run_was_stopped(policy, left, tmp_path):
    kept(tmp_path, ACCURACIES[:3], **policy)
    kept(tmp_path, ACCURACIES[3:4], first=4, **policy)
    assert kept(tmp_path, ACCURACIES[4:], first=5, **policy) == left


@KEPT
def test_what_is_kept_does_not_depend_on_a_stop_before_the_first_step(policy, left, tmp_path):
    assert kept(tmp_path, [None, *ACCURACIES], first=0, **policy) == left


def test_the_best_checkpoint_of_a_version_that_did_not_keep_its_accuracy_apart_is_known_by_its_progress(tmp_path):
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    for step, evaluated in ((1, 1), (2, 1)):
        checkpoints.save(state_of(step), {"progress": {"evaluated": evaluated, "accuracy": 0.9}}, None)
    checkpoints.wait()
    checkpoints.close()
    for step in (1, 2):
        file = tmp_path / str(step) / "record" / "metadata"
        record = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("score", "crc32")}
        file.write_text(json.dumps(record | {"crc32": zlib.crc32(json.dumps(record, sort_keys=True).encode())}))
    reopened = Checkpoints(tmp_path, configs.Checkpoint(), read_only=True)
    assert reopened.best() == 1
    reopened.close()


def test_a_checkpoint_of_another_model_is_refused_with_the_first_array_that_differs(tmp_path):
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    checkpoints.save(state_of(1), {}, None)
    checkpoints.wait()
    with pytest.raises(UserError, match=r"1 is a checkpoint of another model: batch_stats/dense/mean is \[\[2, 3\]"):
        checkpoints.restore(1, state_of(0, shape=(3, 3)), meshes.replicated(meshes.make_mesh(1)))
    checkpoints.close()


def test_a_checkpoint_whose_record_is_damaged_is_not_deleted(tmp_path):
    kept(tmp_path, [0.9, 0.1])
    (tmp_path / "1" / "record" / "metadata").write_text("{")
    assert kept(tmp_path, [0.2, 0.3, 0.4], first=3, keep_last=1) == [1, 5]


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_it(monkeypatch, tmp_path):
    def killed(*_, **__):
        raise OSError(errno.EIO, "killed here")

    checkpoints = Checkpoints(tmp_path, configs.Checkpoint(keep_last=1, keep_best=0))
    checkpoints.save(state_of(1), {}, None)
    checkpoints.wait()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", killed)  # the files of a folder are gone by then
        checkpoints.save(state_of(2), {}, None)
        with pytest.raises(UserError, match="killed here"):
            checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["2"]
    again = Checkpoints(tmp_path, configs.Checkpoint(keep_last=1, keep_best=0))
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_of_equally_good_checkpoints_the_first_is_kept_as_the_run_counts(tmp_path):
    assert kept(tmp_path, [0.5, 0.9, 0.9, 0.2], keep_last=1, keep_best=1) == [2, 4]


def test_a_step_can_be_saved_again_and_the_last_save_counts(tmp_path):
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    checkpoints.save(state_of(4), {"try": 1}, None)
    checkpoints.save(dataclasses.replace(state_of(4), params=state_of(9).params), {"try": 2}, 0.5)
    checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["4"]
    restored = checkpoints.restore(4, state_of(0), meshes.replicated(meshes.make_mesh(1)))
    checkpoints.close()
    assert restored.record["try"] == 2
    assert restored.state.params["dense"]["kernel"].max() == 9


@pytest.mark.parametrize("parts", [{}, {"batch_stats": {}}, {"opt_state": ()}, {"ema": {"params": {"w": np.ones(3)}}}])
def test_states_with_and_without_each_part_come_back_as_they_were(parts, tmp_path):
    # A network without BatchNorm has no batch_stats, a run without moving average no ema.
    state = jax.device_put(dataclasses.replace(state_of(3), **parts))
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    checkpoints.save(state, {}, None)
    checkpoints.wait()
    restored = checkpoints.restore(3, state, meshes.replicated(meshes.make_mesh(1))).state
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_save_under_way_is_not_touched_by_the_steps_that_follow(devices, tmp_path):
    # The state is donated to the next step, which may write into the very memory that is being saved: 16 MiB of it, so
    # that the steps come before the end of the save.
    mesh = meshes.make_mesh(devices)
    large = state_of(0, shape=(2048, 2048))
    state = jax.device_put(large, meshes.replicated(mesh))
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + x.dtype.type(1), state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint(keep_last=10))
    saved = range(0, 9, 3)
    for number in saved:
        assert int(state.step) == number
        checkpoints.save(state, {}, None)
        for _ in range(3):
            donated, state = state, step(state)
        assert donated.params["dense"]["kernel"].is_deleted()
    checkpoints.wait()
    assert checkpoints.steps() == list(saved)
    for number in saved:
        restored = checkpoints.restore(number, large, meshes.replicated(mesh)).state
        assert np.all(np.asarray(restored.params["dense"]["kernel"]) == number)
        assert int(restored.step) == number
    checkpoints.close()
