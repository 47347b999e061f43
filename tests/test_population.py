"""Populations: members that are trained in one program are the same runs as alone."""

import jax
import numpy as np
import pytest

from jaxcnn import mesh as meshes
from jaxcnn.config import UserError
from jaxcnn.data import resident
from jaxcnn.learn import population, sharded
from jaxcnn.learn.state import make_hyper
from jaxcnn.study import folder as files
from jaxcnn.study import population as populations
from jaxcnn.study import spec, worker
from jaxcnn.train import population as population_run
from jaxcnn.train import population_based, ways
from jaxcnn.train.hooks import Shared
from jaxcnn.train.signals import Interrupted
from tests import runs, small, studies
from tests.test_step import HARD, NETWORKS, TOLERANCE

STEPS = 6
RATES = ((0.1, 0), (0.05, 3), (0.2, 1), (0.02, 0))  # and seeds


def members(name):
    """The configs of four members of a network, and the side of their images."""
    groups = HARD | NETWORKS[name]
    made = []
    for rate, seed in RATES:
        optim = HARD["optim"] | groups["optim"] | {"learning_rate": rate, "weight_decay": rate / 100}
        made.append(small.config(**groups | {"optim": optim, "seed": seed}))
    return made, 8 if "cnn" in name else 32


def together(configs, side, devices=1, steps_per_call=1):
    """Losses [steps, members], and the states, of members trained in one program."""
    program = small.program_of(configs[0], STEPS, side)
    assert all(small.program_of(each, STEPS, side) == program for each in configs)
    alone, mesh = meshes.make_mesh(1), population.make_mesh(devices)
    data = jax.device_put(resident.Resident(*small.split(side=side)), meshes.replicated(mesh))
    inputs = [data, small.normalization(mesh)]
    states = population.stack([sharded.init_state(program, alone)(make_hyper(each)) for each in configs], mesh)
    step = population.compiled_train_step(program, mesh, len(configs), steps_per_call)
    if steps_per_call > 1:
        states, metrics = step(states, *inputs, meshes.device_scalar(STEPS, mesh))
        losses = np.asarray(metrics.sums.loss)[:STEPS] / program.global_batch_size
    else:
        losses = []
        for _ in range(STEPS):
            states, metrics = step(states, *inputs)
            losses.append(np.asarray(metrics.sums.loss) / np.asarray(metrics.sums.count))
    return np.array(losses), population.unstack(states)


@pytest.mark.parametrize(("name", "devices"), [*((name, 1) for name in NETWORKS), ("cnn, whole batch", 4)])
def test_each_member_is_the_same_run_alone(name, devices):
    configs, side = members(name)
    losses, states = together(configs, side, devices)
    assert len(set(losses[-1].round(4))) == len(configs), "members must differ for this to mean much"
    # As of other devices in test_step.py: the same sums in another order.
    atol = TOLERANCE * (10 if "muon" in name else 1)
    for number, config in enumerate(configs):
        alone, state = small.train(config, 1, STEPS, side)
        np.testing.assert_allclose(losses[:, number], alone, rtol=TOLERANCE)
        for one, two in zip(jax.tree.leaves(state), jax.tree.leaves(states[number]), strict=True):
            np.testing.assert_allclose(two, one, rtol=50 * TOLERANCE, atol=atol)


def test_members_are_the_same_however_their_steps_are_cut_into_calls():
    configs, side = members("cnn, whole batch")
    (one, states), (several, others) = together(configs, side), together(configs, side, steps_per_call=STEPS)
    np.testing.assert_array_equal(several, one)
    for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(a, b)


THIN = {"model": {"width": 0.25}}
FOUR = spec.sweep(spec.values("optim.learning_rate", [0.05, 0.2]), seeds=2)


