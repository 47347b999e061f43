"""Groups of images, such as the patient of each: no split cuts one, and every figure is known for each."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcnn.config import ConfigError, Data, Task, UserError, from_config_dict, to_dict
from jaxcnn.data import groups, holdout, memory
from jaxcnn.data.automatic import divide
from jaxcnn.data.source import open_splits
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.groups import by_group as by_group_tables
from jaxcnn.reporting.read import read
from jaxcnn.tasks import by_group, by_name, kept
from jaxcnn.tasks.binned import Binned
from jaxcnn.train import assess, trained
from tests import digits, report_folders
from tests.test_folder import picture

SITES = ("north", "south", "west")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


# Holding out whole groups


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.integers(0, 50), st.data())
def test_whole_groups_are_held_out_as_near_to_the_number_as_any_choice_of_them(sizes, seed, data):
    names = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    count = data.draw(st.integers(1, len(names) - 1))
    held, rest = holdout.choose_groups(names, count, seed)
    assert (np.sort(np.concatenate([held, rest])) == np.arange(len(names))).all()
    assert not set(names[held]) & set(names[rest])
    assert (np.diff(held) > 0).all() and (np.diff(rest) > 0).all()
    choices = (sum(some) for k in range(1, len(sizes)) for some in itertools.combinations(sizes, k))
    assert len(held) == min(choices, key=lambda total: (abs(total - count), total))
    assert all((a == b).all() for a, b in zip((held, rest), holdout.choose_groups(names, count, seed), strict=True))


def test_the_seed_chooses_the_groups_whatever_their_names():
    names = np.repeat(np.arange(40), 5)
    of_seeds = [tuple(holdout.choose_groups(names, 50, seed)[0]) for seed in range(5)]
    assert len(set(of_seeds)) == 5 and all(len(held) == 50 for held in of_seeds)
    renamed = np.array([f"site {number:02d}" for number in names])  # in the same order
    assert of_seeds[0] == tuple(holdout.choose_groups(renamed, 50, 0)[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(2, 3), st.integers(0, 50))
def test_every_group_is_in_exactly_one_fold(sizes, folds, seed):
    names = np.repeat(np.arange(len(sizes)), sizes)
    held = [holdout.fold_of_groups(names, folds, number, seed)[0] for number in range(folds)]
    assert (np.sort(np.concatenate(held)) == np.arange(len(names))).all()
    assert sum(len(set(names[of])) for of in held) == len(sizes)
    # Each group goes where the fewest examples are, so no two folds differ by more than the largest group.
    assert max(map(len, held)) - min(map(len, held)) <= max(sizes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.integers(2, 3), st.integers(0, 50))
def test_every_group_is_in_exactly_one_stratified_part_and_none_is_empty(sizes, parts, seed):
    names = np.repeat(np.arange(len(sizes)), sizes)
    classes = np.random.default_rng(seed).integers(0, 4, len(names))
    part = holdout.stratified_groups(names, classes, (1 / parts,) * parts, seed)
    assert set(part) == set(range(parts))
    assert all(len(set(part[names == name])) == 1 for name in range(len(sizes)))
    assert (part == holdout.stratified_groups(names, classes, (1 / parts,) * parts, seed)).all()


def test_stratified_groups_give_each_part_its_share_of_every_class():
    """Patients of eight images each, one in ten of whom has a rare class: chance would often hold out none of them."""
    names = np.repeat(np.arange(100), 8)
    classes = np.where(names % 10 == 3, 1, 0)
    for seed in range(20):
        part = holdout.stratified_groups(names, classes, (0.2, 0.8), seed)
        assert [int((classes[part == 0] == which).sum()) for which in (0, 1)] == [18 * 8, 2 * 8]
        five = holdout.stratified_groups(names, classes, (0.2,) * 5, seed)
        assert (np.array([np.bincount(classes[five == number]) for number in range(5)]) == [18 * 8, 2 * 8]).all()
    held = [set(names[holdout.stratified_groups(names, classes, (0.2, 0.8), seed) == 0]) for seed in range(4)]
    assert len(set(map(frozenset, held))) == 4


def test_whole_groups_are_held_out_by_shares_of_the_classes(tmp_path):
    labels = np.repeat([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 6)  # ten sites of six images each, with one class each
    sites = {"site": np.repeat(np.arange(10), 6)}
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 1), np.uint8)
    given = memory.give((images, labels, sites))
    data = Data(source=given.source, group="site", test_split="", val_examples=24, stratify=True)
    splits = open_splits(data)
    assert np.bincount(splits.val.targets).tolist() == [12, 12]
    assert "whole groups of 'site': 4 of 10, stratified, by split_seed=0" in splits.val.description
    of_folds = [open_splits(dataclasses.replace(data, folds=5, fold=number)).val for number in range(5)]
    assert [np.bincount(val.targets).tolist() for val in of_folds] == [[6, 6]] * 5
    assert "stratified" in of_folds[0].description


def test_a_set_is_divided_by_groups_and_a_class_without_training_images_takes_its_groups_along():
    names = np.array([f"p{number // 3}" for number in range(300)])
    labels = np.where(names == "p0", 1, 0).astype(np.int32)
    hashes = groups.hashes(names)
    parts = divide(hashes, labels, (1, 49, 50), whole=True)
    assert all(len(set(parts[names == name])) == 1 for name in set(names))
    assert parts[0] == 0 and (divide(hashes, np.zeros_like(labels), (1, 49, 50), whole=True)[3:] == parts[3:]).all()


# Where groups are told


@pytest.fixture
def table(tmp_path):
    """Sixty images of twelve patients in a folder, listed without splits: patient, class by row."""
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / "labels.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "patient"])
        for number in range(60):
            Image.fromarray(picture(number)).save(tmp_path / "set" / f"{number:02d}.png")
            rows.writerow([f"{number:02d}.png", "ab"[number % 2], f"patient {number % 12}"])
    return path


def patient(split, index):
    return f"patient {int(split.name_of(index)[-6:-4]) % 12}"


def test_a_table_without_splits_is_divided_by_patient_and_each_image_keeps_its_own(table):
    splits = open_splits(Data(source=f"csv:{table}", group="patient"))
    every = [splits.train, splits.val, splits.test]
    for split in every:
        assert split.groups.tolist() == [patient(split, index) for index in range(len(split))]
    assert sum(map(len, every)) == 60 and splits.leaks() == []
    assert "divided by the group of each image ('patient')" in splits.notes[0]
    assert open_splits(Data(source=f"csv:{table}")).train.groups is None


def test_validation_is_held_out_by_patient_and_what_differs_is_told(table):
    data = Data(source=f"csv:{table}", group="patient", test_split="", val_split="holdout", val_examples=11)
    splits = open_splits(data)
    assert len(splits.val) == 10 and not set(splits.val.groups) & set(splits.train.groups)
    assert splits.val.description.endswith("(10 held out, whole groups of 'patient': 2 of 12, by split_seed=0)")
    assert any("validation has 10 images in place of 11" in note for note in splits.notes)


def test_folds_and_slices_keep_patients_whole(table):
    data = Data(source=f"csv:{table}", group="patient")
    parts = [open_splits(dataclasses.replace(data, test_split="", folds=4, fold=k)).val.groups for k in range(4)]
    assert sorted(itertools.chain(*map(set, parts))) == sorted({f"patient {number}" for number in range(12)})
    cut = dataclasses.replace(data, train_split="train[:70% by group]", test_split="train[70%: by group]")
    splits = open_splits(cut)
    assert len(splits.test) and splits.leaks() == []
    assert not set(splits.test.groups) & (set(splits.train.groups) | set(splits.val.groups))


def arrays(**more):
    random = np.random.default_rng(3)
    made = {}
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        made[f"{split}_images"] = random.integers(0, 256, (count, 4, 4, 1), np.uint8)
        made[f"{split}_labels"] = np.arange(count) % 2
        made[f"{split}_site"] = np.array(SITES)[np.arange(count) % 3]
    return made | more


def save(path, **more):
    np.savez(path, **{name: array for name, array in arrays(**more).items() if array is not None})
    return Data(source=f"npz:{path}", group="site")


def test_an_npz_file_has_an_array_for_each_split_and_groups_in_two_splits_are_told(tmp_path):
    splits = open_splits(save(tmp_path / "a.npz", test_site=None, site_test=np.arange(12)[:, None] % 4 + 7))
    assert splits.test.groups.tolist() == [str(number % 4 + 7) for number in range(12)]
    (told,) = splits.leaks()
    assert told.startswith("3 of 3 groups (config.data.group='site') of val are also in train, with 12 images of val")


def test_arrays_of_a_program_have_groups_as_a_third_part():
    made = arrays()
    three = {
        name: (made[f"{name}_images"], made[f"{name}_labels"], {"site": made[f"{name}_site"]})
        for name in ("train", "test")
    }
    given = memory.give(three)
    data = Data(source=given.source, val_examples=8, group="site")
    splits = open_splits(data)
    assert len(splits.val) == 8 and set(splits.val.groups) | set(splits.train.groups) == set(SITES)
    two = memory.check({name: parts[:2] for name, parts in three.items()})
    assert two.fingerprint != given.fingerprint
    with pytest.raises(UserError, match="does not tell groups"):
        open_splits(Data(source=memory.know(two) or two.source, group="site"))
    with pytest.raises(UserError, match="must be a mapping"):
        memory.check((made["train_images"], made["train_labels"], made["train_site"]))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"val_site": None}, "has no array 'val_site' that names the group of each image of val"),
        ({"val_site": np.arange(3)}, "12 images of val, but 3 of config.data.group"),
        ({"val_site": np.ones(12)}, "'val_site' is float64 of shape .12,., but groups must be text or integers"),
        ({"val_site": np.array(["a", ""] * 6)}, "has an empty name at index 1"),
    ],
)
def test_wrong_groups_are_told(tmp_path, more, told):
    with pytest.raises(UserError, match=told):
        open_splits(save(tmp_path / "a.npz", **more))


def test_wrong_columns_and_settings_are_told(table, tmp_path):
    for data, told in (
        (Data(source=f"csv:{table}", group="patent"), "config.data.group='patent'.*did you mean 'patient'"),
        (
            Data(source=f"csv:{table}", train_split="train[:70% by group]", test_split=""),
            "config.data.group names no groups",
        ),
        (Data(source=f"csv:{table}", group="patient", test_split="", folds=13), "more than the 12 groups of 'patient'"),
    ):
        with pytest.raises(UserError, match=told):
            open_splits(data)
    table.write_text(table.read_text().replace("a,patient 4", "a, ", 1))
    with pytest.raises(UserError, match="line 6: the group in column 'patient' is empty"):
        open_splits(Data(source=f"csv:{table}", group="patient"))
    given = memory.give((arrays()["train_images"], arrays()["train_labels"], {"site": ["north"] * 24}))
    with pytest.raises(UserError, match="has one group of 'site', so none can be held out"):
        open_splits(Data(source=given.source, group="site", test_split="", val_examples=4))
    tree = to_dict(digits.config())
    tree["data"] |= {"group": "site", "source": "digits"}
    with pytest.raises(ConfigError, match="your own code, not digits"):
        from_config_dict(tree)


# Figures of groups


def test_figures_of_a_group_are_those_of_its_examples_alone():
    random = np.random.default_rng(1)
    names = np.array(SITES)[random.permutation(90) % 3]
    for task, outputs, targets in (
        (by_name.make(Task(), 4), 4, random.integers(4, size=90).astype(np.int32)),
        (by_name.make(Task(name="multilabel"), 4), 4, random.integers(2, size=(90, 4)).astype(np.uint8)),
    ):
        logits = random.normal(size=(90, outputs)).astype(np.float32)
        collector = kept.of(task, None, names, "site")
        for rows in (slice(0, 45), slice(45, 90)):
            collector.add(logits[rows], targets[rows])
        headline = task.evaluation.headline
        figures = collector.figures(tuple("abcd"), {})
        values = {}
        for name in SITES:
            alone = task.figures(logits[names == name], targets[names == name], tuple("abcd"))
            row = figures["per_group"][name]
            # Means of at most 90 float32 values, in float64: two roundings each.
            means = {key: value for key, value in row.items() if not isinstance(value, dict | list)}
            assert means == pytest.approx({key: alone[key] for key in means}, rel=1e-6)
            assert all(value == alone[key] for key, value in row.items() if key not in means)
            assert task.targets.outputs == outputs and ("auroc_interval" in row) == (targets.ndim == 2)
            values[name] = row[headline.name]
        worst = min(values, key=values.get)
        assert figures["groups"]["worst"] == worst and figures["groups"]["worst_value"] == values[worst]
        assert figures["groups"]["std"] == pytest.approx(np.std(list(values.values()), ddof=1))
        assert f"worst {100 * values[worst]:.2f}% ({worst!r}" in by_group.describe(figures, headline)[0]


def test_a_group_has_its_own_area_and_what_the_threshold_of_the_whole_validation_split_gives_in_it():
    random = np.random.default_rng(2)
    names, labels = np.array(SITES)[np.arange(120) % 3], random.integers(2, size=120).astype(np.int32)
    logits = random.normal(size=(120, 2)).astype(np.float32) + np.eye(2, dtype=np.float32)[labels]
    labels[names == SITES[2]] = 0  # a site without the class that is looked for
    task, fitted = by_name.make(Task(specificity=0.8), 2), {"thresholds": [0.5, 0.6]}
    collector = kept.of(task, None, names, "site")
    collector.add(logits, labels)
    rows = collector.figures(("well", "ill"), fitted)["per_group"]
    for name in SITES[:2]:
        own = names == name
        alone = task.figures(logits[own], labels[own], ("well", "ill"), fitted=fitted)
        assert (rows[name]["macro_auroc"], rows[name]["screening"]) == (alone["macro_auroc"], alone["screening"])
        low, high = rows[name]["macro_auroc_interval"]
        assert [low, high] == alone["macro_auroc_interval"] and low < rows[name]["macro_auroc"] < high
        found = logits[own, 1] - logits[own, 0] >= np.log(0.6 / 0.4)
        assert rows[name]["screening"]["ill"]["sensitivity"] == found[labels[own] == 1].mean()
    assert rows[SITES[2]]["macro_auroc"] is None and rows[SITES[2]]["balanced_accuracy"] is not None
    assert rows[SITES[2]]["screening"]["ill"]["sensitivity"] is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The workdirs of two runs on one file, with groups and without."""
    folder = tmp_path_factory.mktemp("runs")
    save(folder / "a.npz")
    for name, group in (("with", "site"), ("without", "")):
        data = {"source": f"npz:{folder / 'a.npz'}", "group": group}
        digits.run(
            folder / name, global_batch_size=16, data=data, run={"steps": 4, "eval_every_epochs": 10.0, "curves": False}
        )
    return folder


