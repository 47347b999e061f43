"""Sweeps of real trials, in this process: what they compile, share, decide on and leave."""

import contextlib
import importlib.util
import itertools
import json
import re
import sqlite3
import uuid
from unittest import mock

import jax
import numpy as np
import optuna
import pytest

from jaxcnn.config import UserError, from_config_dict
from jaxcnn.data import resident
from jaxcnn.learn import compilation
from jaxcnn.study import folder as files
from jaxcnn.study import objectives, outcome, spec, start, store, table, trial, trial_queue
from jaxcnn.study import plan as plans
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train import hooks
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupted
from tests import digits, runs, studies

pytestmark = pytest.mark.unoptimised

ACCURACY = Accuracy.headline

THIN = {"model": {"width": 0.25}}
EIGHT = spec.sweep(
    spec.product(
        spec.values("optim.learning_rate", [0.05, 0.2]),
        spec.values("optim.weight_decay", [0.0, 5e-4]),
    ),
    seeds=2,
)


@pytest.fixture
def compiled():
    """Names of all programs that are compiled, but for the one by which XLA's options are tried once."""
    compilation._compiler_options("cpu")
    names = []

    def listen(event, _, fun_name="", **__):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name.removeprefix("jit(").removesuffix(")"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_eight_trials_of_other_rates_decays_and_seeds_compile_once_and_read_their_data_once(
    tmp_path, compiled, monkeypatch
):
    opened, loaded, summed = [], [], []
    for module, name, seen in ((hooks, "open_splits", opened), (resident, "load", loaded)):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, seen=seen: seen.append(a) or real(*a))
    real_statistics = hooks.image_statistics
    monkeypatch.setattr(hooks, "image_statistics", lambda split: summed.append(split.name) or real_statistics(split))
    # Programs that no other test makes or keeps; the initial state is drawn by a program that others may have left.
    monkeypatch.setattr(studies.small, "programs_kept", contextlib.nullcontext)
    study = studies.make(tmp_path, EIGHT, **THIN, norm={"epsilon": 1.25e-5}, run={"eval_batch_size": 77, "steps": 8})
    opened.clear()
    assert [outcome.state for outcome in study.work()] == ["complete"] * 8
    # One for each split, as their sizes differ.
    programs = ["eval_batch", "eval_batch", "eval_step", "resident_train_step"]
    assert sorted(name for name in compiled if name != "init_state") == programs
    assert compiled.count("init_state") <= 1
    assert len(opened) == 1
    assert sorted(split.name for split, _ in loaded) == ["test", "train", "val"]
    assert summed == ["train"]
    accuracies = {trial["values"]["val_accuracy"] for trial in study.trials()}
    assert len(accuracies) > 1, "the trials must differ for this to mean anything"


def test_a_trial_is_the_same_run_alone_to_the_bit(tmp_path):
    sweep = spec.sweep(spec.values("optim.learning_rate", [0.05, 0.2]), seeds=[3])
    study = studies.make(tmp_path / "sweep", sweep, **THIN)
    study.work()
    alone = {"learning_rate": 0.2, "ema_decay": 0.8}
    base = digits.config(**THIN, optim=alone, seed=3)
    digits.train(base, tmp_path / "alone", command=["test"])
    there = files.trial_folder(tmp_path / "sweep", 1)
    assert runs.kept(there) == runs.kept(tmp_path / "alone")


def networks(small):
    """The paper's product of 60 trials, on images of memory."""
    base = {"data": {"source": "synthetic:32x32x3:10:1024", "val_examples": 256}, "model": {"width": 1 / 16}}
    names = spec.values("model.name", ["alexnet", "vgg16", "resnet50"])
    sizes = spec.values("global_batch_size", [32, 64, 128, 256, 512])
    rates = spec.values("optim.learning_rate", [0.1, 0.01, 0.001, 0.0001])
    return from_config_dict(base), spec.sweep(spec.product(names, rates, sizes))


