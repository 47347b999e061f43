"""A run starts from the weights of another run or of a file, once; a resumed run has its own."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError, networks
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import extras
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import exported, normalization, same_data, same_network, session, setup, starting, trained, workdir
from jaxcnn.weights import hub, released
from tests import digits, runs, small


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A finished run, and its weights as a file."""
    folder = tmp_path_factory.mktemp("before")
    digits.run(folder / "run")
    exported.write(trained.load(folder / "run", "last", "", 1)[0], "jaxcnn", folder / "weights.safetensors")
    return folder


def sources(before) -> list[str]:
    return [f"workdir:{before}/run", f"file:{before}/weights.safetensors"]


def started(config, devices=1):
    """The state that a run of a config starts from, and what it tells."""
    splits = open_splits(config.data, config.task)
    found = setup.on(config, splits, meshes.make_mesh(devices))
    told = []
    with small.programs_kept():
        state = programs.init_state(found.spec, found.mesh)(make_hyper(config))
    start = starting.of(config, found.spec, splits, None)
    return starting.begin(start, found, state, None, told.append), told, start


def same(one, other) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), one, other))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_starts_from_the_weights_that_the_test_of_the_other_run_used_to_the_bit(before, devices):
    there = trained.load(before / "run", "last", "", 1)[0]
    assert there.weights == "ema"
    for source in sources(before):
        sharded = {"devices": devices, "shard_params": devices > 1}
        config = digits.config(init={"source": source}, parallel=sharded, seed=5)
        state, told, start = started(config, devices)
        assert same(state.variables(), there.variables) and same(state.ema, there.variables)
        assert int(state.step) == 0 and same(state.opt_state, jax.tree.map(np.zeros_like, state.opt_state))
        assert start.normal == tuple(tuple(np.asarray(x).tolist()) for x in (there.constants.mean, there.constants.std))
        assert "17 arrays, 17 loaded" in told[0] and len(told) == 1


@pytest.mark.parametrize(
    ("source", "absent", "told"),
    [
        ("hub:timm/resnet50", "huggingface_hub", r"hub:timm/resnet50' needs huggingface_hub.*jaxcnn\[hub\]"),
        (
            "hub:timm/resnet50",
            "huggingface_hub",
            r"a copy of model\.safetensors as .*=file:<path>, or set HF_HUB_CACHE",
        ),
        ("hub:timm/resnet50", "safetensors", r"hub:timm/resnet50' needs safetensors.*jaxcnn\[safetensors\]"),
        ("file:w.safetensors", "safetensors", r"reading w.safetensors needs safetensors.*jaxcnn\[safetensors\]"),
        ("file:none.npz", "", r"none.npz cannot be read: No such file"),
        ("jaxcnn:cnn_digit", "", r"no weights of this name \(did you mean 'cnn_digits'\?\); it has: .*cnn_digits"),
    ],
)
def test_what_the_starting_weights_lack_is_told_before_the_data_is_read(source, absent, told, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("the data is read")

    monkeypatch.setattr(extras.util, "find_spec", lambda name: None if name == absent else name)
    monkeypatch.setattr(session, "_read", read)
    monkeypatch.chdir(tmp_path)
    save_file({"a": np.zeros(3, np.float32)}, "w.safetensors")
    with pytest.raises(UserError, match=told):
        digits.run(tmp_path / "run", init={"source": source})


def test_weights_that_come_with_jaxcnn_classify_as_their_card_says(root):
    """98.33 % of the test split: what `results/weights/cnn_digits.jxc.md` was measured at."""
    config = digits.config(init={"source": "jaxcnn:cnn_digits"}, model={"width": 1.0})
    state, told, start = started(config)
    assert "17 arrays, 17 loaded" in told[0] and start.class_names == tuple("0123456789")
    splits, mesh = open_splits(config.data, config.task), meshes.make_mesh(1)
    spec = setup.on(config, splits, mesh).spec
    constants = jax.device_put(Constants(*map(np.float32, start.normal)), meshes.replicated(mesh))
    made = trained.Trained(config, spec, mesh, 0, "last", state.variables(), constants, start.class_names, {})
    accuracy = made.evaluate(splits.test)["top1_accuracy"]
    card = (root / "results" / "weights" / "cnn_digits.jxc.md").read_text()
    assert f"| test | 360 | accuracy | {accuracy:.2%} |" in card


def test_released_weights_of_another_network_and_changed_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"jaxcnn:cnn_digits has another network; set --config\.model\.width=1\.0"):
        started(digits.config(init={"source": "jaxcnn:cnn_digits"}, model={"width": 0.5}))
    file = released.find("cnn_digits")
    for each in (file, file.with_name(released.SUMS)):
        shutil.copy(each, tmp_path)
    content = file.read_bytes()
    (tmp_path / file.name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"is not the file that was released \(its SHA-256 differs\)"):
        released.find("cnn_digits", tmp_path)