def test_a_run_reports_each_group_and_is_else_the_same_to_the_bit(runs):
    grouped, plain = (json.loads((runs / name / "test.json").read_text()) for name in ("with", "without"))
    assert set(grouped["per_group"]) == set(grouped["val_per_group"]) == set(SITES)
    assert sum(row["examples"] for row in grouped["per_group"].values()) == 12
    mean = np.mean([row["top1_accuracy"] for row in grouped["per_group"].values()])  # groups of four images each
    name = "ema_top1_accuracy"
    assert mean == pytest.approx(grouped[name], rel=1e-6)
    added = ("groups", "per_group", "val_groups", "val_per_group", "crc32")
    assert {key: value for key, value in grouped.items() if key not in added} == {
        key: value for key, value in plain.items() if key != "crc32"
    }


def test_evaluation_gives_the_same_figures_of_groups(runs):
    network, _ = trained.load(runs / "with", "last", "", 1)
    tested = json.loads((runs / "with" / "test.json").read_text())
    for split, prefix in (("test", ""), ("val", "val_")):
        figures = assess.assess(network, runs / "with", split, "", 16)
        assert figures["per_group"] == tested[f"{prefix}per_group"]
        assert any(line.startswith("accuracy by site (3 groups): worst") for line in assess.describe(network, figures))


