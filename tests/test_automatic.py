"""A set without splits is divided by the path of each image."""

import re

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data.automatic import divide, fill
from jaxcnn.data.source import open_splits
from tests.test_folder import Data, cache, everything, make_folder, picture  # noqa: F401 (a fixture)


def parts_of(root, **fields):
    """The split of each image, by its pixels; and the splits."""
    splits = open_splits(Data(source=f"folder:{root}", **fields))
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    found = [(image.tobytes(), name) for name, split in named.items() if split for image in everything(split)]
    assert len(dict(found)) == len(found)
    return dict(found), splits


def test_a_folder_alone_is_divided_and_said_to_be(tmp_path):
    make_folder(tmp_path / "set", count=60)
    parts, splits = parts_of(tmp_path / "set")
    assert len(parts) == 120 and {*parts.values()} == {"train", "val", "test"}
    assert [note for note in splits.notes if "about 80 % train, 10 % val, 10 % test" in note] == list(splits.notes)
    assert splits.has_own_val and splits.train.description == f"folder:{tmp_path / 'set'} train"


def test_adding_and_removing_images_moves_none(tmp_path):
    paths = make_folder(tmp_path / "set", count=40)
    before, _ = parts_of(tmp_path / "set")
    for number in range(100, 130):
        Image.fromarray(picture(number)).save(paths[0].with_name(f"{number}.png"))
    for path in paths[:5]:
        path.unlink()
    after, _ = parts_of(tmp_path / "set")
    common = before.keys() & after.keys()
    assert len(common) == 75 and all(before[image] == after[image] for image in common)


def test_the_parts_are_those_of_slices_by_path(tmp_path):
    make_folder(tmp_path / "set", count=40)
    slices = {"train_split": "train[:80% by path]", "val_split": "train[80%:90% by path]"}
    sliced, _ = parts_of(tmp_path / "set", **slices, test_split="train[90%: by path]")
    assert parts_of(tmp_path / "set")[0] == sliced


@pytest.mark.parametrize(
    "fields", [{"protocol": "full"}, {"val_examples": 7}, {"val_examples": 7, "val_split": "holdout"}]
)
def test_without_a_validation_split_of_its_own_nine_tenths_are_for_training(tmp_path, fields):
    make_folder(tmp_path / "set", count=40)
    parts, splits = parts_of(tmp_path / "set", **fields)
    usual, _ = parts_of(tmp_path / "set")
    assert {image for image in parts if parts[image] == "test"} == {image for image in usual if usual[image] == "test"}
    assert len(parts) == 80 and (splits.val is None if "protocol" in fields else len(splits.val) == 7)


def test_every_class_is_divided_alike_and_none_is_left_without_training_images():
    hashes = np.random.default_rng(0).integers(2**64, size=30_000, dtype=np.uint64)
    labels = np.arange(30_000, dtype=np.int32) % 3
    parts = divide(hashes, labels, (80, 10, 10))
    for label in range(3):  # 10,000 examples of each class: the standard deviation of a share is 0.004 at most
        assert np.bincount(parts[labels == label]) / 10_000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    last = np.array([2**64 - 1, 2**64 - 2, 0], np.uint64)
    assert divide(last, np.array([0, 0, 1], np.int32), (80, 10, 10)).tolist() == [0, 0, 0]


def test_a_part_of_a_small_set_that_would_be_empty_gets_the_image_nearest_to_it():
    top = 2**64
    hashes = np.array([0.05, 0.2, 0.3, 0.5, 0.7, 0.78, 0.3, 0.95], np.float64)
    hashes = np.array([int(share * top) for share in hashes.tolist()], np.uint64)
    labels = np.array([0, 0, 1, 1, 0, 1, 0, 0], np.int32)
    parts = divide(hashes, labels, (80, 10, 10))
    assert parts.tolist() == [0, 0, 0, 0, 0, 0, 0, 2]
    filled, numbers = fill(parts, hashes, labels, (80, 10, 10))
    assert filled.tolist() == [0, 0, 0, 0, 0, 1, 0, 2] and numbers == [1]  # 0.78, as 0.95 is the only one for the test
    assert fill(filled, hashes, labels, (80, 10, 10)) == (pytest.approx(filled), [])
    labels[5] = 2  # the only image of its class stays where training sees it
    filled, numbers = fill(parts, hashes, labels, (80, 10, 10))
    assert filled.tolist() == [0, 0, 0, 0, 1, 0, 0, 2] and numbers == [1]
    of_group, _ = fill(parts[:5], hashes[[4, 4, 3, 3, 4]], np.array([0, 1, 0, 1, 0], np.int32), (90, 10))
    assert of_group.tolist() == [1, 1, 0, 0, 1]  # equal hashes are a group


def test_a_dozen_images_of_each_class_are_enough(tmp_path):
    notes = []
    for count in range(3, 13):
        make_folder(tmp_path / str(count), count=count)
        parts, splits = parts_of(tmp_path / str(count))
        sizes = [[*parts.values()].count(name) for name in ("train", "val", "test")]
        assert sum(sizes) == 2 * count and min(sizes) > 0
        notes += [note for note in splits.notes if "none of the" in note]
    assert re.search(
        r"none of the \d+ images falls in (val|test) by its path, so the nearest one, 1 image, is", notes[0]
    )


def test_a_set_too_small_to_be_divided_is_told_what_to_set(tmp_path):
    make_folder(tmp_path / "set", count=1)
    with pytest.raises(UserError, match=r"has 2 images, of whose paths none falls in (val|test); add.*train\[:70%\]"):
        open_splits(Data(source=f"folder:{tmp_path / 'set'}"))


def test_held_out_images_meant_for_a_larger_set_leave_the_usual_division(tmp_path):
    make_folder(tmp_path / "set", count=30)
    usual, _ = parts_of(tmp_path / "set")
    assert parts_of(tmp_path / "set", val_examples=200)[0] == usual
    assert parts_of(tmp_path / "set", val_examples=30)[0] == usual
    assert parts_of(tmp_path / "set", val_examples=29)[0] != usual