def work(study, way="auto", size=4, said=None, pbt=0.0):
    """Run all trials of a study as populations; outcomes by number of the trial."""
    outcomes = {}
    worker.work(
        study.folder, study.definition, study.storage(), ["test"],
        population=populations.Settings(size, way, pbt),
        say=lambda line: said is None or said.append(line),
        ended=lambda claim, outcome: outcomes.__setitem__(claim.number, outcome),
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


@pytest.mark.parametrize("way", ["vmap", "devices", "in_turn"])
def test_a_population_leaves_what_its_trials_alone_leave(tmp_path, way):
    devices = 2 if way == "devices" else 1
    groups = THIN | {"parallel": {"devices": devices}}
    studies.make(tmp_path / "alone", FOUR, **groups).work()
    study = studies.make(tmp_path / "together", FOUR, **groups)
    said = []
    outcomes = work(study, way, said=said)
    assert [outcomes[number].state for number in range(4)] == ["complete"] * 4
    assert said == [f"population of 4: {ways.WAYS[way]}, as asked for"]
    accuracies = set()
    for number, row in enumerate(study.trials()):
        one, other = (files.trial_folder(tmp_path / name, number) for name in ("alone", "together"))
        exactly = way == "in_turn"
        compare(one, other, exactly)
        if exactly:
            assert runs.seals(one) == runs.seals(other)
        names = [sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) for folder in (one, other)]
        assert names[0] == names[1]
        steps = [sorted(p.name for p in (folder / "checkpoints").iterdir()) for folder in (one, other)]
        assert steps[0] == steps[1]
        assert row["population"] == {"members": 4, "way": way}
        accuracies.add(row["values"]["val_accuracy"])
    assert len(accuracies) > 1, "the trials must differ for this to mean anything"


def test_the_fastest_way_is_chosen_by_a_measurement_that_is_told_and_made_once(tmp_path, monkeypatch):
    seconds = {"vmap": 0.010, "in_turn": 0.025}

    def fake(make, *_):
        timed.append(type(make).__name__)
        return seconds["in_turn" if isinstance(make, ways.InTurn) else "vmap"]

    monkeypatch.setattr(ways, "_seconds_of_step", fake)
    timed, said = [], []
    study = studies.make(tmp_path, FOUR, **THIN, run={"steps": 4})
    work(study, size=2, said=said)
    assert timed == ["Together", "InTurn"]
    assert len(said) == 2, "there are two populations"
    assert said[0] == said[1]
    assert "vmap on one device 10.0 ms, one after the other 25.0 ms; chosen: vmap, 2.50 x as fast as in turn" in said[0]
    assert {row["population"]["way"] for row in study.trials()} == {"vmap"}
    assert said[0] in (files.trial_folder(tmp_path, 3) / "log.txt").read_text()


def test_the_measurement_leaves_the_members_as_they_were(tmp_path):
    for name, way in (("asked", "in_turn"), ("measured", "auto")):
        work(studies.make(tmp_path / name, FOUR, **THIN, run={"steps": 4}), way)
    for number in range(4):
        one, other = (files.trial_folder(tmp_path / name, number) for name in ("asked", "measured"))
        compare(one, other, exactly=False)


def test_a_member_that_diverges_or_is_pruned_ends_alone(tmp_path):
    sweep = spec.sweep(spec.values("optim.learning_rate", [0.05, 1e30, 0.2]))
    study = studies.make(tmp_path / "diverged", sweep, **THIN, optim={"ema_decay": 0.0})
    outcomes = work(study, "vmap", 3)
    assert [outcomes[number].state for number in range(3)] == ["complete", "diverged", "complete"]
    assert "is not finite" in study.trials()[1]["reason"]
    # The pruner wants five complete trials before it judges, so it judges the second population.
    rates = [0.01, 0.012, 0.014, 0.016, 0.018, 1e-6, 0.2]
    study = studies.make(tmp_path / "pruned", spec.sweep(spec.values("optim.learning_rate", rates)), pruner="median", **THIN)
    outcomes = work(study, "vmap", 5)
    assert [outcomes[number].state for number in (0, 1, 2, 3, 4, 6)] == ["complete"] * 6
    assert outcomes[5].state == "pruned"
    assert not (files.trial_folder(tmp_path / "pruned", 5) / "summary.json").exists()


class Stop(population_run.Group):
    """A group to which a signal comes after so many steps."""

    at = 25

    def _train(self, steps):
        for session in self._live.values():
            if session.step < self.at <= session.step + steps:
                super()._train(self.at - session.step)
                self._interrupts.received = "SIGTERM"
                break
        super()._train(steps)


def test_a_population_that_is_stopped_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole = studies.make(tmp_path / "whole", FOUR, **THIN)
    work(whole, "vmap")
    study = studies.make(tmp_path / "pieces", FOUR, **THIN)
    with monkeypatch.context() as patched:
        patched.setattr(population_run, "Group", Stop)
        with pytest.raises(Interrupted, match="stopped with a checkpoint of each of 4 trials"):
            work(study, "vmap")
    assert [row["state"] for row in study.trials()] == ["waiting"] * 4
    assert [files.newest_checkpoint(files.trial_folder(study.folder, number)) for number in range(4)] == [25] * 4
    work(study, "vmap")
    for number, row in enumerate(study.trials()):
        assert (row["state"], row["starts"]) == ("complete", 2)
        one, other = (files.trial_folder(tmp_path / name, number) for name in ("whole", "pieces"))
        assert runs.records(one) == runs.records(other)
        assert runs.seals(one) == runs.seals(other)