def test_a_resumed_run_never_reads_the_weights_again_and_ends_with_the_same_bits(before, tmp_path):
    shutil.copy(before / "weights.safetensors", tmp_path / "w.safetensors")
    source = {"source": f"file:{tmp_path}/w.safetensors"}
    digits.run(tmp_path / "run", init=source)
    first = runs.seals(tmp_path / "run")
    table = json.loads((tmp_path / "run" / starting.FILE).read_text())
    assert {row["status"] for row in table["arrays"]} == {"loaded"} and table["names"] == "jaxcnn"
    kept = workdir.read_sealed(tmp_path / "run" / normalization.FILE)
    assert kept["given"] and kept["mean"] == workdir.read_sealed(before / "run" / normalization.FILE)["mean"]
    (tmp_path / "w.safetensors").unlink()
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if checkpoint.name != "20":
            shutil.rmtree(checkpoint)
    (tmp_path / "run" / "summary.json").unlink()
    digits.run(tmp_path / "run", init=source)
    assert runs.seals(tmp_path / "run") == first
    with pytest.raises(UserError, match=r"w\.safetensors cannot be read"):
        digits.run(tmp_path / "another", init=source)


def test_an_optimiser_that_copies_the_parameters_copies_those_that_the_run_starts_from(before):
    optim = {"name": "optax.contrib:prodigy", "learning_rate": 0.1, "ema_decay": 0.0}
    state, _, _ = started(digits.config(init={"source": sources(before)[0]}, optim=optim))
    copies = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == state.params["conv2"]["kernel"].shape]
    assert any(np.array_equal(leaf, state.params["conv2"]["kernel"]) for leaf in copies)


def test_a_workdir_of_another_network_tells_the_flags_of_its_own(before):
    config = digits.config(init={"source": sources(before)[0]})
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, width=0.5))
    with pytest.raises(UserError, match=r"has another network; set --config\.model\.width=0\.25"):
        started(other)


ANOTHER = {  # a value of each option that is not a number or a truth value
    **{"name": "vgg11", "form": "imagenet", "channels": (("conv1", 7),), "head": "dense4096", "activation": "gelu"},
    **{"pooling": "mean", "colours": "grey", "class_agnostic": "boxes", "dtype": "bfloat16", "shortcut": "pooled"},
    **{"stem": "deep"},
    **{"stage_blocks": (1, 1, 1), "stage_channels": (1, 1, 1), "stage_kernels": (5, 5, 5), "attention": "se"},
    **{"attention_place": "stage", "attention_stages": (1,)},
}