def test_the_report_has_a_table_of_groups_and_bears_damaged_ones(tmp_path):
    folder = report_folders.write_run(tmp_path / "runs" / "a", confusion=[[3, 1], [1, 3]], data__group="patient")
    tested = json.loads((folder / "test.json").read_text())
    rows = {"x|1": {"examples": 3, "top1_accuracy": 0.25}, "y": {"examples": 5, "top1_accuracy": 0.75}}
    rows["y"] |= {"macro_auroc": 0.875, "balanced_accuracy": None}  # the other has images of one class
    rows |= {"z": {"examples": "5"}, "w": None}
    report_folders.write_json(folder / "test.json", tested | {"per_group": rows})
    (table,) = by_group_tables(find(read([tmp_path / "runs"]), best_on_test=False)).values()
    assert table.name.startswith("groups-") and table.columns == ["patient", "accuracy %", "AUROC %", "examples"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["x|1", "25.00", "\N{EN DASH}", "3"],
        ["y", "75.00", "87.50", "5"],
    ]
    assert "50.00 ± 35.36" in table.notes[0]
    rows["y"] |= {"macro_auroc_interval": [0.75, 1.0]}
    rows["x|1"] |= {"macro_auroc_interval": None}
    report_folders.write_json(folder / "test.json", tested | {"per_group": rows})
    (table,) = by_group_tables(find(read([tmp_path / "runs"]), best_on_test=False)).values()
    assert table.columns == ["patient", "accuracy %", "AUROC %", "its 95 % interval", "examples"]
    assert [row[3].text for row in table.rows] == ["\N{EN DASH}", "75.00 to 100.00"]


