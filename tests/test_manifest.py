"""Images listed in a table: formats, columns, splits, and mistakes told with their line."""

import csv
import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import ConfigError, Data, Task, UserError, from_config_dict
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.data.labels import as_text, class_numbers
from jaxcnn.data.manifest import USUAL
from jaxcnn.data.place import absolute
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.learn import step as steps
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name
from jaxcnn.train import setup
from tests import small
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
    assert len(splits.train) == 18
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


MULTILABEL = Task(name="multilabel")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_several_labels_are_lists_or_columns_of_0_and_1(tmp_path, rows, suffix):
    """Both forms, in every format, give the same targets; an image may have none."""
    several = [[LABELS[k] for k in range(3) if number % (k + 2) == 0] for number in range(30)]
    as_lists = [
        row | {"class": ";".join(of) if suffix == ".csv" else of} for row, of in zip(rows, several, strict=True)
    ]
    columns = [
        {"path": row["path"], "split": row["split"]} | {name: int(name in of) for name in LABELS}
        for row, of in zip(rows, several, strict=True)
    ]
    lists = open_splits(Data(source=f"csv:{write(tmp_path, as_lists, suffix)}"), MULTILABEL)
    names = lists.class_names
    hot = {
        images.tobytes(): tuple(row) for images, row in zip(everything(lists.train), lists.train.targets, strict=True)
    }
    assert names == LABELS and lists.train.targets.dtype == np.uint8
    assert hot == {picture(n).tobytes(): tuple(int(name in several[n]) for name in LABELS) for n in range(18)}
    assert any(not any(row) for row in hot.values()), "some image must have no class for this to mean much"
    of_columns = open_splits(
        Data(source=f"csv:{write(tmp_path, columns, suffix)}", label_column="cat, dog, eel"), MULTILABEL
    )
    assert of_columns.class_names == LABELS
    np.testing.assert_array_equal(of_columns.train.targets, lists.train.targets)


def test_columns_of_numbers_are_the_targets_of_regression(tmp_path, rows):
    rows = [row | {"age": number / 4, "height": -number} for number, row in enumerate(rows)]
    path = write(tmp_path, rows)
    one = open_splits(Data(source=f"csv:{path}", label_column="age"), Task(name="regression"))
    assert one.class_names == ("age",) and one.train.targets.shape == (18, 1)
    assert sorted(one.train.targets[:, 0].tolist()) == [number / 4 for number in range(18)]
    both = open_splits(Data(source=f"csv:{path}", label_column="age,height"), Task(name="regression"))
    assert both.class_names == ("age", "height") and both.train.targets.shape == (18, 2)
    with pytest.raises(UserError, match=r"line 2: 'cat' in column 'class' is no finite number"):
        open_splits(Data(source=f"csv:{path}"), Task(name="regression"))


@pytest.mark.parametrize(
    ("cell", "fields", "told"),
    [
        ("cat;;dog", {"label_separator": "|"}, ""),
        ("cat;", {}, ""),
        ("2", {"label_column": "class,n"}, r"line 2: '2' in column 'class' is neither 0 nor 1"),
        ("x", {"label_column": "class,none"}, r"label_column='class,none': .* has no such column"),
    ],
)
def test_mistakes_in_several_labels_are_told_with_their_line(tmp_path, rows, cell, fields, told):
    rows = [row | {"n": 1} for row in rows]
    rows[0]["class"] = cell
    path = write(tmp_path, rows)
    if not told:
        rows[0]["class"] = cell
        assert len(open_splits(Data(source=f"csv:{path}", **fields), MULTILABEL).class_names) >= 3
        return
    with pytest.raises(UserError, match=told):
        open_splits(Data(source=f"csv:{path}", **fields), MULTILABEL)


def test_several_columns_are_not_one_class(tmp_path, rows):
    with pytest.raises(UserError, match="one class for each image is in one column"):
        opened(write(tmp_path, rows), label_column="class,split")
    rows[2]["class"] = ["cat", "dog"]
    with pytest.raises(UserError, match=r"line 3: the label holds several values; each image has one label"):
        opened(write(tmp_path, rows, ".jsonl"))


