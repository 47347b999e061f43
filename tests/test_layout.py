"""What lies in a folder of images: splits, classes, links, files of other kinds, and what is said of them."""

import os
import socket

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, UserError
from jaxcnn.data import listing
from jaxcnn.data.folder import _list_images, open_folder
from jaxcnn.data.source import open_splits
from tests.test_folder import folder, make_folder, picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def whole(root, **fields):
    return open_splits(folder(root, train_split="train", test_split="", protocol="full", **fields))


def split_folder(root, *names, **options):
    for name in names:
        make_folder(root / name, **options)


# Splits and classes


@pytest.mark.parametrize(
    "train, val, test",
    [
        ("train", "valid", "test"),
        ("Training", "Validation", "Testing"),
        ("train_set", "val_set", "test_set"),
        ("training-set", "dev", "test-set"),
        ("TRAIN", "eval", "TEST"),
    ],
)
def test_folders_of_splits_are_known_by_their_usual_names(tmp_path, train, val, test):
    make_folder(tmp_path / train, count=6)
    make_folder(tmp_path / val, count=3)
    make_folder(tmp_path / test, count=2)
    source = open_folder(str(tmp_path), Data())
    assert {name: len(source.open(name).labels) for name in source.splits} == {"train": 12, "val": 6, "test": 4}


@pytest.mark.parametrize(
    "make, line",
    [
        (
            lambda root: [make_folder(root, classes=("bus", "car")), make_folder(root / "train", ("steam", "diesel"))],
            r"'train' has sub-folders, like a training split with its classes, but 'bus' beside it contains images as "
            r"well",
        ),
        (
            lambda root: make_folder(root, classes=("ok", "nok", "test")),
            r"'test' is the name of a split, but contains 10 images and no class folders",
        ),
        (
            lambda root: [make_folder(root), make_folder(root / "Testing")],
            r"'Testing' has sub-folders, like a split with its classes, but there is no 'train' folder beside it",
        ),
        (lambda root: split_folder(root, "seg_train", "seg_test"), r"'seg_train' and 'seg_test' have the same sub-f"),
        (lambda root: split_folder(root, "train2017", "val2017"), r"name them 'train' and 'val'"),
        (lambda root: split_folder(root, "train", "training"), r"has both 'train' and 'training' for the train split"),
    ],
)
def test_layouts_that_can_be_understood_in_two_ways_are_refused_in_one_line(tmp_path, make, line):
    make(tmp_path / "set")
    with pytest.raises(UserError, match=line) as caught:
        whole(tmp_path / "set")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [("bicycle", "train"), ("invalid", "valid"), ("rest", "training")])
def test_ordinary_words_may_name_classes(tmp_path, names):
    make_folder(tmp_path / "set", classes=names)
    assert whole(tmp_path / "set").class_names == names


def test_a_folder_beside_the_splits_and_images_in_no_class_are_told(tmp_path):
    split_folder(tmp_path, "train", "test", count=3)
    make_folder(tmp_path, classes=("extra",), count=2)
    Image.fromarray(picture(0)).save(tmp_path / "train" / "loose.png")
    Image.fromarray(picture(0)).save(tmp_path / "cover.jpg")
    notes = open_splits(Data(source=f"folder:{tmp_path}", protocol="full")).notes
    assert [note.replace(f"folder:{tmp_path}", "S") for note in notes] == [
        "skipped 1 image in S itself, outside the class folders",
        "skipped 2 images in folder 'extra' of S, which is not one of its splits",
        "skipped 1 image in S train itself, outside the class folders",
    ]


def test_a_test_folder_without_classes_is_told_of_where_a_test_split_is_wanted(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path, classes=("test",), count=7)
    with pytest.raises(
        UserError,
        match=r"no test split \(skipped 7 images in folder 'test' .* no class folders in it\); cut",
    ):
        open_splits(Data(source=f"folder:{tmp_path}"))


def test_classes_are_those_of_the_training_split_and_what_a_test_split_lacks_is_told(tmp_path):
    make_folder(tmp_path / "train", classes=("apple", "pear", "plum"), count=2)
    make_folder(tmp_path / "test", classes=("apple", "plum"), count=2)
    data = Data(source=f"folder:{tmp_path}", protocol="full")
    splits = open_splits(data)
    assert splits.class_names == ("apple", "pear", "plum")
    assert np.bincount(splits.test.targets, minlength=3).tolist() == [2, 0, 2]
    assert splits.notes == ("test has no examples of 'pear'",)
    (tmp_path / "test" / "pear").mkdir()
    assert open_splits(data).notes == splits.notes


# Files of other kinds


def test_images_of_every_format_that_the_decoder_has_are_listed_and_the_rest_is_counted(tmp_path):
    make_folder(tmp_path, count=1)
    for name in ("a.bmp", "a.GIF", "a.tif", "a.TIFF", "a.jfif"):
        kind = {"jfif": "JPEG", "tif": "TIFF"}.get(name[2:])
        Image.fromarray(picture(5)).save(tmp_path / "cat" / name, kind)
    for name in ("a.jp2", "b.jp2", "a.svg", "notes", "what is.this, then", "._a.jpg", ".DS_Store"):
        (tmp_path / "cat" / name).write_text("")
    splits = whole(tmp_path)
    assert len(splits.train) == 7
    assert splits.notes == (
        f"skipped 5 files of other kinds in folder:{tmp_path} train: .jp2 (2), unknown extension (2), .svg (1)",
    )


