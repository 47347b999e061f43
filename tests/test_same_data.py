"""A run goes on with the data that it began with, wherever that lies now, and with no other."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, UserError
from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import place
from jaxcnn.data.source import open_splits
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.train import normalization, same_data, workdir
from jaxcnn.train.loop import train
from tests import digits, small
from tests.test_folder import folder, make_folder, picture
from tests.test_source import npz, save_npz

pytestmark = pytest.mark.usefixtures("kept_programs")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def begin(run, data):
    """What a run leaves of its data when it begins."""
    run.mkdir()
    workdir.write_config(run, small.config(data=vars(data)))
    splits = open_splits(data)
    workdir.write_data_facts(run, splits)
    normalization._keep(splits.train, run, lambda train: ([0.5] * 3, [0.25] * 3))
    return splits


def go_on(run, data):
    """What holds the data of a resumed run against that."""
    workdir.check_config(run, small.config(data=vars(data)))
    splits = open_splits(data)
    workdir.check_data_facts(run, splits)
    normalization._keep(splits.train, run, None)


def change_json(path, change):
    tree = json.loads(path.read_text())
    change(tree)
    tree.pop("crc32", None)  # older versions wrote none
    path.write_text(json.dumps(tree))


def test_other_pictures_under_the_same_names_and_labels_are_refused_on_resume_and_told_in_evaluation(tmp_path):
    run, paths = tmp_path / "run", make_folder(tmp_path / "set")
    data = folder(tmp_path / "set")
    begin(run, data)
    go_on(run, data)
    for path in paths:
        Image.new("RGB", (12, 12), (7, 7, 7)).save(path)
    with pytest.raises(
        UserError,
        match=r"the data has changed since the start of the run .* \(images differ from data\.json\)",
    ):
        go_on(run, data)
    splits = open_splits(data)
    (remark,) = same_data.remarks(workdir.read_data_facts(run), splits, splits.test)
    assert remark.endswith("train[80%:] has changed since the start of the run: different images in train")
    change_json(run / "data.json", lambda facts: facts.pop("content"))  # as an older version wrote it
    go_on(run, data)
    assert same_data.remarks(workdir.read_data_facts(run), splits, splits.test) == []


def test_evaluation_on_other_labels_is_told_and_of_the_split_in_question_alone(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    begin(tmp_path / "run", npz(tmp_path / "a.npz"))
    save_npz(tmp_path / "b.npz", **arrays | {"test_labels": arrays["test_labels"][::-1]})
    other = open_splits(npz(tmp_path / "b.npz"))
    facts = workdir.read_data_facts(tmp_path / "run")
    assert same_data.remarks(facts, other, other.train) == same_data.remarks(facts, other, other.val) == []
    (remark,) = same_data.remarks(facts, other, other.test)
    assert remark.endswith("has changed since the start of the run: different labels")


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_the_same_data_at_another_place_goes_on(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind == "folder":
        make_folder(tmp_path / "set")
        at = folder
    else:
        save_npz(tmp_path / "set")
        pathlib.Path("set.npz").rename("set")
        at = npz
    begin(tmp_path / "run", at("set"))
    (tmp_path / "set").rename(tmp_path / "moved")
    go_on(tmp_path / "run", at("moved"))
    kept = workdir.read_config(tmp_path / "run").data
    assert kept.source == f"{kind}:{tmp_path}/set"
    with pytest.raises(UserError, match=r"config\.data\.source"):
        go_on(tmp_path / "run", Data(source="digits", val_examples=6))
    change_json(tmp_path / "run" / "data.json", lambda facts: facts.pop("content"))
    with pytest.raises(UserError, match="splits differ"):  # nothing tells that it is the same
        go_on(tmp_path / "run", at("moved"))
    (tmp_path / "moved").rename(tmp_path / "set")
    go_on(tmp_path / "run", at("set"))


def test_the_place_of_data_is_kept_so_that_another_current_folder_does_not_change_it(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    for source, wanted in (
        ("folder:photos", f"folder:{tmp_path}/a/photos"),
        ("npz:../x y.npz", f"npz:{tmp_path}/x y.npz"),
        ("folder:/abs", "folder:/abs"),
        ("digits", "digits"),
        ("tfds:cifar10", "tfds:cifar10"),
    ):
        workdir.write_config(tmp_path, small.config(data={"source": source, "dir": "sets"}))
        monkeypatch.chdir(tmp_path / "b")
        data = workdir.read_config(tmp_path).data
        assert (data.source, data.dir) == (wanted, f"{tmp_path}/a/sets")
        monkeypatch.chdir(tmp_path / "a")


def test_one_flag_says_where_any_source_lies():
    assert place.at(Data(source="folder:a"), "/b") == Data(source="folder:/b")
    assert place.at(Data(source="npz:a.npz"), "b.npz") == Data(source="npz:b.npz")
    assert place.at(Data(source="tfds:cifar10"), "/sets") == Data(source="tfds:cifar10", dir="/sets")
    assert place.at(Data(source="digits"), "") == Data(source="digits")
    with pytest.raises(UserError, match=r"--data=x: config\.data\.source='digits' is not read from a file"):
        place.at(Data(source="digits"), "x")


def test_a_run_from_before_the_field_goes_on_as_it_began_or_says_how(tmp_path):
    own = {"val_images": np.zeros((9, 4, 5, 3), np.uint8), "val_labels": np.arange(9) % 3}
    save_npz(tmp_path / "a.npz", **own)
    save_npz(tmp_path / "b.npz")
    for name in ("a", "b"):
        run, held_out = tmp_path / name, npz(tmp_path / f"{name}.npz", val_split=HELD_OUT)
        begin(run, held_out)
        change_json(run / "config.json", lambda tree: tree["data"].pop("val_split"))
        change_json(run / "data.json", lambda facts: facts.pop("content"))
        data = npz(tmp_path / f"{name}.npz")
        if name == "a":
            with pytest.raises(UserError, match=r"continue with --config\.data\.val_split=holdout"):
                go_on(run, data)
        else:
            go_on(run, data)
        go_on(run, held_out)
        network = workdir.read_config(run).data  # what evaluates the run
        assert (open_splits(network).val.place == open_splits(held_out).val.place).all()
        with pytest.raises(UserError, match=r"config\.data\.val_split:  in the workdir, train"):
            go_on(run, npz(tmp_path / f"{name}.npz", val_split="train[:5]", train_split="train[5:]"))


def test_classes_of_one_name_in_the_data_of_an_older_run_are_the_numbered_ones(tmp_path):
    save_npz(tmp_path / "a.npz", names=np.array(["crane", "maillot", "crane"]))
    begin(tmp_path / "run", npz(tmp_path / "a.npz"))
    change_json(tmp_path / "run" / "data.json", lambda facts: facts.update(class_names=["crane", "maillot", "crane"]))
    go_on(tmp_path / "run", npz(tmp_path / "a.npz"))
    assert workdir.read_data_facts(tmp_path / "run")["class_names"] == ["crane (0)", "maillot", "crane (2)"]


def test_processes_may_have_the_data_at_places_of_their_own_but_not_other_pictures(tmp_path):
    paths = make_folder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    class Two(Cluster):
        def __init__(self, there):
            super().__init__()
            self.hosts, self.there = ["h0", "h1"], there

        def gather(self, value=None):
            return [self.there, value]

    there = workdir.data_facts(open_splits(folder(tmp_path / "one")))
    workdir.check_same_data(Two(there), open_splits(folder(tmp_path / "two")))
    Image.fromarray(picture(99)).save(tmp_path / "two" / paths[0].relative_to(tmp_path / "one"))
    with pytest.raises(UserError, match=r"the data on h1 differs from that on h0 \(images differ\)"):
        workdir.check_same_data(Two(there), open_splits(folder(tmp_path / "two")))


def test_a_run_goes_on_with_moved_data_and_refuses_other_pictures(tmp_path, capsys):
    arrays = save_npz(tmp_path / "a.npz")
    run, changes = tmp_path / "run", {"optim": {"ema_decay": 0.0}, "global_batch_size": 8, "run": {"steps": 2}}

    def start(path):
        data = {"source": f"npz:{path}", "val_examples": 6}
        (run / "summary.json").unlink(missing_ok=True)  # as if it had been stopped just before
        train(digits.config(**changes, data=data), run, command=[])
        return capsys.readouterr().out

    told = start(tmp_path / "a.npz")
    assert "  classes: 0, 1, 2\n" in told
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    assert "resumed from the checkpoint of step 2" in start(tmp_path / "b.npz")
    assert workdir.read_config(run).data.source == f"npz:{tmp_path}/b.npz"
    save_npz(tmp_path / "b.npz", train_images=255 - arrays["train_images"])
    with pytest.raises(UserError, match=r"images differ from data\.json"):
        start(tmp_path / "b.npz")
