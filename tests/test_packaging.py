"""What a wheel holds, which packages are optional, and that configs are found by name."""

import dataclasses
import hashlib
import pathlib
import runpy
import tomllib
from unittest import mock

import pytest

from jaxcnn import command
from jaxcnn import config as configs
from jaxcnn.config import ConfigError
from jaxcnn.machine import extras, paths
from jaxcnn.reporting.findings import PUBLISHED
from jaxcnn.train import loop


def project(root) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.mark.parametrize(
    ("task", "data", "run", "package"),
    [
        ("detection", {"source": "shapes:32:32"}, {}, "faster_coco_eval"),
        ("instances", {"source": "shapes:32:32"}, {}, "faster_coco_eval"),
        ("segmentation", {"source": "coco:nowhere"}, {}, "faster_coco_eval"),
        ("classification", {"source": "digits"}, {"loggers": ("wandb",)}, "wandb"),
        ("classification", {"source": "digits"}, {"loggers": ("mlflow",)}, "mlflow"),
    ],
)
def test_a_run_asks_for_its_packages_before_it_reads_its_data(tmp_path, monkeypatch, task, data, run, package):
    real = extras.util.find_spec
    monkeypatch.setattr(extras.util, "find_spec", lambda name: None if name == package else real(name))
    monkeypatch.setattr(loop, "open_session", mock.Mock(side_effect=AssertionError("it began")))
    base = configs.Config()
    changes = {"task": configs.Task(name=task), "data": dataclasses.replace(base.data, **data)}
    config = dataclasses.replace(base, **changes, run=dataclasses.replace(base.run, **run))
    with pytest.raises(extras.MissingExtra, match=f"needs {package}, which is not installed: pip install 'jaxcnn"):
        loop.train(config, tmp_path, command=[])


