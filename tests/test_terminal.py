"""What a person sees on a terminal: a bar within the width, epochs as they were asked for, lines that stay."""

import io
import math

import pytest
from rich.console import Console

from jaxcnn.command import output as command_output
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import terminal
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.terminal import Bar, Length, Training
from tests import digits

ACCURACY = Headline("top1_accuracy", "accuracy")
ERROR = Headline("mean_absolute_error", "mean absolute error", better="lower", percent=False)


def bar(columns, *steps, figure=" accuracy 91.20%", encoding="utf-8"):
    """The bar after these steps."""
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding), width=columns, force_terminal=True)
    drawn = Bar(console)
    for step in steps:
        drawn.stepped(step, Length(580, 19.328125, False))
    drawn.trained(Training(0.23018, figure, 3391.4))
    drawn.stop()
    return drawn.render()


def test_thirty_epochs_that_were_asked_for_are_thirty_though_the_last_step_goes_beyond():
    assert terminal.epochs(580, 19.328125) == "30"
    assert terminal.epochs(579, 19.328125) == "29.96"
    assert terminal.epochs(40, 19.328125) == "2.07"
    assert [terminal.epochs_with_decimals(step, 19.328125) for step in (580, 579, 40)] == ["30.00", "29.96", "2.07"]
    assert Length(580, 19.328125, False).counted(580) == "epoch 30 of 30"
    assert Length(580, 19.328125, False).counted(19) == "epoch  1 of 30"
    assert Length(580, 19.328125, True).counted(580) == "step 580 of 580"
    assert Length(5000, 781.25, False).counted(1200) == "step 1,200 of 5,000"  # 6.4 epochs


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("figure", [" accuracy 91.20%", " mean average precision 91.20%", ""])
def test_the_bar_fits_and_loses_its_least_important_parts_first(columns, figure):
    line = bar(columns, 1, 290, figure=figure).plain
    assert len(line) < columns
    told = ["epoch 16 of 30", "50 %", " left", "loss 0.2302", figure.strip() or "loss", "3,391 images/s"]
    there = [part in line for part in told]
    assert there == sorted(there, reverse=True), line
    assert sum(there) >= {20: 1, 40: 3, 60: 4, 80: 4, 120: 6, 200: 6}[columns]


def test_the_bar_is_as_full_as_the_run_and_cyan_while_it_is_under_way():
    line = bar(120, 1, 290)
    full, empty = line.plain.count("━"), line.plain.count("─")
    assert full == math.floor((full + empty) / 2)
    assert [span.style for span in line.spans][:2] == ["cyan", "dim"]
    assert set("#-") <= set(bar(120, 1, 290, encoding="ascii").plain)


def test_no_color_leaves_no_colours_and_no_terminal_no_bar(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    console.print(bar(80, 1, 290))
    assert "\x1b[36m" not in console.file.getvalue()
    assert Logbook(tmp_path, tensorboard=False, output=io.StringIO()).bar is None


def test_an_evaluation_stays_as_a_line_that_fits():
    length = Length(580, 19.328125, False)
    line = terminal.evaluation_line(length, 39, 0.5, ACCURACY, 0.905, averaged=False, best=True)
    assert line == "  epoch  2  validation loss 0.5000  accuracy 90.50%  best so far"
    line = terminal.evaluation_line(length, 45, 0.5, ERROR, 0.905, averaged=True, best=True)
    assert line == ("  epoch 2.33  validation loss 0.5000  mean absolute error  0.905  best so far  (moving average)")
    for columns in (90, 80, 70, 60):
        assert len(terminal.fitted_words(line, columns)) <= max(columns, 63)  # below that, the terminal breaks it
    assert "best" in terminal.fitted_words(line, 60)


def test_the_curve_at_the_end_is_a_sparkline_with_first_last_and_best():
    points = [("2", 0.35), ("4", 0.9), ("6", 0.95), ("8", 0.94)]
    assert terminal.curve_line(ACCURACY, points, 80) == (
        "  validation accuracy 35.00% ▁▇██ 94.00%, best 95.00% at epoch 6"
    )
    assert terminal.curve_line(ERROR, [("1", 3.0), ("2", 1.0)], 80, blocks=False) == (
        "  validation mean absolute error 3 to 1, best 1 at epoch 2"
    )
    assert terminal.curve_line(ACCURACY, points[:1], 80) == ""
    assert len(terminal.curve_line(ACCURACY, points * 50, 80)) <= 80


def test_a_sparkline_has_as_many_blocks_as_fit_and_averages_the_rest():
    assert terminal.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == terminal.BLOCKS
    assert terminal.sparkline([0, 0, 7, 7], 2) == "▁█"
    assert terminal.sparkline([5, 5, 5], 9) == "▁▁▁"


def test_lines_are_broken_between_words_and_paths_stay_whole():
    assert terminal.wrapped("  a path /a/very/long/path that goes on", 16) == (
        "  a path\n    /a/very/long/path\n    that goes on"
    )
    assert terminal.wrapped("short", 80) == "short"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_run_on_a_terminal_shows_bar_evaluations_and_the_curve(tmp_path, monkeypatch):
    from jaxcnn.train.hooks import Hooks
    from jaxcnn.train.loop import train
    from tests import small

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    with small.programs_kept():
        train(digits.config(), tmp_path, command=digits.COMMAND, hooks=Hooks(output=(output := Terminal())))
    out = output.getvalue()
    assert "step 20 of 40" in out or "step 40 of 40" in out
    assert out.count("validation loss") == 3
    assert "  validation accuracy " in out and "best" in out.partition("finished: test accuracy")[0]
    assert "ETA" not in out


def test_errors_are_red_only_where_a_terminal_shows_colours_that_are_wanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert command_output.has_colours(Terminal())
    assert not command_output.has_colours(io.StringIO())
    assert not command_output.has_colours(None)
    monkeypatch.setenv("TERM", "dumb")
    assert not command_output.has_colours(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not command_output.has_colours(Terminal())
