"""The fault campaign's own code: it draws alike from one seed, sees phases, and takes no wrong end for a right one."""

import json
import random
import subprocess
import sys

import pytest

from jaxcnn import config as configs
from tests import runs
from tests.campaign import damages, draws, ends, watched
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
    text = page(outcomes, "python -m tests.campaign")
    assert "2 faults struck 2 runs of 24 steps" in text and "0 sweeps of" in text and ". 1 ended with the bits" in text
    assert "| SIGTERM | 2 | 0 | 1 | 1 | 1 |" in text and "| SIGKILL | 0 | 1 | 0 | 0 | 0 |" in text
    assert "| steps of work repeated by a restart | 1 | 3 | 3 |" in text
    assert "`--seed=1 --shapes=8 --only=7`: own code; SIGTERM: it hangs" in text
    assert "was mended" not in text
    again = page([*outcomes, outcomes[1] | {"wrong": ""}], "python -m tests.campaign")
    assert "## What went wrong\n" not in again and "| SIGTERM | 2 | 0 | 1 | 1 | 0 |" in again
    assert "did not come again\n\n- `--seed=1 --shapes=8 --only=7`: own code; SIGTERM: it hangs" in again
    assert "Each start of 0 of the runs was a new Python" in text
    assert not any(map(late, outcomes))
    assert late({"faults": [], "restarts": [{"repeated": 15}]})
