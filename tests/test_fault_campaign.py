"""The fault campaign's own code: it draws alike from one seed, sees phases, and takes no wrong end for a right one."""

import dataclasses
import json
import random
import subprocess
import sys

import pytest

from jaxcnn import config as configs
from tests import runs
from tests.campaign import damages, draws, ends, kept, speed, trial, watched
from tests.campaign.page import page
from tests.campaign.trial import late


def test_a_seed_draws_the_same_runs_and_others_others():
    drawn = [[draws.draw(random.Random(f"{seed}-{k}")) for k in range(20)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({draw.key for draw in drawn[0]}) == len(set(drawn[0])) > 10


@pytest.mark.parametrize("seed", range(3))
def test_every_flag_of_a_drawn_run_is_a_field_of_the_config(seed):
    known = {f"--config.{key}" for key in configs.flatten(configs.to_dict(configs.Config()))} | {"--config"}
    for k in range(20):
        assert {flag.partition("=")[0] for flag in draws.draw(random.Random(f"{seed}-{k}")).flags} <= known


def ended(folder, loss=1.0, crc=5, steps=(21, 24)):
    """A folder with what an end is told by."""
    for step in steps:
        record = folder / "checkpoints" / str(step) / "record"
        record.mkdir(parents=True)
        (record / "metadata").write_text(
            json.dumps({"arrays": {"a": [[1], "float32", crc]}, "score": 0.5, "step": step})
        )
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "val", "step": 24, "loss": loss}) + "\n")
    (folder / "summary.json").write_text(json.dumps({"val_best": {"step": 24}, "loss": loss, "wall_seconds": crc}))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"steps": (21, 23, 24)}, ""),  # a stop saves its step
        ({"crc": 6}, "checkpoints 21, 24 differ"),
        ({"steps": (21,)}, "checkpoints 24 are not there"),
        ({"loss": 1.0 + 2**-52}, "records, summary.json"),
    ],
)
def test_one_bit_of_difference_is_seen(change, words, tmp_path):
    assert ends.differs(ended(tmp_path / "a", **change), ended(tmp_path / "b")) == words


def test_a_file_that_cannot_be_read_is_a_wrong_end(tmp_path):
    whole = ended(tmp_path / "b")
    (ended(tmp_path / "a") / "test.json").write_text('{"a": ')
    assert "cannot be read" in ends.differs(tmp_path / "a", whole)


def test_on_other_devices_losses_may_be_rounded_otherwise_but_no_record_may_lack(tmp_path):
    whole = ended(tmp_path / "a")
    assert ends.differs(ended(tmp_path / "b", loss=1.0 + 1e-6), whole, moved=True) == ""
    assert "further off" in ends.differs(ended(tmp_path / "c", loss=1.1), whole, moved=True)
    (tmp_path / "b" / "metrics.jsonl").write_text("")
    assert "steps" in ends.differs(tmp_path / "b", whole, moved=True)


@pytest.mark.parametrize(
    ("codes", "output", "words"),
    [
        ([0], "", ""),
        ([75], "jaxcnn: SIGTERM", ""),
        ([1], "x\nTraceback (most recent call last):\n  a\nKeyError: 3\n", "a traceback: KeyError: 3"),
        ([124], "", "it hangs"),
        ([-2], "Traceback (most recent call last):\n  runpy\nKeyboardInterrupt\n", ""),  # before jaxcnn began
        (
            [-2],
            f"Traceback (most recent call last):\n  {runs.ROOT}/jaxcnn/main.py\nKeyboardInterrupt\n",
            "a traceback: KeyboardInterrupt",
        ),
        ([0, 3], "jaxcnn: not finite", "exit codes [0, 3]: jaxcnn: not finite"),
    ],
)
def test_an_end_that_is_not_allowed_is_a_complaint(codes, output, words):
    assert ends.complaint(codes, output, {0, 75}) == words


