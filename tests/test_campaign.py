"""The campaign: what is run, in which order and time, and what is left after everything that can go wrong."""

import dataclasses
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest

from benchmarks import (
    campaign_plan,
    campaign_run,
    cells_plan,
    child,
    determinism_report,
    report,
    speedruns_report,
    torch_log,
    torch_script,
)
from jaxcnn.train.interrupts import Interrupted, Interrupts
from tests import fake_part, runs

PARTS = fake_part.parts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign_run, "probe", campaign_run.probe)  # which `fake_part` replaces
    return tmp_path / "a folder"


def states(made):
    return {name: state["state"] for name, state in made.states.items()}


def starts(folder, name):
    file = folder / name / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_failed_part_is_told_and_the_others_run_and_only_it_runs_again(folder):
    made, _ = fake_part.campaign(folder, PARTS("write", "fail", "write"))
    assert states(made) == {"p0": "done", "p1": "failed", "p2": "done"}
    assert made.states["p1"]["why"] == "exit code 1: what went wrong"
    page = (folder / "campaign.md").read_text()
    assert "| p1 | failed |" in page and "exit code 1: what went wrong" in page
    record = json.loads((folder / "campaign.json").read_text())
    assert [part["result"] for part in record["parts"]] == [{"made": True}, None, {"made": True}]
    _, said = fake_part.campaign(folder, PARTS("write", "fail", "write"))
    assert [starts(folder, name) for name in ("p0", "p1", "p2")] == [1, 2, 1]
    assert "p0: done before" in said


def test_parts_that_were_not_chosen_are_on_the_page_as_they_stand(folder):
    fake_part.campaign(folder, PARTS("write", "write", "write"), only=("p0",))
    made, _ = fake_part.campaign(folder, PARTS("write", "write", "write"), only=("p2",))
    assert states(made) == {"p0": "done", "p1": "not measured", "p2": "done"}
    assert "| p1 | not measured | - | it was not chosen |" in (folder / "campaign.md").read_text()


def test_a_killed_campaign_stops_its_part_and_goes_on_with_it(folder):
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-m", "tests.fake_part", str(folder)], cwd=runs.ROOT) as process:
        wait_for((folder / "p1" / "waiting").exists)
        process.send_signal(signal.SIGKILL)
    wait_for((folder / "p1" / "saved").exists)
    stamp = json.loads((folder / "p1" / "part.json").read_text())
    assert (stamp["state"], stamp["why"]) == ("stopped", "the campaign was killed")
    made, _ = fake_part.campaign(folder, PARTS("write", "wait", "write"))
    assert set(states(made).values()) == {"done"}
    assert [starts(folder, name) for name in ("p0", "p1", "p2")] == [1, 2, 1]
    assert made.states["p1"]["starts"] == 2


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_at_the_end_of_the_time_the_part_is_stopped_and_what_is_left_is_named(folder, monkeypatch):
    now, waiting = time.monotonic, folder / "p0" / "waiting"
    monkeypatch.setattr(time, "monotonic", lambda: now() + (3600 if waiting.exists() else 0))
    made, _ = fake_part.campaign(folder, PARTS("wait", "write"))
    assert states(made) == {"p0": "stopped", "p1": "not measured"}
    assert made.states["p0"]["why"] == child.TIME and (folder / "p0" / "saved").exists()
    assert made.states["p1"]["why"].startswith("no time was left")
    assert "Not measured: no time was left" in (folder / "campaign.md").read_text()


def test_a_damaged_result_is_set_aside_and_made_again(folder):
    fake_part.campaign(folder, PARTS("write"))
    (folder / "p0" / "result.json").write_text('{"made": tr')
    made, said = fake_part.campaign(folder, PARTS("write"))
    assert states(made) == {"p0": "done"} and starts(folder, "p0") == 2
    assert (folder / "p0" / "result.json.damaged").exists()
    assert "p0: result.json was damaged and is now result.json.damaged" in said


def test_a_part_that_left_half_a_result_has_failed(folder):
    made, _ = fake_part.campaign(folder, PARTS("half"))
    assert made.states["p0"]["state"] == "failed"
    assert made.states["p0"]["why"] == "it left no sound result.json"


