"""The page is one sound file that needs no network; beside it stand the same figures as tables, pictures and JSON."""

import html.parser
import json
import re
import shutil
import xml.etree.ElementTree

import pytest

from jaxcnn.config import UserError
from jaxcnn.reporting import charts, effect_charts, page, plots, tables, write
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from tests import report_folders as folders
from tests import runs as processes

VOID = {"meta", "link", "br", "img", "input", "hr"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(html.parser.HTMLParser):
    """A strict reading of a page: unbalanced tags are errors; ids, links and text are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def make(out, *paths, **options) -> tuple[str, dict]:
    write.report(list(paths), out, command="python -m jaxcnn.report …", **options)
    return (out / "report.html").read_text(), json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("report")
    folders.write_sweep(base / "sweep")
    rows = [{"mode": "strong", "devices": d, "images_per_second": 100.0 * d**0.9} for d in (1, 2, 4)]
    folders.write_json(base / "scaling" / "scaling.json", {"rows": rows})
    return base / "out", *make(base / "out", base / "sweep", base / "scaling")


def test_the_page_is_well_formed_and_its_links_lead_somewhere(made):
    page = Page(made[1])
    assert len(page.ids) == len(set(page.ids))
    inner = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value[:1] == "#"]
    assert inner
    assert set(inner) <= set(page.ids)
    used = set(re.findall(r"url\(#([^)]*)\)", made[1]))
    assert used <= set(page.ids)
    described = [value for _, name, value in page.attributes if name == "aria-labelledby"]
    assert set(described) <= set(page.ids)


def test_the_page_asks_the_network_for_nothing(made):
    page = Page(made[1])
    loaded = [
        (tag, name, value)
        for tag, name, value in page.attributes
        if name in ("src", "href", "xlink:href", "srcset", "data", "action") and tag != "a"
    ]
    assert all(value.startswith(("#", "data:")) for _, _, value in loaded)
    assert "@import" not in made[1]
    assert not re.search(r"url\((?!#)", made[1])
    assert "default-src 'none'" in made[1]
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", made[1])


def test_every_section_and_picture_is_there_for_eyes_and_ears(made):
    page = Page(made[1])
    names = {plot for plot in page.ids if (made[0] / "plots" / f"{plot}.svg").exists()}
    kinds = {name.split("-")[0] for name in names}
    assert kinds >= {"beside", "ranking", "effect", "grid", "curves", "time", "pareto", "speed", "confusion"}
    pictures = [(name, value) for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(pictures) == len(names) == len(list((made[0] / "plots").glob("*.svg")))
    for name in ("results", "settings", "effects", "curves", "times", "scaling", "confusion", "missing", "runs"):
        assert name in page.ids


def test_pictures_follow_the_theme_in_the_page_and_are_plain_beside_it(made):
    out, page, _ = made
    inline = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for svg in inline:
        assert "var(--ink)" in svg
        assert not re.search(r"(fill|stroke): #(?!fff)", svg)
    for path in (out / "plots").glob("*.svg"):
        xml.etree.ElementTree.parse(path)
        assert "var(--" not in path.read_text()
        assert (path.with_suffix(".png")).read_bytes().startswith(PNG)
    for name in plots.COLOURS:
        assert page.count(f"--{name}:") == 4 if name.startswith("series") else page.count(f"--{name}:") >= 3


def test_ticks_are_numbers_and_no_markup(made):
    assert "mathdefault" not in made[1]


def test_the_json_has_the_figures_of_the_page(made):
    out, page, figures = made
    (family,) = figures["families"]
    chosen = figures["settings"][family["chosen"]]
    assert chosen["varied"] == {"global_batch_size": 64, "optim.learning_rate": 0.1}
    assert chosen["validation"] == {
        "mean": pytest.approx(0.931), "std": pytest.approx(0.001), "n": 3, "values": [0.93, 0.931, 0.932],
    }  # fmt: skip
    assert "93.10 ± 0.10" in page
    assert [run["state"] for run in figures["runs"]].count("complete") == 7
    assert len(figures["missing"]) == 3
    assert figures["scaling"][0]["curves"]["strong scaling"][2]["devices"] == 4
    assert (out / "tables.md").read_text().count("93.10 ± 0.10") >= 2


def test_the_json_has_what_the_pictures_show(made):
    _, _, figures = made
    run = figures["runs"][0]
    assert run["training_loss_curve"] == [[1.0, 2.0], [2.0, 1.0], [3.0, pytest.approx(2 / 3)]]
    assert [epoch for epoch, _, _ in run["validation_curve"]] == [1.0, 2.0, 3.0]


def test_pictures_and_tables_of_names_that_read_alike_stand_beside_each_other(tmp_path):
    splits = ("train[:10%]", "train[10%:]")
    for split in splits:
        for source in ("folder:/д", "folder:/ж"):
            for rate in (0.1, 0.2, 0.3):
                folder = tmp_path / "runs" / f"{splits.index(split)} {source[-1]} {rate}"
                changes = {"data__train_split": split, "data__source": source, "optim__learning_rate": rate}
                folders.write_run(folder, confusion=[[9, 1], [0, 10]], **changes)
    page, figures = make(tmp_path / "out", tmp_path / "runs")
    ids = Page(page).ids
    assert len(ids) == len(set(ids))
    for kind in ("effect-learning-rate", "ranking", "curves", "confusion"):
        assert len([path for path in (tmp_path / "out" / "plots").glob(f"{kind}*.svg")]) == 4, kind
    assert len([name for name in figures["tables"] if name.startswith("classes-")]) == 4


def test_a_sweep_of_which_nothing_has_begun_makes_a_page_and_one_of_random_numbers_has_pictures(tmp_path):
    empty = folders.write_sweep(tmp_path / "empty")
    shutil.rmtree(empty / "trials")
    page, figures = make(tmp_path / "none", empty)
    Page(page)
    assert "14 planned trials have not started." in page
    assert (figures["runs"], len(figures["missing"])) == ([], 14)
    for number, rate in enumerate((0.011, 0.043, 0.12, 0.3)):
        folders.write_run(tmp_path / "random" / str(number), optim__learning_rate=rate, optim__weight_decay=rate**2)
    page, _ = make(tmp_path / "out", tmp_path / "random")
    assert "scatter-learning-rate-vgg16-on-cifar-10" in Page(page).ids
    assert "scatter-weight-decay-vgg16-on-cifar-10" in Page(page).ids


def test_the_best_of_every_line_is_marked(tmp_path):
    with plots.style():
        findings = find(read([folders.write_sweep(tmp_path / "sweep")]))
        plot = effect_charts.key_effect(findings.effects[0])
    stars = [line for line in plot.figure.axes[0].lines if line.get_marker() == "*"]
    assert len(findings.effects[0].lines) == len(stars) == 2
    chosen, other = sorted(stars, key=lambda line: -float(line.get_ydata()[0]))
    assert chosen.get_markerfacecolor() != plots.SURFACE
    assert other.get_markerfacecolor() == plots.SURFACE
    assert float(other.get_xdata()[0]) == 64, "the better of the two batch sizes at that rate"


def test_words_from_runs_are_shown_and_never_obeyed(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    trial = folder / "trials" / "0012" / "trial.json"
    evil = "<script>alert(1)</script> & | $x_1$ \\ é 語"
    trial.write_text(json.dumps(json.loads(trial.read_text()) | {"reason": evil}))
    page, _ = make(tmp_path / "out", folder, title=evil)
    assert evil in " ".join(Page(page).text)
    assert "<script>alert" not in page
    tex = (tmp_path / "out" / "tables.tex").read_text()
    assert r"\$x\_1\$ \textbackslash{} é [U+8A9E]" in tex
    assert r"\<script\>" in (tmp_path / "out" / "tables.md").read_text()


def test_commands_are_broken_between_words_and_keep_their_letters():
    marked = page._in_words("jaxcnn --a=1 '--b=<c> d'")
    assert marked.count('<span class="word">') == 4 and "<c>" not in marked
    assert marked.striptags() == "jaxcnn --a=1 '--b=<c> d'"


@pytest.mark.parametrize(
    "kind", ["one run", "a run that has just begun", "no validation", "no test split", "2 classes"]
)
def test_whatever_there_is_makes_a_page(kind, tmp_path):
    folder = tmp_path / "run"
    if kind == "one run":
        folders.write_run(folder, confusion=[[9, 1], [0, 10]])
    elif kind == "a run that has just begun":
        folders.write_json(folder / "config.json", folders.config())
    elif kind == "no validation":
        folders.write_run(folder, val=None)
    elif kind == "no test split":
        folders.write_run(folder, test=None)
    else:
        folders.write_run(folder, confusion=[[3, 0], [1, 2]], data__source="folder:/my/photos", model__name="cnn")
    page, figures = make(tmp_path / "out", folder)
    Page(page)
    assert len(figures["runs"]) == 1
    assert r"\end{document}" in (tmp_path / "out" / "tables.tex").read_text()


def test_a_confusion_matrix_of_many_classes_is_drawn(tmp_path):
    matrix = [[90 * (i == j) + (i + j) % 2 for j in range(100)] for i in range(100)]
    folder = folders.write_run(tmp_path / "run", confusion=matrix, data__source="tfds:cifar100")
    page, _ = make(tmp_path / "out", folder)
    assert "confusion-vgg16-on-cifar-100" in Page(page).ids
    assert "80 better classes left out" in page


def test_a_later_report_leaves_no_picture_of_an_earlier_one(tmp_path):
    make(tmp_path / "out", folders.write_sweep(tmp_path / "sweep"))
    before = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    make(tmp_path / "out", folders.write_run(tmp_path / "run"))
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} < before


def test_the_same_folders_give_the_same_pictures_to_the_byte(tmp_path):
    with plots.style():
        findings = find(read([folders.write_sweep(tmp_path / "sweep")]))
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir()
            for draw in charts.charts(findings):
                plots.save(draw(), folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_latex_is_escaped_and_balanced(made):
    tex = (made[0] / "tables.tex").read_text()
    for environment in ("document", "table", "tabular"):
        assert tex.count(rf"\begin{{{environment}}}") == tex.count(rf"\end{{{environment}}}") > 0
    assert tex.count(r"\toprule") == tex.count(r"\midrule") == tex.count(r"\bottomrule") > 5
    assert not re.search(r"(?<!\\)[%&](?!.*\\\\)", tex.split(r"\begin{document}")[1].replace("{!}{%", ""))
    assert tables.escape_latex("a--b 5% ± _") == r"a-{}-b 5\% $\pm$ \_"
    assert tables.escape_latex("a\x1b[31m é Ħ 語") == "a[U+001B][31m é [U+0126] [U+8A9E]"


@pytest.mark.parametrize("first", ["[tab]", "*star"])
def test_a_row_that_begins_like_an_argument_of_the_line_before_is_none(first):
    rows = [[tables.text(first), tables.text("x")]] * 2
    tex = tables.latex([tables.Table("t", "Title", [first, "b"], rows)], "title")
    assert tex.count("{}" + first) == 3
    assert not re.search(r"(\\\\|rule)\n[\[*]", tex)


def test_an_out_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out="):
        make(tmp_path / "file" / "out", folders.write_run(tmp_path / "run"))


def test_the_command_reports_and_its_mistakes_are_one_line_each(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    code, output = processes.run(str(folder), module="jaxcnn.report")
    assert code == 0, output
    assert output.startswith("7 of 11 runs finished, 5 settings\n")
    assert (folder / "report" / "report.html").exists()
    (tmp_path / "empty").mkdir()
    code, output = processes.run(str(tmp_path / "empty"), module="jaxcnn.report")
    assert (code, output.count("\n")) == (2, 1)
    assert f"{tmp_path}/empty contains no run" in output
    code, output = processes.run(module="jaxcnn.report")
    assert (code, output.count("\n")) == (2, 1)


def test_a_report_needs_no_jax(tmp_path):
    folder = folders.write_run(tmp_path / "run", confusion=[[1, 0], [0, 1]])
    code = f"""
import pathlib, sys
from jaxcnn.reporting import write
write.report([pathlib.Path({str(folder)!r})], pathlib.Path({str(tmp_path / "out")!r}), command="")
assert not {{"jax", "tensorflow", "optuna"}} & set(sys.modules)
"""
    done = processes.subprocess.run([processes.sys.executable, "-c", code], cwd=processes.ROOT, timeout=120)
    assert done.returncode == 0
