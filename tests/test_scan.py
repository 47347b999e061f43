"""Several steps in one call: the same run as step by step, however its steps are cut into calls."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ConfigError
from jaxcnn.data import resident
from jaxcnn.learn import compilation, programs
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import drive, flops, loop
from jaxcnn.train import steps_per_call as lengths_of_calls
from jaxcnn.train.steps_per_call import StepsPerCall, choose_steps_per_call
from tests import digits, runs, small

STEPS = 8
PLAIN = {"augment": {"crop": "reflect", "flip": "random"}}  # "cnn" has the others, which know of no network
NETWORKS = {
    "cnn": (8, {"model": {"name": "cnn"}}),
    "alexnet, dropout": (
        32,
        PLAIN | {"model": {"name": "alexnet", "width": 1 / 32, "dropout": 0.5, "batch_norm": False}},
    ),
    # Winograd's forms with tiles of 4, whose parts are a loop of their own, and of 2.
    "cnn, winograd, muon": (16, PLAIN | {"model": {"name": "cnn", "width": 0.5}, "optim": {"name": "muon"}}),
}


def hard(groups):
    """A config in which all that depends on the step counts: order, augmentation, schedule, moving average."""
    optim = {"label_smoothing": 0.1, "ema_decay": 0.9, "clip_norm": 1.0} | groups.get("optim", {})
    augment = {"crop": "reflect", "flip": "random", "mixup": 0.4, "cutmix": 1.0, "cutout": 3, "brightness": 0.3}
    return small.config(**{"augment": augment} | groups | {"optim": optim})


def setting(config, devices=1, side=8):
    """Program, mesh, a function that makes a new state, and the other two inputs of a resident step."""
    mesh = meshes.make_mesh(devices, config.parallel.model_devices)
    spec = small.spec_of(config, STEPS, side)
    data = jax.device_put(resident.Resident(*small.split(side=side)), meshes.replicated(mesh))

    def new():
        with small.programs_kept():
            return programs.init_state(spec, mesh)(make_hyper(config))

    return spec, mesh, new, (data, small.constants(mesh))


def joined(parts):
    return jax.tree.map(lambda *rows: np.concatenate([np.atleast_1d(row) for row in rows]), *parts)


def plain(spec, mesh, new, inputs):
    """State and metrics of every step, step by step."""
    state, rows = new(), []
    with small.programs_kept():
        step = programs.train_step(spec, mesh, "resident")
    for _ in range(STEPS):
        state, metrics = step(state, *inputs)
        rows.append(jax.device_get(metrics))
    return jax.device_get(state), joined(rows)


def scanned(spec, mesh, new, inputs, calls, most=STEPS):
    """State and metrics of every step, in calls of so many steps."""
    state, rows = new(), []
    with small.programs_kept():
        step = programs.train_step(spec, mesh, "resident", most)
    for count in calls:
        state, metrics = step(state, *inputs, meshes.device_scalar(count, mesh))
        rows.append(jax.tree.map(lambda row, count=count: row[:count], jax.device_get(metrics)))
    return jax.device_get(state), joined(rows)


def identical(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize(("name", "devices"), [(name, 1) for name in NETWORKS] + [("cnn", 4)])
def test_steps_in_one_call_are_the_plain_steps_to_the_bit_however_they_are_grouped(name, devices):
    # True on CPU since its convolutions are matrix products; those of `lax` run by other code inside a loop.
    side, groups = NETWORKS[name]
    parts = setting(hard(groups), devices, side)
    whole = scanned(*parts, [8])
    losses = whole[1].sums["loss"]
    assert len(set(losses.tolist())) == STEPS, "the run must move for the comparison to mean anything"
    assert identical(whole, plain(*parts))
    for calls in ([4, 4], [1, 5, 2], [1] * 8):
        assert identical(scanned(*parts, calls), whole), calls
    if name == "cnn":
        assert identical(scanned(*parts, [5, 3], most=5), whole)


def test_steps_in_one_call_on_a_cut_state_are_the_plain_steps_up_to_rounding_and_themselves_to_the_bit():
    parts = setting(hard({"model": {"name": "cnn"}, "parallel": {"shard_params": True}}), 4)
    whole, loop = scanned(*parts, [8]), plain(*parts)
    for calls in ([4, 4], [1, 5, 2]):
        assert identical(scanned(*parts, calls), whole), calls
    # XLA may sum in another order inside the loop, such as the norm that clips the gradient: that rounds the update of
    # a leaf by some 2^-24 of itself, in each of 8 steps, and what a step rounds may be ten times as much in the next.
    for one, other in zip(jax.tree.leaves(whole[0].params), jax.tree.leaves(loop[0].params), strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


def test_metrics_past_the_steps_made_are_zero_and_the_old_state_is_donated():
    spec, mesh, new, inputs = setting(small.config())
    state = new()
    with small.programs_kept():
        train_steps = programs.train_step(spec, mesh, "resident", STEPS)
    made, metrics = train_steps(state, *inputs, meshes.device_scalar(3, mesh))
    assert int(made.step) == 3
    assert metrics.sums["count"].tolist() == [16, 16, 16, 0, 0, 0, 0, 0]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_a_loop_of_steps_counts_the_operations_of_one():
    spec, mesh, _, _ = setting(small.config())
    one, several = (flops.step_flops(programs.train_step.traced(spec, mesh, "resident", n)) for n in (1, STEPS))
    assert several == pytest.approx(one, rel=1e-3)


def test_the_pace_starts_at_one_step_doubles_and_keeps_to_the_time_of_a_call():
    measured = StepsPerCall(100)
    lengths = []
    for _ in range(9):
        lengths.append(measured.allowed)
        measured.measured(measured.allowed, 0.001 * measured.allowed)
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 100, 100]
    measured.measured(100, 10.0)  # the steps became slow
    assert measured.allowed == 10 * lengths_of_calls.CALL_SECONDS
    measured.measured(1, 60.0)
    assert measured.allowed == 1
    assert StepsPerCall(1).allowed == 1


def test_several_steps_are_chosen_for_the_resident_loader_on_accelerators_alone():
    chosen = {
        (requested, loader, platform): choose_steps_per_call(requested, loader, platform)[0]
        for requested in (0, 1)
        for loader in ("resident", "stream")
        for platform in ("cpu", "gpu", "tpu")
    }
    assert {key for key, steps in chosen.items() if steps > 1} == {(0, "resident", "gpu"), (0, "resident", "tpu")}
    assert choose_steps_per_call(7, "resident", "cpu")[0] == 7


def test_several_steps_of_streamed_batches_are_a_mistake_of_the_config(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.run\.steps_per_call=2 needs the resident loader"):
        small.config(run={"steps_per_call": 2}, data={"loader": "stream"})
    with pytest.raises(ConfigError, match=r"are streamed; set it to 0 or 1, or raise config\.data\.resident_gib"):
        digits.run(tmp_path, run={"steps_per_call": 2}, data={"loader": "auto", "resident_gib": 0.0})
    assert not (tmp_path / "config.json").exists()


THIN = {"model": {"width": 0.25}}


class Varying(digits.Whole):
    """Calls of other lengths all the time."""

    def measured(self, steps, seconds):
        self.allowed = 1 + self.allowed % 5


@pytest.fixture
def lengths(monkeypatch):
    """The lengths of the calls of all runs."""
    return digits.call_lengths(monkeypatch)


def test_a_run_in_calls_is_the_plain_run_with_all_its_promised_steps_at_any_pace(tmp_path, monkeypatch, lengths):
    digits.run(tmp_path / "plain", **THIN, run={"steps_per_call": 1})
    assert lengths == [1] * 40
    for name, kind in {"whole": digits.Whole, "varying": Varying}.items():
        lengths.clear()
        monkeypatch.setattr(drive, "StepsPerCall", kind)
        digits.run(tmp_path / name, **THIN, run={"steps_per_call": 8})
        # Evaluations and checkpoints are due at steps 20, 39 and 40; steps that are logged cut no call.
        assert {20, 39, 40} <= set(itertools.accumulate(lengths))
        if name == "whole":
            assert lengths == [8, 8, 4, 8, 8, 3, 1]
        else:
            assert len(set(lengths)) > 3
    assert runs.records(tmp_path / "whole") == runs.records(tmp_path / "varying")
    assert runs.seals(tmp_path / "whole") == runs.seals(tmp_path / "varying")
    assert runs.records(tmp_path / "whole") == runs.records(tmp_path / "plain")
    assert runs.seals(tmp_path / "whole") == runs.seals(tmp_path / "plain")
    assert {p.name for p in (tmp_path / "whole" / "checkpoints").iterdir()} >= {"20", "40"}


def test_the_step_that_diverged_is_named_wherever_it_lies_in_its_call(tmp_path, monkeypatch):
    groups = {"optim": {"learning_rate": 1e30}, "checkpoint": {"keep_every_steps": 0}}
    messages = []
    for steps_per_call, kind in ((1, StepsPerCall), (8, digits.Whole)):
        monkeypatch.setattr(drive, "StepsPerCall", kind)
        with pytest.raises(drive.Diverged) as caught:
            digits.run(tmp_path / str(steps_per_call), **THIN, **groups, run={"steps_per_call": steps_per_call})
        messages.append(str(caught.value).partition(" is not finite")[0])
    assert messages[0] == messages[1]
    assert 1 < int(messages[0].removeprefix("step ")) < 8


def test_the_time_of_a_call_is_shared_by_its_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "StepsPerCall", digits.Whole)
    summary = digits.run(tmp_path, **THIN, run={"steps_per_call": 8, "log_every_steps": 1})
    rates = [record["images_per_second"] for record in _train_records(tmp_path)]
    assert len(rates) == 40
    # Each call made the steps up to these, so they have the same rate, up to the rounding of sums.
    for first, last in itertools.pairwise((0, 8, 16, 20, 28, 36, 39)):
        np.testing.assert_allclose(rates[first:last], rates[first], rtol=1e-6)
    seconds = _train_records(tmp_path)[-1]["train_seconds"]
    assert seconds == pytest.approx(summary["train_seconds"])
    assert sum(64 / rate for rate in rates) == pytest.approx(seconds)


def _train_records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


SMALL_FIRST = {"small_sides": (4, 6), "small_until": (0.25, 0.75)}
KINDS = {
    "plain": ("resident", 1, {}, "none"),
    "in calls": ("resident", 8, {}, "none"),
    "streamed": ("stream", 1, {}, "none"),
    "growing images": ("resident", 1, SMALL_FIRST, "none"),
    "test-time augmentation": ("resident", 1, {}, "flip"),
}
PROGRAMS = {
    "plain": ["resident_train_step", "eval_batch", "eval_batch"],  # one for each split, as their sizes differ
    "in calls": ["resident_train_steps", "eval_batch", "eval_batch"],
    "streamed": ["train_step"],
    "growing images": [*["resident_train_step"] * 3, "eval_batch", "eval_batch"],  # one step for each size
    "test-time augmentation": ["resident_train_step", "eval_batch", "eval_batch", "tta_views", "tta_sums"],
}


@pytest.fixture(scope="module", params=KINDS)
def watched(request, tmp_path_factory):
    """The kind of a run over two epochs, what it compiled before, in and after its loop, and what moved in the loop."""
    loader, steps_per_call, augment, tta = KINDS[request.param]
    compiled = {"before": [], "in": [], "after": []}
    place = ["before"]
    moved = []
    train_steps = loop._train_steps
    array = type(jnp.zeros(()))
    implicit = {name: getattr(array, name) for name in ("__float__", "__int__", "__bool__", "__index__", "item")}

    def listen(event, _, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled[place[0]].append(fun_name)

    def spy(name):
        def read(self, *args):
            moved.append(name)
            return implicit[name](self, *args)

        return read

    def guarded(session):
        place[0] = "in"
        jax.config.update("jax_transfer_guard", "disallow")  # in every thread; explicit transfers are allowed
        # Reading an array of a CPU moves nothing, so the guard does not see what would move on another device.
        for name in implicit:
            setattr(array, name, spy(name))
        try:
            with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
                jax.jit(lambda x: x)(np.float32(request.param_index))
            assert float(session.state.hyper.learning_rate) > 0
            assert moved == ["__float__"], "the spies see nothing"
            moved.clear()
            compiled["in"].clear()
            train_steps(session)
        finally:
            for name, method in implicit.items():
                setattr(array, name, method)
            jax.config.update("jax_transfer_guard", "allow")
        place[0] = "after"

    compilation.jit(abs, meshes.make_mesh(1))  # tries once in a process what the compiler takes
    jax.monitoring.register_event_duration_secs_listener(listen)
    loop._train_steps = guarded
    try:
        # Programs that no other test has compiled.
        norm = {"epsilon": 1.001e-5 + request.param_index * 1e-8}
        run = {"steps_per_call": steps_per_call, "tta": tta, "eval_batch_size": 72 + request.param_index}
        folder = tmp_path_factory.mktemp("watched")
        config = digits.config(**THIN, norm=norm, run=run, data={"loader": loader}, augment=augment)
        with small.unoptimised():
            loop.train(config, folder, command=digits.COMMAND)
    finally:
        loop._train_steps = train_steps
        jax.monitoring.unregister_event_duration_listener(listen)
    return request.param, compiled, moved


def test_a_run_compiles_each_of_its_programs_once_before_its_first_step(watched):
    kind, compiled, _ = watched
    assert sorted(compiled["before"]) == sorted(f"jit({name})" for name in [*PROGRAMS[kind], "eval_step", "init_state"])
    assert compiled["in"] == compiled["after"] == []


def test_nothing_moves_between_host_and_devices_in_the_loop_but_what_is_sent_for(watched):
    assert watched[2] == []