@pytest.mark.parametrize("how", damages.WAYS)
def test_every_damage_changes_the_file(how, tmp_path):
    file, content = tmp_path / "file", b"".join(b"line %d\n" % k for k in range(20))
    file.write_bytes(content)
    damages.WAYS[how](file, content, random.Random(0))
    assert not file.exists() if how == "missing" else file.read_bytes() != content


def test_a_phase_is_seen_and_a_process_that_hangs_is_ended(tmp_path, monkeypatch):
    code = "import time; print('jaxcnn: reading digits', flush=True); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    seen = watched.Watched([process], tmp_path)
    assert seen.wait_for("data", random.Random(0))
    assert not seen.sees("compile", 0) and not seen.sees("train", 1) and not seen.sees("save", 0)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 6')
    assert seen.sees("train", 1) and watched.logged(tmp_path) == [3]
    monkeypatch.setattr(watched, "LIMIT", 0.0)
    codes, output, _ = seen.end()
    assert codes == [124] and output == "jaxcnn: reading digits\n"


def test_the_page_counts_what_struck_and_names_how_to_repeat_what_went_wrong():
    def struck(fault, **told):
        return {"fault": fault, "hit": True, "refused": False, "codes": [75], "seconds": 2.0} | told

    outcomes = [
        {"seed": 1, "number": 0, "run": "cnn", "wrong": "", "faults": [struck("SIGTERM"), struck("SIGKILL", hit=False)],
         "restarts": [{"repeated": 3, "ready": 5.5}]},
        {"seed": 1, "number": 7, "run": "own code", "wrong": "it hangs", "faults": [struck("SIGTERM", refused=True)]},
    ]  # fmt: skip
    text = page(outcomes)
    assert "2 faults struck 2 runs of 24 steps" in text and "0 sweeps of" in text and ". 1 ended with the bits" in text
    assert "| SIGTERM | 2 | 0 | 1 | 1 | 1 |" in text and "| SIGKILL | 0 | 1 | 0 | 0 | 0 |" in text
    assert "| steps of work repeated by a restart | 1 | 3 | 3 |" in text
    assert "`--seed=1 --shapes=8 --only=7`: own code; SIGTERM: it hangs" in text
    assert "was mended" not in text
    again = page([*outcomes, outcomes[1] | {"wrong": ""}])
    assert "## What went wrong\n" not in again and "| SIGTERM | 2 | 0 | 1 | 1 | 0 |" in again
    assert "did not come again\n\n- `--seed=1 --shapes=8 --only=7`: own code; SIGTERM: it hangs" in again
    for change in ({"run": "unet"}, {"shapes": 2}, {"faults": [struck("a pause")]}):  # that is another trial
        other = page([*outcomes, outcomes[1] | {"wrong": ""} | change])
        assert "## What went wrong\n" in other and "was mended" not in other
    assert "Each start of 0 of the runs was a new Python" in text
    assert not any(map(late, outcomes))
    assert late({"faults": [], "restarts": [{"repeated": 15}]})


