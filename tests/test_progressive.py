"""Progressive resizing: small training images at first, whole ones at last."""

import dataclasses
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import image_ops
from jaxcnn.learn import programs, sharded
from jaxcnn.learn.network import check_sides
from jaxcnn.machine import mesh as meshes
from jaxcnn.study import measure, spec, together
from jaxcnn.train import drive, flops
from jaxcnn.train.hooks import Shared
from tests import digits, runs, small, studies

pytestmark = pytest.mark.usefixtures("kept_programs")

GROWING = {"crop": "reflect", "flip": "alternating", "small_sides": (4, 6), "small_until": (0.25, 0.75)}


def test_shrinking_weighs_what_a_pixel_covers_by_a_tent():
    images = np.random.default_rng(0).standard_normal((3, 8, 8, 2)).astype(np.float32)
    # To half the side: 1, 3, 3, 1 eighths of the four pixels around; at the border without those that are not there.
    weights = np.zeros((4, 8))
    for new in range(4):
        for offset, weight in enumerate((1, 3, 3, 1), start=-1):
            if 0 <= 2 * new + offset < 8:
                weights[new, 2 * new + offset] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("ih,jw,bhwc->bijc", weights, weights, images)
    np.testing.assert_allclose(image_ops.shrink(jnp.asarray(images), 4), expected, atol=1e-5)
    np.testing.assert_allclose(image_ops.shrink(jnp.full((1, 9, 9, 1), 0.3), 5), 0.3, rtol=1e-6)


def test_the_stages_of_a_run_end_where_the_config_says():
    step_spec = small.spec_of(small.config(augment=GROWING), steps=8)
    assert [(end, made.small_side) for end, made in step_spec.stages] == [(2, 4), (6, 6), (8, 0)]
    assert step_spec.stages[-1][1] is step_spec
    constant = small.spec_of(small.config(), steps=8)
    assert constant.stages == ((8, constant),)


def test_each_stage_costs_what_its_images_do_and_takes_the_state_of_the_one_before():
    step_spec, mesh = small.spec_of(small.config(augment=GROWING), steps=8), meshes.make_mesh(1)
    costs = [flops.step_flops(programs.train_step.traced(made, mesh, "resident")) for _, made in step_spec.stages]
    assert costs[0] < 0.6 * costs[2] and costs[0] < costs[1] < costs[2]
    states = [sharded.abstract_state(made, mesh) for _, made in step_spec.stages]
    assert states[0] == states[1] == states[2]


def test_eight_devices_train_as_one_does_on_small_images():
    config = small.config(augment=GROWING)
    found = []
    for devices in (1, 8):
        mesh = meshes.make_mesh(devices)
        step_spec = dataclasses.replace(small.spec_of(config), small_side=4)
        data = jax.device_put(small.resident.Resident(*small.split()), meshes.replicated(mesh))
        state, metrics = small.unoptimised_step(step_spec, mesh)(
            small.initial_state(step_spec, mesh, config), data, small.constants(mesh)
        )
        found.append(jax.device_get((state.params, metrics.sums["loss"])))
    for one, other in zip(jax.tree.leaves(found[0]), jax.tree.leaves(found[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of 40 steps, step by step, whose images grow after steps 10 and 30."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    digits.run(folder, augment=GROWING, checkpoint={"keep_every_steps": 5})
    return folder


@pytest.mark.parametrize("step", [5, 10, 15, 30])
def test_a_run_resumed_before_at_and_after_a_change_of_size_is_the_undisturbed_one(step, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()
    for checkpoint in (folder / "checkpoints").iterdir():
        if int(checkpoint.name) > step:
            shutil.rmtree(checkpoint)
    digits.run(folder, augment=GROWING, checkpoint={"keep_every_steps": 5})
    assert runs.kept(folder) == runs.kept(whole)


def test_calls_of_several_steps_end_where_images_grow_and_change_no_bit(whole, tmp_path, monkeypatch):
    lengths = digits.call_lengths(monkeypatch)
    monkeypatch.setattr(drive, "StepsPerCall", digits.Whole)
    digits.run(tmp_path, augment=GROWING, run={"steps_per_call": 40})
    # At 20, 39 and 40 they end for evaluations and checkpoints.
    assert list(np.cumsum(lengths)) == [10, 20, 30, 39, 40]
    assert runs.records(tmp_path) == runs.records(whole)
    assert runs.seals(tmp_path) == runs.seals(whole)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"small_sides": (24,)}, "must have the same length"),
        ({"small_sides": (0,), "small_until": (0.5,)}, "must be above 0"),
        ({"small_sides": (20, 24), "small_until": (0.5, 0.5)}, "must increase, with all values between 0 and 1"),
        ({"small_sides": (20,), "small_until": (1.0,)}, "must increase, with all values between 0 and 1"),
    ],
)
def test_impossible_stages_are_mistakes_of_the_config(fields, words):
    with pytest.raises(ConfigError, match=words):
        small.config(augment=fields)


def test_sides_that_a_network_cannot_take_are_refused_before_anything_is_compiled():
    sides = {"small_sides": (24,), "small_until": (0.5,)}

    def check(name, side=32, shape=None, **fields):
        config = small.config(model={"name": name} | fields, augment=sides)
        step_spec = small.spec_of(config, side=side)
        check_sides(step_spec if shape is None else dataclasses.replace(step_spec, image_shape=shape))

    check("resnet50")
    check("airbench_residual")
    check("airbench")
    check("vgg16")
    with pytest.raises(
        ConfigError, match="alexnet has different parameters for images of 24 pixels than for those of 64"
    ):
        check("alexnet", side=64)
    with pytest.raises(UserError, match="the images are too small for this network"):
        check("vgg16", form="imagenet")
    with pytest.raises(ConfigError, match="must not be larger than the side of the images, 16 pixels"):
        check("resnet50", side=16)
    with pytest.raises(ConfigError, match="is for square images, but these are 32x40"):
        check("resnet50", shape=(32, 40, 3))


def test_a_sweep_expects_the_time_of_the_mean_step(tmp_path, monkeypatch):
    clock = [0.0]
    compiled = programs.train_step

    def timed(step_spec, *rest):
        step = compiled(step_spec, *rest)

        def call(*arguments):
            clock[0] += step_spec.small_side or 8
            return step(*arguments)

        call.memory_analysis = step.memory_analysis
        return call

    monkeypatch.setattr(programs, "train_step", timed)
    monkeypatch.setattr(measure, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1])), augment=GROWING)
    (figures,) = measure.measure(study.plan, tmp_path, Shared(), print).values()
    assert figures["step_seconds"] == 0.25 * 4 + 0.5 * 6 + 0.25 * 8


def test_a_population_is_refused():
    config = small.config(augment=GROWING)
    group = type("Group", (), {"config": config})
    plan = type("Plan", (), {"planned": [], "groups": [group]})
    with pytest.raises(UserError, match=r"leave out config\.augment\.small_sides"):
        together.check(plan, None, together.Settings(members=2))


def test_the_fields_are_tuples_whatever_a_file_writes():
    tree = configs.to_dict(small.config())
    tree["augment"] |= {"small_sides": [20, 24], "small_until": [0.15, 0.5]}
    assert configs.from_config_dict(tree).augment.small_sides == (20, 24)