@pytest.mark.parametrize("group", ["model", "norm"])
def test_every_option_of_a_network_counts_when_weights_start_it_but_those_named_as_without_effect(group):
    """A new field counts, too, unless it is named."""
    config = small.config()
    fields = dataclasses.fields(getattr(config, group))
    for field in fields:
        value = getattr(getattr(config, group), field.name)
        other = "group" if field.name == "name" and group == "norm" else ANOTHER.get(field.name)
        other = (not value if isinstance(value, bool) else value + 1) if other is None else other
        there = same_network.options(config)
        there[group] |= {field.name: other}
        differ = networks.differing(config.model, config.norm, json.loads(json.dumps(there)))
        named = f"{group}.{field.name}"
        assert list(differ) == ([] if named in networks.OF_TRAINING else [named])
    known = {f"{group}.{field.name}" for field in fields}
    named = {name for name in (*networks.OF_TRAINING, *networks.BY_CHOICE) if name.startswith(f"{group}.")}
    assert named <= known


def test_weights_start_no_network_that_computes_otherwise_with_the_same_arrays(before):
    splits = open_splits(digits.config().data)
    for source in sources(before):
        for group, option, value, flag in (
            ("model", "activation", "gelu", r"--config\.model\.activation=relu"),
            ("model", "pooling", "mean", r"--config\.model\.pooling=max"),
            ("norm", "epsilon", 1e-3, r"--config\.norm\.epsilon=1e-05"),
        ):
            changes = {group: {option: value}}
            with pytest.raises(UserError, match=f"has another network; set {flag}, or --config.init.partial=True"):
                starting._read(digits.config(init={"source": source}, **changes), splits)
        changes = {"model": {"activation": "gelu"}, "norm": {"epsilon": 1e-3, "momentum": 0.5}}
        start = starting._read(digits.config(init={"source": source, "partial": True}, **changes), splits)
        lines = ("trained with model.activation=relu, here gelu", "trained with norm.epsilon=1e-05, here 0.001")
        assert start.remarks == lines


def test_what_is_often_set_anew_is_told_and_an_option_that_a_network_cannot_have_is_named():
    resnet = small.config(model={"name": "resnet18", "width": 0.125, "last_stride": 1})
    there = same_network.options(resnet)
    ours = dataclasses.replace(resnet, model=dataclasses.replace(resnet.model, last_stride=2, dropout=0.5))
    assert same_network.check(ours, "w", there) == ["trained with model.last_stride=1, here 2"]
    assert same_network.check(ours, "w", {"model": "resnet18"}) == []
    there = same_network.options(small.config(model={"name": "resnet18", "width": 1.0, "activation": "gelu"}))
    there["model"]["form"] = "imagenet"
    detector = small.config(model={"name": "yolo_resnet18", "width": 1.0}, task={"name": "detection"})
    with pytest.raises(UserError, match=r"config\.model\.activation=gelu, which yolo_resnet18 cannot have"):
        same_network.check(detector, "w", there)
    with pytest.raises(UserError, match=r"its config\.model\.channels is that of runs/a/config\.json, 1 layer; set"):
        there = same_network.options(small.config(model={"channels": (("conv1", 7),)}))
        same_network.check(small.config(), "workdir:runs/a", there)
    plain = small.config(model={"name": "vgg11", "batch_norm": False}, norm={"epsilon": 1e-3})
    assert same_network.check(plain, "w", same_network.options(plain) | {"norm": {"epsilon": 1e-5}}) == []


