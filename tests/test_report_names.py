"""Any text can be a name: in every file of a report it stands as it is, and is never taken for markup."""

import html.parser
import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxcnn.reporting import charts, labels, page, tables, write
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import Material, read
from jaxcnn.tasks import confusion
from tests import report_folders as folders

NASTY = [
    "$x_{1}$", "a_b%c&d", "<b>'\"</b>", "a,b?c#d", "line\nbreak\r\ttab", "\x00\x1b[31m\x7f",
    "byte \udcff, half \ud83d", "語 🦊 é", "\u202eright to left שלום", "|pipe| `tick` **bold** [a](b) \\", "1. one",
    "- list", "# head", "~~no~~ &lt; ~ ^ {}", "", "url(#x) id=\"y\" #2262b0", "--''``,,?`!`", "_hidden", "\u2028\ufffe",
    "x" * 500, "\\end{table}", "-->",
]  # fmt: skip
TEXT = st.one_of(st.text(st.characters(exclude_categories=())), st.sampled_from(NASTY))


class Cells(html.parser.HTMLParser):
    """The texts of the elements td of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag == "td":
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def one_line(text: str) -> str:
    return " ".join(labels.printable(text).split())


@settings(deadline=None)
@given(TEXT)
@example("".join(NASTY))
def test_what_is_printable_can_be_written_everywhere_and_is_left_as_it_is(text):
    shown = labels.printable(text)
    assert shown.encode("utf-8").decode() == shown
    tag = xml.etree.ElementTree.Element("t")
    tag.text = shown
    back = xml.etree.ElementTree.fromstring(xml.etree.ElementTree.tostring(tag, encoding="utf-8")).text or ""
    assert back.replace("\r\n", "\n").replace("\r", "\n") == shown.replace("\r\n", "\n").replace("\r", "\n")
    assert labels.printable(shown) == shown
    assert json.loads(json.dumps(labels.printables({text: [text, 1]}))) == {shown: [shown, 1]}
    assert re.fullmatch(r"[a-z0-9-]{1,80}", labels.slug(text))


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=3), TEXT)
def test_rows_of_markdown_are_split_back_into_their_cells(names, title):
    columns = [f"column {n}" for n in range(len(names))]
    cells = [tables.text(labels.printable(name)) for name in names]
    note = labels.printable(title)
    table = tables.Table("t", note, columns, [cells], notes=[note])
    lines = tables.markdown([table], note).split("\n")
    row = lines[lines.index("|" + "|".join(["---"] * len(names)) + "|") + 1]
    found = re.split(r"(?<!\\)(?:\\\\)*\|", row)
    assert len(found) == len(names) + 2, "no name adds a cell"
    parts = re.findall(r"(?:[^|\\]|\\.)+", row[1:-1])
    told = [re.sub(r"\\(.)", r"\1", part).strip() for part in parts]
    assert told == [one_line(name) for name in names]
    for line in (lines[0][2:], lines[2][3:], *parts, *[line[2:] for line in lines if line.startswith("- ")]):
        assert not set(re.sub(r"\\.", "", line)) & set("|\\`*_<>[]&~$#"), line
    assert not [line for line in lines if re.match(r"- ([-+=]( |$)|\d+[.)]( |$))", line)]


@settings(deadline=None)
@given(TEXT)
def test_latex_has_no_special_character_of_a_name(name):
    written = tables.escape_latex(name)
    assert written.isascii() or all(ord(c) < 0x180 for c in written)
    rest = re.sub(r"\\text[a-z]+\{\}|\$(\\[a-z]+|-)\$|\\dots\{\}|\\[&%$#_{}]|\{\}", "", written)
    assert not set(rest) & set('\\&%$#_{}~^<>|"\n\r\0'), written
    assert ",," not in written, "a quotation mark"
    assert not re.search(r"[?!]`(?!`)", written), "a Spanish mark"


def row_of(names):
    cells = [tables.text(labels.printable(name)) for name in names]
    return tables.Table("runs", "t", ["a"] * len(cells), [cells], notes=[labels.printable(names[0])])


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4))
def test_the_page_gives_every_name_back(names):
    findings = find(Material([], [], [], []))
    title = one_line(names[0])
    html_text = page.render(title, findings, {"runs": row_of(names)}, [], [title], title)
    assert [" ".join(cell.split()) for cell in Cells(html_text).cells] == [one_line(name) for name in names]
    html_text.encode("utf-8")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_report_of_nasty_names_has_them_all(tmp_path):
    """Classes, run folders, data, notes and config values at once."""
    few = [name for name in NASTY if name][:18]
    classes = [f"{name} {k}" for k, name in enumerate(few)]
    matrix = (np.eye(len(classes), dtype=int) * 9 + 1).tolist()
    for n, name in enumerate(("$a_%&<b>\udcff|'\"", "語 🦊\n\x1b[31m#?,")):
        folder = tmp_path / "runs" / name
        folders.write_run(folder, confusion=matrix, data__source="folder:/p/$x_{<&>'\"\x07語\ud800", seed=n)
        test = json.loads((folder / "test.json").read_text())
        test["per_class_accuracy"] = dict.fromkeys(classes, 0.5)
        folders.write_json(folder / "test.json", test)
        summary = json.loads((folder / "summary.json").read_text())
        folders.write_json(folder / "summary.json", summary | {"device": "<&$_%> '\""})
    lines = write.report([tmp_path / "runs"], tmp_path / "out", title="T $_<&>\udcff", command="--x='<&\x00'")
    assert not [line for line in lines if "could not be drawn" in line]
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    cells = {" ".join(cell.split()) for cell in Cells(text).cells}
    assert {one_line(name) for name in classes} <= cells
    assert {one_line(f"runs/{run.folder.name}") for run in read([tmp_path / "runs"]).runs} <= cells
    for svg in (tmp_path / "out" / "plots").glob("*.svg"):
        xml.etree.ElementTree.parse(svg)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        xml.etree.ElementTree.fromstring(svg)
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    shown = "".join(xml.etree.ElementTree.fromstring(f"<a>{drawn}</a>").itertext())
    assert re.search(r'url\(#x\) id="y" #2262b0 \d+', shown), "what is changed in markup is not changed in a name"
    figures = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(figures["runs"]) == 2
    assert "語" in (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:Glyph")
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=2, max_size=4))
def test_a_confusion_matrix_of_classes_of_any_name_is_drawn(tmp_path, names):
    confusion.draw(confusion.Confusion.of(np.array([0, 1]), np.array([0, 0]), len(names)), names, tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_drawn_is_told_and_all_else_is_there(tmp_path, monkeypatch):
    folders.write_run(tmp_path / "run", confusion=[[9, 1], [0, 10]])

    def fail(family):
        raise RuntimeError("no\nfont")

    fail.__name__ = "curves"
    monkeypatch.setattr(charts, "curves", fail)
    lines = write.report([tmp_path / "run"], tmp_path / "out", command="")
    assert "  A picture (curves) could not be drawn: RuntimeError: no font" in lines
    assert len(list((tmp_path / "out" / "plots").glob("*.svg"))) >= 2
    assert "could not be drawn" in (tmp_path / "out" / "report.html").read_text()