def test_sixty_trials_of_fifteen_programs_are_planned_as_such_and_ordered_by_program():
    base, sweep = networks(small=True)
    plan = plans.make(sweep, base, "", 0, Shared())
    assert (plan.trials, len(plan.groups)) == (60, 15)
    assert [group.trials for group in plan.groups] == [4] * 15
    order = [trial["program"] for trial in plan.planned]
    assert sum(one != other for one, other in itertools.pairwise(order)) == 14
    assert {plans.title(group, plan.groups) for group in plan.groups} == {
        f"global_batch_size={size} model.name={name}"
        for size in (32, 64, 128, 256, 512)
        for name in ("alexnet", "vgg16", "resnet50")
    }


def test_trials_that_diverge_or_fail_are_rows_and_retried_in_their_folders(tmp_path, monkeypatch):
    sweep = spec.sweep(spec.values("optim.learning_rate", [1e30, 0.1, 0.2]))
    study = studies.make(tmp_path, sweep, **THIN, optim={"ema_decay": 0.0})
    broken, train = [True], trial.train

    def sometimes(config, *arguments, **options):
        if broken[0] and config.optim.learning_rate == 0.2:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return train(config, *arguments, **options)

    monkeypatch.setattr(trial, "train", sometimes)
    assert [outcome.state for outcome in study.work()] == ["diverged", "complete", "failed"]
    rows = study.trials()
    assert "is not finite" in rows[0]["reason"]
    assert rows[2]["reason"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory; see log.txt"
    assert "Traceback" in (files.trial_folder(tmp_path, 2) / "log.txt").read_text()
    assert [row["state"] for row in rows] == ["diverged", "complete", "failed"]
    broken[0] = False
    assert study.work() == [], "nothing runs again by itself"
    assert study.queue().retry({"failed", "diverged"}) == 2
    assert [row["state"] for row in study.trials()] == ["waiting", "complete", "waiting"]
    assert [outcome.state for outcome in study.work()] == ["diverged", "complete"]
    assert [(row["number"], row["state"], row["starts"]) for row in study.trials()] == [
        (0, "diverged", 2),
        (1, "complete", 1),
        (2, "complete", 2),
    ]


def test_a_trial_that_is_killed_between_its_file_and_the_store_is_taken_up_and_ends_at_once(tmp_path, monkeypatch):
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1])), **THIN)
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            study.work()
    (row,) = study.trials()
    assert row["state"] == "complete", "nobody who watches the folders waits for ever"
    before = runs.records(files.trial_folder(tmp_path, 0))
    assert [outcome.state for outcome in study.work()] == ["complete"]
    assert runs.records(files.trial_folder(tmp_path, 0)) == before, "it was not trained again"
    (again,) = study.trials()
    assert again["values"] == row["values"]
    assert [trial.value for trial in study.queue().study.trials] == [row["values"]["val_accuracy"]]


def away(*_, **__):
    raise optuna.exceptions.StorageInternalError("the server is restarted")


def test_a_store_that_is_away_for_a_while_ends_no_worker_and_loses_no_trial(tmp_path, monkeypatch):
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1])), **THIN)
    sign, asked = trial_queue.TrialQueue._sign, []

    def sometimes(*arguments):
        asked.append(arguments)
        return away() if len(asked) == 1 else sign(*arguments)

    monkeypatch.setattr(trial_queue.TrialQueue, "_sign", sometimes)
    monkeypatch.setattr(store.time, "sleep", lambda _: None)
    assert [outcome.state for outcome in study.work()] == ["complete"]
    assert len(asked) == 2
    assert study.trials()[0]["starts"] == 1


def test_a_signal_ends_a_trial_as_it_should_while_the_store_is_away(tmp_path, monkeypatch):
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1])), **THIN)
    mine = study.queue()
    lease = mine.take()
    monkeypatch.setattr(mine, "let_go", away)
    with pytest.raises(Interrupted), trial.Attempt(mine, lease, Shared()):
        raise Interrupted("SIGTERM: stopped with a checkpoint")
    assert [(row["state"], row["reason"]) for row in study.trials()] == [("waiting", "SIGTERM")]
    assert study.queue().take().number == lease.number, "its lock is free"


