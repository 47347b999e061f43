"""Which checkpoints are kept, and that what is saved is the state of that moment.

Damaged checkpoints and those of other models are in test_resume.py, a full disk in test_signals.py.
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn import mesh as meshes
from jaxcnn.data import resident
from jaxcnn.learn import sharded
from jaxcnn.learn.state import Hyper, State, make_hyper
from jaxcnn.train.checkpoint import Checkpoints
from tests import small


def state_of(step: int) -> State:
    """A state of a few numbers, made from its step."""
    hyper = Hyper(*(np.float32(0.5) for _ in range(4)), np.uint32(7))
    params = {"dense": {"kernel": np.full((2, 3), step, np.float32)}}
    return jax.device_put(State(np.int32(step), params, {}, (np.zeros(2, np.float32),), None, hyper))


def kept(folder, accuracies, **policy) -> list[int]:
    """Steps that are left after saving 1, 2, … with these validation accuracies (None: not evaluated)."""
    checkpoints = Checkpoints(folder, configs.Checkpoint(**policy))
    for step, accuracy in enumerate(accuracies, start=1):
        checkpoints.save(state_of(step), {}, accuracy)
    checkpoints.wait()
    steps = checkpoints.steps()
    checkpoints.close()
    assert steps == sorted(int(path.name) for path in folder.iterdir())
    return steps


@pytest.mark.parametrize(
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
def test_the_last_the_best_and_every_so_many_are_kept(policy, left, tmp_path):
    assert kept(tmp_path, [0.1, 0.8, 0.9, None, 0.7, None, 0.6], **policy) == left


def test_of_equally_good_checkpoints_the_later_is_kept(tmp_path):
    assert kept(tmp_path, [0.5, 0.9, 0.9, 0.2], keep_last=1, keep_best=1) == [3, 4]


def test_a_step_can_be_saved_again_and_the_last_save_counts(tmp_path):
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint())
    checkpoints.save(state_of(4), {"try": 1}, None)
    checkpoints.wait()
    checkpoints.save(dataclasses.replace(state_of(4), params=state_of(9).params), {"try": 2}, 0.5)
    checkpoints.wait()
    restored = checkpoints.restore(4, state_of(0), meshes.replicated(meshes.make_mesh(1)))
    checkpoints.close()
    assert restored.record["try"] == 2
    assert restored.state.params["dense"]["kernel"].max() == 9


def test_a_save_under_way_is_not_touched_by_the_steps_that_follow(tmp_path):
    # The state is donated to the next step, which writes into the very memory that is being saved.
    config = small.config(model={"width": 1.0}, optim={"ema_decay": 0.9})
    mesh = meshes.make_mesh(1)
    program = small.program_of(config)
    data = jax.device_put(resident.Resident(*small.split()), meshes.replicated(mesh))
    step = sharded.resident_train_step(program, mesh)
    normal = small.normalization(mesh)
    state, _ = step(sharded.init_state(program, mesh)(make_hyper(config)), data, normal)
    checkpoints = Checkpoints(tmp_path, configs.Checkpoint(keep_last=10))
    copies = {}
    for _ in range(4):
        copies[int(state.step)] = jax.tree.map(lambda x: np.array(x, copy=True), state)
        checkpoints.save(state, {}, None)
        donated = state
        for _ in range(2):
            state, _ = step(state, data, normal)
        assert donated.params and all(leaf.is_deleted() for leaf in jax.tree.leaves(donated.params))
    checkpoints.wait()
    assert checkpoints.steps() == sorted(copies) == [1, 3, 5, 7]
    for number, copy in copies.items():
        restored = checkpoints.restore(number, state, meshes.replicated(mesh)).state
        jax.tree.map(np.testing.assert_array_equal, restored, copy)
        assert jax.tree.structure(restored) == jax.tree.structure(copy)
    checkpoints.close()
    kernels = [jax.tree.leaves(copy.params)[-1] for copy in copies.values()]
    assert not np.array_equal(kernels[0], kernels[1]), "the steps between changed nothing"