def test_a_damaged_stamp_is_that_of_no_part(folder):
    fake_part.campaign(folder, PARTS("write"))
    (folder / "p0" / "part.json").write_text("{")
    made, said = fake_part.campaign(folder, PARTS("write"))
    assert states(made) == {"p0": "done"}
    assert (folder / "p0-earlier-1" / "result.json").exists()
    assert "p0: begins anew; what was there is now in p0-earlier-1" in said


def test_parts_of_other_sources_are_kept_aside_and_measured_anew(folder, monkeypatch):
    fake_part.campaign(folder, PARTS("write"))
    monkeypatch.setattr(campaign_run, "sources", lambda: "of another commit")
    made, _ = fake_part.campaign(folder, PARTS("write"))
    assert states(made) == {"p0": "done"}
    assert (starts(folder, "p0"), starts(folder, "p0-earlier-1")) == (1, 1)


def test_parts_of_other_sources_go_on_if_that_is_wanted_and_their_commits_are_named(folder, monkeypatch):
    with pytest.raises(Interrupted):
        fake_part.campaign(folder, PARTS("write", "wait"), asked=(folder / "p1" / "waiting").exists)
    monkeypatch.setattr(campaign_run, "sources", lambda: "of another commit")
    other = fake_part.MACHINE | {"commit": "another"}
    made, _ = fake_part.campaign(folder, PARTS("write", "wait"), machine=other, other_sources=True)
    assert states(made) == {"p0": "done", "p1": "done"}
    assert [starts(folder, name) for name in ("p0", "p1")] == [1, 2] and not list(folder.glob("*-earlier-*"))
    commits = [str(fake_part.MACHINE.get("commit")), "another"]
    assert made.states["p1"]["commits"] == commits
    assert f"the sources of several commits: {', '.join(commits)}." in (folder / "campaign.md").read_text()


def test_a_part_has_flags_for_a_package_that_is_installed(folder):
    (part,) = PARTS("write")
    words = []
    for package in ("json", "no_such_package"):
        beside = dataclasses.replace(part, command=(*part.command, "{beside}"), beside={package: ("--more",)})
        made = campaign_run.Campaign([beside], campaign_run.Options(folder, {}, 1.0), Interrupts(), print, print)
        words.append("--more" in made._words(beside))
    assert words == [True, False]


def test_a_part_that_is_done_stays_on_another_card_but_one_that_was_stopped_begins_anew(folder):
    other = fake_part.MACHINE | {"device": "another"}
    for machine, earlier in ((fake_part.MACHINE, 0), (other, 1)):

        def asked(earlier=earlier):
            return len(list(folder.glob("p1*/waiting"))) > earlier

        with pytest.raises(Interrupted, match="stop requested: stopped; the same command continues"):
            fake_part.campaign(folder, PARTS("write", "wait"), machine=machine, asked=asked)
        assert (folder / "p1" / "saved").exists()
    assert (folder / "p1-earlier-1" / "saved").exists()
    assert starts(folder, "p0") == 1
    assert "On another machine than the one above: cpu, 2 cores of one" in (folder / "campaign.md").read_text()


def test_what_a_machine_or_the_command_lacks_is_told(folder, tmp_path):
    lacking = {
        "gpu": {"gpu": True},
        "npz": {"needs": ("cifar10",)},
        "package": {"packages": ("no_such_package",)},
    }
    (part,) = PARTS("write")
    chosen = [dataclasses.replace(part, name=name, **what) for name, what in lacking.items()]
    made, _ = fake_part.campaign(folder, chosen)
    assert {name: state["why"] for name, state in made.states.items()} == {
        "gpu": "it needs a GPU",
        "npz": "it needs --cifar10=<an .npz>",
        "package": "it needs no_such_package, which is not installed",
    }


def test_other_data_or_flags_are_another_measurement(folder, tmp_path):
    npz = tmp_path / "a.npz"
    npz.write_bytes(b"1")
    (part,) = PARTS("write")
    with_data = dataclasses.replace(part, command=(*part.command[:2], "write", "--a={cifar10}"))
    identity = []
    for content, chosen in ((b"1", with_data), (b"2", with_data), (b"2", part)):
        npz.write_bytes(content)
        options = campaign_run.Options(folder, {"cifar10": npz}, 1.0)
        made = campaign_run.Campaign([chosen], options, Interrupts(), print, print)
        identity.append(json.dumps(made._identity(chosen)))
    assert len(set(identity)) == 3