def test_two_commands_that_begin_one_sweep_at_once_have_one_study(tmp_path):
    sweep = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2]))
    base = digits.config(**THIN)
    plan = plans.make(sweep, base, "", 0, Shared())
    storage = store.open_storage(start.default_url(tmp_path), 60)
    # Both looked into the folder before either wrote there.
    both = [start.define("test", sweep, base, plan, start.DATABASE, "none", 60) for _ in range(2)]
    made = [
        start.begin(tmp_path, each, storage, plan, sweep, [f"command {n}"], config_file="test.py", environment={})
        for n, each in enumerate(both)
    ]
    assert made[0][0].study == made[1][0].study == files.read_definition(tmp_path).study
    assert len(made[1][1].study.trials) == 2
    kept = files.read_sweep(tmp_path)
    assert (kept["command"], kept["commands"]) == (["command 0"], [["command 0"], ["command 1"]])


@pytest.mark.parametrize("arguments", [["--storage={}"], ["--storage", "{}"], ["-storage", "{}"], ["-storage={}"]])
def test_no_record_of_a_command_has_the_storage_with_its_password(arguments):
    given = [part.format("postgresql://me:secret@host/database") for part in arguments]
    assert start.without_storage(["--a=1", *given, "--b", "storage"]) == ["--a=1", "--b", "storage"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/database?user=me&password=secret",
        "postgresql://me:secret@host/database?sslpassword=secret&sslmode=require",
        "mysql://host/database?user=me&passwd=secret",
        "mysql://host/database?PWD=secret&token=secret&api_key=secret&of_another_driver=secret",
    ],
)
def test_a_storage_is_shown_without_options_that_may_be_secret(url):
    shown = store.public_url(url)
    assert "secret" not in shown
    assert ("sslmode=require" in shown) == ("sslmode" in url)


def test_decisions_see_validation_accuracy_and_never_the_test_split(tmp_path):
    config = digits.config()
    summary = {"train_seconds": 2.0, "val_last": 0.7, "val_best": {"accuracy": 0.8, "step": 20}}
    values = objectives.values(summary, config, tmp_path, Shared())
    assert values == {"train_seconds": 2.0, "val_accuracy": 0.7}
    for test in (None, {"top1_accuracy": 0.99}):
        assert objectives.values(summary | {"test": test}, config, tmp_path, Shared()) == values
    study = studies.make(tmp_path, spec.sweep(spec.values("optim.learning_rate", [0.1])), **THIN)
    study.work()
    kinds = [record["kind"] for record in runs.records(files.trial_folder(tmp_path, 0))]
    assert kinds.count("test") == 1
    assert kinds[-1] == "test", "it is read after the last decision"
    (in_store,) = study.queue().study.trials
    assert "test" not in json.dumps([in_store.user_attrs, in_store.values, in_store.intermediate_values])


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_ends_hopeless_trials_early_without_a_look_at_the_test_split(pruner, tmp_path, monkeypatch):
    monkeypatch.setattr(start.uuid, "uuid4", lambda: uuid.UUID(int=0))  # hyperband's brackets go by the study's name
    rates = [0.1, 0.12, 0.14, 0.16, 0.18, 1e-6]
    study = studies.make(
        tmp_path, spec.sweep(spec.values("optim.learning_rate", rates)), pruner=pruner, **THIN,
        run={"eval_every_epochs": 0.25},
    )  # fmt: skip
    # The first five are told to the store, with figures as a run has them; the last is a run.
    states = studies.tell(study, 5, [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9])
    states += [outcome.state for outcome in study.work()]
    assert len(states) == 6 and states[0] == "complete"
    assert states[-1] == "pruned"
    if pruner == "median":
        assert states == ["complete"] * 5 + ["pruned"]
    row = study.trials()[-1]
    assert row["state"] == "pruned"
    assert row["reason"].startswith(f"by {pruner} at step ")
    folder = files.trial_folder(tmp_path, 5)
    assert {record["kind"] for record in runs.records(folder)} <= {"train", "val"}
    assert not (folder / "summary.json").exists()


