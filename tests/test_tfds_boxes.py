"""Sets of TensorFlow Datasets with boxes: hand-made files in its layout, with the features of coco and voc."""

import dataclasses
import json
import struct

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, Task, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.data.tfrecord import find_numbers
from tests.test_folder import encode, picture
from tests.test_tfds_source import field, varint, write_shard

TASK = Task(name="detection")
NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def floats(values, packed=True):
    """A feature of floats, as TensorFlow writes it, or each number alone, as the format also allows."""
    each = [struct.pack("<f", value) for value in values]
    return field(2, field(1, b"".join(each)) if packed else b"".join(varint(1 << 3 | 5) + one for one in each))


def integers(values, packed=True):
    each = [varint(value) for value in values]
    return field(3, field(1, b"".join(each)) if packed else b"".join(varint(1 << 3 | 0) + one for one in each))


def example(**features):
    entries = (field(1, field(1, key.replace("__", "/").encode()) + field(2, each)) for key, each in features.items())
    return field(1, b"".join(entries))


def record(number, objects, crowd="is_crowd", area=True, **image):
    """An image 16 pixels high and 32 wide with objects (label, crowd, [ymin, xmin, ymax, xmax], area)."""
    content = encode(Image.fromarray(picture(number, **{"height": 16, "width": 32} | image)))
    more = {"objects__area": integers([each[3] for each in objects])} if area else {}
    return example(
        image=field(1, field(1, content)),
        objects__bbox=floats([side for each in objects for side in each[2]]),
        **{f"objects__{crowd}": integers([each[1] for each in objects])},
        objects__label=integers([each[0] for each in objects]),
        **more,
    )


TRAIN = [
    [(2, 0, [0.25, 0.125, 0.75, 0.5], 50), (0, 1, [0.0, 0.0, 1.0, 1.0], 300)],
    [],
    [(1, 0, [0.5, 0.5, 1.0, 1.0], 0)],
]


def make_set(folder, splits, name="coco", crowd="is_crowd", **options):
    """A prepared set; its boxes lie in a sequence, as in the sets of TensorFlow Datasets."""
    folder = folder / name / "1.1.0"
    folder.mkdir(parents=True)
    number = 0
    for split, images in splits.items():
        records = []
        for objects in images:
            records.append(record(number, objects, crowd, **options))
            number += 1
        write_shard(folder / f"{name}-{split}.tfrecord-00000-of-00001", records)
    inner = {
        "bbox": {"boundingBox": {"shape": {"dimensions": ["4"]}, "dtype": "float32"}},
        "label": {"classLabel": {"numClasses": str(len(NAMES))}},
        crowd: {"tensor": {"dtype": "bool"}},
    }
    features = {
        "image": {"image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}},
        "objects": {"sequence": {"feature": {"featuresDict": {"features": inner}}, "length": "-1"}},
    }
    told = [{"name": split, "shardLengths": [str(len(images))]} for split, images in splits.items()]
    info = {"name": name, "version": "1.1.0", "fileFormat": "tfrecord", "splits": told}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    (folder / "objects-label.labels.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def coco(folder, **fields):
    usual = {"source": "tfds:coco", "dir": str(folder), "image_size": 32, "resize": "pad", "protocol": "full"}
    return Data(**usual | {"test_split": ""} | fields)


def test_boxes_of_coco_are_read_in_pixels_of_the_letterboxed_image(tmp_path):
    make_set(tmp_path, {"train": TRAIN, "validation": TRAIN[:1], "test": [[]]})
    splits = open_splits(coco(tmp_path, protocol="holdout"), TASK)
    assert splits.class_names == tuple(NAMES) and splits.train.description == "tfds:coco:1.1.0 train"
    rows = splits.train.targets
    assert rows["valid"].sum(axis=1).tolist() == [2, 0, 1]
    assert rows["boxes"][0, :2].tolist() == [[4, 12, 16, 20], [0, 8, 32, 24]]  # 8 rows above and below are padding
    assert rows["label"][0, :2].tolist() == [2, 0] and rows["crowd"][0, :2].tolist() == [False, True]
    assert rows["area"][:, 0].tolist() == [50, 0, 16 * 32 / 4]  # that of its box where none is given
    assert rows["frame"].tolist() == [[1, 1, 0, 8]] * 3
    image = splits.train.read(np.array([2]))[0]
    assert not image[:8].any() and np.array_equal(image[8:24], picture(2, height=16, width=32))
    assert splits.val is not None and len(splits.val) == 1
    assert splits.train.name_of(0).endswith("00000-of-00001 record 0")


def test_difficult_objects_of_voc_do_not_count_and_need_no_area(tmp_path):
    make_set(tmp_path, {"train": TRAIN}, name="voc", crowd="is_difficult", area=False)
    rows = open_splits(coco(tmp_path, source="tfds:voc"), TASK).train.targets
    assert rows["crowd"][0, :2].tolist() == [False, True]
    assert rows["area"][0, :2].tolist() == [12 * 8, 16 * 32]


def test_a_bad_box_is_refused_with_its_record_or_left_out(tmp_path):
    make_set(tmp_path, {"train": [*TRAIN, [(1, 0, [0.5, 0.5, 0.5, 1.0], 9), (0, 0, [0, 0, 0.5, 0.5], 9)]]})
    with pytest.raises(UserError, match=r"record 3, object 1 has an empty box"):
        open_splits(coco(tmp_path), TASK)
    splits = open_splits(coco(tmp_path, on_error="skip"), TASK)
    assert splits.train.targets["valid"].sum(axis=1).tolist() == [2, 0, 1, 1]
    assert "left out 1 bad annotation" in splits.notes[0]


@pytest.mark.parametrize(
    ("fields", "task", "line"),
    [
        ({"test_split": "test"}, TASK, r"tfds:coco:1\.1\.0 test has no boxes .* set config\.data\.test_split=''"),
        ({}, Task(), r"not an image classification set .* with its boxes, set config\.task\.name='detection'"),
        ({"resize": "crop"}, TASK, r"config\.data\.resize='crop' would cut boxes"),
    ],
)
def test_what_the_set_cannot_be_used_for_is_told_in_one_line(tmp_path, fields, task, line):
    make_set(tmp_path, {"train": TRAIN, "test": [[], []]})
    with pytest.raises(UserError, match=line) as told:
        open_splits(coco(tmp_path, **fields), task)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def test_numbers_are_read_packed_or_one_by_one_and_damage_is_told(tmp_path):
    for packed in (True, False):
        content = example(b=floats([0.5, -2.0], packed), i=integers([1, -3, 2**40], packed), other=floats([1.0]))
        found = find_numbers(lambda at, length, data=content: data[at : at + length], 0, len(content), ("b", "i", "no"))
        assert [each.tolist() for each in found] == [[0.5, -2.0], [1, -3, 2**40], []]
    folder = make_set(tmp_path, {"train": TRAIN})
    broken = example(image=field(1, field(1, b"x")), objects__bbox=floats([0.5]), objects__label=integers([1]))
    write_shard(folder / "coco-train.tfrecord-00000-of-00001", [record(0, TRAIN[0]), record(1, []), broken])
    with pytest.raises(UserError, match=r"is damaged: record 2 has 1 numbers of boxes and 1 labels"):
        open_splits(dataclasses.replace(coco(tmp_path)), TASK)
