"""Parts of a run that users bring: networks, losses, augmentations, optimisers, schedules, sources, figures."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
import jaxcnn.config as configs
from jaxcnn import layers
from jaxcnn.api import objects
from jaxcnn.api.configs import changed
from jaxcnn.config import ConfigError, Task, UserError, open_names, tree
from jaxcnn.data import memory
from jaxcnn.data.source import open_splits
from jaxcnn.learn.features import features_step
from jaxcnn.learn.network import network
from jaxcnn.learn.optim import make_optimizer
from jaxcnn.learn.schedule import learning_rate_factor
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import plugins
from jaxcnn.models import context, linen_layers
from jaxcnn.tasks import by_name, faults
from tests import digits, own_parts, small

P = "tests.own_parts"


def tried(**groups):
    """Six steps on one device, from programs that compile quickly."""
    return small.train(small.config(**groups), optimised=False)


@pytest.mark.parametrize(
    ("key", "name", "told"),
    [
        ("model.name", "vg16", "entry point or package.module:attribute, not 'vg16' (did you mean 'vgg16'?)"),
        ("model.name", "vgg16(depth=3)", "but vgg16 takes no options here; its settings are fields of the config"),
        ("model.name", f"{P}:Plain(3)", "whose options must have the form (name=value, …)"),
        ("model.name", f"{P}:Plain(features=f())", "whose options must have the form (name=value, …)"),
        ("model.name", f"{P}:Plain(", "whose options must have the form (name=value, …)"),
        ("task.loss", "poly1", "config.task.loss must be an entry point or package.module:attribute, not 'poly1'"),
        ("augment.own", ("a b",), "config.augment.own must be an entry point or package.module:attribute, not 'a b'"),
        ("optim.name", 3, "config.optim.name must be one of sgd"),
        ("optim.name", "optax.rmsprop", "not 'optax.rmsprop' (did you mean 'optax:rmsprop'?)"),
        ("optim.name", "optax.adam", "not 'optax.adam' (did you mean 'optax:adam'?)"),
        ("optim.name", "optax.contrib.muon(beta=0.9)", "(did you mean 'optax.contrib:muon(beta=0.9)'?)"),
        ("optim.name", "nowhere.rmsprop", "package.module:attribute, not 'nowhere.rmsprop'"),
    ],
)
def test_a_name_of_the_wrong_form_is_told(key, name, told):
    with pytest.raises(ConfigError) as error:
        configs.from_config_dict(configs.nested({key: name}))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("key", "name", "told"),
    [
        ("model.name", "own_part:Plain", "there is no module 'own_part' in "),
        ("model.name", f"{P}:Plane", "tests.own_parts has no 'Plane' (did you mean 'Plain'?)"),
        ("model.name", f"{P}:Plain(feature=3)", "Plain has no option 'feature' (did you mean 'features'?)"),
        (
            "augment.own",
            (f"{P}:invert",),
            "own_parts has no 'invert'",
        ),
        ("task.loss", "own_broken:loss", "own_broken.py: line 2: ZeroDivisionError: division by zero"),
        ("task.loss", "own_missing:loss", "own_missing.py: line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("task.loss", "given:loss", "was an object of the Python session that started this run"),
    ],
)
def test_a_name_that_leads_to_nothing_is_told(key, name, told, tmp_path, monkeypatch):
    (tmp_path / "own_broken.py").write_text("x = 1\ny = 1 / 0\n")
    (tmp_path / "own_missing.py").write_text("import nowhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = configs.from_config_dict(configs.nested({key: name}))
    with pytest.raises(UserError) as error:
        plugins.check(config)
    assert told in str(error.value) and str(error.value).startswith(f"config.{key}=")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("subprocess:check_output(args='touch trap', shell=True)", "leads to 'subprocess', a module of Python"),
        ("builtins:exec", "leads to 'builtins'"),
        ("os.path:join", "leads to 'os'"),
        ("pip:main", "leads to 'pip'"),
        ("jaxcnn.machine.plugins:os.system(command='touch trap')", "leads to 'os'"),
        ("tests.own_parts:system(command='touch trap')", "leads to 'posix'"),
        ("tests.own_parts:bound", "leads to 'posix'"),
    ],
)
def test_a_name_cannot_lead_into_python_itself(name, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_parts, "system", os.system, raising=False)
    monkeypatch.setattr(own_parts, "bound", functools.partial(os.system, "touch trap"), raising=False)
    for call in (lambda: plugins.load("losses", name), lambda: open_splits(configs.Data(source=name))):
        with pytest.raises(UserError) as error:
            call()
        assert told in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("name", [f"{P}:halved", "optax:lion", f"{P}:no_data"])
def test_code_that_is_not_ours_can_be_refused_altogether(name, monkeypatch):
    assert plugins.load("losses", name).name == name
    monkeypatch.setenv(plugins.OWN_CODE, "off")
    with pytest.raises(UserError, match=r"is not part of jaxcnn, and JAXCNN_OWN_CODE=off refuses to run it"):
        plugins.load("losses", name)
    plugins.check(configs.from_config_dict(jaxcnn.config("quickstart")))


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({"model": {"name": f"{P}:Pooled", "width": 0.5}}, "config.model.width=0.5 has no effect"),
        (
            {"model": {"name": f"{P}:Pooled", "width": 1.0, "stochastic_depth": 0.1}},
            "config.model.stochastic_depth=0.1 has no effect",
        ),
        (
            {"model": {"name": f"{P}:Pooled", "width": 1.0, "dtype": "bfloat16"}},
            "config.model.dtype='bfloat16'",
        ),
        (
            {"model": {"name": f"{P}:Plain(outputs=7)", "width": 1.0}},
            "gives (1, 7) for 1 images; it must give",
        ),
        (
            {"model": {"name": f"{P}:Ours(dropout=0.5)", "width": 1.0, "dropout": 0.2}},
            "config.model.dropout=0.2 has no effect: 'tests.own_parts:Ours(dropout=0.5)' gives dropout, too",
        ),
        ({"model": {"name": f"{P}:Cached", "width": 1.0}}, "has variables in memory; it may have params"),
        ({"model": {"name": f"{P}:two_numbers", "width": 1.0}}, "cannot be made"),
        ({"model": {"name": f"{P}:made_nnx", "width": 1.0}}, "is an instance of a flax.nnx module, which has its"),
        ({"model": {"name": f"{P}:made_object", "width": 1.0}}, "is an object of Shape, neither a Flax module nor a"),
        ({"model": {"name": f"{P}:not_callable", "width": 1.0}}, "is neither a Flax module nor a function"),
        (
            {"model": {"name": f"{P}:Plain", "width": 1.0}, "norm": {"group_size": 4}},
            "has the layer BatchNorm_0 of flax.linen, whose statistics are those of the whole batch",
        ),
        (
            {"task": {"loss": f"{P}:two_numbers"}},
            "gives (2,) for 16 examples; it must give one loss for each",
        ),
        (
            {"augment": {"own": (f"{P}:halved",)}},
            "makes an image (4, 4, 3) of uint8 from one (8, 8, 3) of uint8",
        ),
        ({"optim": {"name": f"{P}:no_optimizer"}}, "it takes no learning_rate, as an optimiser must"),
    ],
)
def test_a_part_that_does_not_fit_is_told_in_one_line(groups, told):
    with pytest.raises(UserError) as error:
        tried(**groups)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flat", "told"),
    [
        ({"optim.name": "optax:lion", "optim.momentum": 0.8}, "config.optim.momentum has no effect with"),
        ({"task.loss": "a:b", "task.focal_gamma": 2.0}, "config.task.focal_gamma has no effect with"),
        ({"optim.name": "optax:sgd(learning_rate=3)"}, "gives learning_rate, which would replace config"),
        ({"optim.name": "optax:adamw(weight_decay=0.1)"}, "gives weight_decay, which would replace config"),
    ],
)
def test_settings_without_effect_are_refused(flat, told):
    with pytest.raises(ConfigError, match=told):
        configs.from_config_dict(configs.nested(flat))


@pytest.mark.parametrize("name", ["Plain", "Ours", "Nnx"])
def test_the_training_of_a_users_network_does_not_depend_on_devices(name):
    config = small.config(model={"name": f"{P}:{name}", "width": 1.0}, optim={"learning_rate": 0.05})
    one, state = small.train(config, optimised=False)
    eight, other = small.train(config, devices=8, optimised=False)
    np.testing.assert_allclose(eight, one, rtol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, (other.params, other.batch_stats), (state.params, state.batch_stats))
    assert np.isfinite(one).all() and one[-1] != one[0]


def test_dropout_of_plain_layers_is_that_of_ours():
    """The noise of an example depends on its position, for layers of Flax too."""
    x, positions = jnp.ones((6, 50)), jnp.arange(6, dtype=jnp.int32)
    names = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    class Flax(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False, name="drop")(x)

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.Dropout(0.5, name="drop")(x, True)

    def called(module, chosen):
        surroundings = context.Context(configs.Norm(), positions=positions[chosen])
        with context.within(surroundings), nn.intercept_methods(linen_layers.adapted("x", True)):
            return module.apply({}, x[chosen], rngs=names)

    whole = called(Flax(), slice(0, 6))
    assert 0.3 < (whole == 0).mean() < 0.7
    np.testing.assert_array_equal(whole, called(Own(), slice(0, 6)))
    np.testing.assert_array_equal(whole[2:5], called(Flax(), slice(2, 5)))


@pytest.mark.parametrize(
    ("size", "strides", "padding", "dilation", "groups"),
    [
        ((3, 3), (1, 1), "SAME", (1, 1), 1),
        ((3, 3), (2, 2), "SAME", (1, 1), 1),  # pads one side only
        ((4, 4), (1, 1), "SAME", (1, 1), 2),
        ((5, 5), (2, 2), "VALID", (1, 1), 1),
        ((3, 3), (1, 1), [(2, 1), (0, 3)], (1, 1), 1),
        ((3, 3), (1, 1), [(3, 3), (3, 3)], (2, 2), 1),
        ((1, 1), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),  # padded by as much as the kernel's side
        ((3, 5), (1, 1), "SAME", (1, 1), 1),  # left to lax
        ((3, 3), (2, 1), "SAME", (1, 1), 4),
    ],
)
def test_convolutions_of_flax_are_those_of_lax(size, strides, padding, dilation, groups):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 9, 8, 4))
    kernel = jax.random.normal(keys[1], (*size, 4 // groups, 8))
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
    options = {"rhs_dilation": dilation, "dimension_numbers": numbers, "feature_group_count": groups}

    def gradients(convolution):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(convolution(x, kernel, strides, padding, **options)))

        return jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=small.UNOPTIMISED)(x, kernel)

    ours = gradients(functools.partial(linen_layers.convolution, lhs_dilation=(1, 1)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(close, ours, gradients(jax.lax.conv_general_dilated))


def test_a_frozen_norm_of_flax_keeps_its_statistics():
    groups = {"model": {"name": f"{P}:Plain", "width": 1.0}, "optim": {"freeze_norm": True}}
    _, state = tried(**groups)
    np.testing.assert_array_equal(state.batch_stats["BatchNorm_0"]["mean"], np.zeros(8))
    np.testing.assert_array_equal(state.params["BatchNorm_0"]["scale"], np.ones(8))


def test_features_are_the_input_of_the_last_layer():
    config = small.config(model={"name": f"{P}:Plain", "width": 1.0})
    spec = small.spec_of(config)
    state = small.initial_state(spec, small.meshes.make_mesh(1), config)
    images, _ = small.split()
    features = features_step(spec, "", state.variables(), images[:3], small.constants(small.meshes.make_mesh(1)))
    last = state.params["Dense_0"]
    outputs = network(spec).apply(state.variables(), (images[:3] / 255 - 0.5) / 0.25)
    assert features.shape == (3, 8)
    np.testing.assert_allclose(features @ last["kernel"] + last["bias"], outputs, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="has no layer 'nowhere'"):
        features_step(spec, "nowhere", state.variables(), images[:3], small.constants(small.meshes.make_mesh(1)))


def test_an_optimiser_of_optax_is_as_ours_with_the_same_settings():
    params = {"layer": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    grads = jax.tree.map(lambda leaf: leaf * 0.3, params)

    def updated(**optim):
        config = small.config(optim=optim | {"weight_decay": 0.1})
        optimizer = make_optimizer(config.optim, make_hyper(config), jnp.float32(0.01))
        state, there = optimizer.init(params), params
        for _ in range(3):
            updates, state = optimizer.update(grads, state, there)
            there = jax.tree.map(jnp.add, there, updates)
        return there

    def equal(name, ours):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-6)  # beta1 is a constant here, an input there
        jax.tree.map(close, updated(name=name), updated(name=ours))

    equal("optax:adamw", "adamw")  # takes the decay and its mask
    equal("optax:adam", "adam")  # takes none: it is added to the gradient
    equal("optax:lamb(eps=1e-8)", "lamb")


def test_a_schedule_of_ones_own_follows_the_warm_up(tmp_path, monkeypatch):
    (tmp_path / "own_schedule.py").write_text(
        "def half(step, steps, power=1.0):\n    return 0.5 ** power * step / steps\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    schedule = configs.Schedule(name="own_schedule:half(power=2.0)", unit="steps", warmup=2)
    factors = [float(learning_rate_factor(schedule, t, total_steps=10, steps_per_epoch=5.0)) for t in range(10)]
    np.testing.assert_allclose(factors, [0.5, 1.0, *(0.25 * t / 8 for t in range(8))], rtol=1e-6)


def test_figures_of_ones_own_leave_the_task_its_wrong_answers():
    of_classes, of_numbers = (
        by_name.make(Task(name=name, evaluation=f"{P}:brightness"), 3) for name in ("classification", "regression")
    )
    plain = by_name.make(Task(), 3)
    assert faults.right(of_classes.evaluation) == faults.right(plain.evaluation) == "top1_accuracy"
    assert faults.right(of_numbers.evaluation) is None
    assert faults.right(by_name.make(Task(name="multilabel"), 3).evaluation) is None


def test_a_loss_of_optax_gives_the_run_of_our_cross_entropy():
    groups = {"augment": {"mixup": 0.2}, "optim": {"label_smoothing": 0.1}}
    ours, _ = tried(**groups)
    theirs, _ = tried(**groups, task={"loss": "optax:softmax_cross_entropy"})
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_a_run_of_users_parts_is_reported_resumed_and_loaded(tmp_path):
    """With every kind of part, installed by pip under the names that its package gives them."""
    package = pathlib.Path(__file__).parent.parent / "examples" / "own_code"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, f"--target={tmp_path / 'site'}", package], check=True)
    flags = [
        "--config=quickstart", "--config.model.name=shapenet(channels=4)", "--config.data.source=shapes(examples=300)",
        "--config.task.loss=poly1(epsilon=2.0)", "--config.task.evaluation=kappa", "--config.optim.name=signsgd",
        '--config.augment.own=("invert(probability=0.25)",)', "--config.schedule.name=staircase",
        "--config.optim.weight_decay=0", "--config.optim.learning_rate=0.01", "--config.data.val_examples=60",
        "--config.run.epochs=4", "--config.run.tensorboard=False", "--workdir=run",
    ]  # fmt: skip

    def command(module, *flags):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(
            [sys.executable, "-m", module, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    code, output = command("jaxcnn.main", *flags)
    assert code == 0, output
    record = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["kappa"] <= 1 for line in record if line["kind"] == "val")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["name"] == "shapenet(channels=4)"
    code, output = command("jaxcnn.main", "--mode=eval", "--workdir=run")
    assert code == 0 and "kappa: kappa" in output, output
    code, output = command("jaxcnn.main", *flags, "--config.optim.name=signsg")
    assert code == 2 and "config.optim.name must be one of" in output, output


def test_an_edited_part_changes_the_key_of_kept_programs(tmp_path):
    """Also if the edit is in a file that the module imports, and never without an edit."""
    (tmp_path / "mine.py").write_text("from helper import size\n\n\ndef net(outputs):\n    return size\n")
    (tmp_path / "helper.py").write_text("size = 3\n")
    code = textwrap.dedent("""
        from jaxcnn.config import Config, Model
        from jaxcnn.machine import plugins
        print(plugins.token(Config(model=Model(name="mine:net"))))
    """)

    def token():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    first, again = token(), token()
    assert first == again and len(first) > 10
    (tmp_path / "helper.py").write_text("size = 4\n")
    assert token() != first


def test_a_network_that_a_notebook_defines_says_what_it_needs(tmp_path, capsys):
    class Mine(own_parts.Pooled):
        pass

    images, labels = small.split()
    config = jaxcnn.config("quickstart", epochs=1, global_batch_size=16, val_examples=8, tensorboard=False)
    run = jaxcnn.train(config, tmp_path / "run", data=(images, labels), model=Mine)
    assert run.config.model.name == "given:Mine"
    assert "given:Mine is in no module of a file" in capsys.readouterr().out
    expected = run.network(images)
    plugins._given.clear()
    with pytest.raises(UserError, match="was an object of the Python session that started this run"):
        jaxcnn.load(tmp_path / "run").network(images)
    np.testing.assert_array_equal(jaxcnn.load(tmp_path / "run", model=Mine).network(images), expected)
    with pytest.raises(UserError, match="needs no model="):
        jaxcnn.train(jaxcnn.config(config, epochs=1), tmp_path / "other", data=(images, labels), model="cnn")
        jaxcnn.load(tmp_path / "other", model=Mine)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("optax:lbfgs", "it needs the value of the loss, or a function of it, in each update"),
        ("optax.contrib:schedule_free_adamw", "schedule-free"),
        ("optax.contrib:prodigy", ""),
        ("optax:adafactor", ""),
        ("optax:lion(b1=0.95)", ""),
        ("optax.contrib:dadapt_adamw", ""),
    ],
)
def test_an_optimiser_that_the_step_cannot_use_is_refused_in_one_line(name, told):
    config = small.config(optim={"name": name})
    if not told:
        make_optimizer(config.optim, make_hyper(config), jnp.float32(0.1))
        return
    with pytest.raises(UserError, match=told) as error:
        make_optimizer(config.optim, make_hyper(config), jnp.float32(0.1))
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def makes(factor):
    """An augmentation, another one for each factor."""

    def scaled(image, key):
        return image * factor

    return scaled


def test_each_object_has_a_name_of_its_own():
    one, two = makes(1), makes(2)
    config = jaxcnn.config("quickstart", augment={"own": [one, two, one]}, task={"loss": lambda outputs, targets: 0})
    again = jaxcnn.config("quickstart", augment={"own": [two]}, schedule={"name": lambda step, steps: 1.0})
    found = [plugins.load("augmentations", name).target for name in config.augment.own]
    assert found == [one, two, one] and again.augment.own == config.augment.own[1:2]
    assert plugins.load("losses", config.task.loss).target is not plugins.load("schedules", again.schedule.name).target

    def network(channels):
        class Net(nn.Module):
            outputs: int

            @nn.compact
            def __call__(self, images):
                return nn.Dense(self.outputs)(nn.Conv(channels, (1, 1))(images).mean((1, 2)))

        return Net

    narrow = jaxcnn.config("cnn", model=network(4))
    expected = jaxcnn.summary(narrow, (8, 8, 3), 10).parameters
    wide = jaxcnn.config("cnn", model=network(64))
    assert jaxcnn.summary(narrow, (8, 8, 3), 10).parameters == expected
    assert jaxcnn.summary(wide, (8, 8, 3), 10).parameters > expected


def test_a_class_that_a_notebook_defines_again_leaves_earlier_configs_as_they_were(monkeypatch):
    monkeypatch.setattr(plugins, "_given", {})
    import __main__

    def defined():
        class Cell(own_parts.Pooled):
            pass

        Cell.__module__, Cell.__qualname__ = "__main__", "Cell"
        monkeypatch.setattr(__main__, "Cell", Cell, raising=False)
        return Cell

    first = defined()
    config = jaxcnn.config("quickstart", model=first)
    again = jaxcnn.config("quickstart", model=defined())
    assert config.model.name == "__main__:Cell" and plugins.load("networks", config.model.name).target is first
    assert plugins.load("networks", again.model.name).target is not first
    assert plugins.without_number(again.model.name) == plugins.without_number(config.model.name)


def test_objects_are_given_again_in_another_session_and_predictions_need_only_some(
    tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setattr(plugins, "_given", {})

    class Ours(own_parts.Pooled):
        pass

    def loss(outputs, targets):
        return optax.softmax_cross_entropy(outputs, targets)

    images, labels = small.split()

    def wanted():
        return jaxcnn.config(
            "quickstart",
            model=Ours,
            task={"loss": loss},
            augment={"own": [makes(1)]},
            optim={"name": lambda learning_rate: optax.adam(learning_rate), "momentum": 0.9},
            schedule={"name": lambda step, steps: 1.0},
            **{"run.steps": 2, "global_batch_size": 16, "data.val_examples": 8, "run.tensorboard": False},
        )

    run = jaxcnn.train(wanted(), tmp_path / "run", data=(images, labels), progress=False)
    assert "given:Ours is in no module of a file" in caplog.text and "model={'name': …}" in caplog.text
    assert not capsys.readouterr().out
    expected, figures = run.network(images), run.evaluate((images, labels))
    np.testing.assert_array_equal(jaxcnn.load(tmp_path / "run").network(images), expected)

    plugins._given.clear()  # another session, which has other objects of these names
    objects._trained.clear()
    plugins.name_of(type("Ours", (nn.Module,), {}))
    with pytest.raises(UserError, match=r"'given:Ours' was an object .* jaxcnn.load\(workdir, model=Net\)"):
        jaxcnn.load(tmp_path / "run", loss=loss).network(images)
    again = r"jaxcnn.load\(workdir, task=\{'loss': function\}\)"
    with pytest.raises(UserError, match=rf"'given:loss' was an object .* {again}"):
        jaxcnn.load(tmp_path / "run", model=Ours).network(images)
    loaded = jaxcnn.load(tmp_path / "run", model=Ours, task={"loss": loss})
    np.testing.assert_array_equal(loaded.network(images), expected)
    assert loaded.evaluate((images, labels))["loss"] == figures["loss"]
    with pytest.raises(UserError, match=r"config\.task\.evaluation of this run is '', which is not given again"):
        jaxcnn.load(tmp_path / "run", evaluation=loss)
    again = jaxcnn.train(wanted(), tmp_path / "run", data=(images, labels), progress=False)
    assert again.finished and again.config.model.name == "given:Ours"
    np.testing.assert_array_equal(again.network(images), expected)


def test_objects_become_names():
    config = jaxcnn.config(
        "quickstart",
        model=functools.partial(own_parts.Plain, features=4),
        optim={"name": optax.lion},
        augment={"own": [own_parts.halved]},
    )
    assert config.model.name == f"{P}:Plain(features=4)"
    assert plugins.load("optimizers", config.optim.name).target is optax.lion
    assert config.augment.own == (f"{P}:halved",)
    assert [key for key, _, _ in open_names.foreign(configs.from_config_dict(config))] == [
        "config.model.name", "config.augment.own", "config.optim.name",
    ]  # fmt: skip


def test_a_function_gives_the_data():
    def data():
        return {"train": small.split(), "test": small.split(), "class_names": list("abcd")}

    name = plugins.name_of(data)
    splits = open_splits(dataclasses.replace(configs.Data(), source=name, val_examples=8))
    assert splits.class_names == tuple("abcd") and len(splits.train) == small.EXAMPLES - 8
    arrays = memory.give(data())
    given = open_splits(dataclasses.replace(configs.Data(), source=arrays.source, val_examples=8))
    np.testing.assert_array_equal(splits.train.targets, given.train.targets)
    with pytest.raises(UserError, match=r"config\.data\.source='tests.own_parts:no_data': data"):
        open_splits(configs.Data(source=f"{P}:no_data"))
    with pytest.raises(UserError, match=r"unknown source 'folde' \(did you mean 'folder'\?\)"):
        open_splits(configs.Data(source="folde:photos"))


def test_figures_of_ones_own_are_beside_the_tasks(tmp_path):
    digits.run(tmp_path / "run", task={"evaluation": f"{P}:brightness"}, run={"epochs": 1.0})
    test = json.loads((tmp_path / "run" / "test.json").read_text())
    assert test["agreement"] == pytest.approx(test["ema_top1_accuracy"])
    with pytest.raises(UserError, match="gives 3; it must give a mapping from names to numbers"):
        digits.run(tmp_path / "other", task={"evaluation": f"{P}:no_mapping"}, run={"epochs": 1.0})


def test_a_list_of_names_is_short_by_their_families_and_loses_none():
    assert open_names.families(["a_b_c", "a_b_d1", "a_b_d2", "a"]) == ["a_b_(c, d1/2)", "a"]
    assert open_names.families(["vgg11", "vgg13", "unet", "unet_small", "squeezenet1_0", "squeezenet1_1", "vgg16"]) == [
        "vgg11/13", "unet", "unet_small", "squeezenet1_0/1", "vgg16",
    ]  # fmt: skip


def test_what_has_to_be_given_again_is_named_by_its_argument():
    given = {"Net": own_parts.Pooled, "function": own_parts.halved, "Logger": own_parts.Recorder}
    flat = configs.flatten(configs.to_dict(configs.Config()))
    for group, argument in open_names.AGAIN.items():
        with pytest.raises(UserError, match=re.escape(f"jaxcnn.load(workdir, {argument})")) as error:
            plugins.load(group, "given:absent")
        assert len(str(error.value)) < 500
        (key,) = changed(flat, eval(f"dict({argument})", given))
        assert key == "data.source" or open_names.of_hint(tree._hint(key)).group == group
    assert len(open_names.AGAIN) == 1 + len(configs.open_keys())