SPACE = spec.product(
    spec.log_uniform("optim.learning_rate", 0.01, 0.5),
    spec.uniform("optim.momentum", 0.0, 0.95),
    spec.values("optim.nesterov", [True, False]),
)


NO_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the extra [gp] is not installed")


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes", "nsga2", "nsga3", pytest.param("gp", marks=NO_TORCH)])
def test_a_search_that_stops_and_goes_on_draws_what_one_that_did_not_draws(sampler, tmp_path, monkeypatch):
    def quick(queue, lease, *_):
        """An outcome that depends on the trial, without a run."""
        rate, momentum = lease.overrides["optim.learning_rate"], lease.overrides["optim.momentum"]
        values = {"val_accuracy": 1 / (1 + (rate - 0.1) ** 2), "train_seconds": 1 + momentum}
        queue.finish(lease, "complete", values, None)
        lease.lock.release()
        return trial.Outcome("complete", None, values)

    monkeypatch.setattr(trial, "run", quick)
    drawn = []
    for name, pieces in (("whole", [16]), ("pieces", [5, 16])):
        for trials in pieces:
            study = studies.make(tmp_path / name, spec.sweep(SPACE), sampler=sampler, trials=trials, **THIN)
            study.work()
        drawn.append([each.user_attrs["overrides"] for each in study.queue().study.trials])
    assert len(drawn[0]) == 16
    if sampler == "random":  # these are planned, and each plan is ordered by program
        drawn = [sorted(each, key=spec.identity) for each in drawn]
    assert drawn[0] == drawn[1]
    distinct = len({json.dumps(overrides) for overrides in drawn[0]})
    assert distinct > 10 if sampler.startswith("nsga") else distinct == 16  # a child may equal a parent
    assert (study.plan.planned is None) == (sampler != "random")
    if sampler in ("nsga2", "nsga3"):
        assert study.definition.directions == {"val_accuracy": "maximize", "train_seconds": "minimize"}
        check_evolution(study)


def check_evolution(study):
    """There were generations, whose trials have fields of their parents; and the front is told."""
    trials = study.queue().study.trials
    generations = [next(v for k, v in each.system_attrs.items() if k.endswith(":generation")) for each in trials]
    assert generations == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert study.definition.generation == 4
    inherited = [
        each.params["optim.learning_rate"] in {before.params["optim.learning_rate"] for before in trials[: each.number]}
        for each in trials
    ]
    assert not any(inherited[:4])
    assert sum(inherited[4:]) > 6, "a random search would draw none twice"
    board = table.Board(study.folder, 16, None, ACCURACY)
    with mock.patch.object(outcome, "ranking", lambda board: ["  ranking"]):  # the trials of this test leave no folders
        lines = outcome.summarize(study.folder, study.definition, board, study.queue().study)
    told = [line for line in lines if line.startswith("    trial ")]
    assert "  Pareto front of validation accuracy and training time:" in lines
    assert lines.index("  ranking") > lines.index("  Pareto front of validation accuracy and training time:")
    assert len(told) == sum("as" not in each.user_attrs for each in study.queue().study.best_trials) > 0
    assert all(re.fullmatch(r"    trial \d+: optim.* val accuracy [\d.]+% in [\d.]+ s", line) for line in told)


def test_a_search_of_lists_that_go_together_draws_whole_rows(tmp_path):
    rows = [{"model.name": "cnn", "model.dropout": 0.1}, {"model.name": "vgg16", "model.dropout": 0.2}]
    space = spec.product(spec.rows(rows), spec.integers("global_batch_size", 16, 64, log=True))
    kinds = store.distributions(space)
    assert set(kinds) == {"model.name+model.dropout", "global_batch_size"}
    for choice in kinds["model.name+model.dropout"].choices:
        params = {"model.name+model.dropout": choice, "global_batch_size": 32}
        overrides = store.overrides(space, params)
        assert {key: value for key, value in overrides.items() if key.startswith("model")} in rows