def test_a_part_gets_its_share_of_the_time_left_and_at_least_its_least(folder):
    (part,) = PARTS("write")
    first, second, third = (
        dataclasses.replace(part, name=name, share=share, least=least)
        for name, share, least in (("a", 1, 0), ("b", 3, 0), ("c", 1, 4))
    )
    options = campaign_run.Options(folder, {}, 10.0)
    made = campaign_run.Campaign([first, second, third], options, Interrupts(), print, print)
    made.machine, made.states = fake_part.MACHINE, {name: {"state": "not measured"} for name in "abc"}
    assert made._minutes(first) == pytest.approx(2.0, abs=0.01)
    assert made._minutes(second) == pytest.approx(7.5, abs=0.01)
    made.states["b"]["state"] = "done"
    assert made._minutes(first) == pytest.approx(5.0, abs=0.01)
    made._until = time.monotonic() + 60
    assert made._minutes(third) == pytest.approx(1.0, abs=0.01)


DEFINED = re.compile(r"(?:DEFINE_\w+|define_path)\(\s*\"(\w+)\"|define_config")


@pytest.mark.parametrize("parts", [campaign_plan.full(), campaign_plan.small()], ids=["full", "small"])
def test_every_part_is_a_command_with_flags_and_configs_that_exist(parts):
    for part in parts:
        module, *flags = part.command
        flags = [*flags, *(word for more in part.beside.values() for word in more)]
        path = runs.ROOT / module.replace(".", "/")
        source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        known = {found[1] or "config" for found in DEFINED.finditer(source)} | {"cifar10", "cifar100"}
        for flag in flags[: flags.index("--")] if "--" in flags else flags:
            name = flag.lstrip("-").partition("=")[0].partition(".")[0]
            assert name in known or flag == "{beside}" or name in ("torch_script", "npz", "runs"), (module, flag)
        for config in (flag.partition("=")[2] for flag in flags if flag.startswith("--config=")):
            name, _, variant = config.partition(":")
            text = (runs.ROOT / "configs" / f"{name}.py").read_text()
            assert not variant or f"`:{variant}`" in text or f'"{variant}"' in text


def test_the_command_tells_mistakes_in_one_line(tmp_path):
    given = ("--small", f"--out={tmp_path}")
    for flags, told in (
        (("--small",), "--out=<folder> is missing"),
        ((*given, "--parts=smok"), "--parts: unknown value 'smok'; choose from smoke, determinism, "),
        ((*given, f"--cifar10={tmp_path}/absent.npz"), f"--cifar10={tmp_path}/absent.npz does not exist"),
    ):
        code, output = runs.run(*flags, module="benchmarks.campaign")
        assert code == 2 and output.startswith(f"jaxcnn: {told}") and output.count("\n") == 1


def test_a_child_that_does_not_stop_is_killed_and_its_own_children_too(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.2)
    code = "import os,signal,subprocess,sys; signal.signal(15, signal.SIG_IGN); p = subprocess.Popen(['sleep', '60']); "
    code += "print(p.pid, flush=True); p.wait()"
    log = tmp_path / "log"
    ended = child.run(
        [sys.executable, "-c", code], log, Interrupts(), enough=lambda: bool(log.exists() and log.read_text())
    )
    assert (ended.code, ended.stopped) == (-signal.SIGKILL, "enough")
    status = pathlib.Path(f"/proc/{int(log.read_text())}/status")
    wait_for(lambda: not status.exists() or "Z (zombie)" in status.read_text())


def test_the_runs_of_a_log_are_its_complete_runs_without_the_warm_up(tmp_path):
    log = runs.ROOT / "results" / "h200" / "airbench94_muon.log"
    found = torch_log.runs(log)
    assert len(found) == 10 and {run.epochs for run in found} == {8}
    assert found[0] == torch_log.Run("0", 8, 0.9329, 0.9417, 1.5066, 1.5538)
    # As results/h200/README.md has them.
    assert f"{statistics.fmean(run.tta_accuracy for run in found):.4f}" == "0.9410"
    assert [f"{end(run.seconds for run in found):.2f}" for end in (min, max)] == ["1.28", "1.69"]
    cut = tmp_path / "cut.log"
    text = log.read_text()
    cut.write_text(text[: text.index("|       2  |") + 200])
    assert [run.name for run in torch_log.runs(cut)] == ["0", "1"]
    assert torch_log.runs(tmp_path / "absent") == []


