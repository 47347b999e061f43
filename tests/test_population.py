"""Populations: members that are trained in one program are the same runs as alone."""

import json

import jax
import numpy as np
import pytest

from jaxcnn.config import UserError
from jaxcnn.data import resident
from jaxcnn.learn import population
from jaxcnn.machine import mesh as meshes
from jaxcnn.study import folder as files
from jaxcnn.study import spec, worker
from jaxcnn.study import together as populations
from jaxcnn.train import population as population_run
from jaxcnn.train import population_based, population_ways
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupted
from tests import runs, small, studies
from tests.test_step import TOLERANCE

pytestmark = pytest.mark.unoptimised

STEPS = 6
RATES = ((0.1, 0), (0.05, 3), (0.2, 1), (0.02, 0))  # and seeds
HARD = {
    "model": {"dropout": 0.5},
    "norm": {"group_size": 4},
    "augment": {"crop": "reflect"},
    "optim": {"label_smoothing": 0.1, "ema_decay": 0.9, "clip_norm": 1.0},
}
MEMBERS = [
    small.config(**HARD | {"optim": HARD["optim"] | {"learning_rate": rate, "weight_decay": rate / 100}, "seed": seed})
    for rate, seed in RATES
]


def together(calls):
    """Losses [steps, members], and the states, of members trained in one program; `calls`: the steps in each call."""
    step_spec = small.spec_of(MEMBERS[0], STEPS)
    assert all(small.spec_of(each, STEPS) == step_spec for each in MEMBERS)
    mesh = population.make_mesh(1)
    data = jax.device_put(resident.Resident(*small.split()), meshes.replicated(mesh))
    states = population.stack([small.initial_state(step_spec, meshes.make_mesh(1), each) for each in MEMBERS], mesh)
    step = population.compiled_train_step(step_spec, mesh, len(MEMBERS), STEPS)
    losses = []
    for count in calls:
        states, metrics = step(states, data, small.constants(mesh), meshes.device_scalar(count, mesh))
        losses += list(np.asarray(metrics.sums["loss"])[:count] / step_spec.global_batch_size)
    return np.array(losses), population.unstack(states)


def test_each_member_is_the_same_run_alone():
    losses, states = together([STEPS])
    assert len(set(losses[-1].round(4))) == len(MEMBERS), "members must differ for this to mean much"
    for number, config in enumerate(MEMBERS):
        alone, state = small.train(config, 1, STEPS)
        # As of other devices in test_step.py: the same sums in another order.
        np.testing.assert_allclose(losses[:, number], alone, rtol=TOLERANCE)
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(states[number]), strict=True):
            np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=TOLERANCE)


def test_members_are_the_same_however_their_steps_are_cut_into_calls():
    one, states = together([STEPS])
    for calls in ([1] * STEPS, [1, 3, 2]):
        losses, others = together(calls)
        np.testing.assert_array_equal(losses, one)
        for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(others), strict=True):
            np.testing.assert_array_equal(a, b)


THIN = {  # two devices, so that members can be spread
    "model": {"width": 0.25},
    "parallel": {"devices": 2},
    "run": {"steps": 12, "eval_every_epochs": 0.5},
}
FOUR = spec.sweep(spec.values("optim.learning_rate", [0.05, 0.2]), seeds=2)


def work(study, way="auto", size=4, said=None, pbt=0.0, shared=None):
    """Run all trials of a study as populations; outcomes by number of the trial."""
    outcomes = {}
    with small.programs_kept():
        worker.work(
            study.folder, study.definition, study.storage(), ["test"],
            population=populations.Settings(size, way, pbt), shared=shared,
            say=lambda line: said is None or said.append(line),
            ended=lambda lease, outcome: outcomes.__setitem__(lease.number, outcome),
        )  # fmt: skip
    return outcomes