SEARCH = spec.sweep(spec.log_uniform("optim.learning_rate", 0.01, 0.5))


@pytest.mark.parametrize(
    ("sweep", "options", "message"),
    [
        (SEARCH, {"sampler": "tpe"}, "--sampler=tpe needs --trials"),
        (SEARCH, {"sampler": "grid"}, "is a random range, which has no list"),
        (EIGHT, {"trials": 3}, "--trials is for random sweeps and searches"),
        (EIGHT, {"sampler": "tpe", "trials": 3}, "gives each trial one seed, but the sweep has 2"),
        (SEARCH, {"sampler": "nsga2", "trials": 3, "pruner": "median"}, "two objectives cannot be pruned"),
        (SEARCH, {"sampler": "tpe", "trials": 3, "data": {"protocol": "full"}}, "decides by figures on validation"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(sweep, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        studies.make(tmp_path, sweep, **options)
    assert not (tmp_path / "sweep.json").exists()


def test_gp_without_torch_is_one_line(monkeypatch):
    monkeypatch.setattr(store.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--sampler=gp needs torch, which is not installed") as caught:
        store.check_sampler("gp")
    assert str(caught.value).endswith("pip install 'jaxcnn[gp]'")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not a URL"),
        ("postgresql/me:secret@host/none", "is not a URL"),
        (
            "postgresql://nobody:secret@localhost:1/none",
            r"postgresql\+psycopg://nobody:\*\*\*@localhost:1/none cannot be",
        ),
        ("mysql://nobody:secret@localhost:1/none", "needs the driver 'pymysql', which is not|cannot be used"),
        ("journal:/nowhere/study.journal", "there is no folder /nowhere"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_its_password(url, message):
    with pytest.raises(UserError, match=message) as caught:
        store.open_storage(url, 60)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("line", ["{}", "[1]", '{"op_code": 0}', "no JSON\n{}"])
def test_a_damaged_journal_is_one_line(line, tmp_path):
    (tmp_path / "journal").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"is damaged.*restore it from a backup") as caught:
        store.open_storage(f"journal:{tmp_path / 'journal'}", 60)
    assert "\n" not in str(caught.value)


def test_tables_of_another_optuna_are_told_in_one_line(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    store.open_storage(url, 60)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("update alembic_version set version_num = 'v9.9.9'")
        database.execute("update version_info set schema_version = 99")
    with pytest.raises(UserError, match="cannot be used") as caught:
        store.open_storage(url, 60)
    assert "\n" not in str(caught.value)


def test_a_worker_with_another_storage_than_its_sweep_is_told_so(tmp_path):
    study = studies.make(tmp_path, SEARCH, trials=2)
    assert study.definition.storage == "study.db"
    start.check_storage(tmp_path, study.definition, start.default_url(tmp_path))
    with pytest.raises(UserError, match=r"is in its study\.db; leave out --storage"):
        start.check_storage(tmp_path, study.definition, "postgresql://host/database")
    elsewhere = studies.make(tmp_path / "other", SEARCH, trials=2, url=f"journal:{tmp_path / 'journal'}")
    with pytest.raises(UserError, match=r"is in journal:.*; set --storage to that"):
        start.check_storage(tmp_path / "other", elsewhere.definition, start.default_url(tmp_path / "other"))


def test_a_sweep_may_grow_but_not_become_another(tmp_path):
    small = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2]))
    first = studies.make(tmp_path, small, **THIN)
    large = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2, 0.4]))
    grown = studies.make(tmp_path, large, **THIN)
    assert grown.definition.study == first.definition.study
    assert len(grown.queue().study.trials) == 3
    with pytest.raises(UserError, match="has 1 trial no longer planned"):
        studies.make(tmp_path, small, **THIN)
    with pytest.raises(UserError, match="holds another sweep") as caught:
        studies.make(tmp_path, large, **THIN, run={"steps": 50})
    assert "config.run.steps: 40 in the folder, 50 now" in str(caught.value)


