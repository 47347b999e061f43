"""Sets of images with boxes: every format gives the same records, and bad annotations are named."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxcnn import config as configs
from jaxcnn.config import UserError
from jaxcnn.data import boxes, decode, memory
from jaxcnn.data.source import open_splits
from jaxcnn.doctor import data as doctor
from jaxcnn.tasks import run_length

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "sets"
SIDES = {"a": (40, 60), "b": (60, 40)}  # height, width
BOXES = {"a": [([10, 5, 30, 25], 0), ([0, 20, 60, 40], 1)], "b": []}  # left, top, right, bottom
TASK = configs.Task(name="detection", most_boxes=3)


def images(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (height, width) in SIDES.items():
        Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(folder / f"{name}.png")


def coco(root: pathlib.Path, annotations=None, **changes) -> pathlib.Path:
    """Write the set in COCO's form; return its file."""
    images(root / "images")
    listed = [
        {"id": k, "file_name": f"{name}.png", "height": height, "width": width}
        for k, (name, (height, width)) in enumerate(SIDES.items())
    ]
    if annotations is None:
        annotations = [
            {"id": 10 + k, "image_id": 0, "category_id": 1 + 2 * label, "bbox": [x, y, right - x, bottom - y]}
            for k, ((x, y, right, bottom), label) in enumerate(BOXES["a"])
        ]
    tree = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "wide"}, {"id": 1, "name": "square"}],
    }
    file = root / "instances_train.json"
    file.write_text(json.dumps(tree | changes))
    return file


