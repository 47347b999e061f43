"""The configuration and its mistakes."""

import dataclasses
import importlib.util
import runpy
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import jax
import pytest

from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.config import Config, ConfigError, convert, default, from_config_dict, networks, ranges, recipes
from jaxcnn.learn import tta
from jaxcnn.learn.optim import OPTIMIZERS


def test_the_default_tree_is_the_default_config():
    assert from_config_dict(default()) == Config()


def test_a_config_survives_json_and_back():
    tree = configs.to_dict(Config())
    tree["schedule"] |= {"name": "multistep", "boundaries": [1.0, 2]}
    config = from_config_dict(tree)
    assert config.schedule.boundaries == (1.0, 2.0)
    assert hash(config) == hash(from_config_dict(configs.to_dict(config)))


def test_an_unknown_key_is_named_with_the_nearest_right_one():
    tree = configs.to_dict(Config())
    tree["optim"]["learning_rat"] = 0.1
    tree["modle"] = {}
    with pytest.raises(ConfigError) as caught:
        from_config_dict(tree)
    assert str(caught.value).splitlines() == [
        "unknown key config.modle (did you mean 'model'?)",
        "unknown key config.optim.learning_rat (did you mean 'learning_rate'?)",
    ]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("optim.lr", "optim.learning_rate"),
        ("learning_rate", "optim.learning_rate"),
        ("optim.batch_size", "global_batch_size"),
        ("shedule.name", "schedule.name"),
        ("run.epoch", "run.epochs"),
        ("optimizer", "optim.name"),
        ("xyz", ""),
    ],
)
def test_a_key_of_another_name_or_group_is_known_for_what_is_meant(key, near):
    assert convert.nearest_key(key, configs.flatten(configs.to_dict(Config()))) == near


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("optim.learning_rate", "fast", "config.optim.learning_rate must be of type float, not 'fast'"),
        ("optim.learning_rate", True, "config.optim.learning_rate must be of type float"),
        ("optim.learning_rate", float("nan"), "config.optim.learning_rate must be a finite number"),
        ("global_batch_size", 12.5, "config.global_batch_size must be of type int"),
        ("data.dir", 1, "config.data.dir must be of type str"),
        ("augment.flip", True, "config.augment.flip must be one of none, random, alternating, not True"),
        ("optim.whitening_bias_epochs", 3.0, "is for airbench and airbench_residual; vgg16 has no whitening layer"),
        ("optim.sgd_momentum", 1.0, "config.optim.sgd_momentum must be in [0, 1)"),
        ("optim.newton_schulz_steps", 0, "config.optim.newton_schulz_steps must be above 0"),
        ("run.tta", "flips", "did you mean 'flip'?"),
        ("model.name", "vg16", "did you mean 'vgg16'?"),
        ("schedule.boundaries", 3, "config.schedule.boundaries must be a list"),
        ("optim", 3, "config.optim must be a group of fields"),
        ("global_batch_size", 0, "config.global_batch_size must be above 0"),
        ("optim.weight_decay", -1.0, "config.optim.weight_decay must not be negative"),
        ("optim.momentum", 1.0, "config.optim.momentum must be in [0, 1)"),
        ("norm.group_size", 48, "config.norm.group_size=48 does not divide the global batch of 128"),
        ("optim.accumulate_steps", 3, "is not divisible by config.optim.accumulate_steps=3"),
        ("optim.accumulate_steps", 4, "set config.norm.group_size=32"),
        ("model.head", "dense4096", None),
        ("model.num_classes", 1, "config.model.num_classes must be at least 2"),
        ("schedule.boundaries", (1.0,), "has no effect with schedule.name='cosine'"),
        ("schedule.name", "multistep", "config.schedule.boundaries must be positive and increasing"),
        ("run.steps_per_call", -1, "config.run.steps_per_call must not be negative"),
        ("data.val_examples", 0, "config.data.protocol='full'"),
        ("augment.hue", 0.6, "config.augment.hue must be at most 0.5, but is 0.6"),
        ("model.last_stride", 1, "config.model.last_stride=1 is for resnet18, resnet34, resnet50, "),
        ("model.stochastic_depth", 0.1, "resnet110; vgg16 has no such option"),
        ("model.zero_init_residual", False, "resnet110; vgg16 has no such option"),
        ("augment.erasing", 1.5, "config.augment.erasing must be at most 1"),
        ("augment.policy", "autoaugmnt", "did you mean 'autoaugment'?"),
        ("run.epochs", 0.0, "config.run.epochs (or config.run.steps) must be above 0"),
        ("seed", -1, "config.seed must not be negative"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_key(path, value, words):
    tree = configs.to_dict(Config())
    *groups, leaf = path.split(".")
    group = tree
    for name in groups:
        group = group[name]
    group[leaf] = value
    if words is None:
        assert isinstance(from_config_dict(tree), Config)
        return
    with pytest.raises(ConfigError) as caught:
        from_config_dict(tree)
    (line,) = str(caught.value).splitlines()
    assert words in line


def test_a_network_without_batchnorm_may_accumulate_without_groups():
    tree = configs.to_dict(Config())
    tree["model"]["batch_norm"] = False
    tree["optim"]["accumulate_steps"] = 4
    assert from_config_dict(tree).optim.accumulate_steps == 4


@pytest.mark.parametrize("model", [{"name": "alexnet"}, {"batch_norm": False}, {"head": "dense4096"}])
def test_muon_needs_batchnorm_after_every_kernel_but_the_last(model):
    tree = configs.to_dict(Config())
    tree["optim"]["name"] = "muon"
    assert from_config_dict(tree).optim.name == "muon"
    tree["model"] |= model
    with pytest.raises(ConfigError, match=r"optim\.name='muon' renormalises kernels, so it needs BatchNorm"):
        from_config_dict(tree)


def test_muon_is_refused_for_a_network_of_which_nobody_said_that_it_has_batchnorm_everywhere():
    model = dataclasses.replace(Config().model, name="another")
    config = dataclasses.replace(Config(), model=model, optim=configs.Optim(name="muon"))
    assert any("so it needs BatchNorm" in line for line in configs.check(config))


@pytest.mark.parametrize("model", [{"form": "imagenet"}, {"batch_norm": False}])
@pytest.mark.parametrize("name", networks.WHITENED)
def test_airbench_has_one_form(name, model):
    tree = configs.to_dict(Config())
    tree["model"] |= {"name": name, **model}
    with pytest.raises(ConfigError, match=f"is for alexnet.*; {name} has no such option"):
        from_config_dict(tree)


ONE_OF_EACH_KIND = {models.MODELS[name]: name for name in reversed(networks.OPTIONS)}.values()  # the smallest


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_network_reads_the_options_that_are_declared_for_it(name):
    read = set()

    class Watched(configs.Model):
        def __getattribute__(self, option):
            read.add(option)
            return super().__getattribute__(option)

    module = models.build(Watched(name=name), configs.Norm(), 10)
    read.clear()
    jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"))
    wanted = {"width", "dropout", *networks.OPTIONS[name]}
    assert read & {field.name for field in dataclasses.fields(configs.Model)} - {"name"} == wanted


def test_a_network_of_a_user_may_read_any_option():
    model = dataclasses.replace(Config().model, name="tests.own_parts:Plain", last_stride=1, head="dense4096")
    assert configs.check(dataclasses.replace(Config(), model=model)) == []


def hints(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The type of every field, by its key."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        yield from hints(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [(prefix + name, hint)]


def test_every_number_has_a_range_beside_it():
    found = dict(hints(configs.Config))
    plain = {key: get_args(hint)[0] if get_origin(hint) is Annotated else hint for key, hint in found.items()}
    numbers = [key for key, kind in plain.items() if kind in (int, float)]
    assert len(numbers) > 50
    assert [key for key in numbers if not ranges.of_hint(found[key])] == []


def test_the_choices_are_those_that_exist():
    assert set(configs.choices("model.name")) == set(models.MODELS) == set(networks.OPTIONS)
    assert set(configs.choices("optim.name")) == set(OPTIMIZERS)
    assert set(configs.choices("run.tta")) == set(tta.VIEWS)


def test_every_shipped_config_and_variant_is_sound(root):
    files = sorted((root / "configs").glob("*.py"))
    assert len(files) >= 7
    for file in files:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert f"--config=configs/{file.name}" in module.__doc__
        own = {
            "quickstart": [],
            "alexnet_cifar10": ["paper", "strong", "strong+smoke", "plain", "cores+plain"],
            "alexnet_cifar100": ["paper", "strong", "strong+smoke", "plain", "cores+plain"],
            "finetune": ["head", "head+smoke"],
            "rsscn7": ["finetune"],
            "pneumonia": [],
            "resnet20_cifar10": ["cores", "cores+smoke"],
            "yolo_resnet18_coco": [],
            "yolox_s_coco": [],
            "faster_rcnn_resnet18_coco": [],
            "mask_rcnn_resnet18_coco": [],
            "unet_masks": [],
            "speedrun_cifar10": ["gpu"],
            "speedrun_cifar100": ["gpu"],
        }
        variants = ["", "smoke", *own.get(file.stem, ["paper", "strong", "strong+smoke"])]
        for variant in variants:
            assert isinstance(from_config_dict(module.get_config(variant)), Config)
        with pytest.raises(ConfigError, match="did you mean 'smoke'"):
            module.get_config("smok")


@pytest.mark.parametrize("variant, rate", [("plain", 0.01), ("cores+plain", 0.01), ("paper+plain", 0.001)])
def test_alexnet_without_batch_norm_has_a_smaller_rate_with_sgd(root, variant, rate):
    config = from_config_dict(runpy.run_path(str(root / "configs/alexnet_cifar10.py"))["get_config"](variant))
    assert not config.model.batch_norm and config.optim.learning_rate == pytest.approx(rate)


def test_the_strong_variants_have_what_the_strongest_recipes_have(root):
    def read(name, variant="strong"):
        return from_config_dict(runpy.run_path(str(root / f"configs/{name}.py"))["get_config"](variant))

    for name in ("alexnet_cifar10", "vgg16_cifar100", "resnet50_cifar10", "resnet50_cifar100"):
        config = read(name)
        assert (config.model.dtype, config.global_batch_size, config.augment.erasing) == ("bfloat16", 256, 0.25)
        assert config.optim.learning_rate * config.schedule.final_factor == pytest.approx(1e-6)
        assert (config.augment.mixup > 0) == (config.model.stochastic_depth > 0) == ("resnet" in name)
    resnet = read("resnet50_cifar100")
    assert (resnet.model.last_stride, resnet.model.shortcut, resnet.augment.policy) == (1, "pooled", "autoaugment")
    assert (resnet.run.epochs, resnet.schedule.warmup, resnet.optim.weight_decay) == (300, 20, 5e-4)
    smoke = read("resnet50_cifar100", "strong+smoke")
    assert (smoke.model, smoke.augment) == (dataclasses.replace(resnet.model, width=1 / 16), resnet.augment)
    with pytest.raises(ConfigError, match=r"no variant ':strng' .did you mean 'strong'"):
        read("resnet50_cifar100", "strng+smoke")


def test_the_paper_variants_have_the_papers_batch_and_learning_rate(root):
    for model in ("alexnet", "vgg16", "resnet50"):
        spec = importlib.util.spec_from_file_location(model, root / f"configs/{model}_cifar10.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = from_config_dict(module.get_config("paper"))
        assert (config.global_batch_size, config.optim.learning_rate) == (128, 0.001)
        config = from_config_dict(module.get_config())
        assert (config.optim.weight_decay, config.run.epochs, config.optim.nesterov) == (5e-4, 200.0, True)


def test_the_speedruns_have_no_paper_variant_and_their_rates_follow_the_batch(root):
    spec = importlib.util.spec_from_file_location("speedrun", root / "configs/speedrun_cifar10.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ConfigError, match="no variant ':paper'"):
        module.get_config("paper")
    for variant in ("", "smoke"):
        config = from_config_dict(module.get_config(variant))
        batch, optim = config.global_batch_size, config.optim
        # airbench94_muon's, of the summed loss.
        assert optim.learning_rate * optim.bias_gradient_factor / batch == pytest.approx(0.053, rel=1e-12)
        assert optim.learning_rate * optim.classifier_gradient_factor / batch == pytest.approx(0.67, rel=1e-12)
        assert optim.learning_rate * optim.weight_decay / batch == pytest.approx(2e-6, rel=1e-12)


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b"[" * 100_000])
def test_the_config_of_a_run_that_cannot_be_read_is_one_line(content, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(configs.UserError, match=r"config.json cannot be read .*restore it from a backup$"):
        recipes.from_run(tmp_path)