def test_a_sweep_keeps_the_place_of_its_data_and_goes_on_with_one_that_an_older_version_kept_as_typed(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    small = spec.sweep(spec.values("optim.learning_rate", [0.1, 0.2]))
    data = {"source": "npz:a.npz", "val_examples": 6}
    images = np.zeros((80, 8, 8, 1), np.uint8)
    labels = np.arange(80) % 2
    np.savez("a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    first = studies.make(tmp_path / "sweep", small, **THIN, data=data)
    assert first.definition.base.data.source == f"npz:{tmp_path}/a.npz"
    path = tmp_path / "sweep" / "sweep.json"
    path.write_text(path.read_text().replace(f"npz:{tmp_path}/a.npz", "npz:a.npz"))
    start.go_on(tmp_path / "sweep", first.definition)
    path.write_text(path.read_text().replace("npz:a.npz", "npz:b.npz"))
    with pytest.raises(UserError, match=r"config\.data\.source: npz:.*/b\.npz in the folder"):
        start.go_on(tmp_path / "sweep", first.definition)


def test_a_config_file_without_a_sweep_or_with_a_broken_one_is_one_line(tmp_path, root):
    with pytest.raises(UserError, match=r"has no get_sweep\(variant\)"):
        start.load_sweep(str(root / "configs" / "quickstart.py"), "")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_sweep():\n    return 1 / 0\n")
    with pytest.raises(UserError, match="line 2: ZeroDivisionError: division by zero"):
        start.load_sweep(str(broken), "")
    with pytest.raises(UserError, match=r"--config\.optim\.learning_rate has no effect"):
        start.refuse_overridden(EIGHT, ["--config.optim.learning_rate=0.1"])
    with pytest.raises(UserError, match=r"--config\.seed has no effect"):
        start.refuse_overridden(EIGHT, ["--config.seed=1"])


@pytest.mark.parametrize(
    ("file", "variant", "trials"),
    [
        ("paper_cifar10", "", 72),
        ("paper_cifar100", "", 72),
        ("paper_cifar10", "cores", 72),
        ("preprocessing", "", 21),
        ("preprocessing", "cores", 21),
        ("attention", "", 24),
        ("alexnet_cifar10", "cpu", 12),
        ("speedrun_cifar10", "many", 100),
        ("speedrun_cifar100", "many", 50),
        ("speedrun_cifar100", "gpu", 10),
        ("paper_cifar10", "smoke", 18),
        ("paper_cifar100", "smoke", 18),
        ("preprocessing", "smoke", 14),
        ("attention", "smoke", 16),
        ("noisy_labels", "smoke", 5),
        ("alexnet_cifar10", "smoke", 4),
        ("population", "small", 8),
        ("population", "large", 4),
        ("cores", "vgg16_cifar10", 5),
        ("cores", "smoke", 3),
        ("learning_rate", "", 8),
        ("learning_rate", "random", 16),
        ("imbalance", "", 15),
        ("noisy_labels", "", 15),
        ("folds", "", 10),
        ("advances", "", 63),
        ("advances", "cores", 42),
        ("advances", "smoke", 32),
        ("architecture", "", 200),
        ("architecture", "cores", 24),
        ("architecture", "smoke", 6),
        ("sparsity", "", 21),
        ("sparsity", "filters", 15),
        ("sparsity", "smoke", 4),
    ],
)
def test_the_shipped_sweeps_are_sound(file, variant, trials, root):
    path = root / "configs" / "sweeps" / f"{file}.py"
    module = start._import(path)
    base, sweep = from_config_dict(module.get_config(variant)), start.load_sweep(str(path), variant)
    spec.check(sweep, base)
    planned = sweep.trials if spec.has_ranges(sweep.space) else len(spec.cells(sweep.space)) * max(1, len(sweep.seeds))
    assert planned == trials
    if variant == "smoke":
        plan = plans.make(sweep, base, "", 0, Shared())
        assert len(plan.groups) < trials
