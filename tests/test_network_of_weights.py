"""A run that leaves its network to the weights that it starts from has the network that these are of."""

import dataclasses
import gzip
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

import jaxcnn
from jaxcnn import config as configs
from jaxcnn import models
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.study import spec
from jaxcnn.train import exported, network_of_weights, setup, starting, trained, workdir
from jaxcnn.weights import layout, published
from tests import digits, runs

LAYOUTS = json.loads(
    gzip.decompress((pathlib.Path(__file__).parent / "goldens/torchvision_layouts.json.gz").read_bytes())
)
AUTO = {"name": "auto", "width": 1.0}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A finished run of a network with options that are not the default, and its weights as a file."""
    folder = tmp_path_factory.mktemp("before")
    digits.run(folder / "run")
    exported.write(trained.load(folder / "run", "last", "", 1)[0], "jaxcnn", folder / "weights.safetensors")
    return folder


def published_file(path: pathlib.Path, name: str, naming: str, head: bool = True) -> None:
    """A file of a network of `published.ARRAYS` with the names of a library; its values are zeros."""
    model = published.network(name)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    shapes = jax.eval_shape(models.build(model, configs.Norm(), 10).init, jax.random.key(0), image)
    paths = jax.tree_util.tree_flatten_with_path(shapes)[0]
    flat = {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in paths}
    given = {
        leaf.theirs[0]: np.asarray(layout.to_theirs(naming, leaf, np.zeros(leaf.shape, np.float32)))
        for leaf in layout.leaves(naming, model, flat)
        if head or not leaf.is_head
    }
    np.savez(path, **given) if path.suffix == ".npz" else save_file(given, path)


def test_the_network_of_a_workdir_and_of_a_file_of_ours_is_taken_with_its_options(before):
    there = workdir.read_config(before / "run")
    assert (there.model.name, there.model.width) == ("cnn", 0.25)
    for source in (f"workdir:{before}/run", f"file:{before}/weights.safetensors"):
        made = network_of_weights.of(digits.config(model=AUTO, init={"source": source}))
        assert (made.model, made.norm) == (there.model, there.norm)
    # Options of training alone are this run's own, and so is what it sets to another value than the default.
    own = digits.config(model=AUTO | {"dropout": 0.25, "width": 0.5}, init={"source": f"workdir:{before}/run"})
    made = network_of_weights.of(own)
    assert (made.model.name, made.model.dropout, made.model.width) == ("cnn", 0.25, 0.5)
    splits = open_splits(made.data, made.task)
    with pytest.raises(UserError, match=r"has another network; set --config\.model\.width=0\.25, or"):
        starting.of(made, setup.spec_on(made, splits), splits, None)


def test_what_was_taken_is_in_the_config_of_the_run_which_goes_on_without_the_weights(before, tmp_path, capsys):
    shutil.copy(before / "weights.safetensors", tmp_path / "w.safetensors")
    init = {"source": f"file:{tmp_path}/w.safetensors"}
    digits.run(tmp_path / "run", model=AUTO, init=init)
    told = capsys.readouterr().out
    assert f"the network is that of file:{tmp_path}/w.safetensors: model.name=cnn model.width=0.25" in told
    model = workdir.read_config(tmp_path / "run").model
    assert (model.name, model.width) == ("cnn", 0.25)
    first = runs.seals(tmp_path / "run")
    (tmp_path / "w.safetensors").unlink()
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if checkpoint.name != "20":
            shutil.rmtree(checkpoint)
    (tmp_path / "run" / "summary.json").unlink()
    digits.run(tmp_path / "run", model=AUTO, init=init)
    assert runs.seals(tmp_path / "run") == first
    assert "the network is that of" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"model\.width: 0\.25 in the workdir, 0\.5 now"):
        digits.run(tmp_path / "run", model=AUTO | {"width": 0.5}, init=init)


@pytest.mark.parametrize(
    ("name", "naming", "file", "norm"),
    [
        ("resnet20", "torchvision", "w.npz", {}),
        ("vgg11_bn", "torchvision", "w.safetensors", {}),  # as many arrays without its classifier as a SqueezeNet has
        ("squeezenet1_1", "caffe", "w.npz", {}),
        ("efficientnet_lite0", "timm", "w.npz", {"epsilon": 1e-3}),
    ],
)
def test_a_file_of_another_library_tells_its_network_by_its_arrays(name, naming, file, norm, tmp_path):
    if name.startswith("vgg"):  # the half gigabyte of its hidden layers is not needed to tell it from the others
        assert published.possible(dict.fromkeys(LAYOUTS[name], 0)) == [name]
        assert "squeezenet1_1" in published.possible(dict.fromkeys(list(LAYOUTS[name])[:52], 0))
        return
    published_file(tmp_path / file, name, naming)
    made = network_of_weights.of(digits.config(model=AUTO, init={"source": f"file:{tmp_path}/{file}"}))
    assert made.model == dataclasses.replace(made.model, **published.options(name))
    assert made.norm == dataclasses.replace(made.norm, **norm)


def test_a_file_without_its_classifier_tells_its_network_and_one_of_no_known_network_is_one_line(tmp_path):
    published_file(tmp_path / "w.npz", "resnet20", "torchvision", head=False)
    source = {"source": f"file:{tmp_path}/w.npz"}
    assert network_of_weights.of(digits.config(model=AUTO, init=source)).model.name == "resnet20"
    np.savez(tmp_path / "w.npz", weight=np.zeros((3, 3), np.float32))
    with pytest.raises(
        UserError, match=r"not tell its network, and its 1 arrays .* set --config\.model\.name$"
    ) as told:
        network_of_weights.of(digits.config(model=AUTO, init=source))
    assert len(str(told.value)) < 500


def test_the_error_for_weights_of_another_network_names_the_one_that_fits(tmp_path):
    published_file(tmp_path / "w.npz", "resnet20", "torchvision")
    config = digits.config(model={"name": "resnet32", "width": 1.0}, init={"source": f"file:{tmp_path}/w.npz"})
    splits = open_splits(config.data, config.task)
    with pytest.raises(UserError, match=r"than this resnet32; set --config\.model\.name=resnet20$"):
        starting.of(config, setup.spec_on(config, splits), splits, None)


def test_a_file_may_not_name_code_as_its_network(tmp_path):
    facts = {"model": json.dumps({"name": "os:getcwd"})}
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "w.safetensors", facts)
    with pytest.raises(UserError, match="is of the network os:getcwd, which is not one of jaxcnn"):
        network_of_weights.of(digits.config(model=AUTO, init={"source": f"file:{tmp_path}/w.safetensors"}))


def test_the_numbers_of_arrays_are_those_of_the_published_networks():
    counts = {name: len(arrays) for name, arrays in LAYOUTS.items() if "rcnn" not in name}
    assert published.ARRAYS.items() >= counts.items()
    for name in set(published.ARRAYS) - set(counts) - {"efficientnet_lite0"}:  # which another test builds
        depth = int(name.removeprefix("resnet").removesuffix("d"))
        of_resnet = counts[name[:-1]] + 10 if name.endswith("d") else 5 * (depth - 1) + 2
        assert published.ARRAYS[name] == of_resnet


def test_an_option_set_to_its_default_beside_auto_is_refused_by_flags_python_and_sweeps():
    words = r"config\.model\.form='cifar' is the default, in whose place config\.model\.name='auto' takes"
    with pytest.raises(ConfigError, match=words):
        jaxcnn.config("finetune", model={"form": "cifar"})
    base = configs.from_config_dict(jaxcnn.config("finetune"))
    with pytest.raises(ConfigError, match=words):
        spec.apply(base, {"model.form": "cifar"})
    code, output = runs.run("--config=finetune", "--config.model.form=cifar")
    assert code == 2 and "config.model.form='cifar' is the default" in output
    assert spec.apply(base, {"model.form": "cifar", "model.name": "vgg11"}).model.name == "vgg11"
    assert jaxcnn.config("finetune", model={"dropout": 0.0}).model.name == "auto"


def test_without_weights_the_recipe_for_fine_tuning_is_of_resnet50():
    tree = jaxcnn.config("finetune")
    assert isinstance(tree, ConfigDict)
    assert network_of_weights.of(configs.from_config_dict(tree)).model == configs.Model(name="resnet50")
    assert jaxcnn.summary(tree, image_shape=(32, 32, 3), outputs=2).title.startswith("resnet50: ")
    with pytest.raises(ConfigError, match="has no such option"):
        network_of_weights.of(configs.from_config_dict(jaxcnn.config("finetune", model={"box_bins": 17})))
