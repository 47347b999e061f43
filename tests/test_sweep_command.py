"""`python -m jaxcnn.sweep` as a user starts it: plan, table, signals, kills, and going on."""

import json
import re
import signal
import time

import pytest

from jaxcnn.reporting import write
from jaxcnn.study import folder as files
from tests import runs
from tests.runs import ROOT
from tests.test_main import HEAVY, imported

TINY = ("--config=tests/tiny_sweep.py", "--nomeasure")
TRIALS = 3


def sweep(*flags, **options):
    return runs.run(*flags, module="jaxcnn.sweep", **options)


def states(folder):
    found = sorted((folder / files.TRIALS).glob("*/trial.json"))
    return [json.loads(path.read_text())["state"] for path in found]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the long sweep, run without disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output = sweep(*TINY, f"--workdir={folder}")
    assert code == 0, output
    return folder


def same(one, other, count=TRIALS):
    """Whether two sweeps have the same bits in every trial."""
    return all(runs.kept(files.trial_folder(one, n)) == runs.kept(files.trial_folder(other, n)) for n in range(count))


def test_a_dry_run_prints_trials_programs_time_and_memory_and_leaves_nothing(tmp_path):
    folder = tmp_path / "none"
    code, output = sweep("--config=tests/tiny_sweep.py", f"--workdir={folder}", "--dry_run")
    assert code == 0, output
    assert "sweep tiny_sweep: 3 trials, 1 program (grid)" in output
    row = r"cnn +3 +900 +[\d.]+ s +[\d.]+ ms +\d+:\d\d +[\d.]+ GiB"
    assert re.search(row, output), output
    assert re.search(r"about \d+:\d\d of steps and evaluation .* the measuring process had [\d.]+ GiB", output)
    assert not folder.exists()


def test_a_finished_sweep_tells_its_best_and_the_same_command_does_nothing_more(undisturbed):
    code, output = sweep(*TINY, f"--workdir={undisturbed}")
    assert code == 0, output
    assert "3 complete" in output
    assert "best on validation: trial " in output
    places = re.findall(r"^ +(\d)\. +([\d.]+)%  optim.learning_rate=", output, re.MULTILINE)
    assert [place for place, _ in places] == ["1", "2", "3"]
    assert sorted((float(of) for _, of in places), reverse=True) == [float(of) for _, of in places]
    assert output.rstrip().endswith(f"report: python -m jaxcnn.report {undisturbed}")
    assert "begins" not in output
    kept = json.loads((undisturbed / "sweep.json").read_text())
    assert kept["varied"] == ["optim.learning_rate"]
    assert kept["planned"] == [{"overrides": {"optim.learning_rate": rate}, "seed": 0} for rate in (0.05, 0.1, 0.2)]
    assert kept["directions"] == {"val_accuracy": "maximize"}
    assert kept["environment"]["packages"]["jax"]
    for number in range(TRIALS):
        row = json.loads((files.trial_folder(undisturbed, number) / "trial.json").read_text())
        assert (row["number"], row["state"], row["starts"]) == (number, "complete", 1)
        assert 0 < row["values"]["val_accuracy"] <= 1
        assert row["images_per_second"] > 0
        assert row["began"] < row["ended"]


