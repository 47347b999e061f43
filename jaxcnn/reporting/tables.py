"""Tables in three formats: Markdown, LaTeX (booktabs) and rows for the page."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.text import as_markdown

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "—": "---",
    "≥": r"$\ge$", "≤": r"$\le$", "−": r"$-$", "→": r"$\to$", "…": r"\dots{}", "≈": r"$\approx$", "★": r"$\star$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "“": "``", "”": "''", '"': "''", "µ": r"$\mu$",
    "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
}  # fmt: skip
LACKING = "ĦħĸĿŀŉŦŧſ"  # letters below U+0180 missing in LaTeX's T1 encoding
LONG = 34  # characters; a LaTeX column of at least this width breaks its lines


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell: its text and, for numbers, the number by which it is sorted.

    Attributes:
      strong: emphasised, as the best of its kind.
      link: web address of a source.
    """

    text: str
    number: float | None = None
    strong: bool = False
    link: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
      name: name in anchors and LaTeX labels.
      numeric: the right-aligned columns.
      notes: notes below the table that are needed to read it correctly.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[str] = frozenset()
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Columns, rows as written, and notes."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [[cell.text for cell in row] for row in self.rows],
            "notes": list(self.notes),
        }


def by_name(tables: Iterable[Table | None]) -> dict[str, Table]:
    """The tables that exist, by name; tables with equal names get numbers."""
    taken: set[str] = set()
    named = [dataclasses.replace(each, name=labels.untaken(each.name, taken)) for each in tables if each is not None]
    return {each.name: each for each in named}


def text(of: Any, *, strong: bool = False, link: str = "") -> Cell:
    """A cell of words."""
    return Cell(str(of), None, strong, link)


def number(of: float | None, written: str, *, strong: bool = False) -> Cell:
    """A cell of a number, shown as `written`."""
    return Cell(written, of, strong)


def markdown(tables: Sequence[Table], title: str) -> str:
    """The tables as GitHub's Markdown."""
    parts = [f"# {as_markdown(title)}"]
    for table in tables:
        lines = [f"## {as_markdown(table.title)}", ""]
        lines.append("| " + " | ".join(map(as_markdown, table.columns)) + " |")
        lines.append("|" + "|".join("---:" if c in table.numeric else "---" for c in table.columns) + "|")
        for row in table.rows:
            lines.append("| " + " | ".join(_markdown_cell(cell) for cell in row) + " |")
        parts.append("\n".join(lines))
        if table.notes:
            parts.append("\n".join(f"- {as_markdown(note)}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _markdown_cell(cell: Cell) -> str:
    written = as_markdown(cell.text)
    if cell.link:
        written = f"[{written}]({cell.link})"
    return f"**{written}**" if cell.strong and written else written


def latex(tables: Sequence[Table], title: str) -> str:
    """The tables as a LaTeX document with booktabs; each `table` can be copied into a paper unchanged."""
    parts = [
        f"% {_one_line(title)}",  # a comment: none of its characters matters
        "% Compiles as it is with pdflatex; a table copied from it needs \\usepackage{array,booktabs,graphicx}.",
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage{textcomp}",
        r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
        r"\usepackage{array,booktabs,graphicx}",
        r"\usepackage[margin=2cm]{geometry}",
        r"\begin{document}",
    ]
    body = "\n\\clearpage\n".join(_latex_table(table) for table in tables if table.rows)
    return "\n".join([*parts, body or "No run has finished.", r"\end{document}"]) + "\n"


def _latex_table(table: Table) -> str:
    longest = [max(len(row[i].text) for row in table.rows) for i in range(len(table.columns))]
    wide = sum(length > LONG for length in longest)
    paragraph = rf">{{\raggedright\arraybackslash}}p{{{min(0.3, 0.75 / max(wide, 1)):.2f}\linewidth}}"
    align = "".join(
        "r" if column in table.numeric else paragraph if length > LONG else "l"
        for column, length in zip(table.columns, longest, strict=True)
    )
    rows = [_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows]
    head = _latex_row([*map(escape_latex, table.columns)])
    parts = [rows[i : i + 40] for i in range(0, len(rows), 40)]  # a float cannot break over pages
    floats = []
    for i, part in enumerate(parts):
        caption = table.title + (f" (part {i + 1} of {len(parts)})" if len(parts) > 1 else "")
        notes = " ".join(table.notes) if i == 0 else ""
        label = f"tab:{table.name}" + (f"-{i + 1}" if i else "")
        title = caption if caption.endswith("?") else f"{caption}."
        body = "\n".join([
            rf"\begin{{tabular}}{{{align}}}", r"\toprule", head, r"\midrule", *part, r"\bottomrule", r"\end{tabular}",
        ])  # fmt: skip
        floats.append("\n".join([
            r"\begin{table}[htbp]", r"\centering",
            rf"\caption{{{escape_latex(f'{title} {notes}'.strip())}}}", rf"\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", body + "}", r"\end{table}",
        ]))  # fmt: skip
    return "\n\\clearpage\n".join(floats)


def _latex_row(cells: list[str]) -> str:
    r"""A line of a table, protected if it begins with [ or *, which the preceding \\ or rule would take as argument."""
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line


def _latex_cell(cell: Cell) -> str:
    written = escape_latex(cell.text)
    return rf"\textbf{{{written}}}" if cell.strong and written else written


def escape_latex(words: str) -> str:
    """Words with LaTeX's special characters escaped; characters missing in its fonts are given by number."""
    # Latin letters with accents exist; anything beyond, and control characters, would stop pdflatex.
    plain = "".join(c if c in LATEX or _is_in_fonts(c) else f"[U+{ord(c):04X}]" for c in _one_line(words))
    plain = re.sub(r"([-,])(?=\1)", "\\1\0", plain)  # two in a row would become a dash or a quotation mark
    return "".join(LATEX.get(character, character) for character in plain).replace("\0", "{}")


def _is_in_fonts(character: str) -> bool:
    return ord(character) < 0x180 and character not in LACKING and unicodedata.category(character) != "Cc"


def _one_line(words: str) -> str:
    return " ".join(words.split())
