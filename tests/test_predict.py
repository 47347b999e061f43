"""Labels for image files: every kind of file, in the order asked for, with damaged ones named."""

import csv
import dataclasses
import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.tasks.classification import Accuracy
from jaxcnn.train import predict, trained
from tests import digits

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "run"
    digits.run(folder)
    return trained.load(folder, "last", "last", 8)[0]


@pytest.fixture(scope="module")
def test_split(network):
    split = open_splits(network.config.data).test
    return split.read(np.arange(len(split))), split.targets


def labels_of(results) -> list[str | None]:
    return [result.get("label") for result in results]


def test_predictions_are_those_of_evaluation(network, test_split, tmp_path):
    images, labels = test_split
    paths = []
    for number in range(0, 360, 3):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(images[number, ..., 0]).save(paths[-1])
    results = predict.predict(network, paths, skip_unreadable=False)
    logits = network.outputs(open_splits(network.config.data).test, 0)[::3]
    assert labels_of(results) == [str(k) for k in logits.argmax(-1)]
    assert np.mean(logits.argmax(-1) == labels[::3]) > 0.5, "the network has learnt nothing to test with"
    for result, row in zip(results, logits, strict=True):
        exponentials = np.exp(row.astype(np.float64))
        assert len(result["top"]) == 5
        chances = [place["probability"] for place in result["top"]]
        assert chances == sorted(chances, reverse=True)
        # Both programs compute the same logits up to float32 rounding in sums of at most a few thousand terms.
        assert result["probability"] == pytest.approx((exponentials / exponentials.sum()).max(), rel=1e-4)
        assert (result["label"], result["probability"]) == tuple(result["top"][0].values())


def test_every_kind_of_file_and_pixel_is_read(network, test_split, tmp_path):
    image = Image.fromarray(test_split[0][3, ..., 0]).resize((64, 64), Image.Resampling.BICUBIC)
    ways = {
        "grey.png": image,
        "colour.PNG": image.convert("RGB"),
        "opaque.png": image.convert("RGBA"),
        "palette.png": image.convert("P"),
        "sixteen.png": Image.fromarray(np.asarray(image).astype(np.uint16) * 257),
        "photo.jpg": image.convert("RGB"),
        "photo.jpeg": image,
        "photo.webp": image.convert("RGB"),
    }
    for name, picture in ways.items():
        picture.save(tmp_path / name, **({"quality": 100} if "photo" in name else {}))
    results = predict.predict(network, predict.find_images([str(tmp_path)])[0], skip_unreadable=False)
    assert len(results) == len(ways)
    by_file = {result["file"].rpartition("/")[2]: result for result in results}
    for name, result in by_file.items():
        assert result["label"] == by_file["grey.png"]["label"], name
        if "photo" not in name:
            # An image that is grey by way of RGB: Pillow's weights add up to 1 but for rounding by one grey level.
            assert result["probability"] == pytest.approx(by_file["grey.png"]["probability"], abs=0.02), name


def test_results_are_in_the_order_asked_for_with_damaged_images_in_the_middle(network, test_split, tmp_path):
    paths = []
    for number in range(150):  # more than two batches
        paths.append(tmp_path / f"{number}.png")
        if number in (0, 40, 63, 64, 100, 149):
            paths[-1].write_bytes(b"no image")
        else:
            Image.fromarray(test_split[0][number, ..., 0]).save(paths[-1])
    paths.reverse()
    results = predict.predict(network, paths, skip_unreadable=True)
    assert [result["file"] for result in results] == [str(path) for path in paths]
    failed = [int(result["file"].rpartition("/")[2][:-4]) for result in results if "error" in result]
    assert failed == [149, 100, 64, 63, 40, 0]
    good = [path for path in paths if path.read_bytes() != b"no image"]
    alone = predict.predict(network, good, skip_unreadable=False)
    assert [result for result in results if "error" not in result] == alone