def test_folders_of_classes_are_no_numbers(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(picture(1)).save(tmp_path / "train" / name / "a.png")
    with pytest.raises(UserError, match=r"has class names, such as 'cat', but config\.task\.name='regression' needs"):
        open_splits(Data(source=f"folder:{tmp_path}", test_split=""), Task(name="regression"))


def test_a_weight_of_zero_leaves_an_example_out_of_training(tmp_path, rows):
    """The weights multiply the losses: with weights of 0 or 2, the gradient is twice that of a set of the others."""
    rows = [row | {"example_weight": 2 * (number % 2)} for number, row in enumerate(rows)]
    splits = opened(write(tmp_path, rows))
    weights = splits.train.weights
    assert sorted(weights.tolist()) == [0.0] * 9 + [2.0] * 9
    config = from_config_dict(
        {
            "global_batch_size": 18,
            "model": {"name": "cnn", "width": 0.125},
            "optim": {"learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0},
            "schedule": {"name": "constant"},
            "run": {"steps": 1},
        }
    )
    found = setup.on(config, splits, meshes.make_mesh(1))
    plain = dataclasses.replace(found.spec, task=by_name.make(config.task, 3))
    shape = found.spec.image_shape
    constants = found.constants(Constants(np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32)))
    np.testing.assert_array_equal(constants.task["example_weights"], weights)
    index = np.arange(18, dtype=np.int32)
    images, labels = everything(splits.train), splits.train.targets
    batch = Batch(images, labels, index, index, np.ones(18, bool))
    hyper = make_hyper(config)
    state = programs.init_state(found.spec, found.mesh)(hyper)
    rest = state.batch_stats, jnp.int32(0), hyper

    @functools.partial(jax.jit, static_argnums=0, compiler_options=small.UNOPTIMISED)
    def loss_of(spec, constants, batch):
        return steps.batch_gradients(spec, state.params, *rest, batch, constants).sums["loss"]

    whole = loss_of(found.spec, constants, batch)
    each = [
        float(loss_of(plain, dataclasses.replace(constants, task={}), dataclasses.replace(batch, mask=index == number)))
        for number in np.flatnonzero(weights)[:3]
    ]
    only = loss_of(found.spec, constants, dataclasses.replace(batch, mask=np.isin(index, np.flatnonzero(weights)[:3])))
    np.testing.assert_allclose(only, 2 * sum(each), rtol=1e-5)
    none = loss_of(found.spec, constants, dataclasses.replace(batch, mask=weights == 0))
    assert none == 0 and whole > 0


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


def test_text_of_parquet_that_is_not_utf8_is_one_line(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from jaxcnn.data import table

    path = tmp_path / "set.parquet"
    parquet.write_table(pyarrow.table({"path": ["image-of-a-cat.png"], "class": ["cat"]}), path)
    path.write_bytes(path.read_bytes().replace(b"image-of-a-cat.png", b"image-of-\xb0-cat.png"))
    with pytest.raises(UserError, match=r"^the set: column 'path' cannot be read: 'utf-8' codec can't decode"):
        table._parquet(path, "the set").column("path")


OUTSIDE = "{}/other/secret.png"


@pytest.mark.parametrize("path", ["../other/secret.png", "images/../../other/secret.png", OUTSIDE, "../\0.png"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_image_outside_the_folder_is_refused_unless_it_is_allowed(tmp_path, rows, path, on_error):
    (tmp_path / "other").mkdir()
    Image.fromarray(picture(50)).save(tmp_path / "other" / "secret.png")
    rows[4]["path"] = path.format(tmp_path)
    table = write(tmp_path, rows, ".jsonl")
    with pytest.raises(
        UserError, match=r"line 5: image .* is outside .*/set'; .* config\.data\.images_below"
    ) as caught:
        opened(table, on_error=on_error)
    assert "\n" not in str(caught.value) and "does not exist" not in str(caught.value)
    if "\0" not in path:
        assert len(opened(table, images_below=str(tmp_path / "other")).train) == 18
        with pytest.raises(UserError, match="is outside"):
            opened(table, images_below=str(tmp_path / "othe"))


def test_a_link_in_the_folder_is_its_owners(tmp_path, rows):
    (tmp_path / "set" / rows[3]["path"]).rename(tmp_path / "elsewhere.png")
    (tmp_path / "set" / rows[3]["path"]).symlink_to(tmp_path / "elsewhere.png")
    rows[4]["path"] = str(tmp_path / "link" / rows[4]["path"])  # the folder itself under another name
    (tmp_path / "link").symlink_to(tmp_path / "set")
    rows[5]["path"] = str(tmp_path / "set" / rows[5]["path"])
    assert len(opened(write(tmp_path, rows)).train) == 18
    with pytest.raises(ConfigError, match=r"images_below='/' is for sources that list images: csv:, coco: and"):
        from_config_dict({"data": {"source": "digits", "images_below": "/"}})


def test_a_small_parquet_of_many_rows_is_not_inflated(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from jaxcnn.data import table

    path, text = tmp_path / "set.parquet", "images/" + "a" * 10_000
    cells = pyarrow.array([text, None]).dictionary_encode().take(pyarrow.array([0, 1] * 100_000))
    parquet.write_table(pyarrow.table({"path": cells, "number": [3] * 200_000, "list": [[1, 2]] * 200_000}), path)
    assert path.stat().st_size < 20_000
    column = table.read_table(path, "the set").column("path")
    assert column == [text, None] * 100_000
    assert column[0] is column[-2], "2 GB otherwise"
    monkeypatch.setattr(table, "MOST_ROWS", 300_000)
    assert table.read_table(path, "the set").column("number") == [3] * 200_000
    with pytest.raises(UserError, match=r"column 'list' is larger than 300,000 values or 2 GiB, which is the limit"):
        table.read_table(path, "the set").column("list")
    monkeypatch.setattr(table, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(table, "_claimed", lambda *_: (0, 0))
    with pytest.raises(UserError, match=r"column 'path' is larger"):
        table.read_table(path, "the set").column("path")
    monkeypatch.setattr(table, "MOST_ROWS", 199_999)
    with pytest.raises(
        UserError, match=r"claims 200,000 rows, and the limit is 199,999; divide it, or write it as CSV"
    ):
        table.read_table(path, "the set")
