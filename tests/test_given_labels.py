"""Labels in the forms that users have: lists of names, single columns, rare classes, and large numbers."""

import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn import config as configs
from jaxcnn.api.training import with_data
from jaxcnn.config import ConfigError, Data, Task, UserError
from jaxcnn.data import holdout, memory
from jaxcnn.data import labels as of_tables
from jaxcnn.data.source import open_splits
from jaxcnn.tasks import by_name, multilabel, regression
from jaxcnn.train import teachers, workdir
from tests import runs

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


def splits(labels, task="classification", names=(), **data):
    """The splits of `IMAGES` with these labels, all of which are trained on."""
    given = {"train": (IMAGES, labels)} | ({"class_names": list(names)} if names else {})
    changes = {f"data.{name}": value for name, value in data.items()}
    config = jaxcnn.config("cnn", task={"name": task}, optim={"label_smoothing": 0.0}, protocol="full", **changes)
    checked, arrays = with_data(configs.from_config_dict(config), given, None)
    found = open_splits(checked.data, checked.task)
    del arrays  # known until here
    return found


def test_one_column_of_several_labels_is_one_label(tmp_path):
    column = np.arange(40) % 2
    found = splits(column[:, None], "multilabel", ["cat"])
    assert found.class_names == ("cat",) and found.train.targets.tolist() == column[:, None].tolist()
    assert splits(column[:, None].astype(bool), "multilabel").class_names == ("0",)
    assert splits(column[:, None]).class_names == ("0", "1"), "a single column is a class where there is one"
    rows = ["image,cat", *(f"{k}.png,{k % 2}" for k in range(40))]
    for k in range(40):
        Image.fromarray(IMAGES[k]).save(tmp_path / f"{k}.png")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = Data(source=f"csv:{tmp_path}/t.csv", label_column="cat", protocol="full", test_split="")
    found = open_splits(data, Task(name="multilabel"))
    assert (
        found.class_names == ("cat",) and found.train.targets.shape[1] == 1 and set(found.train.targets[:, 0]) == {0, 1}
    )
    assert open_splits(data, Task()).class_names == ("0", "1")


@pytest.mark.parametrize("form", [list, tuple, lambda rows: np.array(rows, object)])
def test_lists_of_names_are_several_labels(form):
    rows = [["b", "a"], ["a"], [], ["c", "b"]] * 10
    found = splits(form(rows), "multilabel")
    assert found.class_names == ("a", "b", "c")
    assert found.train.targets[:4].tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert splits([["b", "a"], ["a", "c"]] * 20, "multilabel").train.targets[1].tolist() == [1, 0, 1], "of one length"
    assert memory.labels_of([["c"], []], ("a", "b", "c"), 2).tolist() == [[0, 0, 1], [0, 0, 0]]
    with pytest.raises(UserError, match="has the label 'd', which is not in class_names"):
        splits([["a", "d"]] * 40, "multilabel", ["a", "b"])
    with pytest.raises(UserError, match="multilabel"):
        splits(rows)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": {"name": "multilabel"}}, "set config.task.class_weights='auto'"),
        ({"task": {"name": "regression"}, "label_smoothing": 0.0}, "is for config.task.name='classification'"),
        ({"task": {"class_weights": "auto"}}, "so config.task.class_weights='auto' has no effect"),
        ({"task": {"logit_adjustment": 1.0}}, "so config.task.logit_adjustment has no effect"),
    ],
)
def test_balanced_sampling_is_refused_where_it_has_no_effect_or_none_that_is_meant(changes, told):
    with pytest.raises(ConfigError, match=told) as error:
        jaxcnn.config("cnn", sampling="balanced", **changes)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_balanced_sampling_has_a_bound_which_is_told():
    labels = np.zeros(2000, np.int64)
    labels[:49] = np.arange(1, 50)  # 49 classes of one example, and one of 1951
    counts = np.bincount(labels[holdout.balanced(labels, 0)])
    assert counts[0] == 1951 and set(counts[1:]) == {400} and counts.sum() <= holdout.MOST_REPEATED * len(labels) + 1951
    assert "so the classes get 400 to 1951 examples" in holdout.remark(labels[holdout.balanced(labels, 0)])[0]
    rare = np.zeros(40, np.int64)
    rare[:29] = np.arange(1, 30)  # 30 classes, so 11 of each are 330, below the bound
    found = splits(rare, sampling="balanced")
    assert len(found.train) == 330 and not [note for note in found.notes if "balanced" in note]


def test_a_number_of_a_large_unit_is_told():
    labels = np.stack([GENERATOR.random(40), 100 * GENERATOR.random(40)], axis=1)
    found = splits(labels, "regression", ["rooms", "price"])
    facts = found.kind.facts(found.train.targets)
    told = by_name.remark(Task(name="regression"), facts, found.class_names)
    assert told.startswith("price varies ") and "config.task.monitor='loss'" in told
    assert by_name.remark(Task(name="regression", monitor="loss"), facts, found.class_names) == ""
    alike = found.kind.facts(found.train.targets / np.array([1, 30], np.float32))
    assert by_name.remark(Task(name="regression"), alike, found.class_names) == ""


def test_the_recipes_settings_for_classes_are_left_out_for_numbers(caplog):
    config = jaxcnn.config("cnn", task={"name": "regression"})
    assert config.optim.label_smoothing == 0 and "config.optim.label_smoothing=0.1 of the recipe" in caplog.text
    with pytest.raises(ConfigError, match=r"'regression' has none; set it to 0\.0"):
        jaxcnn.config("cnn", task={"name": "regression"}, label_smoothing=0.1)


