"""Counts with nouns, and foreign text such as file names: shown on one line, made distinct, and drawn in pictures.

Foreign text may contain anything that a file system or an array accepts: `$` and `_`, line breaks, bytes that are not
UTF-8 (lone surrogates in Python), and letters of any script. It is shown unchanged if possible; other characters are
escaped as in Python, so that nothing shown is mistaken for something else.
"""

import contextlib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

_NO_LETTERS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories of controls, surrogates, line and paragraph separators


def shown(text: str) -> str:
    """A text on one line, for any stream and file: controls, line breaks and invalid Unicode are escaped.

    A byte in a file name that is not UTF-8 becomes, for example, `\\xe9`.
    """
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # Python's form of a byte that could not be decoded
        return f"\\x{code - 0xDC00:02x}"
    is_none = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return _escaped(letter) if is_none or unicodedata.category(letter) in _NO_LETTERS else letter


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def named(name: str) -> str:
    """The name of a class in a sentence: as `shown`, or "class 7" if it is a number and would read as a figure."""
    return f"class {name}" if name.replace(".", "", 1).isdecimal() else shown(name)


def as_markdown(words: str) -> str:
    """Words as one line of Markdown without any markup, such as mathematics, references or headings."""
    line = re.sub(r"([|\\`*_<>\[\]&~$#])", r"\\\1", " ".join(words.split()))
    return re.sub(r"^([-+=](?=[-= ]|$)|\d+(?=[.)](?: |$)))", _not_a_list, line)


def _not_a_list(found: re.Match[str]) -> str:
    return found.group() + "\\" if found.group().isdigit() else "\\" + found.group()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun, such as "1 example", "2 examples"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Distinct names: equal ones get their index, as in "crane (0)" and "crane (2)"."""
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

    No text is read as mathematics. Letters missing in the font are taken from other installed fonts, or escaped if no
    font has them; in an SVG that keeps text as text, this is left to the viewer.
    """
    import matplotlib

    vector = options.get("format") == "svg" and matplotlib.rcParams["svg.fonttype"] == "none"
    _show_ticks(figure, vector)
    for text in _texts(figure):
        text.set_parse_math(False)
        _show(text, vector)
    with warnings.catch_warnings():
        if vector:
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # only measured, not drawn
        figure.savefig(target, **options)


def _texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text()]


def _show(text: Any, vector: bool) -> None:
    """Change a text of a figure so that it can be drawn."""
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
    """Prepare names along an axis for drawing, as `_show` does; matplotlib sets them again whenever it draws."""
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


_found: dict[str, str | None] = {}  # letter -> family of an installed font that has it; None: no font has it


def _families(letters: str, text: Any) -> dict[str, str | None]:
    """An installed font family for each letter that a text's font lacks; None for letters that no font has."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont(text.get_fontproperties()))
    lacking = [letter for letter in dict.fromkeys(letters) if not own.get_char_index(ord(letter))]
    if unknown := [letter for letter in lacking if letter not in _found]:
        _search(unknown)
    return {letter: _found[letter] for letter in lacking}


def _search(letters: Iterable[str]) -> None:
    """Search the installed fonts for letters."""
    from matplotlib import font_manager

    left = set(letters)
    upright = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight == 400]
    for font in sorted(upright, key=lambda font: ("Sans" not in font.name, font.name)):
        if not left:
            break
        with contextlib.suppress(OSError, RuntimeError):  # a bitmap font, or a damaged one
            face = font_manager.get_font(font.fname)
            if face.scalable and not font.name.startswith("Last Resort"):  # that font has only placeholder boxes
                has = {letter for letter in left if face.get_char_index(ord(letter))}
                _found.update(dict.fromkeys(has, font.name))
                left -= has
    _found.update(dict.fromkeys(left))


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in quotes: the first `most` of them, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def shorten(name: str, width: int) -> str:
    """A name cut to at most `width` characters."""
    return name if len(name) <= width else f"{name[: max(width - 1, 1)]}…"
