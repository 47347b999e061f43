"""The two result files of the benchmarks: JSON with all figures, and Markdown with a section for each command."""

import datetime
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import whole_files

TITLE = "# Benchmarks\n\njaxcnn beside its peers, in turns on one machine. Each command rewrites its own section."


def check_out(stem: str) -> pathlib.Path:
    """Check the common path of the two files before any work; return it without a suffix.

    Raises:
      UserError: its folder does not exist, or an existing file does not hold benchmarks.
    """
    path = pathlib.Path(stem)
    if path.suffix in (".json", ".md"):
        path = path.with_suffix("")
    if not path.parent.is_dir():
        raise UserError(f"--out={stem}: there is no folder {path.parent}")
    _read(path)
    return path


def write(out: pathlib.Path, section: str, record: dict[str, Any], markdown: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Write a section into `<out>.json` and `<out>.md`, replacing the section of that name; return both paths."""
    text, sections = _read(out)
    begin, end = _marks(section)
    block = f"{begin}\n{markdown.strip()}\n{end}"
    old = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text = old.sub(lambda _: block, text) if old.search(text) else f"{text.rstrip()}\n\n{block}\n"
    paths = out.with_name(out.name + ".json"), out.with_name(out.name + ".md")
    for path, content in zip(paths, (json.dumps(sections | {section: record}, indent=2) + "\n", text), strict=True):
        whole_files.write(path, content)
    return paths


def _marks(section: str) -> tuple[str, str]:
    return f"<!-- begin {section} -->", f"<!-- end {section} -->"


def _read(out: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """The present Markdown text and the sections of the JSON; for new files, their initial contents."""
    markdown, data = out.with_name(out.name + ".md"), out.with_name(out.name + ".json")
    text = markdown.read_text(encoding="utf-8") if markdown.exists() else TITLE
    if not data.exists():
        return text, {}
    try:
        sections = json.loads(data.read_text(encoding="utf-8"))
    except ValueError:
        sections = None
    if not isinstance(sections, dict):
        raise UserError(f"{data} contains no benchmarks; choose other files with --out")
    return text, sections


def provenance(module: str, facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The date, the command, and the versions and devices of every peer."""
    command = ["python", "-m", module, *sys.argv[1:]]
    return {
        "command": shlex.join(command),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "peers": facts,
    }


def describe(record: dict[str, Any]) -> str:
    """The provenance as a Markdown paragraph, and the command as a code block."""
    ours, theirs = record["peers"].get("jaxcnn", {}), record["peers"].get("torch")
    machine = f"{ours.get('cores')} cores of {ours.get('processor')}"
    if ours.get("backend") != "cpu":
        machine += f", {ours.get('device')}"
    packages = ours.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in ("jaxcnn", "jax", "flax") if packages.get(name)]
    versions.append(f"commit {ours.get('commit')}")
    if theirs:
        versions.append(f"PyTorch {theirs['torch']} ({theirs['threads']} threads, {theirs['cpu_capability']})")
    return f"{record['date'][:10]}, {machine}; {', '.join(versions)}.\n\n    {record['command']}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], figures: Collection[int] | None = None) -> str:
    """A Markdown table; the columns of figures, by default all but the first, are aligned right."""
    rule = [
        "---:" if (number > 0 if figures is None else number in figures) else "---" for number in range(len(header))
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def figure(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, with separators and without an exponent; "-" for None."""
    if value is None:
        return "-"
    rounded = float(f"{value:.{digits}g}")
    magnitude = int(f"{rounded:e}".partition("e")[2])
    if magnitude >= digits:
        return f"{value:,.0f}"
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"