def test_the_page_counts_apart_what_is_equal_to_rounding_and_what_was_damaged_and_tells_real_commands():
    def struck(fault, **told):
        return {"fault": fault, "hit": True, "refused": False, "codes": [75], "seconds": 2.0} | told

    outcomes = [
        {"seed": 1, "number": 0, "run": "cnn", "wrong": "", "warm": 4.0, "restarts": [{"repeated": 3, "ready": 5.5}],
         "faults": [struck("a damaged file", repeated=19)], "command": "python -m tests.campaign --minutes=30.0"},
        {"seed": 1, "number": 1, "run": "cnn", "wrong": "", "faults": [struck("other devices")], "shapes": 6},
        {"seed": 1, "number": 2, "run": "cnn", "wrong": "", "slow": "16 s from SIGTERM to the exit, of 15",
         "faults": [struck("SIGTERM")], "shapes": 6, "load": 50.0},
    ]  # fmt: skip
    assert "of 15 (load average of the machine: 50)" in page(outcomes)
    text = page(outcomes)
    assert ". 2 ended with the bits of the undisturbed one, and 1 that went on with other devices with its rec" in text
    assert "| steps of work repeated by a restart | 1 | 3 | 3 |" in text
    assert "| the same after a file was damaged or lost, from the checkpoint before it | 1 | 19 | 19 |" in text
    assert "| seconds of a warm start of the same runs | 1 | 4 | 4 |" in text
    assert (
        "Made by `python -m tests.campaign --minutes=30.0`, `python -m tests.campaign --seed=1 --shapes=6` on" in text
    )
    assert "| slowest restart of a run after a signal, in warm starts of that run | 1 | 1.38 | 1.38 | 2 |" in text
    assert "## What was too slow\n\n- `--seed=1 --shapes=6 --only=2`: cnn; SIGTERM: 16 s from SIGTERM" in text


@pytest.mark.parametrize(
    ("faults", "restarts", "now", "words"),
    [
        ([("SIGTERM", 14.9, 7.9)], [7.9], 4.0, ""),
        ([("SIGTERM", 15.1, 7.0)], [], 4.0, "15.1 s from SIGTERM to the exit, of 15"),
        ([("SIGKILL", 1.0, 7.0)], [8.1], 4.0, "8.1 s from a restart to its first step, and 4 s from a warm start"),
        ([("SIGKILL", 1.0, 8.1)], [], 5.0, ""),  # the machine has more to do than when the warm start was measured
        ([("a pause", 60.0, 60.0)], [7.0], 4.0, ""),
        ([("other devices", 1.0, 60.0)], [60.0], 4.0, ""),
    ],
)
def test_a_stop_or_restart_that_takes_too_long_is_told(faults, restarts, now, words, monkeypatch):
    monkeypatch.setattr(speed, "warm", lambda *_, again=False: max(4.0, now) if again else 4.0)
    struck = [{"fault": kind, "hit": True, "seconds": took, "ready": ready} for kind, took, ready in faults]
    outcome = {"faults": struck, "restarts": [{"ready": ready} for ready in restarts]}
    assert speed.slow(outcome, None, None) == words


def test_outcomes_are_kept_beside_the_page_and_counts_of_earlier_pages_add_up(tmp_path):
    fault = {"fault": "SIGTERM", "phase": "validate", "hit": True, "refused": False, "codes": [75], "seconds": 2.0}
    one = {"seed": 1, "number": 0, "run": "cnn", "wrong": "", "faults": [fault | {"output": "/tmp/a"}], "warm": 4.0,
           "restarts": [{"ready": 6.0}], "devices": [2, 4]}  # fmt: skip
    file = tmp_path / "faults.jsonl"
    before = {kept.EARLIER: "Some.", "struck": 5, "trials": 3, "phases": {"validate": 2}}
    before |= {"mended": ["- `--seed=7`: cnn"], "times": [["seconds", 2, 1.0, 3.0]]}
    before |= {"faults": {"SIGTERM": [1, 3, 1, 0], "a pause": [0, 1, 0, 0]}}
    file.write_text(json.dumps(before) + "\n")
    for outcomes in ([one], [one], [one, one | {"number": 1, "devices": [2]}]):  # what is there is not added again
        whole, earlier = kept.added(file, outcomes)
    assert [each["number"] for each in whole] == [0, 1] and earlier == [before]
    assert "/tmp/a" not in file.read_text() and len(file.read_text().splitlines()) == 3
    text = page(whole, earlier)
    assert "All campaigns so far: 7 faults in 5 runs and sweeps" in text and "and 2 that went on with other dev" in text
    assert "| SIGTERM | 6 | 1 | 5 | 1 | 0 |" in text and "| a pause | 1 | 0 | 1 | 0 | 0 |" in text
    assert f"| faults |{' 0 |' * watched.PHASES.index('validate')} 4 |" in text
    assert "| seconds (earlier) | 2 | 1 | 3 | |" in text and "- `--seed=7`: cnn" in text and text.endswith("Some.\n")


