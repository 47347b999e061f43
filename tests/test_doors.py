"""`jaxcnn.sweep`, `jaxcnn.report` and `jaxcnn.doctor`: the commands' work from Python."""

import dataclasses
import importlib
import json
import re
import sys
import types
from multiprocessing import spawn

import flax.linen as nn
import numpy as np
import pytest

import jaxcnn
from jaxcnn.config import ConfigError, UserError
from jaxcnn.machine import plugins
from jaxcnn.study import measure, spec
from tests import digits, own_parts, small


def test_a_sweep_runs_continues_and_is_reported(tmp_path):
    base = digits.config(run={"steps": 20, "eval_every_epochs": 10.0})
    with small.programs_kept():
        found = jaxcnn.sweep(base, tmp_path / "sweep", space={"lr": [0.0, 0.2]}, progress=False)
        again = jaxcnn.sweep(base, tmp_path / "sweep", space={"lr": [0.0, 0.2]}, progress=False)
    assert [trial["state"] for trial in found.trials] == ["complete"] * 2 and again.trials == found.trials
    assert found.best["overrides"] == {"optim.learning_rate": 0.2}
    assert "2 of 2 trials complete" in repr(found) and "val_accuracy" in found._repr_html_()
    made = jaxcnn.report(tmp_path / "sweep", title="rates")
    assert made.page == tmp_path / "sweep" / "report" / "report.html" and "rates" in made.page.read_text()
    assert "report.html" in made._repr_html_()


def test_objects_are_varied_by_their_names_and_those_of_the_session_train_in_this_process(tmp_path):
    class Swept(nn.Module):
        """A network in no module file."""

        @nn.compact
        def __call__(self, x):
            return nn.Dense(10)(x.mean(axis=(1, 2)))

    def one_loss(outputs, targets):
        return ((outputs - targets) ** 2).mean(axis=1)

    space = {"model.name": [own_parts.Plain, Swept], "task.loss": ["", own_parts.two_numbers]}
    named = [spec.values(key, values).rows for key, values in space.items()]
    assert named == [
        ({"model.name": "tests.own_parts:Plain"}, {"model.name": "given:Swept"}),
        ({"task.loss": ""}, {"task.loss": "tests.own_parts:two_numbers"}),
    ]
    base = digits.config(
        model={"name": plugins.name_of(Swept), "width": 1.0},
        data={"source": "digits", "val_examples": 200, "test_split": ""},
    )
    base = dataclasses.replace(base, run=dataclasses.replace(base.run, steps=2))
    with small.unoptimised(), small.programs_kept():
        found = jaxcnn.sweep(base, tmp_path / "sweep", space={"task.loss": [one_loss]}, progress=False)
    assert [each["state"] for each in found.trials] == ["complete"], found.trials
    kept = json.loads((tmp_path / "sweep" / "trials" / "0000" / "config.json").read_text())
    assert (kept["model"]["name"], kept["task"]["loss"]) == ("given:Swept", "given:one_loss")