def test_the_command_leaves_them_out_as_well_unless_they_are_given():
    flags = ("--config=quickstart", "--config.task.name=regression", "--config.seed=-1")
    left_out = "jaxcnn: config.optim.label_smoothing=0.1 of the recipe is left out: it is not for config.task.name="
    code, told = runs.run(*flags)
    assert (code, told.count("\n")) == (2, 2) and told.startswith(left_out) and "config.seed must not be" in told
    code, told = runs.run(*flags[:2], "--config.optim.label_smoothing=0.1")
    assert (code, told.count("\n")) == (2, 1) and "config.optim.label_smoothing is for classes" in told


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("teacher_share", 1.5)])
def test_one_mistake_is_one_line(field, value):
    with pytest.raises(ConfigError, match=rf"^config.task.{field} must be [^\n]*$"):
        jaxcnn.config("cnn", task={field: value})


def test_a_teacher_of_another_task_or_type_is_refused(tmp_path):
    hot = np.eye(3, dtype=np.uint8)[np.arange(40) % 3]
    for changes, images, labels, told in (
        ({"task": {"name": "multilabel"}}, IMAGES, hot, "config.task.name='multilabel', but this run has"),
        ({}, IMAGES.astype(np.float32), hot.argmax(1), "config.data.dtype='float32', but this run has 'uint8'"),
        ({}, IMAGES, hot.argmax(1), ""),
    ):
        given = {"train": (images, labels), "class_names": list("abc")}
        theirs, kept = with_data(configs.from_config_dict(jaxcnn.config("cnn", **changes)), given, None)
        workdir.write_config(tmp_path, theirs)
        workdir.write_data_facts(tmp_path, open_splits(theirs.data, theirs.task))
        own = {"train": (IMAGES, hot.argmax(1)), "class_names": list("abc")}
        config = jaxcnn.config("cnn", task={"teacher": str(tmp_path)})
        mine, also = with_data(configs.from_config_dict(config), own, None)
        found = open_splits(mine.data, mine.task)
        if not told:
            assert teachers.of(mine, found).spec.image_dtype == "uint8"
            continue
        with pytest.raises(ConfigError, match=told):
            teachers.of(mine, found)
        del kept, also


def test_the_probabilities_of_many_images_are_counted_not_kept(monkeypatch):
    logits = GENERATOR.normal(size=(3000, 5)).astype(np.float32)
    hot = (GENERATOR.random((3000, 5)) < 1 / (1 + np.exp(-logits - 1))).astype(np.uint8)
    hot[:, 4] = 0
    whole, parts = multilabel.Probabilities(), multilabel.Probabilities()
    whole.add(logits, hot)
    monkeypatch.setattr(multilabel, "MOST_KEPT", 4000)
    for start in range(0, 3000, 500):
        parts.add(logits[start : start + 500], hot[start : start + 500])
    assert parts._parts == []
    expected, found = whole.figures(list("abcde"), {}), parts.figures(list("abcde"), {})
    assert found["at_half"] == pytest.approx(expected["at_half"], rel=1e-12)
    assert found["average_precision"]["e"] is None
    # Rounding moves a score by less than 1/4096; with 3,000 scores few pairs change their order.
    assert found["mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=2e-3)
    assert parts.fitted()["thresholds"] == pytest.approx(whole.fitted()["thresholds"], abs=0.05)


@pytest.mark.parametrize("field", ["temperature", "teacher_share"])
def test_settings_of_a_teacher_need_one(field):
    with pytest.raises(ConfigError, match=f"config.task.{field} has no effect without config.task.teacher"):
        jaxcnn.config("cnn", task={field: 0.5})


def test_numbers_that_float32_cannot_tell_apart_are_refused():
    seconds = 1.7e9 + GENERATOR.random(40) * 100
    with pytest.raises(UserError, match=r"labels .* lose .* subtract 1700000\d\d\d") as error:
        splits(seconds, "regression")
    assert len(str(error.value)) < 500
    assert splits(seconds - 1.7e9, "regression").train.targets.dtype == np.float32
    assert len(splits(1.7e9 + 1e7 * GENERATOR.random(40), "regression").train) == 40


@pytest.mark.parametrize("form", [np.array, lambda rows: np.array(rows, object)])
def test_a_column_of_names_is_one_class_or_one_of_several_labels(form):
    rows = form([["b"], ["a"], ["c"], ["b"]] * 10)
    found = splits(rows)
    assert found.class_names == ("a", "b", "c") and found.train.targets[:4].tolist() == [1, 0, 2, 1]
    several = splits(rows, "multilabel")
    assert several.class_names == ("a", "b", "c") and several.train.targets[:2].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert splits([["b"], ["a"]] * 20, "multilabel").train.targets[0].tolist() == [0, 1], "lists stay lists"


def test_one_column_of_booleans_is_one_label():
    for cells in ([True, False, True], ["1.0", "0.0", "1.0"], [1.0, 0, 1], ["1", " 0", "1"]):
        found, names = of_tables.read({"cat": cells}, "multilabel", ";", lambda row, what: UserError(what))
        assert found.tolist() == [[1], [0], [1]] and names == ("cat",), cells


def test_what_to_subtract_is_rounded_by_the_spread():
    exact = 0.125 + 1e-9 * GENERATOR.random(40)
    with pytest.raises(UserError, match=r"subtract 0\.125000000\d from all first"):
        regression.Quantities(1).read(exact, "digits", "train")
    assert regression.Quantities(1).read(exact - 0.125, "digits", "train").std() > 0