def test_the_collectors_of_all_groups_keep_no_more_than_one(monkeypatch):
    monkeypatch.setattr(by_group, "of_each", lambda task, outputs, *_: {"loss": np.zeros(len(outputs))})
    random = np.random.default_rng(3)
    names = np.array(SITES)[np.arange(90) % 3]
    for task, targets, left in (
        (by_name.make(Task(), 4), random.integers(4, size=90).astype(np.int32), {"balanced_accuracy"}),
        (by_name.make(Task(name="multilabel"), 4), random.integers(2, size=(90, 4)).astype(np.uint8), set()),
    ):
        logits = random.normal(size=(90, 4)).astype(np.float32)
        for most, counted in ((360, None), (359, {*left})):
            monkeypatch.setattr(by_group, "MOST", most)
            collector = kept.of(task, None, names, "site")
            collector.add(logits, targets)
            row = collector.figures(tuple("abcd"), {})["per_group"][SITES[0]]
            there = {name for name in task.evaluation.of_groups if row[name] is not None}
            assert there == ({*task.evaluation.of_groups} if counted is None else counted)
    monkeypatch.setattr(by_group, "MOST", 359)
    monkeypatch.setattr(Binned, "numbers", lambda classes: 10)  # counts that are fewer than the probabilities
    collector = kept.of(task, None, names, "site")
    collector.add(logits, targets)
    row = collector.figures(tuple("abcd"), {})["per_group"][SITES[0]]
    assert row["mean_average_precision"] is not None and row["macro_auroc"] is None
