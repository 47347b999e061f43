"""k-fold cross-validation: `data.folds`, `data.fold`, and the report of a sweep over the folds."""

import dataclasses

import numpy as np
import pytest

import jaxcnn.config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.data import holdout
from jaxcnn.data.source import open_splits
from jaxcnn.reporting import cautions, contents, findings, labels, read
from jaxcnn.reporting.settings import group, sample_noun
from jaxcnn.study import outcome, spec, table
from tests import studies

LABELS = np.random.default_rng(0).choice(4, size=103, p=[0.5, 0.3, 0.15, 0.05])


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("folds", [2, 5, 103])
def test_every_example_is_in_exactly_one_fold(folds, stratify):
    parts = [holdout.fold(LABELS, folds, number, 3, stratify) for number in range(folds)]
    np.testing.assert_array_equal(np.sort(np.concatenate([chosen for chosen, _ in parts])), np.arange(103))
    sizes = [len(chosen) for chosen, _ in parts]
    assert max(sizes) - min(sizes) <= 1
    for chosen, rest in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(103))


def test_stratified_folds_have_equal_shares_of_each_class_and_another_seed_has_others():
    parts = [holdout.fold(LABELS, 5, number, 3, True)[0] for number in range(5)]
    counts = np.array([np.bincount(LABELS[part], minlength=4) for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all()
    plain = np.array([np.bincount(LABELS[holdout.fold(LABELS, 5, k, 3, False)[0]], minlength=4) for k in range(5)])
    assert (np.ptp(plain, axis=0) > 1).any(), "the classes must be uneven for this to mean much"
    assert set(parts[0]) != set(holdout.fold(LABELS, 5, 0, 4, True)[0])


def test_the_splits_of_a_run_are_its_fold_and_the_rest():
    data = configs.Data(source="digits", folds=4, stratify=True)
    opened = [open_splits(dataclasses.replace(data, fold=fold)) for fold in range(4)]
    assert sum(len(each.val) for each in opened) == 1437
    assert all(len(each.train) + len(each.val) == 1437 and len(each.test) == 360 for each in opened)
    assert opened[2].val.description == "digits train (fold 2 of 4 by split_seed=0, stratified)"
    assert len({tuple(each.val.place) for each in opened}) == 4


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"folds": 5, "fold": 5}, "config.data.fold=5 must be below config.data.folds=5"),
        ({"fold": 1}, "config.data.fold=1 must be below config.data.folds=0"),
        ({"folds": 1}, "must be 0 or at least 2"),
        ({"folds": 3, "protocol": "full"}, "takes validation from the training split"),
        ({"folds": 3, "val_split": "train[:10%]"}, "takes validation from the training split"),
    ],
)
def test_impossible_folds_are_refused(data, told):
    with pytest.raises(ConfigError) as error:
        configs.from_config_dict({"data": data})
    assert told in str(error.value)


def test_more_folds_than_examples_are_refused():
    with pytest.raises(UserError, match=r"folds=900 is more than the 718 examples"):
        open_splits(configs.Data(source="digits", train_split="train[:50%]", test_split="", folds=900))


def test_a_sweep_over_the_folds_is_one_setting_with_mean_and_spread(tmp_path):
    study = studies.make(tmp_path, spec.sweep(spec.values("data.fold", range(3))), data={"folds": 3})
    study.work()
    material = read.read([tmp_path])
    (setting,) = group(material.runs)
    of = setting.validation
    assert of.n == 3 and of.std > 0 and setting.label == ""
    found = findings.find(material)
    assert any("3-fold cross-validation" in line for line in cautions.cautions(found))
    made = contents.tables(found)["settings"]
    assert made.rows[0][made.columns.index("folds")].text == "3" and "seeds" not in made.columns
    assert labels.seeds(of.n, 3, sample_noun(setting)) == "3 folds"
    ended = table.Board(tmp_path, 3, None, setting.headline)
    ended.read()
    assert outcome.ranking(ended) == [], "there is one setting"
    for trial in ended.trials:
        trial["overrides"] |= {"optim.learning_rate": 0.1 if trial["overrides"]["data.fold"] else 0.2}
    title, first, second = outcome.ranking(ended)
    assert title.endswith("mean over folds:")
    assert {line.partition("optim.")[2] for line in (first, second)} == {
        "learning_rate=0.1 (2 folds)", "learning_rate=0.2 (1 fold)",
    }  # fmt: skip
