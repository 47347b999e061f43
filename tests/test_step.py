"""The training step: devices, microbatches and loaders never change the mathematics."""

import contextlib
import re

import jax
import numpy as np
import pytest

from jaxcnn.data import order, resident
from jaxcnn.data.batch import Batch
from jaxcnn.learn import programs
from jaxcnn.machine import mesh as meshes
from tests import small

# Float32 sums in another order differ by some units of 2^-24 = 6e-8 relative to the terms; BatchNorm divides by small
# deviations and six steps of SGD feed the difference back, which amplifies it by two to three orders of magnitude.
TOLERANCE = 2e-4

HARD = {
    "augment": {
        "crop": "reflect", "flip": "alternating", "mixup": 0.4, "cutmix": 1.0, "cutout": 3, "erasing": 0.5,
        "brightness": 0.3,
    },
    "optim": {"learning_rate": 0.1, "label_smoothing": 0.1, "ema_decay": 0.9, "clip_norm": 1.0},
}  # fmt: skip
PLAIN = {"crop": "reflect", "flip": "alternating"}
NETWORKS = {
    "cnn, whole batch": {"model": {"name": "cnn"}},
    "cnn, groups of 4": {"model": {"name": "cnn"}, "norm": {"group_size": 4}},
    "cnn, groups of 2": {"model": {"name": "cnn"}, "norm": {"group_size": 2}},
    "airbench, muon": {
        "model": {"name": "airbench", "width": 1 / 16},
        "optim": {"name": "muon", "learning_rate": 0.1, "whitening_bias_epochs": 1.0, "weight_decay": 0.01},
    },
    "alexnet, dropout": {"model": {"name": "alexnet", "width": 1 / 32, "dropout": 0.5, "batch_norm": False}},
}


DEVICES = {"cnn, whole batch": (2, 4, 8), "cnn, groups of 4": (2, 8)}  # more groups than devices, and fewer


@pytest.mark.parametrize("name", NETWORKS)
def test_one_two_four_and_eight_devices_give_the_same_run(name):
    config = small.config(**(HARD | NETWORKS[name]))
    side = 8 if "cnn" in name else 32
    # Three Newton-Schulz steps multiply small singular values, rounding and all, by up to 3.4^3 = 41.
    atol = TOLERANCE * (10 if "muon" in name else 1)
    alone, state = small.train(config, 1, side=side, optimised=False)
    assert len(set(alone.round(4))) == len(alone), "the run must move for the comparison to mean anything"
    for devices in DEVICES.get(name, (8,)):
        losses, other = small.train(config, devices, side=side, optimised=False)
        np.testing.assert_allclose(losses, alone, rtol=TOLERANCE)
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=atol)


@pytest.mark.parametrize(("devices", "microbatches"), [(1, 4), (2, 2), (8, 2)])
def test_gradient_accumulation_equals_the_large_batch(devices, microbatches):
    groups = HARD | {"norm": {"group_size": 4}}
    whole, state = small.train(small.config(**groups), optimised=False)
    groups = groups | {"optim": HARD["optim"] | {"accumulate_steps": microbatches}}
    losses, other = small.train(small.config(**groups), devices, optimised=False)
    np.testing.assert_allclose(losses, whole, rtol=TOLERANCE)
    for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=TOLERANCE)


def test_group_statistics_are_no_whole_batch_statistics():
    whole, _ = small.train(small.config(**HARD), optimised=False)
    ghost, _ = small.train(small.config(**HARD, norm={"group_size": 2}), optimised=False)
    assert np.abs(whole - ghost).max() > 20 * TOLERANCE


@pytest.mark.parametrize(("devices", "policy"), [(1, "autoaugment"), (4, "none")])
def test_resident_and_streamed_batches_train_to_the_same_bits(devices, policy):
    augment = HARD["augment"] if policy == "none" else PLAIN | {"policy": policy}
    config = small.config(**HARD | {"augment": augment}, norm={"group_size": 4})
    mesh, spec = meshes.make_mesh(devices), small.spec_of(config)
    image, label = small.split()
    normalization = small.constants(mesh)
    state = small.initial_state(spec, mesh, config)
    with small.programs_kept():
        train_step = programs.train_step(spec, mesh, "stream")
    position = order.storage_positions(spec.global_batch_size, devices).reshape(-1)
    for step in range(6):
        index = order.example_index(config.seed, step, position, spec.global_batch_size, spec.train_examples)
        batch = Batch(image[index], label[index], index, position, np.ones(len(index), bool))
        batch = jax.device_put(batch, meshes.over_data(mesh))
        state, _ = train_step(state, batch, normalization)
    _, other = small.train(config, devices)
    for one, two in zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_same_run_twice_is_the_same_to_the_bit_and_another_seed_is_not():
    config = small.config(**HARD)
    first, second = (small.train(config, optimised=False)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, small.train(small.config(**HARD, seed=1), optimised=False)[0])