@pytest.mark.parametrize(
    ("sampler", "groups", "pbt", "message"),
    [
        ("tpe", {}, 0.0, "--population is for sweeps whose trials are planned; --sampler=tpe draws each"),
        ("", {"data": {"loader": "stream"}}, 0.0, r"needs config\.data\.loader='resident', but digits is streamed"),
        ("", {"data": {"protocol": "full"}}, 1.0, "--pbt_every_epochs goes by validation accuracy"),
        ("", {"run": {"test_with": "best"}}, 1.0, r"--pbt_every_epochs goes with config\.run\.test_with='last' alone"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(sampler, groups, pbt, message, tmp_path):
    sweep = spec.sweep(spec.log_uniform("optim.learning_rate", 0.01, 0.5))
    study = studies.make(tmp_path, sweep, sampler=sampler, trials=3, **groups)
    with pytest.raises(UserError, match=message):
        populations.check(study.plan, Shared(), populations.Settings(3, "auto", pbt))


def test_members_that_do_not_divide_over_devices_go_by_vmap_and_one_device_has_no_others(tmp_path):
    sweep, run = spec.sweep(spec.values("optim.learning_rate", [0.05, 0.1, 0.2])), {"steps": 4}
    said = []
    work(studies.make(tmp_path / "two", sweep, **THIN, run=run, parallel={"devices": 2}), "devices", 3, said)
    assert said == ["population of 3: vmap on one device, as 3 do not divide over 2 devices"]
    with pytest.raises(UserError, match="--population_way=devices: there is one device"):
        work(studies.make(tmp_path / "one", sweep, **THIN, run=run), "devices", 3)
    states = {trial["state"] for trial in studies.make(tmp_path / "one", sweep, **THIN, run=run).trials()}
    assert states == {"waiting"}


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


EVOLVING = spec.sweep(spec.values("optim.learning_rate", [0.2, 0.1, 1e-5]))


def test_a_population_evolves_and_tells_how(tmp_path):
    groups = THIN | {"optim": {"ema_decay": 0.0, "weight_decay": 1e-3}}
    study = studies.make(tmp_path / "once", EVOLVING, **groups)
    work(study, "vmap", 3, pbt=0.5)
    rows = study.trials()
    assert [row["state"] for row in rows] == ["complete"] * 3
    first, *_ = rows[2]["pbt"]
    assert first["step"] == 10, "half an epoch"
    source = rows[first["from"]]["overrides"]["optim.learning_rate"]
    assert first["learning_rate"] in {np.float32(source) * np.float32(f) for f in population_based.FACTORS}
    assert first["weight_decay"] in {np.float32(1e-3) * np.float32(f) for f in population_based.FACTORS}
    records = runs.records(files.trial_folder(study.folder, 2))
    assert [r for r in records if r["kind"] == "pbt"] == rows[2]["pbt"]
    rates = {r["step"]: r["learning_rate"] for r in records if r["kind"] == "train"}
    assert rates[5] == rates[10] == np.float32(1e-5)
    assert rates[15] == first["learning_rate"]
    val = {number: _accuracies(study, number) for number in range(3)}
    assert val[2][10] < val[first["from"]][10]
    assert val[2][20] > val[2][10], "it does better from then on"


def _accuracies(study, number):
    records = runs.records(files.trial_folder(study.folder, number))
    return {r["step"]: r["top1_accuracy"] for r in records if r["kind"] == "val"}


def test_an_evolution_that_is_stopped_and_goes_on_is_the_one_that_was_not(tmp_path, monkeypatch):
    for name in ("whole", "pieces"):
        study = studies.make(tmp_path / name, EVOLVING, **THIN)
        if name == "pieces":
            monkeypatch.setattr(population_run, "Group", Stop)
            with pytest.raises(Interrupted):
                work(study, "in_turn", 3, pbt=0.5)
            monkeypatch.undo()
        work(study, "in_turn", 3, pbt=0.5)
    assert any(row["pbt"] for row in study.trials())
    for number in range(3):
        one, other = (files.trial_folder(tmp_path / name, number) for name in ("whole", "pieces"))
        assert runs.records(one) == runs.records(other)
        assert runs.seals(one) == runs.seals(other)
