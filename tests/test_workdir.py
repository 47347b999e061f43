"""The folder of a run: who may use it, and what says which run it is."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.command import exit_code
from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.machine.meeting import HostsError
from jaxcnn.train import environment, workdir
from tests import small

VARIED = {
    "model": {"width": 0.5, "dtype": "bfloat16"},
    "schedule": {"name": "multistep", "boundaries": (1.0, 2.5)},
    "optim": {"learning_rate": 1e-3, "label_smoothing": 0.1},
    "data": {"source": "npz:/a folder/ünïcode.npz"},
}


def pin(folder, config):
    """What a run does with its workdir's config."""
    workdir.check_config(folder, config)
    workdir.write_config(folder, config)


def test_a_folder_that_vanishes_under_a_run_is_the_machines_error(tmp_path):
    with pytest.raises(OSError, match="its folder is gone") as caught:
        workdir.write_sealed(tmp_path / "gone" / "normalization.json", {"mean": [0.5]})
    assert exit_code(caught.value) == 2


def test_a_config_survives_the_way_through_its_workdir(tmp_path):
    config = small.config(**VARIED)
    pin(tmp_path, config)
    assert workdir.read_config(tmp_path) == config
    assert workdir.read_config(tmp_path).schedule.boundaries == (1.0, 2.5)
    pin(tmp_path, config)  # the same again is no change


def test_each_changed_key_is_named_but_devices_may_change(tmp_path):
    pin(tmp_path, small.config(**VARIED))
    changed = small.config(**VARIED | {"schedule": {"name": "multistep", "boundaries": (1.0, 3.0)}, "seed": 3})
    with pytest.raises(UserError) as error:
        pin(tmp_path, changed)
    assert str(error.value).splitlines()[1:] == [
        "  config.schedule.boundaries: [1.0, 2.5] in the workdir, [1.0, 3.0] now",
        "  config.seed: 0 in the workdir, 3 now",
    ]
    pin(tmp_path, small.config(**VARIED, parallel={"devices": 4}))
    assert workdir.read_config(tmp_path).parallel.devices == 4


def test_checking_a_config_writes_nothing(tmp_path):
    workdir.check_config(tmp_path, small.config())
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_an_older_version_did_not_write_has_its_default(tmp_path):
    pin(tmp_path, small.config())
    tree = json.loads((tmp_path / "config.json").read_text())
    del tree["augment"]["cutout"], tree["checkpoint"]
    (tmp_path / "config.json").write_text(json.dumps(tree))
    pin(tmp_path, small.config())
    del tree["augment"]
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"config\.augment\.cutout: 0 in the workdir, 4 now"):
        pin(tmp_path, small.config(augment={"cutout": 4}))


@pytest.mark.parametrize("text", [None, "{ half of", '{"model": {"nam": "cnn"}}'])
def test_a_config_that_is_missing_or_broken_is_the_users_error(text, tmp_path):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        UserError, match=r"config\.json is missing|config\.json cannot be read|unknown key config\.model"
    ):
        workdir.read_config(tmp_path)


def test_a_file_in_place_of_the_workdir_is_refused_in_one_line(tmp_path):
    (tmp_path / "run").write_text("")
    for place in (tmp_path / "run", tmp_path / "run" / "inside"):
        with pytest.raises(UserError, match=r"--workdir=.*run.* cannot be written: .*; choose another folder$"):
            workdir.claim(place).__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where not even root can make folders")
def test_a_folder_that_cannot_be_made_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^--workdir=/proc/jaxcnn cannot be written: "):
        workdir.claim(pathlib.Path("/proc/jaxcnn")).__enter__()


