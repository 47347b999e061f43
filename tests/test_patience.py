"""What takes long is told, on a terminal by a line that vanishes, elsewhere by plain lines; the rest is not."""

import io
import time

import jax
import pytest
from rich.console import Console

from jaxcnn.train import patience


@pytest.fixture
def quick(monkeypatch):
    """Seconds are short."""
    monkeypatch.setattr(patience, "WORTH_SECONDS", 0.05)
    monkeypatch.setattr(patience, "LINE_SECONDS", 0.2)


def told(seconds, *, terminal=False, lines=0, **options):
    """What is said of something that takes so many seconds, until there are so many lines; what the console shows."""
    said, file = [], io.StringIO()
    console = Console(file=file, force_terminal=terminal)
    with patience.shown("compiling cnn", console, said.append, **options):
        time.sleep(seconds)
        deadline = time.monotonic() + 60
        while len(said) < lines and time.monotonic() < deadline:
            time.sleep(0.01)
    return said, file.getvalue()


def test_what_is_done_at_once_is_not_told(quick):
    assert told(0.0) == told(0.0, terminal=True) == ([], "")


def test_elsewhere_it_is_a_line_at_the_start_and_then_now_and_then(quick):
    said, shown = told(0.0, before=65.4, first=0.05, lines=2)
    assert [line[: -len("0, 1:05 last time")] for line in said[:2]] == ["  compiling cnn for 0:0"] * 2
    assert said[0] == "  compiling cnn for 0:00, 1:05 last time"
    assert shown == ""


def test_on_a_terminal_it_is_one_line_that_vanishes_and_the_cursor_is_there(quick):
    said, shown = told(0.3, terminal=True)
    assert said == []
    assert "compiling cnn for 0:00" in shown
    assert shown.index("\x1b[?25l") < shown.index("\x1b[?25h") < shown.index("compiling cnn")
    assert shown.endswith("\x1b[2K"), "it is erased"


def test_how_long_something_took_is_kept_where_compiled_programs_are(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        patience.took("net", 30.0)
        assert patience.last_time("net") is None
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        patience.took("net", 30.0)
        patience.took("other", 0.5)
        assert (patience.last_time("net"), patience.last_time("other")) == (30.0, None)
        (file,) = (tmp_path / "seconds").iterdir()
        file.write_text("damaged")
        assert patience.last_time("net") is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