def test_a_script_is_copied_with_another_number_of_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script, called = tmp_path / "in" / "s.py", []
    script.parent.mkdir()
    script.write_text("for run in range(200): pass\n")
    monkeypatch.setattr(torch_script.os, "execv", lambda *arguments: called.append(arguments))
    torch_script.main(str(script), "7")
    assert (tmp_path / "s.py").read_text() == "for run in range(7): pass\n"
    assert called == [(sys.executable, [sys.executable, "-u", "s.py"])]
    script.write_text("for run in range(20): pass\n")
    with pytest.raises(SystemExit, match=r"has range\(200\), its number of runs, 0 times"):
        torch_script.main(str(script), "7")


def test_bits_are_equal_only_if_all_arrays_and_records_are():
    one = {"arrays": {"a": [[1], "f", 1], "b": [[1], "f", 2]}, "records": [{"step": 1}, {"step": 2, "loss": 0.5}]}
    assert determinism_report.difference(one, one)["equal"]
    other = one | {"arrays": one["arrays"] | {"b": [[1], "f", 3]}}
    assert determinism_report.difference(one, other)["differing_arrays"] == ["b"]
    shorter = one | {"records": one["records"][:1]}
    found = determinism_report.difference(one, shorter)
    assert (found["equal"], found["differing_records"], found["first_differing_step"]) == (False, 1, 2)
    assert not determinism_report.difference(one, one | {"arrays": {"a": [[1], "f", 1]}})["equal"]


def test_the_length_of_the_table_is_the_most_that_fits_and_then_more_seeds():
    cost = cells_plan.Cost(start=10.0, epoch=2.0, evaluation=1.0, test=3.0)
    run = 10 + 7 * 2 + 7 * 1 + 3
    assert cost.of_run(7) == run and cost.of_run(100) == 10 + 100 * 2 + cells_plan.EVALUATIONS * 1 + 3
    assert cells_plan.choose([cost], 2, 2.0 * run, 200, 5) == (7.0, 1)
    assert cells_plan.choose([cost], 2, 2.0 * run - 0.1, 200, 5) == (6.0, 1)
    assert cells_plan.choose([cost], 2, 4.5 * run, 7, 5) == (7, 2)
    assert cells_plan.choose([cost], 2, 100.0 * run, 7, 5) == (7, 5)
    assert cells_plan.choose([cost], 2, 30.0, 200, 5) == (0.0, 1)


def test_the_cost_of_a_network_is_read_off_its_short_run():
    figures = {"steps": 20, "epochs": 0.5, "train_seconds": 4.0, "eval_seconds": 1.0, "test_seconds": 2.0}
    assert cells_plan.cost(figures | {"wall_seconds": 17.0}) == cells_plan.Cost(10.0, 8.0, 1.0, 2.0)


def test_the_clock_of_a_speedrun_has_reset_and_training_and_its_lengths_are_apart():
    def trial(epochs, seed, reset, accuracy):
        test = {"top1_accuracy": accuracy - 0.01, "tta_top1_accuracy": accuracy}
        seconds = {"train_seconds": 2.0, "reset_seconds": reset, "test_seconds": 0.5, "wall_seconds": 9.0}
        return {"epochs": epochs, "seed": seed, "test": test, **seconds}

    found = speedruns_report.lengths([trial(8.0, 0, 0.1, 0.94), trial(8.0, 1, 0.3, 0.942), trial(10.0, 0, 0.2, 0.95)])
    assert [(each["epochs"], each["seconds"]) for each in found] == [(8.0, [2.1, 2.3]), (10.0, [2.2])]
    rival = speedruns_report.of_torch([torch_log.Run("0", 8, 0.93, 0.94, 1.5, 1.6)], "airbench94_muon.py")
    record = {"peers_figures": [*found, rival], "turns": [], **report.provenance("b", {})}
    first, *_, last = speedruns_report.table(record).splitlines()[2:]
    assert first == (
        "| jaxcnn, 8 epochs | 2 | 94.10 ± 0.14 (94.00 to 94.20) | 93.10 ± 0.14 (93.00 to 93.20) | "
        "2.200 (2.100 to 2.300) | 2.700 (2.600 to 2.800) |"
    )
    assert last.startswith("| airbench94_muon.py, 8 epochs | 1 | 94.00 (94.00 to 94.00) |")