def test_a_workdir_whose_path_is_no_unicode_is_refused_before_anything_is_made(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # TensorStore could not write checkpoints there
    with pytest.raises(UserError, match=r"^--workdir=.*/caf\\xe9: its path must be valid Unicode; choose another$"):
        workdir.claim(folder).__enter__()
    assert not folder.exists()


def test_a_claimed_workdir_names_its_holder_and_is_free_again_afterwards(tmp_path):
    folder = tmp_path / "new" / "run"
    with workdir.claim(folder), pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
        workdir.claim(folder).__enter__()
    with workdir.claim(folder):
        pass


def test_a_process_of_several_waits_for_what_a_failure_left_and_is_told_to_come_again_if_that_stays(tmp_path):
    with (
        workdir.claim(tmp_path),
        pytest.raises(HostsError, match=f"has been in use by process {os.getpid()} on ") as error,
    ):
        workdir.claim(tmp_path, 0.3).__enter__()
    assert error.value.exit_code == 75
    held = workdir.claim(tmp_path)
    held.__enter__()
    threading.Timer(0.5, held.__exit__, (None, None, None)).start()
    with workdir.claim(tmp_path, 20), pytest.raises(UserError, match="is in use by"):
        workdir.claim(tmp_path).__enter__()


def test_data_facts_hold_what_the_network_depends_on(tmp_path):
    splits = open_splits(small.config(data={"source": "digits", "val_examples": 100}).data)
    workdir.check_data_facts(tmp_path, splits)  # nothing to hold it against yet
    workdir.write_data_facts(tmp_path, splits)
    workdir.check_data_facts(tmp_path, splits)
    facts = workdir.read_data_facts(tmp_path)
    assert facts["class_names"] == list("0123456789")
    assert facts["image_shape"] == [8, 8, 1]
    assert facts["train_examples"] == 1337
    assert set(facts["splits"]) == {"train", "val", "test"}
    others = open_splits(small.config(data={"source": "digits", "val_examples": 101}).data)
    with pytest.raises(
        UserError,
        match=r"the data has changed since the start of the run .* \(train_examples, .* differ from",
    ):
        workdir.check_data_facts(tmp_path, others)
    (tmp_path / "data.json").write_text('{"class_names": ["0"], "image_shape": [8, 8, 1]}')
    with pytest.raises(UserError, match=r"data\.json lacks train_examples"):
        workdir.read_data_facts(tmp_path)
    (tmp_path / "data.json").unlink()
    with pytest.raises(UserError, match=r"data\.json is missing"):
        workdir.read_data_facts(tmp_path)


def test_the_environment_says_what_figures_were_made_with():
    facts = environment.facts(["main.py", "--config=x.py"])
    assert facts["command"] == ["main.py", "--config=x.py"]
    assert facts["packages"]["jax"] == jax.__version__
    assert facts["packages"]["numpy"] == np.__version__
    assert set(facts["packages"]) >= {"jaxcnn", "jaxlib", "flax", "optax", "orbax-checkpoint"}
    assert (facts["device"], facts["devices"], facts["backend"]) == ("cpu", 8, "cpu")
    assert facts["cores"] >= 1
    assert facts["processor"]
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads(json.dumps(facts)) == facts


def test_the_commit_is_that_of_the_repository_that_has_the_source_and_of_no_other_around_it(tmp_path):
    def git(*arguments: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *own, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    installed = tmp_path / ".venv" / "workdir.py"
    installed.parent.mkdir()
    installed.touch()
    git("init")
    git("commit", "--allow-empty", "--message=of the user's own project")
    assert environment._commit.__wrapped__(installed) is None
    git("add", "--force", ".")
    git("commit", "--message=the source")
    assert environment._commit.__wrapped__(installed) == git("rev-parse", "--short=12", "HEAD")
    installed.write_text("changed")
    assert environment._commit.__wrapped__(installed) == git("rev-parse", "--short=12", "HEAD") + "+"


def test_every_start_of_a_run_leaves_its_environment(tmp_path):
    for command in (["first"], ["second"], ["third"]):
        environment.write(tmp_path, command)
    facts = json.loads((tmp_path / "environment.json").read_text())
    assert facts["command"] == ["third"]
    assert [start["command"] for start in facts["earlier"]] == [["first"], ["second"]]
    assert facts["earlier"][0]["packages"] == facts["packages"]


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    workdir.write_json(path, {"a": [1.5, None], "é": "ü"})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"a": 1, "b": object()})
    assert json.loads(path.read_text()) == {"a": [1.5, None], "é": "ü"}


def test_default_config_in_the_workdir_has_every_field(tmp_path):
    pin(tmp_path, configs.Config())
    there = configs.flatten(json.loads((tmp_path / "config.json").read_text()))
    assert set(there) == set(configs.flatten(configs.to_dict(configs.Config())))
