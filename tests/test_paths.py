"""Paths as people write them: `~` is a home folder in every flag that is a path."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn import command, launch
from jaxcnn.config import Data, UserError
from jaxcnn.data import place
from jaxcnn.data.source import open_splits
from jaxcnn.machine import paths
from jaxcnn.study import start, store
from jaxcnn.train import predict
from tests import runs

OF_COMMANDS = {
    "main": ("workdir", "data", "data_dir", "json", "out"),
    "sweep": ("workdir",),
    "report": ("out",),
    "preview": ("out",),
    "scaling.__main__": ("out",),
    "doctor.__main__": ("workdir",),
}
PARSED = """
import importlib, os, sys
from absl import flags
from jaxcnn import command
for word in sys.argv[1:]:
    module, *names = word.split(",")
    if os.fork() == 0:
        importlib.import_module(f"jaxcnn.{module}")
        flags.FLAGS(["x", *(f"--{name}=~/a b" for name in names)])
        print(module, [flags.FLAGS[name].value for name in names], flush=True)
        os._exit(0)
    os.wait()
"""


def test_the_flags_of_all_commands_that_are_paths_expand_the_home_folder():
    words = [",".join([module, *names]) for module, names in OF_COMMANDS.items()]
    done = subprocess.run(
        [sys.executable, "-c", PARSED, *words],
        cwd=runs.ROOT, env=os.environ | {"HOME": "/home/me"}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    told = [f"{module} {['/home/me/a b'] * len(names)}" for module, names in OF_COMMANDS.items()]
    assert done.stdout.splitlines() == told


def test_no_path_is_a_plain_string_among_the_flags(root):
    """A new flag that holds a path is to be defined as the others are."""
    for module in OF_COMMANDS:
        source = (root / "jaxcnn" / f"{module.replace('.', '/')}.py").read_text()
        for name in ("workdir", "out", "json", "data_dir", "data"):
            assert f'DEFINE_string("{name}"' not in source.replace("(\n    ", "("), (module, name)


def test_a_home_that_is_not_known_is_one_line(monkeypatch):
    with pytest.raises(UserError, match=r"^--images=~nobody-of-this-name/x: there is no home folder '~nobody-of"):
        paths.expand("~nobody-of-this-name/x", "--images=")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user id that has no entry
    with pytest.raises(UserError, match=r"^config\.data\.source=folder:~/photos: there is no home folder '~'"):
        open_splits(Data(source="folder:~/photos"))
    with pytest.raises(UserError, match="HOME is not set"):
        open_splits(Data(source="tfds:cifar10", dir="~/data"))
    with pytest.raises(UserError, match="HOME is not set"):
        place.absolute(Data(source="npz:~/set.npz"))
    with pytest.raises(ValueError, match="HOME is not set"):
        command._PathParser().parse("~/runs")


def test_paths_that_only_look_so_are_left_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for path in ("a/~", "./~", "runs/x~", "-", ""):
        assert command._PathParser().parse(path) == path
    assert paths.expand("a/~/b") == pathlib.Path("a/~/b")


def test_images_config_files_stores_and_slurm_scripts_expand_it_too(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").touch()
    assert predict.find_images(["~/a.png"])[0] == [tmp_path / "a.png"]
    assert command._with_path("--config=~/mine.py:smoke") == f"--config={tmp_path}/mine.py:smoke"
    assert command._with_path("--config.data.source=~") == "--config.data.source=~"
    assert start.with_home("journal:~/log") == f"journal:{tmp_path}/log"
    assert start.with_home("sqlite:///~/study.db") == f"sqlite:///{tmp_path}/study.db"
    assert start.with_home("postgresql://me@host/~") == "postgresql://me@host/~"
    script = launch.submit(["slurm", "--dry-run", "--", "--config=x.py", "--workdir=~/runs/a"])
    assert f"#SBATCH --output={tmp_path}/runs/a/slurm-%j.log" in script


@pytest.mark.parametrize(
    "name",
    ["plain", "a b,c", "q?x#y", "100%41 a", "{x}", "new\nline", "café", "猫", os.fsdecode(b"caf\xe9"), "a'\"&=;$\\"],
)
def test_the_store_of_a_sweep_is_in_its_folder_whatever_that_is_called(name, tmp_path):
    (tmp_path / name).mkdir()
    store.open_storage(start.default_url(tmp_path / name), 60)
    assert os.listdir(tmp_path / name) == ["study.db"]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("given", "separate"),
    [
        ("a,b.png", ["a,b.png"]),
        ("a,b.png,c.png", ["a,b.png", "c.png"]),
        ("c.png, a,b.png", ["c.png", "a,b.png"]),
        ('"a,b.png",c.png', ["a,b.png", "c.png"]),
        ('say "hi".png', ['say "hi".png']),
        ("c.png,none.png,nor,this", ["c.png", "none.png", "nor", "this"]),
        ("c.png,", ["c.png"]),
        ("", []),
        ("x" * 5000, ["x" * 5000]),
    ],
)
def test_a_list_of_paths_is_separated_by_those_commas_that_are_in_no_name(given, separate, monkeypatch, tmp_path):
    for name in ("a,b.png", "c.png", 'say "hi".png'):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert paths.separate(given) == separate


@settings(max_examples=40)
@given(st.text(st.characters(codec=None, exclude_characters="/\0"), min_size=1, max_size=20))
def test_a_file_of_any_name_can_be_named_among_the_images(name):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError, UnicodeEncodeError):  # a name that the file system does not take
            pathlib.Path(path).touch()
            assert paths.separate(path) == [path]
            assert predict.find_images([path])[0] == [pathlib.Path(path)]