def test_what_is_found_is_named_where_there_is_no_image(tmp_path):
    for name in ("cat/a.jp2", "dog/b.jp2"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"train has no images; skipped 2 files of other kinds in .*: \.jp2 \(2\)"):
        whole(tmp_path)
    Image.fromarray(picture(0)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(UserError, match=r"class 'dog' has no images, but \.jp2 \(1\); a folder has one sub-folder per"):
        whole(tmp_path)


def test_what_is_no_file_is_passed_over_and_counted_without_being_opened(tmp_path, monkeypatch):
    make_folder(tmp_path / "set", count=2)
    monkeypatch.chdir(tmp_path / "set" / "cat")
    os.mkfifo("x.png")
    os.symlink("x.png", "linked.png")
    os.symlink("/dev/zero", "zero.jpg")
    os.symlink("self.png", "self.png")  # no image either, but one that reading must tell of
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        found = listing.list_images(tmp_path / "set", "cat")
    assert sorted(found.paths) == ["cat/000.png", "cat/001.png", "cat/self.png"]
    assert found.others == {"FIFO": 2, "device": 1, "socket": 1}


# Links


def test_linked_folders_are_followed_to_any_depth(tmp_path):
    make_folder(tmp_path / "set", count=2)
    make_folder(tmp_path / "elsewhere", classes=("more/deep",), count=3)
    make_folder(tmp_path / "third", classes=("even",), count=4)
    (tmp_path / "set" / "cat" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "elsewhere" / "more" / "deep" / "again").symlink_to(tmp_path / "third" / "even")
    (tmp_path / "set" / "eel").symlink_to(tmp_path / "third" / "even")
    splits = whole(tmp_path / "set")
    assert np.bincount(splits.train.targets).tolist() == [2 + 3 + 4, 2, 4] and not splits.notes


def test_links_in_a_circle_end_and_are_told(tmp_path):
    make_folder(tmp_path / "set", count=2)
    cat = tmp_path / "set" / "cat"
    for name in ("a", "b"):
        make_folder(cat, classes=(name,), count=1)
    (cat / "a" / "to_b").symlink_to(cat / "b")
    (cat / "b" / "to_a").symlink_to(cat / "a")
    (cat / "up").symlink_to(tmp_path)
    (cat / "root").symlink_to("/")
    splits = whole(tmp_path / "set")
    assert len(splits.train) == 6
    assert splits.notes == (
        f"skipped 4 files of other kinds in folder:{tmp_path / 'set'} train: link to a folder that is already listed "
        "(4)",
    )
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    with pytest.raises(UserError, match=r"set/loop is a link to a folder that contains it; remove it"):
        whole(tmp_path / "set")


def test_a_folder_that_two_links_lead_to_is_listed_once_by_the_first_name(tmp_path):
    make_folder(tmp_path / "set", count=1)
    make_folder(tmp_path, classes=("more",), count=2)
    for name in ("z", "b", "m"):
        (tmp_path / "set" / "cat" / name).symlink_to(tmp_path / "more")
    found = listing.list_images(tmp_path / "set", "cat")
    assert sorted(found.paths) == ["cat/000.png", "cat/b/000.png", "cat/b/001.png"]


# Order, fingerprints, long paths

ORDER = ["cat/000.png", "cat/\udcff.png", "cat/001.png", "dog/005.png", "cat/003.png", "cat/näh.png", "dog/004.png"]
ORDER += ["cat/002.png", "dog/006.png", "dog/007.png"]
FINGERPRINT = "19d405d0c5fe87f99b2dad3e37c61728"


def test_order_and_fingerprint_of_a_plain_folder_are_as_they_always_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = make_folder(tmp_path / "set", count=4)
    (tmp_path / "set" / "cat" / "näh.png").symlink_to("000.png")
    os.symlink("000.png", os.fsencode(str(tmp_path / "set" / "cat")) + b"/\xff.png")
    for number, path in enumerate(paths):
        path.write_bytes(b"x" * number)
        os.utime(path, ns=(number, 10**18 + number))
    listed = _list_images(tmp_path / "set", ["cat", "dog"], "it")
    names = [os.path.relpath(listed.name(index), tmp_path / "set") for index in range(10)]
    assert names == ORDER and listed.labels.tolist() == [name.startswith("dog") for name in ORDER]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tmp_path), "resolve", lambda path: "somewhere")
        assert listed.fingerprint() == FINGERPRINT


@pytest.mark.parametrize("argument", ["a" * 5000, "a/" * 2500, "~nobody-of-this-name/x", "\0"])
def test_paths_that_cannot_be_are_refused_in_one_line(argument):
    with pytest.raises(
        UserError, match=r"folder:.*(this folder does not exist|there is no home folder|is longer than any path can be)"
    ):
        open_splits(Data(source=f"folder:{argument}"))