def wait_until(process, ready, seconds=120):
    """Wait for something that a process does."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sweep_that_is_stopped_and_killed_in_the_middle_of_trials_ends_with_the_same_bits(tmp_path, undisturbed):
    command = (*TINY, f"--workdir={tmp_path}")
    for trial, number in ((0, signal.SIGTERM), (1, signal.SIGKILL)):
        process = runs.start(*command, module="jaxcnn.sweep")
        folder = files.trial_folder(tmp_path, trial)
        wait_until(process, lambda folder=folder: files.newest_checkpoint(folder) >= 200)
        code, output, _ = runs.stop(process, number)
        if number == signal.SIGTERM:
            assert code == 75, output
            assert f"the same command with --workdir={tmp_path} continues" in output
            assert states(tmp_path) == ["waiting"]
    assert states(tmp_path) == ["complete", "running"], "it had no chance to tell"
    code, output = sweep(*command)
    assert code == 0, output
    assert states(tmp_path) == ["complete"] * TRIALS
    for trial, starts in enumerate((2, 2, 1)):
        folder = files.trial_folder(tmp_path, trial)
        assert json.loads((folder / "trial.json").read_text())["starts"] == starts
        assert (folder / "log.txt").read_text().count("resumed from the checkpoint of step") == starts - 1
    assert same(tmp_path, undisturbed)


def test_retry_from_the_command_line_and_a_report_of_what_the_sweep_left(tmp_path):
    config = tmp_path / "two.py"
    text = (ROOT / "tests" / "tiny_sweep.py").read_text()
    config.write_text(text.replace("[0.05, 0.1, 0.2]", "[0.1, 1e30]").replace('"steps": 900', '"steps": 40'))
    folder = tmp_path / "sweep"
    command = (f"--config={config}", "--nomeasure", f"--workdir={folder}")
    code, output = sweep(*command)
    assert code == 0, output
    assert "1 complete, 1 diverged" in output
    assert "--retry=failed runs these trials again" in output
    code, output = sweep(*command, "--retry=failed")
    assert code == 0, output
    assert "1 trial is tried again" in output
    assert states(folder) == ["complete", "diverged"]
    rows = [json.loads((files.trial_folder(folder, number) / "trial.json").read_text()) for number in range(2)]
    assert [row["starts"] for row in rows] == [1, 2]
    write.report([folder], tmp_path / "out", command="python -m jaxcnn.report …")
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["state"] for run in told["runs"]] == ["complete", "diverged"]
    assert told["runs"][0]["validation"] == rows[0]["values"]["val_accuracy"]
    assert [each["command"].count("--retry=failed") for each in told["commands"]] == [0, 1]
    assert told["missing"] == []


def test_help_imports_nothing_heavy():
    code, output = sweep("--help", PYTHONPROFILEIMPORTTIME="1")
    assert code == 0
    assert "--dry_run" in output.replace("[no]", "")
    assert imported(output) >= {"absl", "jaxcnn"}, "the report of imports was not understood"
    assert not imported(output) & {*HEAVY, "optuna", "sqlalchemy", "rich"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--workdir=<folder of the sweep> is missing"),
        (("--workdir={tmp}", "--worker"), r"sweep.json is missing; start the sweep there first"),
        (("--workdir={tmp}", "--config=configs/quickstart.py"), "has no get_sweep"),
        (("--workdir={tmp}", *TINY, "--config.optim.learning_rate=1.0"), "config.optim.learning_rate has no effect"),
        (("--workdir={tmp}", *TINY, "--sampler=tpe"), "--sampler=tpe needs --trials"),
        (("--workdir={tmp}", *TINY, "--sampler=nonsense"), "should be one of"),
        (("--workdir={tmp}", *TINY, "--population=2", "--engine=processes"), "--population is for --engine=inline"),
        (("--workdir={tmp}", *TINY, "--pbt_every_epochs=1"), "--pbt_every_epochs needs --population"),
        (("--workdir={tmp}", *TINY, "--population_way=vmap"), "--population_way needs --population"),
        (("--workdir={tmp}", "--worker", "--population=2"), "--population is not for --worker"),
        (("--workdir={tmp}", "--worker", "--retry=failed"), "--retry is not for --worker"),
        (("--workdir={tmp}", "--worker", *TINY), "--config is not for --worker"),
        (("--workdir={tmp}", *TINY, "--workers=2"), "--workers is not for --engine=inline"),
        (("--workdir={tmp}", *TINY, "--engine=workers", "--timeout=9"), "--timeout is not for --engine=workers"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, message, tmp_path):
    code, output = sweep(*(flag.format(tmp=tmp_path / "x") for flag in flags))
    assert code == 2, output
    assert message in output
    assert "Traceback" not in output