def compilations(function):
    """How many programs XLA compiled while `function` ran."""
    seen = []

    def count(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        function()
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    return len(seen)


def test_runs_that_differ_in_traced_hyper_parameters_share_one_compilation(monkeypatch):
    monkeypatch.setattr(small, "programs_kept", contextlib.nullcontext)  # they would not be compiled
    first = small.config(optim={"learning_rate": 0.01})
    second = small.config(
        optim={"learning_rate": 0.03, "weight_decay": 0.01, "momentum": 0.5, "label_smoothing": 0.2}, seed=3
    )
    losses = []
    with small.unoptimised():
        small.train(first)
        assert compilations(lambda: losses.append(small.train(second)[0])) == 0
        assert not np.array_equal(losses[0], small.train(first)[0])
        # The counter counts: a static field compiles anew.
        assert compilations(lambda: small.train(small.config(optim={"learning_rate": 0.01, "nesterov": False}))) > 0


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "momentum", "label_smoothing"])
def test_every_traced_hyper_parameter_reaches_the_step(field):
    base = small.train(small.config(optim={"learning_rate": 0.01}))[1].params
    changed = small.train(small.config(optim={"learning_rate": 0.01} | {field: 0.3}))[1].params
    kernels = [leaf for leaf in jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), base, changed))]
    assert max(kernels) > 1e-4


def test_the_step_leaves_one_state_and_donates_the_old_one():
    config = small.config()
    mesh, spec = meshes.make_mesh(1), small.spec_of(config)
    image, label = small.split()
    data = jax.device_put(resident.Resident(image, label), meshes.replicated(mesh))
    state = small.initial_state(spec, mesh, config)
    with small.programs_kept():
        step = programs.train_step(spec, mesh, "resident")
    step(state, data, small.constants(mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", ["cnn", "alexnet", "resnet50"])
def test_no_kernel_is_copied_before_its_update(name, monkeypatch):
    def copied(width: float) -> list[str]:
        spec = small.spec_of(small.config(model={"name": name, "width": width}), side=32)
        text = small.unoptimised_step(spec, meshes.make_mesh(1)).as_text()
        kernels = re.findall(r"(%state_params\w*kernel\S*) = \S+ parameter", text)
        assert len(kernels) > 2
        return [kernel for kernel in kernels if f"copy({kernel})" in text]

    assert not copied(1 / 16)
    if name == "alexnet":  # where the rate hangs on nothing, there are copies to be seen
        monkeypatch.setattr("jaxcnn.learn.step._known_after", lambda norm, learning_rate: learning_rate)
        assert copied(1 / 17)  # a program that is in no cache


def test_evaluation_ignores_padding():
    config = small.config()
    mesh, spec = meshes.make_mesh(8), small.spec_of(config)
    image, label = small.split()
    state = small.initial_state(spec, mesh, config)
    data = jax.device_put(resident.Resident(image, label), meshes.replicated(mesh))
    totals = {}
    for batch_size in (8, 40, 64):
        with small.programs_kept():
            gather = programs.eval_batch(spec, mesh, batch_size, small.EXAMPLES)
            step = programs.eval_step(spec, mesh, batch_size)
        sums = [
            step(state.variables(), gather(data, meshes.device_scalar(i, mesh)), small.constants(mesh))[0]
            for i in range(0, 48, batch_size)
        ]
        names = ("loss", "top1_accuracy", "top5_accuracy", "count")
        totals[batch_size] = [sum(float(s[name]) for s in sums) for name in names]
    assert totals[8][3] == totals[40][3] == totals[64][3] == 48
    assert totals[8][1] == totals[40][1] == totals[64][1]
    np.testing.assert_allclose([totals[40][0], totals[64][0]], totals[8][0], rtol=1e-6)