def yolo(root: pathlib.Path) -> None:
    images(root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    lines = []
    for (left, top, right, bottom), label in BOXES["a"]:
        height, width = SIDES["a"]
        x, y, w, h = (
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        )
        lines.append(f"{label} {x} {y} {w} {h}")
    (root / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("train: images/train\nnames:\n  0: square\n  1: wide\nnc: 2\n")


def voc(root: pathlib.Path) -> None:
    images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name, of_image in BOXES.items():
        height, width = SIDES[name]
        objects = "".join(
            f"<object><name>{('square', 'wide')[label]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            for (x, y, right, bottom), label in of_image
        )
        text = (
            f"<annotation><filename>{name}.png</filename><size><width>{width}</width><height>{height}</height></size>"
        )
        (root / "Annotations" / f"{name}.xml").write_text(f"{text}{objects}</annotation>")


def opened(source: str, task: configs.Task = TASK, **options):
    options = {"test_split": "", "protocol": "full", "image_size": 30, "resize": "pad"} | options
    return open_splits(configs.Data(source=source, **options), task)


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_every_format_gives_the_same_records_in_the_letterboxed_image(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "set"
    root.mkdir()
    {"coco": coco, "yolo": yolo, "voc": voc}[kind](root)
    splits = opened(f"{kind}:{root}")
    assert splits.class_names == ("square", "wide")
    target = splits.train.targets
    (a,) = np.flatnonzero(target["valid"].any(axis=1))
    # 60 x 40 becomes 30 x 20 between bars of 5 pixels: every number is exact in float32 but those of YOLO's shares.
    wanted = np.array([[5, 7.5, 15, 17.5], [0, 15, 30, 25], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(target["boxes"][a], wanted, atol=0 if kind != "yolo" else 30 * 2**-23)
    assert target["label"][a].tolist() == [0, 1, 0]
    assert target["valid"][a].tolist() == [True, True, False]
    np.testing.assert_allclose(target["area"][a], [400, 1200, 0], rtol=1e-6)
    assert target["frame"][a].tolist() == [0.5, 0.5, 0, 5]
    assert not target["valid"][1 - a].any()  # an image without boxes is an example too


def test_arrays_of_python_give_the_same_records(tmp_path):
    pixels = np.full((2, 40, 60, 3), 90, np.uint8)
    answers = [{"boxes": [box for box, _ in BOXES["a"]], "labels": [0, 1]}, {"boxes": [], "labels": []}]
    given = memory.give({"train": (pixels, answers), "class_names": ["square", "wide"]})
    target = opened(given.source).train.targets
    assert target["boxes"][0].tolist() == [[5, 7.5, 15, 17.5], [0, 15, 30, 25], [0, 0, 0, 0]]
    assert target["valid"].tolist() == [[True, True, False], [False] * 3]
    for changes, line in (
        ({"labels": [0, 0.9]}, "label 0.9 is not the number of a class"),
        ({"iscrowd": [0, 0]}, "has the key 'iscrowd'; it may have boxes, labels, crowd, masks"),
        ({"masks": np.zeros((2, 40, 50), np.uint8)}, r"'masks' must be integers or bool \[2, 40, 60\]"),
        ({"masks": [None]}, "a list of 2 outlines"),
    ):
        with pytest.raises(UserError, match=line):
            memory.give((pixels, [answers[0] | changes, answers[1]]))


def test_bad_boxes_of_arrays_are_refused_or_left_out_and_counted_as_those_of_files(tmp_path):
    pixels = np.full((2, 40, 60, 3), 90, np.uint8)
    nan = float("nan")
    bad = [
        [-5, 0, 10, 10],
        [30, 5, 20, 9],
        [nan] * 4,
        [0, 20, 60, 40],
        [1e300, 0, 2e300, 9],
        [1, 1, 4, 4],
        [1, 1, 5, 5],
    ]
    boxes_of = [[10, 5, 61, 25], [0, 20, 60, 40], *bad]  # a pixel outside is cut off
    answers = [{"boxes": boxes_of, "labels": [0, 1, 0, 0, 0, 1, 0, 2, -1]}, {"boxes": [], "labels": []}]
    given = memory.give({"train": (pixels, answers), "class_names": ["square", "wide"]})
    with pytest.raises(UserError) as caught:
        opened(given.source, image_size=0)
    assert str(caught.value) == (
        "data['train'][0], box 2 reaches outside the image of 60x40: [-5, 0, 10, 10] (and 6 more); correct them, or "
        "set config.data.on_error='skip' to leave them out; jaxcnn.doctor(config, data=data) names all"
    )
    skipped = opened(given.source, image_size=0, on_error="skip")
    target = skipped.train.targets
    assert target["boxes"][0].tolist() == [[10, 5, 60, 25], [0, 20, 60, 40], [0, 0, 0, 0]]
    assert target["label"][0].tolist() == [0, 1, 0] and target["valid"].sum() == 2
    assert any("left out 7 bad annotations of data['train']" in note for note in skipped.notes)
    found = doctor.examine(configs.Data(source=given.source, test_split="", protocol="full"), TASK)
    (told,) = [each for each in found.results if each.name == "bad annotations"]
    assert (told.status, told.found) == ("fail", "7")
    for number, line in enumerate(
        ("reaches", "swapped", "no numbers", "same as box 1", "outside", "2, off by one", "-1")
    ):
        assert f"box {number + 2} " in told.examples[number] and line in told.examples[number]


def test_classes_of_boxes_without_names_are_told_and_have_no_gaps():
    pixels = np.full((1, 40, 60, 3), 90, np.uint8)

    def splits(labels, **names):
        answers = [{"boxes": [[k, 0, k + 5, 9] for k in range(len(labels))], "labels": labels}]
        given = memory.give({"train": (pixels, answers)} | names)
        return opened(given.source)

    found = splits([0, 2, 1])
    assert found.class_names == ("0", "1", "2")
    assert "by the labels of its boxes, from 0 to 2, it has 3 classes" in "".join(found.notes)
    for labels, line in (
        ([0, 1, 2**31 - 1], "a box is 2147483647, but no box has 2 .nor 2147483644 others below.; .*class_names"),
        ([0, 3, 1], "a box is 3, but no box has 2; .* correct them"),
        ([1, 2], "a box is 2, but no box has 0; .* subtract 1 from each"),
    ):
        with pytest.raises(UserError, match=line):
            splits(labels)
    named = splits([0, 3, 1], class_names=["a", "b", "c", "d"])
    assert len(named.class_names) == 4 and "no class_names" not in "".join(named.notes)


def test_a_set_without_a_test_is_refused_with_what_to_do_and_drawn_anyway(tmp_path, monkeypatch):
    """COCO as it is published: annotations of train2017 and val2017."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train2017", "val2017"):
        coco(tmp_path).rename(tmp_path / f"instances_{split}.json")
    data = configs.Data(source=f"coco:{tmp_path}", image_size=30, resize="pad")
    told = "or train, with its own split 'val' for validation, without a test split by config.data.test_split=''"
    with pytest.raises(UserError) as caught:
        open_splits(data, TASK)
    assert told in str(caught.value) and len(str(caught.value)) < 500
    found = doctor.examine(data, TASK)
    (failed,) = [each for each in found.results if each.name == "test split"]
    assert found.exit_code == 2 and told in failed.found
    assert [(name, count) for name, count, _ in found.splits] == [("train", 2), ("val", 2)]
    assert any(each.name == "images of val in train" for each in found.results), "the other checks are made, too"
    assert doctor.draw(data, TASK, tmp_path / "sheet.png") == 2
    assert len(opened(f"coco:{tmp_path}", protocol="holdout").val) == 2


def test_letterboxed_pixels_lie_where_the_frame_says():
    image = np.zeros((50, 100, 3), np.uint8)
    image[10:30, 40:80] = 255
    square = decode.resize(image, 50, "pad")
    frame = boxes.frame_of(50, 100, 50, "pad")
    rows, columns = np.nonzero(square[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    corners = np.array([[40, 10, 80, 30]], np.float64)
    made = boxes.records([boxes.Objects(corners, np.zeros(1, int), np.zeros(1, bool), np.ones(1))], frame[None])
    assert made["boxes"][0, 0].tolist() == found == [20, 17, 40, 27]


@pytest.mark.parametrize("kind", ["coco", "voc"])
@pytest.mark.parametrize("path", ["../../secret/a.png", "{}/secret/a.png"])
def test_an_image_outside_the_folder_of_the_set_is_refused_unless_it_is_allowed(tmp_path, monkeypatch, kind, path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images(tmp_path / "secret")
    root, path = tmp_path / "set", path.format(tmp_path)
    root.mkdir()
    {"coco": coco, "voc": voc}[kind](root)
    for file in (root / "instances_train.json", root / "Annotations" / "a.xml"):
        if file.exists():
            file.write_text(file.read_text().replace("a.png", path))
    with pytest.raises(UserError, match=r"image .*secret/a.png' is outside .*; .* config\.data\.images_below") as error:
        opened(f"{kind}:{root}", on_error="skip")
    assert "\n" not in str(error.value)
    assert len(opened(f"{kind}:{root}", images_below=str(tmp_path / "secret")).train) == 2


def test_images_of_coco_may_lie_beside_the_folder_of_the_annotations(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder, of_images in (("annotations", "train"), ("json", "images/train"), ("json", "images")):
        root = tmp_path / of_images.replace("/", "_") / "set"
        root.mkdir(parents=True)
        file = coco(root)
        (root / folder).mkdir()
        file = file.rename(root / folder / file.name)
        (root / "images").rename(root / "moved")
        (root / of_images).parent.mkdir(exist_ok=True)
        (root / "moved").rename(root / of_images)
        assert len(opened(f"coco:{file}").train) == 2
    (root / "images").rename(root / "secret")
    file.write_text(file.read_text().replace('"file_name": "', '"file_name": "secret/'))
    with pytest.raises(UserError, match="does not exist"):
        opened(f"coco:{file}")


BAD = [
    ({"bbox": [70, 5, 10, 10]}, "lies outside the image of 60x40"),
    ({"bbox": [50, 5, 20, 10]}, "reaches outside the image of 60x40"),
    ({"bbox": [30, 5, -10, 10]}, "corners of its box swapped"),
    ({"bbox": [30, 5, 0, 10]}, "has an empty box"),
    ({"bbox": [1, 2, 3]}, "bbox must be x, y, width, height"),
    ({"bbox": [1, 2, 3, float("nan")]}, "no numbers"),
    ({"bbox": [1, 2, 3, 4], "area": 0}, "area of 0"),
    ({"bbox": [1, 2, 3, 4], "category_id": 0}, "category_id 0, off by one"),
    ({"bbox": [1, 2, 3, 4], "category_id": 2}, "category_id 2: ids are from 1 to 3"),
    ({"bbox": [1, 2, 3, 4], "id": 10}, "the id 10 of an annotation occurs twice"),
    ({"bbox": [10, 5, 20, 20]}, "is the same as annotation 10"),
    ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "its mask is empty"),
    ({"bbox": [1, 2, 3, 4], "image_id": 7}, "images that are not listed"),
    ({"bbox": [1, 2, 3, 4], "image_id": [0]}, "an annotation has no image_id"),
    ({"bbox": [1, 2, 3, 4], "id": [9]}, "the id [9] of an annotation is neither a number nor a text"),
    ({"bbox": [1, 2, 3, 4], "category_id": [1]}, "category_id [1]: ids are from 1 to 3"),
    ({"bbox": [1, 2, 3, 5], "area": float("nan")}, "area of nan"),
    ({"segmentation": {"size": [40, 60], "counts": [10**30]}}, "do not fill 40x60 pixels"),
    ({"segmentation": {"size": [40], "counts": []}}, "no size of [height, width]"),
    ({"segmentation": [[1, 1, float("nan"), 9, 9, 9]]}, "point that is not finite"),
]


def test_every_bad_annotation_is_named_and_refused_or_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    good = {"id": 10, "image_id": 0, "category_id": 1, "bbox": [10, 5, 20, 20]}
    bad = [{"id": 20 + k, "image_id": 0, "category_id": 1} | change for k, (change, _) in enumerate(BAD)]
    file = coco(tmp_path, [good, *bad])
    data = configs.Data(source=f"coco:{file}", test_split="", protocol="full", image_size=30, resize="pad")
    found = doctor.examine(data, TASK)
    (told,) = [each for each in found.results if each.name == "bad annotations"]
    assert (told.status, told.found) == ("fail", str(len(BAD)))
    for _, line in BAD:
        assert sum(line in each for each in told.examples) == 1, line
    with pytest.raises(UserError, match=rf"and {len(BAD) - 1} more.*on_error='skip'"):
        opened(f"coco:{file}")
    skipped = opened(f"coco:{file}", on_error="skip")
    assert skipped.train.targets["valid"].sum() == 1
    assert any(f"left out {len(BAD)} bad annotations" in note for note in skipped.notes)
    assert doctor.draw(data, TASK, tmp_path / "sheet.png") == 2
    assert Image.open(tmp_path / "sheet.png").format == "PNG"


def test_wrong_entries_of_images_hide_no_other_fault_and_leave_out_only_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    listed = [
        {"id": 0, "file_name": "a.png", "height": 40, "width": 60},
        {"id": 3, "file_name": "a.png"},
        {"id": 4, "file_name": "a.png", "height": "40", "width": "60"},
        {"id": 1, "file_name": "b.png"},
        {"id": 5, "file_name": "c.png"},
        {"id": 5, "file_name": "d.png"},
        {"id": [6], "file_name": "e.png"},
        {"id": 7},
        "f.png",
    ]
    file = coco(tmp_path, images=listed)
    data = configs.Data(source=f"coco:{file}", test_split="", protocol="full", image_size=30, resize="pad")
    found = doctor.examine(data, TASK)
    (told,) = [each for each in found.results if each.name == "bad annotations"]
    assert found.exit_code == 2
    lines = ("no id and file_name", "'c.png' and 'd.png' have the same id 5", "is listed twice")
    assert [sum(line in each for each in told.examples) for line in lines] == [3, 1, 2] and told.found == "6"
    with pytest.raises(UserError, match="and 5 more"):
        opened(f"coco:{file}")
    skipped = opened(f"coco:{file}", on_error="skip")
    assert len(skipped.train) == 2 and skipped.train.targets["valid"].sum() == 2


@pytest.mark.parametrize("changes", [{"annotations": None}, {"annotations": {}}, {"images": None}, {"categories": 3}])
def test_a_file_without_its_lists_is_refused_in_one_line(changes, tmp_path):
    file = coco(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=r"not in COCO's form: .* no list") as caught:
        opened(f"coco:{file}")
    assert len(str(caught.value).splitlines()) == 1
    assert doctor.examine(configs.Data(source=f"coco:{file}"), TASK).exit_code == 2


def test_classes_that_are_no_numbers_and_labels_without_an_image_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yolo(tmp_path)
    folder = tmp_path / "labels" / "train"
    (folder / "classes.txt").write_text("square\nwide\n")  # some programs put the names there, too
    text = (folder / "a.txt").read_text()
    lines = ["1.9 0.5 0.5 0.4 0.4", "-0.5 0.5 0.5 0.2 0.2", "nan 0.5 0.5 0.1 0.1", "1e30 0.5 0.5 0.3 0.3"]
    (folder / "a.txt").write_text("\n".join([text, *lines]))
    (folder / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    data = configs.Data(source=f"yolo:{tmp_path}", test_split="", protocol="full", image_size=30, resize="pad")
    (told,) = [each for each in doctor.examine(data, TASK).results if each.name == "bad annotations"]
    assert told.found == "5" and told.examples[0] == "labels/train/gone.txt has no image"
    for each in ("1.9", "-0.5", "nan", "1e+30"):
        assert sum(f"has class {each}, which is no whole number" in line for line in told.examples) == 1
    skipped = opened(f"yolo:{tmp_path}", on_error="skip").train.targets
    assert skipped["label"][skipped["valid"]].tolist() == [0, 1]


def test_folders_that_data_yaml_names_are_read_and_others_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yolo(tmp_path)
    for name in ("parts/images/one", "parts/images/two", "held"):
        images(tmp_path / name)
    (tmp_path / "parts" / "labels" / "two").mkdir(parents=True)
    (tmp_path / "parts" / "labels" / "two" / "b.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "held" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")  # beside its image
    names = "names: [square, wide]\n"
    (tmp_path / "data.yaml").write_text(f"path: parts\ntrain: [images/one, images/two]\nval: ../../held\n{names}")
    splits = opened(f"yolo:{tmp_path}", protocol="holdout")
    assert splits.train.targets["label"][splits.train.targets["valid"]].tolist() == [1]
    assert (len(splits.train), len(splits.val)) == (4, 2) and splits.val.targets["valid"].sum() == 1
    (tmp_path / "data.yaml").write_text(f"train: train.txt\nval: nowhere\ntest: images/train\n{names}")
    splits = opened(f"yolo:{tmp_path}")
    assert len(splits.train) == 2 and splits.train.targets["valid"].sum() == 2
    told = "\n".join(splits.notes)
    assert "names 'train.txt' for train, which is a list, no folder; used images/train in its place" in told
    assert "names 'nowhere' for val, which is no folder; there is no val split" in told
    assert "the same images for train and test; there is no test split" in told
    (tmp_path / "images" / "train").rename(tmp_path / "images" / "pictures")
    (tmp_path / "data.yaml").write_text(f"train: nowhere\n{names}")
    (tmp_path / "images" / "pictures").rename(tmp_path / "pictures")
    (tmp_path / "images").rmdir()
    with pytest.raises(UserError, match=r"data\.yaml names 'nowhere' for train, which is no folder; correct it"):
        opened(f"yolo:{tmp_path}")


def test_lists_of_voc_with_other_bytes_and_unknown_or_repeated_images_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    voc(tmp_path)
    file = tmp_path / "ImageSets" / "Main" / "train.txt"
    file.parent.mkdir(parents=True)
    file.write_text("a\nb\na\nc\n")
    with pytest.raises(UserError, match=r"'c' of the list has no file in Annotations \(and 1 more\)"):
        opened(f"voc:{tmp_path}")
    skipped = opened(f"voc:{tmp_path}", on_error="skip")
    assert len(skipped.train) == 2 and "a.png' is listed twice" in "".join(skipped.notes)
    file.write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"the list train\.txt is not UTF-8"):
        opened(f"voc:{tmp_path}")
    (tmp_path / "Annotations" / "b.xml").write_text('<?xml version="1.0" encoding="no"?><annotation/>')
    with pytest.raises(UserError, match=r"b\.xml is not XML"):
        opened(f"voc:{tmp_path}")


def test_missing_images_other_sizes_and_too_many_boxes_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = coco(tmp_path)
    with pytest.raises(UserError, match=r"an image has 2 boxes .* config\.task\.most_boxes=1; set it to 2"):
        opened(f"coco:{file}", configs.Task(name="detection", most_boxes=1))
    with pytest.raises(UserError, match=r"config\.data\.resize='crop' would cut boxes"):
        opened(f"coco:{file}", resize="crop")
    with pytest.raises(UserError, match=r"differ in size; set config\.data\.image_size"):
        opened(f"coco:{file}", image_size=0)
    with pytest.raises(UserError, match=r"has boxes; set config\.task\.name='detection'"):
        opened(f"coco:{file}", configs.Task())
    with pytest.raises(UserError, match="needs boxes"):
        open_splits(configs.Data(source="digits"), TASK)
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png.* does not exist"):
        opened(f"coco:{file}")
    assert len(opened(f"coco:{file}", on_error="skip").train) == 1


def test_run_lengths_are_those_of_coco(tmp_path):
    # Made by pycocotools 2.0.11: mask.encode(np.asfortranarray(m)) of the mask below, as text.
    mask = np.zeros((7, 9), np.uint8)
    mask[2:5, 3:8] = 1
    mask[3, 5] = 0
    coded = {"size": [7, 9], "counts": COCO_CODE}
    assert run_length.encode(mask) == coded
    for form in (coded, {"size": [7, 9], "counts": COCO_RUNS}):
        assert np.array_equal(run_length.decode(form), mask)
    assert run_length.corners(coded).tolist() == [3, 2, 8, 5]
    assert run_length.corners([[1, 2, 6, 2, 6, 9.5]]).tolist() == [1, 2, 6, 9.5]
    random = np.random.default_rng(0)
    for shape in ((1, 1), (5, 4), (300, 200)):
        noise = (random.random(shape) < 0.4).astype(np.uint8)
        assert np.array_equal(run_length.decode(run_length.encode(noise)), noise)
        rows, columns = np.nonzero(noise)
        ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None
        assert ends is None or run_length.corners(run_length.encode(noise)).tolist() == ends
        whole = np.zeros((shape[0] + 3, shape[1] + 2), np.uint8)
        for top, left in ((0, 0), (2, 1), (3, 2)):
            whole[:] = 0
            whole[top : top + shape[0], left : left + shape[1]] = noise
            assert run_length.encode_at(noise, (top, left), whole.shape) == run_length.encode(whole)
            assert np.array_equal(run_length.decode(run_length.encode(whole)), whole)
    full = run_length.encode(np.ones((3, 4), bool))  # one run over the ends of all columns
    assert full == {"size": [3, 4], "counts": "0<"} and run_length.corners(full).tolist() == [0, 0, 4, 3]
    large = {"size": [10**6, 10**6], "counts": [10**6 + 3, 10**6, 10**12 - 2 * 10**6 - 3]}  # no room for its pixels
    assert run_length.corners(large).tolist() == [1, 0, 3, 10**6]


COCO_CODE = "g03400NM032005"
COCO_RUNS = [23, 3, 4, 3, 4, 1, 1, 1, 4, 3, 4, 3, 9]


@pytest.mark.skipif(not (REAL / "coco_tiny").is_dir(), reason="the set coco_tiny is not here")
def test_images_of_coco_itself_open(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    splits = open_splits(
        configs.Data(source=f"coco:{REAL / 'coco_tiny'}", test_split="", image_size=64, resize="pad"),
        configs.Task(name="detection"),
    )
    target = splits.train.targets
    assert (len(splits.train), len(splits.val), len(splits.class_names)) == (19, 22, 80)
    assert target["valid"].sum() == 165 and target["crowd"].sum() == 1
    inside = target["boxes"][target["valid"]]
    assert (inside >= 0).all() and (inside <= 64).all()


@pytest.mark.parametrize(
    "text",
    ['names: [no, "a, b"]  # two', "names:\n- no\n- a, b\nnc: 2", "names:\n  1: a, b\n  0: no\n", "no\na, b\n"],
)
def test_names_of_classes_are_read_as_texts_from_each_form_of_yolo(text, tmp_path):
    yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / ("data.yaml" if "names" in text else "classes.txt")).write_text(text)
    assert opened(f"yolo:{tmp_path}").class_names == ("no", "a, b")


def test_names_that_are_no_yaml_are_refused_in_one_line(tmp_path):
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a\nb: {")
    with pytest.raises(UserError, match=r"data\.yaml: the names of the classes cannot be read") as caught:
        opened(f"yolo:{tmp_path}")
    assert len(str(caught.value).splitlines()) == 1