def test_the_wheel_has_every_package_and_file_that_the_clone_has(root):
    told = project(root)["tool"]["setuptools"]
    folders = {each.parent for each in (root / "jaxcnn").rglob("*.py")} | {
        root / "configs",
        root / "configs" / "sweeps",
        root / "configs" / "tasks",
    }
    dotted = {".".join(folder.relative_to(root).parts) for folder in folders}
    expected = {f"jaxcnn.{name}" if name.startswith("configs") else name for name in dotted}
    expected |= {"jaxcnn.launch_files", "jaxcnn.released_weights"}
    assert sorted(told["packages"]) == sorted(expected)
    held = {
        file
        for package, patterns in told["package-data"].items()
        for pattern in patterns
        for file in (root / told["package-dir"].get(package, package.replace(".", "/"))).glob(pattern)
    }
    data = {*(root / "launch").rglob("*"), *(root / "results" / "weights").rglob("*"), *(root / "jaxcnn").rglob("*")}
    data = {file for file in data if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert {file for file in data if file not in held} == set()


def test_extras_bring_what_the_code_asks_them_for(root):
    told = project(root)["project"]["optional-dependencies"]
    named = {name: {line.partition(">")[0].replace("-", "_") for line in told[name]} for name in extras.EXTRAS}
    named["explain"] |= {"sklearn", "skimage"}  # the packages of scikit-learn and scikit-image
    named["tfds"] |= {line.partition(">")[0].replace("-", "_") for line in told["tfds-only"]}
    for name, packages in extras.EXTRAS.items():
        assert set(packages) <= named[name], name
        assert (name in told["all"][0]) != (name in ("wandb", "mlflow"))  # large, and for those who have an account


def test_a_missing_package_is_one_line_that_names_what_to_install(monkeypatch):
    monkeypatch.setattr(extras.util, "find_spec", lambda name: None if name == "optuna" else object())
    extras.need("report", "a report")
    with pytest.raises(extras.MissingExtra) as caught:
        extras.need("sweep", "a sweep")
    assert str(caught.value) == "a sweep needs optuna, which is not installed: pip install 'jaxcnn[sweep]'"
    absent = extras.missing(
        ModuleNotFoundError("No module named 'matplotlib.figure'", name="matplotlib.figure"), "x.png"
    )
    assert str(absent) == "x.png needs matplotlib, which is not installed: pip install 'jaxcnn[report]'"
    other = ValueError("something else")
    assert extras.missing(other) is other


@pytest.mark.parametrize("name", ["quickstart", "vgg16_cifar10", "sweeps/paper_cifar10"])
def test_a_config_is_found_by_its_name(name, root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # outside the clone
    assert command._with_path(f"--config={name}:smoke") == f"--config={root}/configs/{name}.py:smoke"


def test_a_file_of_that_name_and_other_flags_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("quickstart").write_text("")
    for argument in ("--config=quickstart", "--config=a.py:smoke", "--config.seed=3", "--workdir=quickstart", "config"):
        assert command._with_path(argument) == argument


def test_an_unknown_name_is_told_with_the_nearest(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"--config=quikstart: .* \(did you mean 'quickstart'\?\); it has: ") as error:
        command._with_path("--config=quikstart")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("tensorflow, extra", [(True, "tfds-only"), (False, "tfds")])
def test_no_second_tensorflow_is_advised(tensorflow, extra, monkeypatch):
    there = {"tensorflow": tensorflow, "tensorflow_datasets": False}
    monkeypatch.setattr(extras.util, "find_spec", lambda name: there[name] or None)
    with pytest.raises(extras.MissingExtra, match=rf"install 'jaxcnn\[{extra}\]'$"):
        extras.need("tfds", "tfds:cifar10")


def test_where_the_package_is_installed_its_own_copies_are_taken(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "jaxcnn"
    (package / "configs").mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert paths.shipped("configs") == package / "configs" and paths.clone() is None


def test_the_paper_is_cited_with_its_tables(root):
    page = (root / "docs" / "paper.md").read_text()
    figures = tomllib.loads(PUBLISHED.read_text())["seed_paper"]["figures"]
    for figure in figures:
        for name in ("accuracy", "hours"):
            if name in figure:
                assert f"{figure[name]:g}" in page


def audited(root, found):
    page, code = runpy.run_path(str(root / ".ci" / "audit"))["page"](found, b"a==1\n", "2.10", "2026-01-31")
    return page, code


def test_an_audit_is_clean_only_if_every_package_was_answered_for(root):
    sound = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (2)"}
    known = sound | {"vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    for found, code, verdict in (
        ([sound], 0, "No known vulnerabilities."),
        ([skipped], 1, "**Not audited**"),
        ([], 1, "**Not audited**"),
        ([sound, skipped], 1, "**Not complete**"),
        ([known, skipped], 1, "**1 known vulnerabilities.**"),
    ):
        page, exit_code = audited(root, found)
        assert exit_code == code and verdict in page and ("No known vuln" in page) == (code == 0)
    assert "| a 1 | PYSEC-1 | 1.1 |" in page and "`Dependency not found on PyPI and could not be audited`." in page


def test_the_page_of_the_audit_is_of_this_lock(root):
    page, lock = (root / "results" / "audit.md").read_text(), (root / "requirements.lock").read_bytes()
    assert hashlib.sha256(lock).hexdigest() in page, "make audit"


@pytest.mark.parametrize(
    ("events", "hit"),
    [
        ([{"introduced": "0"}], True),  # never fixed
        ([{"introduced": "0"}, {"fixed": "1.10"}], False),
        ([{"introduced": "0"}, {"fixed": "1.10.1"}], True),
        ([{"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "1.9"}, {"last_affected": "1.10"}], True),
        ([{"introduced": "1.11"}], False),
    ],
)
def test_a_lock_is_compared_with_a_copy_of_the_advisories(root, events, hit):
    ranges = [{"type": "GIT", "events": [{"introduced": "0"}]}, {"type": "ECOSYSTEM", "events": events}]
    advisory = {"id": "PYSEC-1", "affected": [{"package": {"name": "A_b"}, "ranges": ranges}]}
    compared = runpy.run_path(str(root / ".ci" / "audit"))["compared"]
    page = compared("a-b==1.10 ; python_version < '4'\nc==2\n", [advisory], "commit 0")
    assert ("| a-b 1.10 | PYSEC-1 |" in page) == hit
    assert "1 of them are about packages of the lock" in page
