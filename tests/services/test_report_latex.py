"""The report's LaTeX tables compile as they are."""

import shutil
import subprocess

import pytest

from jaxcnn.reporting import tables, write
from tests import report_folders as folders

pytestmark = pytest.mark.services


def compiled(tex, folder) -> str:
    """The log of pdflatex."""
    assert shutil.which("pdflatex"), "make test-services installs LaTeX"
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={folder}", tex]
    done = subprocess.run(command, capture_output=True, timeout=240)
    log = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, log[-3000:]
    assert (folder / "tables.pdf").read_bytes().startswith(b"%PDF")
    return log


def test_whatever_words_there_are_compile(tmp_path):
    letters = "".join(map(chr, range(0x20, 0x250)))
    words = [letters, "a\x1b[31mred\x1b[0m\x00\x07", "[0.1, 0.2]", "*", "-- ,, '' `` ?` !` << >>", "語 🙂 Ħ ŧ ŉ ĸ"]
    rows = [[tables.text(one, strong=strong), tables.text(one)] for one in words for strong in (False, True)]
    made = [
        tables.Table("words", one, [one, "b"], rows, notes=words, numeric=frozenset({"b"})) for one in ("[a]", letters)
    ]
    (tmp_path / "tables.tex").write_text(tables.latex(made, letters), encoding="utf-8")
    log = compiled(tmp_path / "tables.tex", tmp_path)
    assert "Missing character" not in log


@pytest.mark.parametrize("kind", ["a sweep", "results kept here", "a run that has just begun"])
def test_tables_compile(kind, root, tmp_path):
    folder = tmp_path / "run"
    if kind == "a sweep":
        folders.write_sweep(folder)
    elif kind == "results kept here":
        folder = root / "results"
    else:
        folders.write_json(folder / "config.json", folders.config())
    write.report([folder], tmp_path / "out", best_on_test=True, command="python -m jaxcnn.report --best_on_test …")
    log = compiled(tmp_path / "out" / "tables.tex", tmp_path)
    assert "Missing character" not in log