def test_a_batch_of_nothing_but_damaged_images_gives_only_errors(network, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    results = predict.predict(network, [tmp_path / "a.png", tmp_path / "gone.png"], skip_unreadable=True)
    assert [set(result) for result in results] == [{"file", "error"}] * 2
    assert "No such file" in results[1]["error"]


def test_a_damaged_image_is_named(network, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^cannot read image .*a\.png: not an image file; .*--on_error=skip$"):
        predict.predict(network, [tmp_path / "a.png"], skip_unreadable=False)


def test_a_truncated_image_is_named(network, test_split, tmp_path):
    Image.fromarray(test_split[0][0, ..., 0]).resize((50, 50)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot read image .*a\.jpg: .*truncated"):
        predict.predict(network, [tmp_path / "a.jpg"], skip_unreadable=False)


def test_folders_are_searched_to_any_depth_and_files_taken_as_given(tmp_path):
    for name in ("b/deep/er/z.JPG", "b/a.webp", "b/notes.txt", "c.png", "a.data"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    found, notes = predict.find_images([str(tmp_path / each) for each in ("c.png", "b", "a.data", "linked")])
    in_b = ["b/a.webp", "b/deep/er/z.JPG"]
    in_linked = [name.replace("b/", "linked/", 1) for name in in_b]
    assert [str(path.relative_to(tmp_path)) for path in found] == ["c.png", *in_b, "a.data", *in_linked]
    assert notes == [f"skipped 1 file of another kind in {tmp_path / each}: .txt (1)" for each in ("b", "linked")]


def test_folders_are_listed_by_the_rule_of_training(tmp_path):
    for name in ("a.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png", "b.bmp", "c.jp2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "again").symlink_to(tmp_path)
    found, notes = predict.find_images([str(tmp_path)])
    assert [path.name for path in found] == ["a.png", "b.bmp"]
    assert notes == [
        f"skipped 3 files of other kinds in {tmp_path}: .jp2 (1), FIFO (1), link to a folder that is already listed (1)"
    ]


def test_places_without_images_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no images in this folder \(\.jpg, .*\)$"):
        predict.find_images([str(tmp_path)])
    (tmp_path / "a.svg").write_bytes(b"")
    with pytest.raises(UserError, match=r"no images in this folder \(\.jpg, .*\), but \.svg \(1\)$"):
        predict.find_images([str(tmp_path)])
    with pytest.raises(UserError, match=r"--images=.*none\.png: this file or folder does not exist"):
        predict.find_images([str(tmp_path / "none.png")])
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is neither a file nor a folder"):
        predict.find_images([str(tmp_path / "pipe.png")])


@pytest.mark.parametrize("place", ["a" * 5000, "a/" * 2500 + "b.png", "\0"])
def test_paths_that_cannot_be_are_refused_in_one_line(place):
    with pytest.raises(UserError, match=r"^--images=.* cannot be read: (File name too long|.*embedded null .*)$"):
        predict.find_images([place])


def test_images_are_scaled_and_limited_as_the_config_of_the_run_says(network, tmp_path):
    data = dataclasses.replace(network.config.data, grey16_max=4095, max_megapixels=0.01)
    trained_so = dataclasses.replace(network, config=dataclasses.replace(network.config, data=data))
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(grey * 65).save(tmp_path / "twelve.png")
    Image.fromarray(((2 * 255 * (grey * 65).astype(int) + 4095) // 8190).astype(np.uint8)).save(tmp_path / "eight.png")
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    paths = [tmp_path / name for name in ("twelve.png", "eight.png", "large.png")]
    twelve, eight, large = predict.predict(trained_so, paths, skip_unreadable=True)
    assert twelve["top"] == eight["top"] and "more than config.data.max_megapixels=0.01" in large["error"]


def with_shape(network, *shape):
    return dataclasses.replace(network, spec=dataclasses.replace(network.spec, image_shape=shape))


def test_a_network_for_oblong_images_takes_those_of_its_size_only(network, tmp_path):
    oblong = with_shape(network, 8, 6, 1)
    Image.new("L", (6, 8)).save(tmp_path / "fits.png")
    Image.new("L", (8, 6)).save(tmp_path / "lies.png")
    results = predict.predict(oblong, [tmp_path / "fits.png", tmp_path / "lies.png"], skip_unreadable=True)
    assert results[0]["label"] in network.class_names
    assert results[1]["error"] == "it is 8x6, but the network accepts only 6x8"


def test_an_image_of_other_channels_than_those_of_the_network_is_refused(network, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match=r"grey.png: it has 1 channel, not 2"):
        predict.predict(with_shape(network, 8, 8, 2), [tmp_path / "grey.png"], skip_unreadable=False)


ANY = st.text(st.characters(codec=None, exclude_characters="\0"), max_size=12)  # surrogates, line breaks and all


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ANY, ANY, st.booleans()), max_size=4))
def test_any_name_comes_back_from_a_table_of_predictions(rows):
    results = []
    for file, label, readable in rows:
        top = [{"label": label, "probability": 0.75}, {"label": "b", "probability": 0.25}]
        results.append({"file": file} | ({**top[0], "top": top} if readable else {"error": label or "no image"}))
    with tempfile.TemporaryDirectory() as folder:
        predict.write(Accuracy(), results, table := pathlib.Path(folder) / "x.CSV")
        predict.write(Accuracy(), results, whole := pathlib.Path(folder) / "x.json")
        assert json.loads(whole.read_text()) == results
        with table.open(encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
    escaped = [{key: _as_utf8(value) for key, value in result.items() if key != "top"} for result in results]
    assert [{key: row[key] for key in want} for row, want in zip(read, escaped, strict=True)] == escaped
    for row, result in zip(read, results, strict=True):
        assert ("top" in result) == (row["error"] == "")
        if "top" in result:
            assert (row["label_2"], row["probability_2"]) == ("b", "0.25")


def _as_utf8(value) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
