"""Text that others chose: shown as it is where that can be, escaped where not, and never taken for something else."""

import io
import os
import sys
import unicodedata
import warnings

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn import command, text
from jaxcnn.tasks import classification, confusion
from jaxcnn.train import logbook

ANY = st.text(st.characters(codec=None), max_size=12)  # surrogates, controls and all
BYTE = os.fsdecode(b"caf\xe9")  # no UTF-8
HARD = ["$x^2$", "$", "\\frac{", "a_b", "%&#<>'\"", "new\nline", "tab\t", BYTE, "犬", "_hidden", ""]
LETTER = "\U000f1234"  # of private use: no font has it but the one of these tests


@settings(max_examples=50)
@given(ANY)
def test_any_text_is_shown_on_one_line_that_any_file_takes(name):
    seen = text.shown(name)
    assert len(seen.splitlines()) <= 1
    assert seen.encode("utf-8").decode() == seen
    assert not any(unicodedata.category(letter) == "Cc" for letter in seen)
    if name.isprintable():
        assert seen == name, "what can be shown is shown as it is"


def test_what_cannot_be_shown_is_escaped_as_in_python():
    assert text.shown(BYTE + "\n\x1b[31m") == "caf\\xe9\\n\\x1b[31m"
    assert text.shown("\ud800\u2028\uffff") == "\\ud800\\u2028\\uffff"
    assert text.shown("猫 café 🐱 \\n") == "猫 café 🐱 \\n"


def test_one_thing_is_not_told_in_the_plural():
    told = [text.counted(number, "class", "classes") for number in (0, 1, 2)]
    assert told == ["0 classes", "1 class", "2 classes"]
    assert text.counted(1200, "example") == "1200 examples"


def draw(names, **options) -> Figure:
    """A picture with names along an axis and above it, saved without a word of matplotlib's."""
    figure = Figure(figsize=(2, 2))
    axes = figure.subplots()
    axes.set_xticks(range(len(names)), names)
    axes.set_title(" ".join(names))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.save_picture(figure, options.pop("target", io.BytesIO()), **options)
    return figure


def words(figure) -> list[str]:
    (axes,) = figure.axes
    return [axes.get_title(), *(label.get_text() for label in axes.get_xticklabels())]


@settings(max_examples=6, deadline=None)
@given(st.lists(ANY.map(text.shown), min_size=1, max_size=3))
def test_any_names_can_stand_in_a_picture(names):
    draw(names)


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_any_names_can_stand_in_a_vector_picture(fonttype):
    with matplotlib.rc_context({"svg.fonttype": fonttype}):
        target = io.StringIO()
        draw([text.shown(name) for name in HARD], target=target, format="svg")
    assert ("犬" in target.getvalue()) == (fonttype == "none"), "whoever shows it has fonts of their own"


def test_no_name_is_read_as_mathematics_and_none_is_changed_that_the_font_has():
    names = [text.shown(name) for name in HARD if name != "犬"]
    assert words(draw(names)) == [" ".join(names), *names]


@pytest.fixture
def font(tmp_path, monkeypatch):
    """An installed font that has one letter."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 700)), pen.lineTo((500, 0)), pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(LETTER): "letter"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "letter": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Letter Sans", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "font.ttf")
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(tmp_path / "font.ttf")
    monkeypatch.setattr(text, "_found", {})


def test_a_letter_is_taken_from_an_installed_font_that_has_it(font):
    figure = draw([f"a{LETTER}", "b"])
    assert words(figure)[1:] == [f"a{LETTER}", "b"]
    (label, other) = figure.axes[0].get_xticklabels()
    assert label.get_fontfamily()[-1] == "One Letter Sans"
    assert "One Letter Sans" not in other.get_fontfamily()


def test_a_letter_that_no_font_has_is_escaped(monkeypatch):
    monkeypatch.setattr(text, "_found", {})
    assert words(draw([f"a{LETTER}", "b"])) == ["a\\U000f1234 b", "a\\U000f1234", "b"]


def test_a_confusion_matrix_is_drawn_for_any_class_names(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = np.arange(len(HARD))
        confusion.draw(confusion.Confusion.of(each, each, len(HARD)), HARD, tmp_path / "matrix.png")
    assert Image.open(tmp_path / "matrix.png").size[0] > 500


def test_an_evaluation_is_described_whatever_its_classes_are_called():
    accuracies = {name: number / len(HARD) for number, name in enumerate(HARD)}
    means = ("top1_accuracy", "top5_accuracy", "loss", "calibration_error", "balanced_accuracy")
    figures = dict.fromkeys((*means, *(f"macro_{name}" for name in ("precision", "recall", "f1"))), 0.5)
    figures |= {"data": f"folder:{BYTE}\n/test", "examples": 3, "step": 1, "weights": "last"}
    lines = classification.describe(figures | {"per_class_accuracy": accuracies})
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert "\n".join(lines).encode("utf-8")


@pytest.mark.parametrize(("encoding", "told"), [("utf-8", "猫 \\udce9\n"), ("latin-1", "\\u732b \\udce9\n")])
def test_standard_output_takes_any_text_whatever_its_encoding(encoding, told, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    command.accept_any_text()
    print(os.fsdecode("猫 ".encode() + b"\xe9"), flush=True)
    assert stream.buffer.getvalue().decode(encoding) == told


def test_no_word_of_a_run_is_read_as_an_emoji_or_as_markup(tmp_path):
    output = io.StringIO()
    logbook.Logbook(tmp_path, tensorboard=False, output=output).say("synthetic:8x8x3:100:50 :cat: [/red] [bold]")
    assert output.getvalue() == "synthetic:8x8x3:100:50 :cat: [/red] [bold]\n"