def test_a_validation_is_seen_between_the_last_record_before_it_and_its_own(tmp_path):
    seen = watched.Watched([], tmp_path, validations=(10, 24))
    records = [("train", 3), ("train", 6), ("train", 9), ("val", 10), ("train", 12), ("train", 24), ("val", 24)]
    found, final = [], []
    for k in range(len(records)):
        lines = (json.dumps({"kind": kind, "step": step}) + "\n" for kind, step in records[: k + 1])
        (tmp_path / "metrics.jsonl").write_text("".join(lines))
        found.append(seen.sees("validate", 0))
        final.append(seen.sees("final evaluation", 0))
    assert found == [False, False, True, False, False, True, False] and final == [False] * 6 + [True]


def test_each_start_of_a_moved_run_has_other_devices_than_the_one_before():
    drawn = draws.draw(random.Random("moved"))
    outcome = {"devices": []}
    starts = [trial._next(drawn, outcome).devices for _ in range(6)]
    assert starts == outcome["devices"] and drawn.devices in starts
    assert all(one != two for one, two in zip([drawn.devices, *starts], starts, strict=False))
    assert trial._next(drawn, {}) == drawn


def test_runs_and_phases_can_be_asked_for_and_the_rest_is_drawn_as_ever():
    drawn = draws.wanted(3, 0, ("fine-tuned", "2 processes"))
    assert drawn.fine_tuned and drawn.processes == 2 and drawn == draws.wanted(3, 0, ("fine-tuned", "2 processes"))
    assert draws.wanted(3, 5, ()) == draws.draw(random.Random("3-run-5"))
    with pytest.raises(ValueError, match="no run is airbench and regression"):
        draws.wanted(3, 0, ("airbench", "regression"))
    asked = dataclasses.replace(drawn, phases=("validate", "save"))
    assert asked.key == drawn.key
    assert {asked.phase(random.Random(k), watched.PHASES) for k in range(20)} == {"validate", "save"}
    assert asked.phase(random.Random(0), ("train",)) == "train"  # all that the fault can strike in


def test_all_shapes_of_runs_are_drawn():
    words = {
        word
        for k in range(600)
        for word in draws.draw(random.Random(k)).words.replace(" in each of ", ", ").split(", ")
    }
    shapes = (*draws.NETWORKS, *draws.WITH_SOURCE, *draws.SOURCES, *draws.OPTIONS, "fine-tuned", "2 processes")
    assert words >= {*shapes, "1 device", "2 devices", "4 devices", "8 devices", "resident", "stream"}


def test_the_page_tells_what_was_not_struck_yet_and_the_flags_that_draw_a_trial_again():
    fault = {"fault": "SIGTERM", "phase": "validate", "hit": True, "refused": False, "codes": [75], "seconds": 2.0}
    command = "python -m tests.campaign --seed=1"
    one = {"seed": 1, "number": 0, "run": "cnn, digits, stream, 1 device in each of 2 processes", "wrong": "it hangs",
           "faults": [fault], "devices": [2], "command": f"{command} --phases 'validate'"}  # fmt: skip
    other = one | {"command": command, "wrong": "", "run": "a sweep of 3 runs, sqlite"}
    text = page([one, other])
    assert "| a cut link | 0 | 0 | 0 | 0 | 0 |" in text and "| a stopped population | 0 |" in text
    assert "cnn 1," in text and "2 processes 1," in text and "fine-tuned 0," in text and "sqlite 1," in text
    assert f"{draws.MOVED} 2," in text and "a population in turn 0." in text
    assert "- `--seed=1 --shapes=8 --only=0 --phases 'validate'`: cnn" in text
