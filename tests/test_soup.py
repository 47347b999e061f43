"""Averages of the weights of runs: the mean, those that help on validation, and the line between two."""

import dataclasses

import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.train import same_data, seals, soup, starting, trained
from tests import digits


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run, and one that went on from it at another rate: neighbours in weight space."""
    place = tmp_path_factory.mktemp("soup")
    digits.run(place / "first")
    init = configs.Init(source=f"workdir:{place}/first")
    digits.run(place / "second", init=init, optim={"learning_rate": 0.05}, seed=1)
    return [place / "first", place / "second"]


@pytest.fixture(scope="module")
def networks(folders):
    return [trained.load(folder, "last", "", 1)[0] for folder in folders]


@pytest.fixture(scope="module")
def arrays(networks):
    return [{key: np.asarray(leaf) for key, leaf in seals.leaves(network.variables)} for network in networks]


@pytest.fixture(scope="module")
def val(networks):
    return open_splits(networks[0].config.data, networks[0].config.task).val


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def start_of(folders, data=None, **init):
    """The start that a run takes from these folders."""
    changes = {"init": configs.Init(source=f"workdirs:{','.join(map(str, folders))}", **init), "data": data or {}}
    config = digits.config(**changes)
    splits = open_splits(config.data, config.task)
    return starting._read(config, splits)


def test_the_uniform_average_is_the_mean_of_every_array_and_its_ends_are_exact(folders, arrays):
    start = start_of(folders)
    for key, value in start.arrays.items():
        np.testing.assert_array_equal(value, np.mean([each[key] for each in arrays], 0, np.float64).astype(np.float32))
    assert "2 runs (uniform)" in start.source and not same(arrays[0], arrays[1])
    assert same(soup.between(*arrays, 0.0), arrays[0]) and same(soup.between(*arrays, 1.0), arrays[1])
    assert same(start_of([folders[0]] * 3).arrays, arrays[0])


def test_the_figure_that_decides_is_that_of_the_runs_own_evaluation(networks, arrays, val):
    for network, own in zip(networks, arrays, strict=True):
        assert soup.evaluated(networks[0], own, val) == network.evaluate(val)["top1_accuracy"]


def test_a_greedy_soup_takes_what_does_not_harm_in_the_order_of_validation(networks, arrays, val):
    broken = {key: -value if key.endswith("kernel") else value for key, value in arrays[0].items()}
    names, nets = ("a", "broken", "b"), (networks[0], networks[0], networks[1])
    given = (arrays[0], broken, arrays[1])
    made, lines = soup.mixed(names, nets, given, "greedy", val)
    own = [soup.evaluated(networks[0], each, val) for each in given]
    best = max(own)
    assert lines[0].startswith(("a:", "b:")[own[2] > own[0]]) and "left out" in lines[-1] and "broken" in lines[-1]
    assert soup.evaluated(networks[0], made, val) >= best > own[1]
    mean = {key: np.mean([arrays[0][key], arrays[1][key]], 0, np.float64).astype(np.float32) for key in made}
    assert same(made, mean) == ("taken" in lines[1]) or same(made, given[int(np.argmax(own))])


def test_the_line_takes_its_best_point_on_validation(folders, networks, arrays, val):
    start = start_of(folders, average="line")
    figures = [soup.evaluated(networks[0], soup.between(*arrays, k / 10), val) for k in range(11)]
    assert same(start.arrays, soup.between(*arrays, int(np.argmax(figures)) / 10))
    assert f"share of the second run {np.argmax(figures) / 10:g}" in start.remarks[0]


def test_runs_that_may_have_learnt_from_the_validation_split_do_not_decide_on_it(folders):
    for data in ({"split_seed": 1}, {"val_examples": 150}, {"stratify": True}, {"folds": 4}):
        for average in ("greedy", "line"):
            with pytest.raises(UserError, match="first may have learnt from these images") as caught:
                start_of(folders, data, average=average)
            assert "\n" not in str(caught.value)
    assert start_of(folders, {"split_seed": 1}).arrays
    facts = {"splits": {"train": "a"}, "labels_crc32": {}, "content": {"train": "1"}}
    ours = {"splits": {"train": "b", "val": "b (9 held out)"}, "labels_crc32": {"val": 3}, "content": {"train": "1"}}
    assert same_data.may_have_learnt(facts, ours)  # protocol=full
    assert not same_data.may_have_learnt(facts | {"content": {"train": "2"}}, ours)  # another set
    assert not same_data.may_have_learnt(ours, ours)


def test_runs_that_cannot_be_mixed_are_refused_in_one_line(folders, networks, arrays, val):
    other = {**arrays[0], "params/conv1/kernel": np.zeros((3, 3, 1, 9), np.float32)}
    renamed = dataclasses.replace(networks[1], class_names=tuple("abcdefghij"))
    gelu = configs.from_config_dict(configs.to_dict(digits.config(model={"activation": "gelu"})))
    shifted = dataclasses.replace(networks[1].constants, mean=networks[1].constants.mean + 1)
    for networks_, arrays_, val_, way, words in (
        (networks, (arrays[0], other), val, "uniform", "b has other arrays than a"),
        (
            (networks[0], dataclasses.replace(networks[1], config=gelu)),
            arrays,
            val,
            "uniform",
            r"b has another config\.model\.activation than a",
        ),
        ((networks[0], renamed), arrays, val, "uniform", "b has other classes than a"),
        (
            (networks[0], dataclasses.replace(networks[1], constants=shifted)),
            arrays,
            val,
            "uniform",
            "normalises images otherwise than a",
        ),
        (networks, arrays, None, "greedy", "decides on validation"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            soup.mixed(("a", "b"), networks_, arrays_, way, val_)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="needs at least two folders"):
        start_of(folders[:1])
    with pytest.raises(UserError, match="needs two folders"):
        start_of([*folders, folders[0]], average="line")
    with pytest.raises(ConfigError, match=r"config\.init\.average='greedy' is for a source 'workdirs:"):
        configs.from_config_dict({"init": {"source": "file:a.npz", "average": "greedy"}})


def test_another_fold_of_a_folder_whose_labels_are_the_same_may_have_been_learnt():
    facts = [
        {
            "splits": {"train": "folder:/a train", "val": f"folder:/a train (fold {fold} of 5 by split_seed=0)"},
            "labels_crc32": {"val": 3},
            "content": {"train": "1"},
        }
        for fold in range(2)
    ]
    assert same_data.may_have_learnt(*facts) and not same_data.may_have_learnt(facts[0], facts[0])