def test_what_is_no_sweep_or_report_is_told_in_one_line(tmp_path):
    for call, told in (
        (lambda: jaxcnn.sweep("quickstart", tmp_path), "no get_sweep"),
        (lambda: jaxcnn.sweep(jaxcnn.config("quickstart"), tmp_path), "needs space="),
        (lambda: jaxcnn.sweep("quickstart", tmp_path, space={"lrr": [1]}), "there is no field 'lrr'"),
        (lambda: jaxcnn.sweep("quickstart", tmp_path, space={}), "varies nothing"),
        (lambda: jaxcnn.sweep("sweeps/imbalance", tmp_path, seeds=(1,)), "is for space="),
        (
            lambda: jaxcnn.sweep(
                jaxcnn.config("cnn", loss=lambda o, t: 0), tmp_path, space={"lr": [1.0]}, engine="processes"
            ),
            "is an object of this session",
        ),
        (
            lambda: jaxcnn.sweep("quickstart", tmp_path, space={"task.loss": ["", lambda o, t: 0]}, engine="workers"),
            r"config.task.loss='given:lambda.*' is an object of this session, but other processes may work on",
        ),
        (
            lambda: jaxcnn.sweep(
                "quickstart", tmp_path, space={"augment.own": [[], [lambda image, key: 0]]}, workers=0, engine="slurm"
            ),
            "config.augment.own=.*is an object of this session",
        ),
        (
            lambda: jaxcnn.sweep("quickstart", tmp_path, space={"lr": [0.1, own_parts.two_numbers]}),
            "learning_rate must be of type float, not 'tests.own_parts:two_numbers'",
        ),
        (jaxcnn.report, "no folder was given"),
        (lambda: jaxcnn.report(tmp_path / "nothing"), "nothing"),
    ):
        with pytest.raises(UserError, match=told) as error:
            call()
        assert len(str(error.value).splitlines()[0]) < 500
    with pytest.raises(ConfigError):
        jaxcnn.doctor("resnt")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda config, there: jaxcnn.train(config, None), "workdir must be a path, such as 'runs/digits', not None"),
        (lambda config, there: jaxcnn.train(config, there, after_step=3), "after_step must be a function of one event"),
        (
            lambda config, there: jaxcnn.train(config, there, after_evaluation=[3]),
            "after_evaluation must be a function",
        ),
        (lambda config, there: jaxcnn.train(config, there, stop=3), "stop must be a function"),
        (lambda config, there: jaxcnn.load(3), "workdir must be a path, such as 'runs/digits', not of type int"),
        (lambda config, there: jaxcnn.load(there, devices="all"), "devices must be a whole number, but is 'all'"),
        (lambda config, there: jaxcnn.report(None), "folder must be a path"),
        (lambda config, there: jaxcnn.report(there, title=3), "title and explain must be texts"),
        (lambda config, there: jaxcnn.doctor(workdir=None), "workdir must be a path"),
        (lambda config, there: jaxcnn.ensemble(3), "runs must be a list of runs or of their workdirs, not of type int"),
        (lambda config, there: jaxcnn.ensemble([None, None]), "workdir must be a path"),
        (lambda config, there: jaxcnn.find_rate(config, steps="a"), "steps must be a whole number, but is 'a'"),
        (lambda config, there: jaxcnn.summary(config, 8, 10), "image_shape must be (height, width, channels)"),
        (lambda config, there: jaxcnn.summary(config, (8, 8), 10), "image_shape must be (height, width, channels)"),
        (lambda config, there: jaxcnn.summary(config, (8, 8, 1), -1), "outputs must be at least 0, not -1"),
        (lambda config, there: jaxcnn.config("quickstart", optim={3: 3}), "there is no field 'optim.3'"),
        (lambda config, there: jaxcnn.sweep(config, there, space=3), "space must be a mapping from fields to lists"),
        (lambda config, there: jaxcnn.sweep(config, there, space={3: [3]}), "the name of a field is a text"),
        (
            lambda config, there: jaxcnn.sweep(config, there, space={"lr": [object()]}),
            "learning_rate cannot be <object",
        ),
        (
            lambda config, there: jaxcnn.sweep(config, there, space={"lr": [0.1]}, seeds=3),
            "seeds must be a list of num",
        ),
        (
            lambda config, there: jaxcnn.sweep(config, there, space={"lr": [0.1]}, seeds="a"),
            "seeds must be a list of nu",
        ),
        (lambda config, there: jaxcnn.sweep(config, None, space={"lr": [0.1]}), "workdir must be a path"),
        (
            lambda config, there: jaxcnn.sweep(config, there, space={"lr": [0.1]}, timeout="a"),
            "timeout must be a number",
        ),
    ],
)
def test_arguments_of_wrong_types_are_told_in_one_line_and_leave_nothing(call, told, tmp_path):
    with pytest.raises(UserError, match=re.escape(told)) as error:
        call(jaxcnn.config("quickstart"), tmp_path / "there")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500 and not (tmp_path / "there").exists()


def test_numbers_of_numpy_are_values_of_a_sweep():
    rows = spec.values("optim.learning_rate", list(np.linspace(0.25, 0.75, 3, dtype=np.float32))).rows
    assert [row["optim.learning_rate"] for row in rows] == [0.25, 0.5, 0.75]
    assert all(type(row["optim.learning_rate"]) is float for row in rows)


def test_the_doctor_looks_at_arrays_and_stays_a_package():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    images[50] = images[0]
    given = {"train": (images[:40], np.arange(40) % 2), "test": (images[40:], np.arange(20) % 2)}
    found = jaxcnn.doctor(data=given)
    leak = next(each for each in found.results if each.name == "images of test in train")
    assert not found.ok and (leak.status, leak.found) == ("fail", "1 of 20")
    assert "fail images of test in train: 1 of 20" in str(found) and "images of test in train" in found._repr_html_()
    assert importlib.import_module("jaxcnn.doctor.data").examine and callable(jaxcnn.doctor)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"engine": "process"}, "engine='process': it must be one of inline, processes"),
        ({"pruner": "best"}, "pruner='best': it must be one of none"),
        ({"sampler": "best"}, "sampler='best': it must be one of grid"),
        ({"workers": 2}, "workers is for engine=processes or slurm, not inline"),
        ({"workers": -1, "engine": "processes"}, "workers=-1: it must be 0 or more"),
        ({"timeout": 5.0, "engine": "workers"}, "timeout= is not for engine='workers'"),
    ],
)
def test_arguments_of_a_sweep_that_have_no_effect_are_refused_before_anything_is_written(options, told, tmp_path):
    config = jaxcnn.config("quickstart")
    with pytest.raises(jaxcnn.UserError, match=re.escape(told)):
        jaxcnn.sweep(config, tmp_path / "sweep", space={"lr": [0.1, 0.2]}, **options)
    assert not (tmp_path / "sweep").exists()


def test_a_script_without_a_guard_is_not_run_again_by_the_processes_of_its_sweep(monkeypatch):
    script = types.ModuleType("__main__")
    script.__file__ = "script.py"
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert "init_main_from_path" in spawn.get_preparation_data("one")
    with measure._without_script():
        assert not {"init_main_from_path", "init_main_from_name"} & spawn.get_preparation_data("one").keys()
    assert sys.modules["__main__"] is script
