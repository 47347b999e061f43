"""The doctor finds what spoils a data set."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, Task
from jaxcnn.data import content
from jaxcnn.data.source import open_splits
from jaxcnn.doctor import near
from jaxcnn.doctor.data import examine
from tests import runs
from tests.test_folder import cache, make_folder  # noqa: F401 (a fixture)


def scene(number, side=32):
    """A smooth picture that no other number has."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    """Two classes in folders for training, validation and test."""
    for place, split in enumerate(("train", "val", "test")):
        for label, name in enumerate("ab"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(12):
                scene(1000 * place + 100 * label + number).save(tmp_path / "set" / split / name / f"{number}.png")
    return tmp_path / "set"


def found(root, **fields):
    findings = examine(Data(source=f"folder:{root}", **fields), Task())
    return findings, {result.name: result for result in findings.results if result.status != "ok"}


def test_a_sound_set_has_no_finding(photos):
    findings, wrong = found(photos)
    assert wrong == {} and findings.exit_code == 0
    assert findings.splits == [(name, 24, "32x32x3 uint8, stored as 32x32") for name in ("train", "val", "test")]
    assert findings.classes == [("a", (12, 12, 12)), ("b", (12, 12, 12))]


def test_a_test_image_in_train_fails_and_is_named_with_its_labels(photos):
    (photos / "test" / "b" / "copy.png").write_bytes((photos / "train" / "a" / "3.png").read_bytes())
    findings, wrong = found(photos)
    (leak,) = wrong.values()
    assert (leak.name, leak.status, leak.found) == ("images of test in train", "fail", "1 of 25")
    assert leak.examples == (f"{photos}/test/b/copy.png and {photos}/train/a/3.png (labels 'b' and 'a')",)
    assert findings.exit_code == 2


def test_of_sets_larger_than_the_limit_images_of_equal_size_are_read_and_a_leak_still_fails(photos, monkeypatch):
    (photos / "test" / "b" / "copy.png").write_bytes((photos / "train" / "a" / "3.png").read_bytes())
    (photos / "test" / "b" / "twin.png").write_bytes((photos / "test" / "a" / "5.png").read_bytes())
    expected = {name: (each.status, each.found, each.examples) for name, each in found(photos)[1].items()}
    monkeypatch.setattr(content, "LIMIT", 2000)
    findings, wrong = found(photos)
    assert {name: (each.status, each.found, each.examples) for name, each in wrong.items()} == expected
    assert set(expected) == {"images of test in train", "equal images in test"} and findings.exit_code == 2
    splits = open_splits(Data(source=f"folder:{photos}"))
    assert splits.train.checksums() is None
    assert [line for line in splits.leaks() if line.startswith("test was not searched for images of train")]
    train, test = content.of_all([splits.train, splits.test])
    assert len(np.unique(train)) == 24 and len(np.unique(test)) == 25 and len(np.intersect1d(train, test)) == 1


@pytest.mark.parametrize("change", ["smaller", "jpeg", "brighter"])
def test_a_similar_image_is_warned_of(photos, change):
    image = scene(5)
    if change == "smaller":
        image = image.resize((20, 20)).resize((32, 32))
    elif change == "brighter":
        image = image.point(lambda value: min(255, int(value * 0.8) + 40))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70) if change == "jpeg" else image.save(file, "PNG")
    (photos / "test" / "a" / "again.jpg").write_bytes(file.getvalue())
    findings, wrong = found(photos)
    (similar,) = wrong.values()
    assert (similar.name, similar.status, similar.found) == ("images of test like one of train", "warn", "1 of 25")
    assert similar.examples == (f"{photos}/test/a/again.jpg and {photos}/train/a/5.png",) and findings.exit_code == 0


def test_copies_in_a_split_are_warned_of_those_with_another_label_first(photos):
    for name, number in (("a/twin.png", 1), ("b/other.png", 2)):
        (photos / "train" / name).write_bytes((photos / "train" / "a" / f"{number}.png").read_bytes())
    _, wrong = found(photos)
    (copies,) = wrong.values()
    assert (copies.name, copies.found) == ("equal images in train", "2 copies, 1 with another label")
    assert "other.png" in copies.examples[0] and "labels" in copies.examples[0]


@pytest.mark.parametrize(("on_error", "status"), [("raise", "fail"), ("skip", "warn")])
def test_unreadable_images_fail_where_a_run_would_stop(photos, on_error, status):
    (photos / "val" / "a" / "3.png").write_bytes(b"no image")
    findings, wrong = found(photos, on_error=on_error)
    broken = wrong["unreadable images"]
    assert (broken.status, broken.found) == (status, "1") and findings.exit_code == (2 if status == "fail" else 0)
    assert broken.examples == (f"{photos}/val/a/3.png (not an image file)",)


def test_missing_and_rare_classes_are_warned_of(photos):
    for path in (photos / "val" / "b").iterdir():
        path.unlink()
    _, wrong = found(photos)
    assert wrong["classes"].examples == ("val has no example of 'b'",)
    for number in range(200, 320):
        scene(number).save(photos / "train" / "a" / f"{number}.png")
    scene(50).save(photos / "val" / "b" / "0.png")
    _, wrong = found(photos)
    assert wrong["classes"].found == "2; of 12 (b) to 132 (a) examples in train"


def test_what_refuses_a_set_is_a_finding(tmp_path):
    make_folder(tmp_path / "set", classes=("cat",))
    (result,) = examine(Data(source=f"folder:{tmp_path / 'set'}", test_split="", protocol="full"), Task()).results
    assert result.status == "fail" and "only one class" in result.found


def test_images_without_contrast_or_of_many_channels_are_compared_with_care():
    random = np.random.default_rng(0)
    images = random.integers(0, 2**16, (40, 6, 9, 7)).astype(np.uint16)
    images[:2] = 100  # two flat ones

    class InMemory:
        image_shape = images.shape[1:]

        def __init__(self, indices):
            self.images = images[indices]

        def __len__(self):
            return len(self.images)

        def read(self, indices):
            return self.images[indices]

    one, other = (near.thumbnails(InMemory(indices)) for indices in ([0, 5, 20], list(range(1, 20))))
    cosine, index = near.nearest(one, other)
    assert cosine[0] == 0 and cosine[1] == pytest.approx(1, abs=1e-5) and index[1] == 4 and cosine[2] < near.ALIKE


def test_the_command_prints_tables_and_ends_with_the_exit_code(photos):
    flags = ["--data", "--config=configs/quickstart.py", f"--config.data.source=folder:{photos}"]
    code, output = runs.run(*flags, module="jaxcnn.doctor")
    assert code == 0 and "│ train │ 24" in output and output.endswith("jaxcnn: 11 ok, 0 warnings, 0 failures\n"), output
    (photos / "val" / "b" / "copy.png").write_bytes((photos / "train" / "a" / "3.png").read_bytes())
    code, output = runs.run(*flags, module="jaxcnn.doctor")
    assert code == 2 and "fail images of val in train: 1 of 25; remove them" in output
    code, output = runs.run("--data", module="jaxcnn.doctor")
    assert (code, output) == (2, output) and "--data needs --config" in output


def test_faults_are_named_also_where_they_leave_no_box_for_training(tmp_path):
    scene(1).save(tmp_path / "a.png")
    boxes = [[4, 4, 0, 8], [40, 4, 8, 8], [4, 4, 8, 8]]
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1 + number // 2, "bbox": box} for number, box in enumerate(boxes)
    ]
    tree = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(tree))
    data = Data(source=f"coco:{tmp_path}", test_split="", protocol="full", image_size=32, resize="pad")
    findings = examine(data, Task(name="detection"))
    wrong = {result.name: result for result in findings.results}
    assert "has no box: nothing can be learnt" in wrong["data"].found and findings.exit_code == 2
    faults = wrong["bad annotations"].examples
    assert len(faults) == 3 and "has an empty box" in " ".join(faults) and "outside the image" in " ".join(faults)
