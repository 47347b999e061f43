"""Validation splits, holding out, slices by path, names of classes, and what is told of splits that are not sound."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcnn.config import ConfigError, Data, UserError, from_config_dict
from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import holdout, source
from jaxcnn.data.arrays import array_examples
from jaxcnn.data.examples import Source
from jaxcnn.data.slices import resolve
from jaxcnn.data.source import open_splits
from jaxcnn.text import distinct
from tests.test_folder import folder, make_folder, picture
from tests.test_source import everything, npz, save_npz


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def with_val(tmp_path):
    """A set of 30, 9 and 8 images in train, val and test."""
    random = np.random.default_rng(9)
    own = {"val_images": random.integers(0, 256, (9, 4, 5, 3), np.uint8), "val_labels": np.arange(9) % 3}
    return tmp_path / "a.npz", save_npz(tmp_path / "a.npz", **own)


# A validation split of the set's own


def test_the_sets_own_validation_split_is_used_and_told(with_val):
    path, arrays = with_val
    splits = open_splits(npz(path))
    assert (everything(splits.val) == arrays["val_images"]).all() and splits.val.name == "val"
    assert (everything(splits.train) == arrays["train_images"]).all()
    assert any("validation is the set's own split 'val'" in note for note in splits.notes)


def test_validation_can_still_be_held_out_of_train_and_then_has_the_same_bits(with_val, tmp_path):
    path, arrays = with_val
    splits = open_splits(npz(path, val_split=HELD_OUT))
    save_npz(tmp_path / "without.npz", **arrays | {"val_images": None})
    without = open_splits(npz(tmp_path / "without.npz"))
    for ours, theirs in ((splits.train, without.train), (splits.val, without.val)):
        assert (everything(ours) == everything(theirs)).all() and (ours.targets == theirs.targets).all()
    assert any("own validation split 'val' is not used" in note for note in splits.notes)
    assert without.notes == ()


def test_validation_may_be_any_slice_that_shares_nothing_with_the_others(with_val):
    path, arrays = with_val
    splits = open_splits(npz(path, train_split="train[:20]", val_split="train[20:] + val[:4]"))
    expected = np.concatenate([arrays["train_images"][20:], arrays["val_images"][:4]])
    assert (everything(splits.val) == expected).all() and len(splits.train) == 20
    with pytest.raises(UserError, match=r"train_split='train' and .*val_split='train\[25:\]' share 5 examples"):
        open_splits(npz(path, val_split="train[25:]"))
    with pytest.raises(UserError, match=r"test_split='test' and config\.data\.val_split='test' share 8 examples"):
        open_splits(npz(path, val_split="test"))
    with pytest.raises(UserError, match=r"val_split='vall': the source has no split 'vall' \(did you mean 'val'"):
        open_splits(npz(path, val_split="vall"))


def test_what_is_tested_or_trained_on_is_no_validation_split(with_val):
    path, _ = with_val
    splits = open_splits(npz(path, test_split="val"))  # as for sets whose test labels are secret
    assert (len(splits.train), len(splits.val), len(splits.test)) == (24, 6, 9)
    splits = open_splits(npz(path, train_split="train+val"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (33, 6, 8)


def test_a_split_called_validation_is_one(monkeypatch):
    def open_fake(argument, data):
        return Source("fake", ("a", "b"), ("train", "validation", "test"), lambda name: made[name])

    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), np.uint8)
    parts = {"train": images[:12], "validation": images[12:20], "test": images[20:]}
    made = {name: array_examples(part, np.arange(len(part)) % 2, Data()) for name, part in parts.items()}
    monkeypatch.setitem(source.SOURCES, "fake", open_fake)
    splits = open_splits(Data(source="fake:"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 8, 4) and splits.has_own_val
    assert splits.val.description == "fake validation"


def test_the_full_protocol_leaves_a_validation_split_unused_and_says_so(with_val):
    splits = open_splits(npz(with_val[0], protocol="full"))
    assert splits.val is None and len(splits.train) == 30
    assert any("protocol=full leaves the validation split 'val' unused" in note for note in splits.notes)


def test_no_examples_need_be_held_out_where_the_validation_split_is_named():
    assert from_config_dict({"data": {"val_split": "val", "val_examples": 0}}).data.val_examples == 0
    with pytest.raises(ConfigError, match="val_examples=0 leaves no validation examples"):
        from_config_dict({"data": {"val_examples": 0}})


# Holding out


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=12), data=st.data())
def test_a_stratified_choice_has_the_share_of_every_class(counts, data):
    counts = np.array(counts)
    held = data.draw(st.integers(1, counts.sum() - 1))
    quotas = holdout.quotas(counts, held)
    assert quotas.sum() == held and (quotas >= 0).all() and (quotas <= counts).all()
    rare = counts * held < counts.sum()
    if not rare.any() and held <= (counts - 1).sum():
        assert np.abs(quotas - counts * held / counts.sum()).max() <= len(counts)
        assert (quotas < counts).all()
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    chosen, rest = holdout.choose(labels, held, seed=3, stratify=True)
    assert (np.bincount(labels[chosen], minlength=len(counts)) == quotas).all()
    assert sorted([*chosen, *rest]) == list(range(len(labels)))


def test_a_rare_class_is_in_a_stratified_validation_split_and_told_of_where_it_is_not(tmp_path):
    labels = np.array([0] * 60 + [1] * 60 + [2] * 3)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
    names = np.array(["common", "usual", "rare"])
    save_npz(tmp_path / "a.npz", train_images=images, train_labels=labels, test_labels=np.arange(8) % 2, names=names,
             test_images=np.zeros((8, 4, 4, 3), np.uint8))  # fmt: skip
    assert holdout.quotas(np.array([60, 60, 3]), 12).tolist() == [5, 6, 1]
    stratified = open_splits(npz(tmp_path / "a.npz", val_examples=12, stratify=True))
    assert np.bincount(stratified.val.targets).tolist() == [5, 6, 1]
    assert "12 held out by split_seed=0, stratified" in stratified.val.description
    assert [note for note in stratified.notes if "no example" in note] == ["test has no examples of 'rare'"]
    plain = open_splits(npz(tmp_path / "a.npz", val_examples=12, split_seed=2))
    advice = "val has no examples of 'rare'; config.data.stratify=True holds out examples of every class"
    assert 2 not in plain.val.targets and advice in plain.notes


# Slices by path


def test_slices_by_path_move_no_image_when_others_are_added(tmp_path):
    make_folder(tmp_path / "set", count=30)
    by_path = {"train_split": "train[:60% by path]", "val_split": "train[60%:80% by path]"}
    data = folder(tmp_path / "set", **by_path, test_split="train[80%: by path]")

    def members():
        splits = open_splits(data)
        return [{image.tobytes() for image in everything(split)} for split in (splits.train, splits.val, splits.test)]

    before = members()
    assert set.union(*before) == {picture(number).tobytes() for number in range(60)}
    for name, number in (("cat", 100), ("dog", 200)):
        for extra in make_folder(tmp_path / "more", (name,), count=25):
            Image.fromarray(picture(number + int(extra.stem))).save(tmp_path / "set" / name / f"new{extra.name}")
    after = members()
    assert sum(map(len, after)) == 110
    assert all(earlier <= later for earlier, later in zip(before, after, strict=True))


def test_slices_by_path_tile_a_split_and_keep_to_their_share():
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    hashes[:4] = (0, 2**64 - 1, 2**63, 2**63 - 1)

    def cut(expression):
        return resolve(expression, "key", ("train",), lambda _: len(hashes), lambda _: hashes)[0][1]

    parts = [cut(f"train[{start}%:{start + 10}% by path]") for start in range(0, 100, 10)]
    assert (np.sort(np.concatenate(parts)) == np.arange(len(hashes))).all()
    # Each share of 10 % is binomial: 6 standard deviations of 42 images, which a fair hash passes once in 10^8 times.
    assert all(abs(len(part) - 2000) < 255 for part in parts)
    assert (cut("train[-20%:by path]") == cut("train[80%: by path]")).all()


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("[:80 by path]", "80 must be a percentage"),
        ("[:120% by path]", "more than 100%"),
        ("[by path]", "not a"),
    ],
)
def test_slices_by_path_that_mean_nothing_are_refused(expression, words):
    with pytest.raises(UserError, match=words):
        resolve(f"train{expression}", "key", ("train",), lambda _: 10, lambda _: np.arange(10, dtype=np.uint64))
    with pytest.raises(UserError, match="only image files have paths"):
        open_splits(Data(source="digits", train_split="train[:80% by path]"))


# Names of classes


@given(st.lists(st.sampled_from(["crane", "crane (0)", "crane (2)", "maillot", ""]), min_size=1, max_size=9))
def test_names_of_classes_are_made_distinct_and_distinct_ones_are_kept(names):
    made = distinct(tuple(names))
    assert len(set(made)) == len(made) == len(names)
    assert all(new == old for new, old in zip(made, names, strict=True) if names.count(old) == 1 and new in names)
    assert distinct(made) == made


def test_classes_of_one_name_are_numbered_and_told(tmp_path):
    save_npz(tmp_path / "a.npz", names=np.array(["crane", "maillot", "crane"]))
    splits = open_splits(npz(tmp_path / "a.npz"))
    assert splits.class_names == ("crane (0)", "maillot", "crane (2)") == splits.test.class_names
    assert any("share the name 'crane'" in note and "'crane (0)', 'crane (2)'" in note for note in splits.notes)


# What is told


def test_grey_beside_colour_is_told_without_advice_that_cannot_help(tmp_path):
    grey = np.zeros((8, 4, 5), np.uint8)
    save_npz(tmp_path / "a.npz", test_images=grey)
    for size in (0, 16):
        with pytest.raises(
            UserError, match="have 3 channels in train and are grey in test; save all in one format"
        ) as caught:
            open_splits(npz(tmp_path / "a.npz", image_size=size))
        assert "image_size" not in str(caught.value)


@pytest.mark.parametrize("names", [None, np.array(["a", "b", "c"])])
def test_labels_that_begin_at_1_are_told(names, tmp_path):
    save_npz(tmp_path / "a.npz", train_labels=np.arange(30) % 3 + 1, test_labels=np.arange(8) % 3 + 1, names=names)
    with pytest.raises(UserError, match=r"labels (start at 1|go from 1 to 3), but they must be counted from 0"):
        open_splits(npz(tmp_path / "a.npz"))
    save_npz(tmp_path / "b.npz", train_labels=np.arange(30) % 2 + 1)  # while test has the class 0
    with pytest.raises(UserError, match="every class needs training examples"):
        open_splits(npz(tmp_path / "b.npz"))


def test_images_that_are_in_two_splits_are_told_with_their_number(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    leaking = arrays["test_images"].copy()
    leaking[[1, 4, 6]] = arrays["train_images"][[3, 9, 9]]
    save_npz(tmp_path / "a.npz", test_images=leaking)
    splits = open_splits(npz(tmp_path / "a.npz", val_split="train[20:]", train_split="train[:20]"))
    assert splits.leaks() == ["3 of the 8 images of test are also in train, byte for byte"]
    assert open_splits(npz(tmp_path / "a.npz", val_split="train[:8]", train_split="train[8:]")).leaks() == [
        "2 of the 8 images of test are also in train, byte for byte",
        "1 of the 8 images of test are also in val, byte for byte",
    ]
    assert dataclasses.replace(splits, test=None).leaks() == []
    assert open_splits(Data(source="digits", val_examples=99)).leaks() == []


def test_files_that_are_in_two_splits_are_told(tmp_path):
    paths = make_folder(tmp_path / "set" / "train", count=6)
    make_folder(tmp_path / "set" / "test", count=2)  # pictures 0 to 3, of which 0 to 5 are cats in train
    assert len(paths) == 12
    data = Data(source=f"folder:{tmp_path / 'set'}", protocol="full")
    assert open_splits(data).leaks() == ["4 of the 4 images of test are also in train, byte for byte"]


def test_balanced_sampling_repeats_the_examples_of_small_classes_equally_often_and_leaves_none_out(tmp_path):
    labels = np.repeat([0, 1, 2], [13, 5, 4])
    chosen = holdout.balanced(labels, 3)
    assert np.bincount(labels[chosen]).tolist() == [13, 13, 13]
    times = np.bincount(chosen, minlength=22)
    assert [set(times[labels == k]) for k in range(3)] == [{1}, {2, 3}, {3, 4}]
    assert chosen.tolist() == holdout.balanced(labels, 3).tolist() != holdout.balanced(labels, 4).tolist()
    images = np.arange(22, dtype=np.uint8)[:, None, None, None].repeat(4, axis=1).repeat(4, axis=2)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    data = Data(source=f"npz:{tmp_path / 'a.npz'}", protocol="full", sampling="balanced", split_seed=3)
    splits = open_splits(data)
    assert len(splits.test) == 22 and splits.train.description.endswith("(balanced: 39 of 22 examples)")
    assert splits.train.read(np.arange(39))[:, 0, 0, 0].tolist() == chosen.tolist()