def compare(one, other, exactly):
    """Hold the records of two folders of a run against each other."""
    records = [runs.records(folder) for folder in (one, other)]
    assert [(r["kind"], r["step"]) for r in records[0]] == [(r["kind"], r["step"]) for r in records[1]]
    for a, b in zip(*records, strict=True):
        for name, value in a.items():
            if exactly or isinstance(value, str):
                assert b[name] == value, (name, a["step"])
            else:  # an accuracy may move by an example or two of 200, where logits are nearly equal
                np.testing.assert_allclose(b[name], value, rtol=100 * TOLERANCE, atol=0.011, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The sweep `FOUR`, one trial after the other."""
    study = studies.make(tmp_path_factory.mktemp("alone"), FOUR, **THIN)
    study.work()
    return study


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """The same as a population in one program."""
    study = studies.make(tmp_path_factory.mktemp("stacked"), FOUR, **THIN)
    work(study, "vmap")
    return study


def trial_folders(*list_of_studies):
    """The folders of the same trial in several studies, trial by trial."""
    return [[files.trial_folder(study.folder, number) for study in list_of_studies] for number in range(4)]


def test_a_population_leaves_what_its_trials_alone_leave(alone, stacked):
    accuracies = set()
    for row, (one, other) in zip(stacked.trials(), trial_folders(alone, stacked), strict=True):
        assert row["state"] == "complete"
        assert row["population"] == {"members": 4, "way": "vmap"}
        compare(one, other, exactly=False)
        names = [sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) for folder in (one, other)]
        assert names[0] == names[1]
        steps = [sorted(p.name for p in (folder / "checkpoints").iterdir()) for folder in (one, other)]
        assert steps[0] == steps[1]
        accuracies.add(row["values"]["val_accuracy"])
    assert len(accuracies) > 1, "the trials must differ for this to mean anything"


def test_members_in_turn_are_their_trials_alone_to_the_bit_and_members_on_devices_up_to_rounding(alone, tmp_path):
    for way in ("in_turn", "devices"):
        said = []
        study = studies.make(tmp_path / way, FOUR, **THIN)
        assert {outcome.state for outcome in work(study, way, said=said).values()} == {"complete"}
        assert said == [f"population of 4: {population_ways.WAYS[way]}, as requested"]
        for one, other in trial_folders(alone, study):
            compare(one, other, exactly=way == "in_turn")
            assert way != "in_turn" or runs.seals(one) == runs.seals(other)


def in_turn(sessions, _):
    """Stands for members stacked, where only the choice matters: nothing has to compile."""
    return population_ways.SequentialStepper(sessions)


def test_the_fastest_way_is_chosen_by_a_measurement_that_is_told_and_made_once(tmp_path, monkeypatch):
    seconds = [0.025, 0.010, 0.020]
    monkeypatch.setattr(population_ways, "StackedStepper", in_turn)
    monkeypatch.setattr(population_ways, "_seconds_of_step", lambda *_: seconds.pop(0))
    said, shared = [], Shared()
    study = studies.make(tmp_path, FOUR, **THIN)
    shared.compile_seconds[study.plan.groups[0].spec] = 0.2
    work(study, size=2, said=said, shared=shared)
    assert said == 2 * [
        "population of 2 x cnn, measured, one step of all: one after the other 25.0 ms, vmap on one device 10.0 ms, "
        "spread over devices 20.0 ms; chosen: vmap, 2.50 x as fast as in turn"
    ]
    assert {row["population"]["way"] for row in study.trials()} == {"vmap"}
    assert said[0] in (files.trial_folder(tmp_path, 3) / "log.txt").read_text()


def test_the_measurement_leaves_the_members_as_they_were(alone, tmp_path):
    said, shared = [], Shared()
    study = studies.make(tmp_path, FOUR, **THIN)
    shared.compile_seconds[study.plan.groups[0].spec] = 0.0
    work(study, said=said, shared=shared)
    assert "one after the other" in said[0]
    assert "vmap on one device" in said[0]
    for one, other in trial_folders(alone, study):
        compare(one, other, exactly=False)


def test_no_program_is_compiled_for_fewer_steps_than_it_could_earn_its_compilation_with(tmp_path, monkeypatch):
    monkeypatch.setattr(population_ways, "_seconds_of_step", lambda *_: 0.025)
    monkeypatch.setattr(population_ways, "StackedStepper", None)  # which would be an error if it were called
    said, shared = [], Shared()
    study = studies.make(tmp_path, FOUR, **THIN)
    shared.compile_seconds[study.plan.groups[0].spec] = 0.4
    work(study, said=said, shared=shared)
    assert said == [
        "population of 4 x cnn, measured: 12 steps of all one after the other take 0.3 s, less than the 0.4 s that the "
        "programs of a run took to compile; chosen: in_turn"
    ]


def test_a_member_that_diverges_or_is_pruned_ends_alone(tmp_path):
    # The pruner wants five complete trials before it judges: those are told to the store, and it judges the population.
    rates = [0.01, 0.012, 0.014, 0.016, 0.018, 0.05, 1e30, 1e-6, 0.2]
    sweep = spec.sweep(spec.values("optim.learning_rate", rates))
    study = studies.make(tmp_path, sweep, pruner="median", **THIN | {"run": {"steps": 40}})
    assert studies.tell(study, 5, [0.2, 0.3, 0.3]) == ["complete"] * 5
    outcomes = work(study, "vmap")
    assert [outcomes[number].state for number in (5, 6, 7, 8)] == ["complete", "diverged", "pruned", "complete"]
    assert "is not finite" in json.loads((files.trial_folder(tmp_path, 6) / files.TRIAL).read_text())["reason"]
    assert not (files.trial_folder(tmp_path, 7) / "summary.json").exists()


class Stop(population_run.Group):
    """A group to which a signal comes after so many steps."""

    at = 8

    def _train(self, steps):
        for session in self._live.values():
            if session.step < self.at <= session.step + steps:
                super()._train(self.at - session.step)
                self._interrupts.received = "SIGTERM"
                break
        super()._train(steps)


def test_a_population_that_is_stopped_goes_on_where_it_stopped(stacked, tmp_path, monkeypatch):
    study = studies.make(tmp_path, FOUR, **THIN)
    with monkeypatch.context() as patched:
        patched.setattr(population_run, "Group", Stop)
        with pytest.raises(Interrupted, match="stopped with a checkpoint of each of 4 trials"):
            work(study, "vmap")
    assert [row["state"] for row in study.trials()] == ["waiting"] * 4
    assert [files.newest_checkpoint(files.trial_folder(study.folder, number)) for number in range(4)] == [8] * 4
    with monkeypatch.context() as patched:  # by the way of before, as another would round otherwise
        patched.setattr(population_ways, "_measure", lambda *_: pytest.fail("measured anew"))
        work(study, "auto")
    for row, (one, other) in zip(study.trials(), trial_folders(stacked, study), strict=True):
        assert (row["state"], row["starts"]) == ("complete", 2)
        assert runs.kept(one) == runs.kept(other)


PBT = {"pbt_every_epochs": 1.0}


@pytest.mark.parametrize(
    ("sampler", "groups", "settings", "message"),
    [
        ("tpe", {}, {}, "--population is for sweeps whose trials are planned; --sampler=tpe draws each"),
        ("", {"data": {"loader": "stream"}}, {}, r"needs config\.data\.loader='resident', but digits is streamed"),
        ("", {}, {"way": "devices"}, "--population_way=devices: there is only one device"),
        ("", {"data": {"protocol": "full"}}, PBT, "--pbt_every_epochs needs figures on validation"),
        ("", {"run": {"test_with": "best"}}, PBT, r"--pbt_every_epochs needs config\.run\.test_with='last'"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(sampler, groups, settings, message, tmp_path):
    sweep = spec.sweep(spec.log_uniform("optim.learning_rate", 0.01, 0.5))
    study = studies.make(tmp_path, sweep, sampler=sampler, trials=3, **groups)
    with pytest.raises(UserError, match=message):
        populations.check(study.plan, Shared(), populations.Settings(3, **settings))


def test_members_that_do_not_divide_over_devices_go_by_vmap(tmp_path, monkeypatch):
    monkeypatch.setattr(population_ways, "StackedStepper", in_turn)
    sweep, said = spec.sweep(spec.values("optim.learning_rate", [0.05, 0.1, 0.2])), []
    work(studies.make(tmp_path, sweep, **THIN), "devices", 3, said)
    assert said == ["population of 3: vmap on one device, because 3 trials cannot be divided equally over 2 devices"]


def test_the_worst_fifth_goes_on_from_one_of_the_best_fifth():
    evolution = population_based.Evolution(1.0, 7, {number: 10 + number for number in range(10)})
    accuracies = {number: 0.5 + number / 100 for number in range(10)}
    found = population_based.exchanges(evolution, 40, accuracies)
    assert [each.member for each in found] == [0, 1]
    assert {each.source for each in found} <= {8, 9}
    assert {f for each in found for f in (each.learning_rate_factor, each.weight_decay_factor)} <= {0.8, 1.2}
    assert found == population_based.exchanges(evolution, 40, dict(reversed(accuracies.items())))
    drawn = {
        (each.source, each.learning_rate_factor, each.weight_decay_factor)
        for step in range(40)
        for each in population_based.exchanges(evolution, step, accuracies)
    }
    assert len(drawn) == 8, "all pairs of factors and both sources come up"
    assert population_based.exchanges(evolution, 40, {0: 0.5}) == []
    assert population_based.exchanges(evolution, 40, dict.fromkeys(range(5), 0.5)) == [], "none is better"
    (found,) = population_based.exchanges(evolution, 40, {0: 0.5, 1: 0.6, 2: float("nan"), 3: 0.7})
    assert (found.member, found.source) == (2, 3), "a figure that is not finite is the worst"


EVOLVING = THIN | {"optim": {"weight_decay": 1e-3}, "run": {"steps": 30}}


class StopEvolution(Stop):
    """Stops between the exchanges at steps 10 and 20."""

    at = 15


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A population that exchanges its states after each half epoch."""
    sweep = spec.sweep(spec.values("optim.learning_rate", [0.2, 0.15, 0.1, 1e-5]))
    study = studies.make(tmp_path_factory.mktemp("evolved"), sweep, **EVOLVING)
    work(study, "vmap", pbt=0.5)
    return study, sweep


def test_a_population_evolves_and_tells_how(evolved):
    study, _ = evolved
    rows = study.trials()
    assert [row["state"] for row in rows] == ["complete"] * 4
    first, *_ = rows[3]["pbt"]
    assert first["step"] == 10, "half an epoch"
    source = rows[first["from"]]["overrides"]["optim.learning_rate"]
    assert first["learning_rate"] in {np.float32(source) * np.float32(f) for f in population_based.FACTORS}
    assert first["weight_decay"] in {np.float32(1e-3) * np.float32(f) for f in population_based.FACTORS}
    records = runs.records(files.trial_folder(study.folder, 3))
    assert [r for r in records if r["kind"] == "pbt"] == rows[3]["pbt"]
    rates = {r["step"]: r["learning_rate"] for r in records if r["kind"] == "train"}
    assert rates[5] == rates[10] == np.float32(1e-5)
    assert rates[15] == first["learning_rate"]
    val = {number: _accuracies(study, number) for number in range(4)}
    assert val[3][10] < val[first["from"]][10]
    assert val[3][20] > val[3][10], "it does better from then on"


def _accuracies(study, number):
    records = runs.records(files.trial_folder(study.folder, number))
    return {r["step"]: r["top1_accuracy"] for r in records if r["kind"] == "val"}


def test_an_evolution_that_is_stopped_and_goes_on_is_the_one_that_was_not(evolved, tmp_path, monkeypatch):
    whole, sweep = evolved
    study = studies.make(tmp_path, sweep, **EVOLVING)
    with monkeypatch.context() as patched:
        patched.setattr(population_run, "Group", StopEvolution)
        with pytest.raises(Interrupted):
            work(study, "vmap", pbt=0.5)
    work(study, "vmap", pbt=0.5)
    assert any(row["pbt"] for row in study.trials())
    for one, other in trial_folders(whole, study):
        assert runs.kept(one) == runs.kept(other)
