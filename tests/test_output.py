"""What is said never ends what is done: readers go away, terminals are closed, disks are full."""

import contextlib
import errno
import io
import os
import pty
import subprocess
import sys
import types

import pytest
from rich.console import Console

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.study.outcome import show
from jaxcnn.train.logbook import Logbook
from tests import runs


@contextlib.contextmanager
def gone(kind):
    """A descriptor to write to whose other end is a closed pipe, a closed terminal or a full disk."""
    if kind == "disk":
        end = os.open("/dev/full", os.O_WRONLY)
    else:
        other, end = pty.openpty() if kind == "terminal" else os.pipe()
        os.close(other)
    try:
        yield end
    finally:
        os.close(end)


@pytest.mark.parametrize(("kind", "failure"), [("pipe", None), ("terminal", None), ("disk", errno.ENOSPC)])
def test_what_cannot_be_written_is_dropped_and_only_a_loss_that_somebody_minds_is_known(kind, failure):
    with gone(kind) as end, output._Lasting(end, "wb", closefd=False) as raw:
        for _ in range(3):
            assert raw.write(b"words") == 5
        assert (raw.failure and raw.failure.errno) == failure


@pytest.mark.parametrize(
    ("kind", "command", "told"),
    [
        ("pipe", ("jaxcnn",), ""),
        ("pipe", ("jaxcnn.launch", "--help"), ""),
        ("disk", ("jaxcnn",), "some of the output could not be written"),
    ],
)
def test_a_listing_or_help_without_a_reader_ends_in_silence(kind, command, told):
    with gone(kind) as end:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=runs.ROOT, stdout=end, stderr=subprocess.PIPE, text=True, check=True
        )
    assert done.stderr.count("\n") == bool(told) and told in done.stderr


def test_a_reader_that_is_slow_gets_everything_though_the_pipe_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    child = subprocess.Popen(["sh", "-c", "sleep 0.3; wc -c"], stdin=reader, stdout=subprocess.PIPE, text=True)
    os.close(reader)
    with output._Lasting(writer, "wb") as raw:
        assert raw.write(bytes(10**6)) == 10**6
    assert int(child.communicate(timeout=120)[0]) == 10**6


@pytest.mark.parametrize("kind", ["pipe", "terminal", "disk"])
def test_the_log_of_a_run_that_python_code_makes_goes_on_without_its_reader(kind, tmp_path):
    with gone(kind) as end:
        file = os.fdopen(end, "w", closefd=False)
        book = Logbook(tmp_path, tensorboard=False, output=file)
        book.open(0, 0)
        book.say("before")
        book.progress("step 1", now=True)
        book.record("train", 1, {"loss": 0.5})
        book.close()
        with contextlib.suppress(OSError):
            file.close()
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1


COMMAND = """
import os, sys
from jaxcnn import at_start
from jaxcnn.command import output
output.keep()
from rich.console import Console
print("words"), Console().print("more")
sys.stdout.flush()
opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
assert opened > 2, opened
at_start.last_words("for the user")
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("redirection", "unbuffered"),
    [
        (">&-", ""),
        ("2>&-", ""),
        (">&- 2>&- <&-", "1"),
        (">/dev/full 2>/dev/full", ""),
        (">/dev/full", "1"),
        ("| true", ""),
    ],
)
def test_a_command_ends_with_its_own_code_whatever_becomes_of_its_output(redirection, unbuffered, tmp_path):
    # The shell tells the exit code of the last command of a pipe alone, so that of the first goes by a file.
    line = f'{{ {sys.executable} -c "$0" {tmp_path}/file; echo $? > {tmp_path}/code; }} {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, COMMAND],
        cwd=runs.ROOT, env=os.environ | {"PYTHONUNBUFFERED": unbuffered}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "code").read_text().strip() == "7", done.stderr
    assert (tmp_path / "file").read_bytes() == b""
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_more_open_files_is_one_line_that_says_how_to_allow_more(number, monkeypatch, capsys):
    def main():
        raise OSError(number, os.strerror(number), "/a/config.json")

    monkeypatch.setattr(command.xla_flags, "apply", lambda: None)
    monkeypatch.setattr(command._signals, "end", lambda code: None)
    monkeypatch.setattr(command.flags.FLAGS["verbosity"], "present", 1)  # the loggers of this process stay as they are
    with pytest.raises(SystemExit) as ended:
        command._guarded(main)
    assert ended.value.code == command.exit_code(OSError(number, "")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jaxcnn: /a/config.json: ") and line.endswith("(ulimit -n), then run the same command")


def test_an_event_loop_that_got_no_file_says_nothing_more_at_its_end(monkeypatch):
    told = []
    monkeypatch.setattr(command.sys, "__unraisablehook__", told.append)
    half_made = AttributeError("'_UnixSelectorEventLoop' object has no attribute '_ssock'")
    for error in (half_made, RuntimeError("Event loop is closed"), AttributeError("no attribute 'other'")):
        command._without_closed_loops(types.SimpleNamespace(exc_value=error))
    assert [str(each.exc_value) for each in told] == ["no attribute 'other'"]


def test_a_line_is_broken_between_words_on_a_terminal_and_nowhere_else(monkeypatch):
    line = "runs/digits/report/report.html, tables.md, plots/ (5 as PNG and SVG)\n  and one more"
    monkeypatch.setenv("COLUMNS", "60")
    assert output.fitting(line) == line
    monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(isatty=lambda: True))
    assert output.fitting(line) == (
        "runs/digits/report/report.html, tables.md, plots/ (5 as PNG\n  and SVG)\n  and one more"
    )


def test_the_lines_of_a_sweep_are_broken_between_words_but_for_its_commands():
    words, command_line = (
        "  best on validation: learning rate 0.1, batch size 64",
        "  report: python -m jaxcnn.report runs/x",
    )
    for on_terminal in (True, False):
        console = Console(width=30, force_terminal=on_terminal, color_system=None, file=io.StringIO())
        show([words, command_line], console)
        lines = console.file.getvalue().splitlines()
        assert lines[-1] == command_line and " ".join(" ".join(lines[:-1]).split()) == words.strip()
        assert (max(map(len, lines[:-1])) <= 30) == on_terminal