def test_weights_of_networks_of_tensorflow_need_its_epsilon():
    config = small.config(model={"name": "efficientnet_lite0", "width": 1.0})
    with pytest.raises(UserError, match=r"names of lukemelas .* set --config\.norm\.epsilon=0\.001"):
        same_network.check_epsilon(config, "file:w", "lukemelas")
    for other in ({"norm": {"epsilon": 1e-3}}, {"init": {"source": "file:w", "partial": True}}):
        same_network.check_epsilon(small.config(model={"name": "efficientnet_lite0"}, **other), "file:w", "lukemelas")
    same_network.check_epsilon(config, "file:w", "jaxcnn")
    assert hub._facts({"architecture": "tf_efficientnet_lite0"}) == {"norm": '{"epsilon": 0.001}'}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"init": {"head": "new"}}, "config.init.head has no effect without config.init.source"),
        ({"init": {"source": "runs/a"}}, "config.init.source must be workdir:<folder of a run>, file:<path of"),
        ({"init": {"source": "file:a", "checkpoint": "best"}}, "config.init.checkpoint is for a source 'workdir:'"),
        ({"init": {"source": "workdir:a", "half": True}}, "config.init.half is for a source 'file:' or 'hub:'"),
        ({"augment": {"mean": (0.5,), "std": (0.5,)}}, "are for config.augment.normalize_by='given'"),
        ({"augment": {"normalize_by": "given", "mean": (0.5,), "std": (0.0,)}}, "those of std above 0"),
        ({"augment": {"normalize_by": "given"}}, "which needs both of them"),
        ({"augment": {"normalize_by": "imagenet", "normalize": False}}, "config.augment.normalize=True"),
    ],
)
def test_impossible_options_are_one_line(groups, words):
    with pytest.raises(ConfigError) as caught:
        small.config(**groups)
    (line,) = str(caught.value).splitlines()
    assert words in line


def test_runs_recorded_with_the_earlier_default_of_the_checkpoint_are_still_read():
    plain = small.config()
    tree = configs.to_dict(plain) | {"init": {"source": "", "checkpoint": "last"}}
    assert configs.from_config_dict(same_data.as_it_was_meant(tree)).init == plain.init
    here = configs.flatten(configs.to_dict(plain))
    assert same_data.settled(here | {"init.checkpoint": "last"}, here) == here
    with pytest.raises(ConfigError, match=r"config\.init\.checkpoint has no effect without config\.init\.source"):
        small.config(init={"checkpoint": "last"})


def test_images_are_normalised_as_the_weights_say_or_as_is_said():
    own, weights = configs.Augment(), ((0.25,), (0.5,))
    assert normalization.given(own, None, 3) is None and normalization.given(own, weights, 1) == weights
    assert normalization.given(own, weights, 2) == ((0.25, 0.25), (0.5, 0.5))
    imagenet = configs.Augment(normalize_by="imagenet")
    assert normalization.given(imagenet, weights, 3) == normalization.IMAGENET
    assert normalization.given(imagenet, None, 1)[0] == pytest.approx((0.449,))
    assert normalization.given(configs.Augment(normalize_by="own"), weights, 1) is None
    with pytest.raises(ConfigError, match="has 3 channels, but the images have 4"):
        normalization.given(imagenet, None, 4)


def test_wrong_weights_end_the_command_with_code_2_and_one_line(tmp_path, before):
    (tmp_path / "w.safetensors").write_bytes((before / "weights.safetensors").read_bytes()[:2000])
    code, output = runs.run(
        *runs.DIGITS, f"--config.init.source=file:{tmp_path}/w.safetensors", f"--workdir={tmp_path}/r"
    )
    assert code == 2
    (line,) = [line for line in output.splitlines() if "w.safetensors" in line]
    assert "is not a whole safetensors file" in line


def test_an_exported_file_has_what_its_user_must_know_and_a_wrong_naming_is_one_line(before, tmp_path):
    out = tmp_path / "w.safetensors"
    flags = (f"--workdir={before}/run", f"--out={out}")
    assert runs.run(*flags, "--names=jaxcnn", module="jaxcnn.export")[0] == 0
    assert out.read_bytes() == (before / "weights.safetensors").read_bytes()
    from safetensors import safe_open

    with safe_open(out, framework="numpy") as file:
        facts = file.metadata()
    assert json.loads(facts["image_shape"]) == [8, 8, 1] and len(json.loads(facts["class_names"])) == 10
    assert json.loads(facts["model"])["name"] == "cnn" and float(facts["norm_epsilon"]) == 1e-5
    assert json.loads(facts["norm"])["epsilon"] == 1e-5
    code, output = runs.run(*flags, module="jaxcnn.export")
    assert code == 2 and "--names=torchvision: it has no network 'cnn' of this form" in output
