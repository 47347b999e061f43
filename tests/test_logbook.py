"""What a run leaves to read: records that survive a crash, lines for grep, one line on a terminal."""

import concurrent.futures
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import types
from fcntl import ioctl

import pytest

from jaxcnn.config import UserError
from jaxcnn.train import events, logbook
from jaxcnn.train.logbook import Logbook
from tests import runs

LINE = "step 100/7820 epoch 1.57/20.00 loss 1.3012 accuracy 51.20% 12345.6 images/s ETA 1:02:03"


def test_records_after_the_kept_length_are_dropped(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    book.open(0, 0)
    book.record("train", 1, {"loss": 1.5})
    kept = book.length()
    book.record("train", 2, {"loss": 1.25})
    book.close()
    book = Logbook(tmp_path, tensorboard=False)
    book.open(kept, 1)
    book.record("train", 2, {"loss": 1.0})
    book.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "train", "step": 1, "loss": 1.5},
        {"kind": "train", "step": 2, "loss": 1.0},
    ]


def test_records_that_a_checkpoint_counted_and_are_gone_are_the_users_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(
        UserError, match=r"metrics\.jsonl has 3 bytes, but had 40 when the checkpoint of step 9 was saved"
    ):
        Logbook(tmp_path, tensorboard=False).open(40, 9)
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"


def test_a_record_is_on_disk_when_the_call_returns(tmp_path):
    book = Logbook(tmp_path, tensorboard=False)
    book.open(0, 0)
    book.record("val", 3, {"loss": 0.5})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["kind"] == "val"
    assert book.length() == (tmp_path / "metrics.jsonl").stat().st_size
    book.close()


def test_tensorboard_gets_every_number(tmp_path):
    book = Logbook(tmp_path, tensorboard=True)
    book.open(0, 0)
    book.record("train", 3, {"loss": 0.5, "epoch": 1, "note": "no number"})
    book.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = file.read_bytes()
    assert b"train/loss" in events
    assert b"train/epoch" in events
    assert b"train/note" not in events
    Logbook(tmp_path / "other", tensorboard=False).close()
    assert not (tmp_path / "other").exists()


def test_a_full_disk_is_told_by_the_records_and_no_reason_to_stop_for_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcnn.train.events.FLUSH_SECONDS", 0.0)
    book = Logbook(tmp_path, tensorboard=True)
    book.open(0, 0)
    events = book._events.result()
    events._file.close()
    events._file._writer = open("/dev/full", "wb")  # noqa: SIM115
    for step in (1, 2):
        book.record("train", step, {"loss": 0.5})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert (
        capsys.readouterr().out.count("no more TensorBoard events are written until the next start: No space left on")
        == 1
    )
    book._file.close()
    book._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left on device: "):
        book.record("train", 3, {"loss": 0.5})
    book.close()


def test_off_a_terminal_progress_is_a_plain_line_every_ten_seconds(tmp_path, capsys, monkeypatch):
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    book = Logbook(tmp_path, tensorboard=False)
    for second in (0, 4, 9, 11, 15, 22):
        clock = 1000.0 + second
        book.progress(f"{LINE} at {second}")
    book.progress("val [/bold] accuracy", now=True)
    book.close()
    assert capsys.readouterr().out == f"{LINE} at 0\n{LINE} at 11\n{LINE} at 22\nval [/bold] accuracy\n"


TERMINAL_RUN = """
import pathlib, sys, time
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.terminal import Length, Training
book = Logbook(pathlib.Path(sys.argv[1]), tensorboard=False)
book.say("before " + 100 * "x")
for n in range(4):
    book.bar.stepped(100 + n, Length(7820, 391.0, False))
    book.bar.trained(Training(1.3012, " accuracy 51.20%", 12345.6))
    book.progress("this line is for grep", now=True)
    time.sleep(0.3)
    if n == 2:
        book.say("[between]")
book.close()
print("after")
"""


@pytest.mark.parametrize("columns", [80, 40])
def test_on_a_terminal_progress_is_one_line_rewritten_within_its_width(columns, tmp_path):
    output = on_a_terminal([sys.executable, "-c", TERMINAL_RUN, str(tmp_path)], columns)
    long = 100 * "x"
    wrapped = ["before", *(f"  {long}"[start : start + columns] for start in range(0, 102, columns))]
    assert screen(output, columns) == [*wrapped, "[between]", "after"]  # nothing of the bar stays
    assert "for grep" not in output
    assert output.count("1 of 20") >= 3
    for place in re.finditer("1 of 20", output):
        shown = screen(output[: place.end()], columns)
        assert sum("of 20" in row for row in shown) == 1, shown
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l"), "the cursor stays hidden"


def on_a_terminal(command: list[str], columns: int) -> str:
    """The output of a command whose standard streams are a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        command, cwd=runs.ROOT, env=variables | {"TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # so Linux tells that the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(ours)
    assert process.wait(timeout=120) == 0, output
    return output.decode()


def screen(output: str, columns: int) -> list[str]:
    """The rows that a terminal shows, above its last empty ones: it wraps, goes up, and erases rows."""
    rows, row, column = [""], 0, 0
    for code, number, letter, character in re.findall(r"(\x1b\[\??(\d*)[;\d]*([a-zA-Z]))|(.)", output, re.DOTALL):
        if letter == "A":
            row = max(row - int(number or 1), 0)
        elif letter == "K":
            rows[row] = ""
        elif code or character == "\r":
            column = column if code else 0
        elif character == "\n" or column == columns:
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        if character not in ("", "\r", "\n"):
            rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
            column += 1
    while rows and not rows[-1].strip():
        rows.pop()
    return rows


def test_durations():
    assert [logbook.duration(s) for s in (0, 59.6, 61, 3723)] == ["0:00", "1:00", "1:01", "1:02:03"]


def test_tensorboard_does_not_import_pytorch(tmp_path):
    """tensorboardX would, where it is installed: seconds, in the midst of the first steps."""
    (tmp_path / "torch.py").write_text("")
    code = (
        "import pathlib, sys; from jaxcnn.train.logbook import Logbook\n"
        "book = Logbook(pathlib.Path('.'), tensorboard=True); book.open(0, 0)\n"
        "book.record('train', 1, {'loss': 0.5}); book.close()\n"
        "assert 'tensorboardX' in sys.modules and 'torch' not in sys.modules\n"
        "import torch"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(runs.ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "tensorboard").iterdir())


def test_pytorch_is_hidden_from_the_thread_that_imports_tensorboardx_alone(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [events._HiddenTorch(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        __import__("torch")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        module = pool.submit(__import__, "torch").result()
    assert module.__file__ == str(tmp_path / "torch.py")
    assert sys.modules.pop("torch") is module


def test_in_a_notebook_lines_are_plain_text_though_its_output_says_it_is_a_terminal(tmp_path, monkeypatch):
    class Output(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(logbook, "Console", lambda: types.SimpleNamespace(is_jupyter=True))
    book = logbook.Logbook(tmp_path, tensorboard=False, output=(output := Output()))
    book.say("one")
    book.progress("two")
    assert output.getvalue() == "one\ntwo\n"


def test_a_caller_that_shows_the_progress_gets_no_progress_lines(tmp_path):
    book = logbook.Logbook(tmp_path, tensorboard=False, output=(output := io.StringIO()), progress_lines=False)
    book.progress("one", now=True)
    book.say("two")
    assert output.getvalue() == "two\n"
