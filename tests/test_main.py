"""The command as a user types it: mistakes in one line, help at once, a run from training to prediction."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import runs

QUICK = "--config=configs/quickstart.py"
HEAVY = ("jax", "tensorflow", "flax", "optax", "orbax", "numpy", "matplotlib", "sklearn", "PIL", "rich")


def command(*flags: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the main command."""
    process = runs.start(*flags, stderr=subprocess.PIPE, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def imported(stderr: str) -> set[str]:
    """Top-level packages in the report of PYTHONPROFILEIMPORTTIME."""
    return set(re.findall(r"^import time:.*\| +(\w+)", stderr, re.MULTILINE))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([QUICK, "--config.optim.learning_rat=1"], "unknown key config.optim.learning_rat (did you mean config.optim."),
        ([QUICK, "--config.optim.learning_rate=fast"], "--config.optim.learning_rate=fast: could not convert"),
        (
            [QUICK, "--config.optim.name=sdg"],
            "config.optim.name must be one of sgd, adam, adamw, lars, lamb, muon, an entry point or "
            "package.module:attribute, not 'sdg'",
        ),
        (
            [QUICK, '--config.optim={"learning_rate": 0.2}'],
            "config.optim is a group of fields; set its fields one by one, as in --config.optim.learning_rate=…",
        ),
        ([QUICK, "--config.optim.nesterov=no"], "--config.optim.nesterov=no: it must be True or False"),
        ([QUICK, "--config.optim.lr=1"], "unknown key config.optim.lr (did you mean config.optim.learning_rate?)"),
        (["--mode=predict", "--out=x.txt"], "--out=x.txt must end in .csv, .json or .png"),
        ([QUICK, "--config.checkpoint.keep_last=0"], "config.checkpoint.keep_last must be above 0, but is 0"),
        ([f"{QUICK}:smok"], "this config file has no variant ':smok' (did you mean 'smoke'?); it has: smoke"),
        (["--config=configs/nothing.py"], "--config=configs/nothing.py: this Python file does not exist"),
        (
            ["--config=configs/nothing.py:x", "--config.seed=1"],
            "--config=configs/nothing.py: this Python file does not exist",
        ),
        (["--config=README.md"], "--config=README.md: line "),
        ([], "no config was given; give one, for example --config=quickstart"),
        (["--confg=x"], "Unknown command line flag 'confg'. Did you mean: config ?"),
        (["--mode=evil"], "--mode=evil: value should be one of <train|eval|predict|embed>"),
        ([QUICK, "config.seed=3"], "'config.seed=3' is not a flag; flags look like --name=value"),
        (["--mode=eval"], "--mode=eval needs --workdir=<folder of a run>"),
        (["--mode=predict", "--workdir=x"], "--mode=predict needs --images=<file or folder>"),
        (["--mode=eval", "--workdir=x", QUICK], "--config is for --mode=train, not eval; it uses the config in"),
        (
            ["--mode=predict", "--workdir=x", "--images=x", "--split=val"],
            "--split is for --mode=eval or embed, not",
        ),
        ([QUICK, "--json=-"], "--json is for --mode=eval, predict or embed, not train; leave it out"),
        ([QUICK, "--data=photos"], "--data=photos: config.data.source='digits' is not read from a file"),
        (["--mode=eval", "--workdir=x", "--json=no/such/folder.json"], "--json=no/such/folder.json cannot be written"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_exit_code_2(flags, words):
    code, out, err = command(*flags, PYTHONPROFILEIMPORTTIME="1")
    told = "\n".join(line for line in err.splitlines() if not line.startswith("import time:"))
    assert code == 2, told
    assert out == ""
    assert words in told
    assert told.startswith("jaxcnn: ")
    assert "\n" not in told
    assert "jax" not in imported(err), "a mistake should be told before anything heavy is imported"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_thing\n", "line 1: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("from jaxcnn.config import default\nc = default()\nc.run.epochs = 'x'\n", "line 3: TypeError: Could not"),
        (
            "from jaxcnn.config import default\n\ndef get_config():\n    return default().optm\n",
            "line 4: AttributeError",
        ),
        (
            "from jaxcnn.config import default\n\ndef get_config():\n  c = default()\n  c.run.epoch = 3\n  return c\n",
            "unknown key config.run.epoch (did you mean 'epochs'?)",
        ),
        (
            "from jaxcnn.config import default\nc = default()\n"
            "c.optim = {'learning_rate': 0.2}\nget_config = lambda: c\n",
            "the config file has replaced the group config.optim, which now lacks name, momentum, ",
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_told_with_its_line(text, words, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    code, _, err = command(f"--config={tmp_path}/mine.py")
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1


def test_help_shows_every_flag_and_imports_nothing_heavy():
    code, out, err = command("--help", PYTHONPROFILEIMPORTTIME="1")
    assert code == 0
    for flag in (
        "--config:",
        "--workdir:",
        "--mode:",
        "--checkpoint:",
        "--weights:",
        "--images:",
        "--json:",
        "--split:",
    ):
        assert flag in out
    assert "restarts itself once, with huge pages" in out
    assert imported(err) >= {"absl", "jaxcnn"}, "the report of imports was not understood"
    assert not imported(err) & set(HEAVY)


# Imports each command's module, without its flags afterwards, since several commands define the same.
IMPORTED = """
import importlib, json, sys
from absl import flags
own, found = set(flags.FLAGS), {}
for name in sys.argv[2:]:
    importlib.import_module(name)
    found[name] = [package for package in sys.argv[1].split(",") if package in sys.modules]
    for flag in set(flags.FLAGS) - own:
        delattr(flags.FLAGS, flag)
print(json.dumps(found))
"""


def commands(root):
    """The modules that are commands, without the list of them."""
    paths = {*root.glob("jaxcnn/*.py"), *root.glob("jaxcnn/*/__main__.py")} - {root / "jaxcnn" / "__main__.py"}
    names = {".".join(path.relative_to(root).with_suffix("").parts): path.read_text() for path in paths}
    return sorted(name for name, text in names.items() if '\nif __name__ == "__main__":\n' in text)


def test_no_command_imports_anything_heavy_before_it_has_read_its_flags(root):
    doors = commands(root)
    assert {"jaxcnn.main", "jaxcnn.preview", "jaxcnn.doctor.__main__"} <= set(doors)
    made = subprocess.run(
        [sys.executable, "-c", IMPORTED, ",".join(HEAVY), *doors], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert json.loads(made.stdout) == {door: [] for door in doors}, made.stderr


def test_the_package_itself_lists_all_commands_and_imports_nothing_heavy(root):
    made = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "jaxcnn"], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0 and not imported(made.stderr) & set(HEAVY)
    listed = re.findall(r"^  python -m (jaxcnn\.\w+) +\w.*[^.:]$", made.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(name.removesuffix(".__main__") for name in commands(root))
    assert all(len(line) <= 120 for line in made.stdout.splitlines())
    made = subprocess.run([sys.executable, "-m", "jaxcnn", "serve"], cwd=root, capture_output=True, text=True)
    told = "jaxcnn: type python -m jaxcnn.serve, with a dot, not 'serve'; python -m jaxcnn lists all commands\n"
    assert (made.returncode, made.stdout, made.stderr) == (2, "", told)


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxcnn.main", "--help"],
        cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the quick start in a process of its own: (workdir, standard output, imported packages)."""
    workdir = tmp_path_factory.mktemp("main") / "run"
    flags = (
        *runs.DIGITS,
        "--config.run.steps=40",
        "--config.model.width=0.25",
        "--config.run.curves=True",
        f"--workdir={workdir}",
    )
    code, out, err = command(*flags, PYTHONPROFILEIMPORTTIME="1")
    assert code == 0, err
    assert [line for line in err.splitlines() if not line.startswith("import time:")] == []
    return workdir, out, imported(err)


def test_a_resident_run_imports_neither_tensorflow_nor_tensorboard(finished):
    _, _, packages = finished
    assert packages >= {"jax", "orbax", "matplotlib"}
    assert not packages & {"tensorflow", "tensorflow_datasets", "tensorboardX", "sklearn"}


def test_a_run_on_arrays_imports_no_tensorflow(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {f"x_{split}": generator.integers(0, 256, (60, 8, 8, 3), np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(60) % 3 for split in ("train", "test")}
    np.savez(tmp_path / "set.npz", **arrays)
    code, out, err = command(
        *runs.DIGITS, f"--config.data.source=npz:{tmp_path}/set.npz", "--config.data.protocol=full",
        "--config.global_batch_size=32", "--config.model.width=0.25", "--config.run.steps=2",
        "--config.data.test_split=", "--config.run.curves=True", f"--workdir={tmp_path}/run",
        PYTHONPROFILEIMPORTTIME="1",
    )  # fmt: skip
    assert code == 0, err
    assert "protocol=full: trains on the whole training split" in out
    assert not imported(err) & {"tensorflow", "tensorflow_datasets", "sklearn"}
    assert f"  {tmp_path}/run/summary.json, metrics.jsonl, curves.png, checkpoints/\n" in out, "there was no test"


def test_starts_of_one_second_get_folders_of_their_own(tmp_path):
    program = """
import datetime, sys
from absl import flags
from jaxcnn import main
class Clock(datetime.datetime):
    now = classmethod(lambda cls: cls(2026, 1, 1))
datetime.datetime = Clock
flags.FLAGS(sys.argv)
print(*(main._new_workdir() for _ in range(3)))
print(all(main._new_workdir().is_dir() for _ in range(2)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"--config={runs.ROOT}/configs/quickstart.py:smoke"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(runs.ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    name = "runs/quickstart-smoke-20260101-000000"
    assert done.stdout.splitlines() == [f"{name} {name}-2 {name}-3", "True"], done.stderr


def test_progress_can_be_read_by_grep(finished):
    workdir, out, _ = finished
    progress = (
        r"^step \d+/40 epoch \d+\.\d\d/2\.07 loss \d+\.\d{4} accuracy \d+\.\d\d% \d+\.\d images/s ETA (\d+:)?\d+:\d\d$"
    )
    assert re.search(progress, out, re.MULTILINE)
    validation = r"^step (\d+)/40 epoch \d+\.\d\d val loss \d+\.\d{4} val accuracy \d+\.\d\d% best \d+\.\d\d%$"
    assert [match[1] for match in re.finditer(validation, out, re.MULTILINE)] == ["39", "40"]
    assert re.search(r"^jaxcnn: finished: test accuracy \d+\.\d\d% .* images/s .* s in all$", out, re.MULTILINE)
    assert "\x1b" not in out
    assert "\r" not in out
    assert str(workdir) in out


def test_the_workdir_holds_what_the_last_line_promises(finished):
    workdir, _, _ = finished
    assert {path.name for path in workdir.iterdir() if not path.name.startswith(".")} == {
        "checkpoints", "config.json", "curves.png", "data.json", "environment.json", "fitted.json", "hardest.png",
        "metrics.jsonl", "normalization.json", "summary.json", "test.json",
    }  # fmt: skip
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["devices"] == 1
    assert f"--workdir={workdir}" in environment["command"]
    kinds = [json.loads(line)["kind"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("test") == 1
    assert kinds[-1] == "test"


def test_evaluation_prints_figures_and_writes_them_where_asked(finished):
    workdir, _, _ = finished
    code, out, err = command(
        "--mode=eval", f"--workdir={workdir}", "--split=val", "--checkpoint=best", f"--json={workdir}/figures.json"
    )
    assert (code, err) == (0, "")
    figures = json.loads((workdir / "figures.json").read_text())
    assert (figures["split"], figures["examples"], figures["weights"]) == ("val", 200, "last")
    summary = json.loads((workdir / "summary.json").read_text())
    assert (figures["top1_accuracy"], figures["step"]) == tuple(summary["val_best"].values())
    assert f"top-1 {100 * figures['top1_accuracy']:.2f}%" in out
    assert f"eval-val-{figures['step']}.png" in out


def test_prediction_prints_labels_or_json_alone_and_names_what_it_cannot_read(finished, tmp_path):
    workdir, _, _ = finished
    Image.new("L", (20, 30), 90).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "c.webp")
    flags = ("--mode=predict", f"--workdir={workdir}", f"--images={tmp_path}")
    code, out, err = command(*flags)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"jaxcnn: cannot read image .*b\.png: not an image file; .*\n", err)
    code, out, err = command(*flags, "--on_error=skip", "--json=-")
    assert (code, err) == (0, "")
    results = json.loads(out)
    assert [result["file"] for result in results] == [f"{tmp_path}/{name}" for name in ("a.png", "b.png", "c.webp")]
    assert ["error" in result for result in results] == [False, True, False]
    code, out, err = command(*flags, "--on_error=skip")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert re.fullmatch(rf"{tmp_path}/a\.png: (\d \d+\.\d%, ){{2}}\d \d+\.\d%", lines[0])
    assert lines[1] == f"{tmp_path}/b.png: unreadable: not an image file"
    assert len(lines) == 3


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "run").write_text("")
    code, _, err = command(QUICK, f"--workdir={tmp_path}/run")
    assert code == 2
    assert re.fullmatch(r"jaxcnn: --workdir=.*/run cannot be written: .*; choose another folder\n", err)
