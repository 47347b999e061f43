"""Images listed in a table: formats, columns, splits, and mistakes told with their line."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import ConfigError, Data, UserError, from_config_dict
from jaxcnn.data.labels import as_text, class_numbers
from jaxcnn.data.manifest import USUAL
from jaxcnn.data.place import absolute
from jaxcnn.data.source import open_splits
from tests.test_folder import cache, everything, picture  # noqa: F401 (a fixture)

LABELS = ("cat", "dog", "eel")


@pytest.fixture
def rows(tmp_path):
    """Thirty images in a folder of the set, with their rows."""
    (tmp_path / "set" / "images").mkdir(parents=True)
    rows = []
    for number in range(30):
        name = f"images/{number:02d}.png"
        Image.fromarray(picture(number)).save(tmp_path / "set" / name)
        split = "Training" if number < 18 else ("val" if number < 24 else "test")
        rows.append({"path": name, "class": LABELS[number % 3], "split": split})
    return rows


def write(folder, rows, suffix=".csv", delimiter=","):
    path = folder / "set" / f"labels{suffix}"
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return path


def opened(path, **fields):
    return open_splits(Data(source=f"csv:{path}", **fields))


def found(split):
    return {
        (image.tobytes(), split.class_names[label])
        for image, label in zip(everything(split), split.targets, strict=True)
    }


@pytest.mark.parametrize(
    ("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t"), (".jsonl", ""), (".parquet", "")]
)
def test_every_format_gives_the_same_splits(tmp_path, rows, suffix, delimiter):
    splits = opened(write(tmp_path, rows, suffix, delimiter))
    assert splits.class_names == LABELS
    for split, numbers in ((splits.train, range(18)), (splits.val, range(18, 24)), (splits.test, range(24, 30))):
        assert found(split) == {(picture(number).tobytes(), LABELS[number % 3]) for number in numbers}


def test_columns_may_have_any_name(tmp_path, rows):
    rows = [{"a": row["path"], "b": row["class"], "c": row["split"], "split": "?", "w": 0.5} for row in rows]
    fields = {"image_column": "a", "label_column": "b", "split_column": "c", "weight_column": "w"}
    splits = opened(write(tmp_path, rows), **fields)
    assert len(splits.train) == 18 and "read, but not used yet" in splits.notes[0]
    assert splits.bases["train"].weights.tolist() == [0.5] * 18


@pytest.mark.parametrize("name", [name for kind in ("image", "label") for name in USUAL[kind]])
def test_usual_names_are_known_in_any_case(tmp_path, rows, name):
    old = "path" if name in USUAL["image"] else "class"
    rows = [{(name.title() if key == old else key): value for key, value in row.items()} for row in rows]
    assert len(opened(write(tmp_path, rows)).train) == 18


def test_without_a_column_of_splits_a_manifest_is_divided_by_itself(tmp_path, rows):
    for row in rows:
        del row["split"]
    splits = opened(write(tmp_path, rows))
    assert len(splits.train) + len(splits.val) + len(splits.test) == 30
    before = found(splits.test)
    after = found(opened(write(tmp_path, rows[:-5])).test)
    assert after <= before and "about 80 % train" in splits.notes[0]
    assert (
        len(opened(write(tmp_path, rows), test_split="train[:10]", train_split="train[10:]", val_examples=3).test) == 10
    )


def test_paths_are_relative_to_the_manifest_or_absolute(tmp_path, rows, monkeypatch):
    rows[3]["path"] = str(tmp_path / "set" / rows[3]["path"])
    write(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    data = absolute(Data(source="csv:set/labels.csv"))
    assert data.source == f"csv:{tmp_path}/set/labels.csv" and len(open_splits(data).train) == 18


def test_labels_are_numbered_in_the_order_of_numbers_or_names():
    assert class_numbers(["10", "9", "9"])[1] == ("9", "10")
    numbers, names = class_numbers(["b", "10", "9", "b"])
    assert names == ("10", "9", "b") and numbers.tolist() == [2, 0, 1, 2] and numbers.dtype == np.int32
    assert [as_text(cell) for cell in (3, 3.0, " x ", None, float("nan"), True)] == ["3", "3", "x", "", "", "True"]


def changed(number, **cells):
    def change(rows):
        rows[number] |= cells
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "fields", "line"),
    [
        (changed(4, path="images/none.png"), {}, "line 6: image 'images/none.png' does not exist; correct it, or set"),
        (changed(4, split="tset"), {}, r"line 6: column 'split' is 'tset', but must be train, val or test"),
        (changed(4, **{"class": " "}), {}, "line 6: the label is empty; fill it"),
        (changed(4, path=""), {}, "line 6: column 'path' has no path of an image"),
        (changed(4, path="./images/02.png"), {}, "line 6: image './images/02.png' is already in line 4; list"),
        (lambda rows: [row | {"w": "-1"} for row in rows], {"weight_column": "w"}, r"weight '-1' .* \(30 such rows\)"),
        (lambda rows: [row | {"split": "test"} for row in rows], {}, "no row of the train split; it has: test"),
        (
            lambda rows: rows,
            {"label_column": "clas"},
            r"label_column='clas': .*did you mean .class.*path, class, split",
        ),
        (lambda rows: [{"x": row["path"], "class": "a"} for row in rows], {}, "no column of images .*image_column"),
        (lambda rows: [{"path": row["path"], "z": "a"} for row in rows], {}, "no column of labels .*label_column"),
    ],
)
def test_mistakes_are_told_in_one_line_with_their_place(tmp_path, rows, change, fields, line):
    path = write(tmp_path, change(rows))
    with pytest.raises(UserError, match=line) as caught:
        opened(path, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "content", "line"),
    [
        (".csv", b"", "has no rows"),
        (".csv", b"path,class\n", "has no rows"),
        (".csv", b"path,path\na,b\n", "two columns named 'path'"),
        (".csv", b"path,class\na.png\n", "line 2 has 1 cells, but the first line names 2"),
        (".csv", b'path,class\n"a.png,b\n', "line 2 cannot be read"),
        (".csv", b"path,class\n\xff\xfe,b\n", "is not text in UTF-8"),
        (".jsonl", b'{"path": "a"}\n[1]\n', "line 2 is not an object"),
        (".jsonl", b'{"path": \n', "line 1 is not JSON"),
        (".jsonl", b'{"path": "set/a.png", "label": ["a", "b"]}\n', "line 1: the label holds several values"),
        (".parquet", b"path,class\n", "is not a Parquet file"),
        (".xlsx", b"", "suffix '.xlsx' is none of .csv, .tsv"),
    ],
)
def test_files_that_are_no_tables_are_refused_in_one_line(tmp_path, suffix, content, line):
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=line) as caught:
        opened(path, on_error="skip")
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_extra_is_told(tmp_path, rows, monkeypatch):
    with pytest.raises(UserError, match="this file does not exist"):
        opened(tmp_path / "none.csv")
    path = write(tmp_path, rows, ".parquet")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs pyarrow, which is not installed: pip install 'jaxcnn\[parquet\]'"):
        opened(path)
    assert "pyarrow" in sys.modules  # met by `write` alone


def test_rows_without_an_image_can_be_left_out(tmp_path, rows):
    rows[4]["path"] = "images/none.png"
    splits = opened(write(tmp_path, rows), on_error="skip")
    assert len(splits.train) == 17 and "skipped 1 unreadable image" in splits.notes[0]


@pytest.mark.parametrize("name", ["image_column", "label_column", "split_column", "weight_column"])
def test_columns_of_another_source_are_refused(name):
    with pytest.raises(ConfigError, match=rf"config.data.{name}='x' is for config.data.source='csv:<path>' only"):
        from_config_dict({"data": {"source": "digits", name: "x"}})
