"""How many of a thing, and text that others chose, such as names of files: on one line, apart, and in pictures.

A text that others chose may hold anything that a file system or an array takes: `$` and `_`, line breaks, bytes that
are no UTF-8 (which Python has as lone surrogates), and letters of any script. It is shown as it is where that can be,
and what can not is escaped as in Python, so that nothing shown is taken for something else.
"""

import contextlib
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_NO_LETTERS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of controls, surrogates, ends of lines and paragraphs


def shown(text: str) -> str:
    """A text on one line, for any stream and file: controls, line breaks and what is no Unicode are escaped.

    A byte that was no UTF-8 in the name of a file becomes `\\xe9`.
    """
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python has a byte that could not be decoded
        return f"\\x{code - 0xDC00:02x}"
    is_none = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return _escaped(letter) if is_none or unicodedata.category(letter) in _NO_LETTERS else letter


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Such as "1 example", "2 examples"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of which no two are equal: those that are get their place, "crane (0)" and "crane (2)"."""
    if len(set(names)) == len(names):
        return tuple(names)
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    taken = {name for name in names if seen[name] == 1}
    found = []
    for place, name in enumerate(names):
        if seen[name] > 1:
            name = f"{name} ({place})"
            while name in taken:
                name += "'"
            taken.add(name)
        found.append(name)
    return tuple(found)


def save_picture(figure: Any, target: Any, **options: Any) -> None:
    """`figure.savefig` of a matplotlib Figure, for any text in it.

    No text is read as mathematics. Letters that the font has not are taken from the installed fonts, and are escaped
    where none has them; in an SVG whose text stays text that is left to whoever shows it.
    """
    import matplotlib

    vector = options.get("format") == "svg" and matplotlib.rcParams["svg.fonttype"] == "none"
    _show_ticks(figure, vector)
    for text in _texts(figure):
        text.set_parse_math(False)
        _show(text, vector)
    with warnings.catch_warnings():
        if vector:
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # measured only, not drawn
        figure.savefig(target, **options)


def _texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text()]


def _show(text: Any, vector: bool) -> None:
    """Make a text of a figure one that can be drawn."""
    lines = [shown(line) for line in text.get_text().split("\n")]
    if not vector:
        families = _families("".join(lines), text)
        if more := [family for family in dict.fromkeys(families.values()) if family]:
            text.set_fontfamily([*text.get_fontfamily(), *more])
        lacking = {letter for letter, family in families.items() if family is None}
        lines = ["".join(_escaped(c) if c in lacking else c for c in line) for line in lines]
    if (wanted := "\n".join(lines)) != text.get_text():
        text.set_text(wanted)


def _show_ticks(figure: Any, vector: bool) -> None:
    """The same for names along an axis, which matplotlib writes into their texts once more whenever it draws."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter):
                labels = axis.get_ticklabels()
                before = [label.get_text() for label in labels]
                for label in labels:
                    label.set_parse_math(False)
                    _show(label, vector)
                if (after := [label.get_text() for label in labels]) != before:
                    axis.set_ticks(axis.get_majorticklocs(), after)


_found: dict[str, str | None] = {}  # family of an installed font that has a letter, by letter; None: there is none


def _families(letters: str, text: Any) -> dict[str, str | None]:
    """The installed families to take letters from that the font of a text has not; None where no font has one."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(text.get_fontproperties()))
    lacking = [letter for letter in dict.fromkeys(letters) if not own.get_char_index(ord(letter))]
    if unknown := [letter for letter in lacking if letter not in _found]:
        _search(unknown)
    return {letter: _found[letter] for letter in lacking}


def _search(letters: Iterable[str]) -> None:
    """Look through the installed fonts for letters."""
    from matplotlib import font_manager

    left = set(letters)
    upright = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight == 400]
    for font in sorted(upright, key=lambda font: ("Sans" not in font.name, font.name)):
        if not left:
            break
        with contextlib.suppress(OSError, RuntimeError):  # a font of bitmaps, or a damaged one
            face = font_manager.get_font(font.fname)
            if face.scalable and not font.name.startswith("Last Resort"):  # that one has a box for everything
                has = {letter for letter in left if face.get_char_index(ord(letter))}
                _found.update(dict.fromkeys(has, font.name))
                left -= has
    _found.update(dict.fromkeys(left))
