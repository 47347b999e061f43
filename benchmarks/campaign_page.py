"""The pages of a campaign: `campaign.json` with all figures, and `campaign.md` to read."""

import datetime
import pathlib
import re
import shlex
import sys
from typing import Any

from benchmarks import report
from benchmarks.campaign_run import DONE, Campaign, in_words, read_json
from jaxcnn.machine import whole_files
from jaxcnn.train.workdir import write_json

JSON, MARKDOWN = "campaign.json", "campaign.md"
_MARK = re.compile(r"<!-- (?:begin|end) [\w-]+ -->\n?")
_HEAD = re.compile(r"^(#+) ", re.MULTILINE)
OF_SUMMARY = {
    "model": "network",
    "data": "data",
    "device": "devices",
    "steps": "steps",
    "compile_seconds": "seconds to compile",
    "train_seconds": "seconds of steps",
    "wall_seconds": "seconds in all",
}


def write(campaign: Campaign, *, small: bool) -> tuple[pathlib.Path, pathlib.Path]:
    """Write both files; return their paths."""
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.campaign", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "small": small,
        "machine": campaign.machine,
        "parts": [part_of(campaign, number) for number in range(len(campaign.parts))],
    }
    paths = campaign.options.folder / JSON, campaign.options.folder / MARKDOWN
    write_json(paths[0], record)
    whole_files.write(paths[1], markdown(record, campaign.options.folder).encode(errors="backslashreplace"))
    return paths


def part_of(campaign: Campaign, number: int) -> dict[str, Any]:
    """The record of a part: its state, and its result as far as there is one."""
    part = campaign.parts[number]
    state = campaign.states[part.name]
    begun = "identity" in state
    result = read_json(campaign.options.folder / part.name / part.result) if begun else None
    return {"name": part.name, "title": part.title, "page": part.page, **state, "result": result}


def markdown(record: dict[str, Any], folder: pathlib.Path) -> str:
    """The page: the machine, the state of each part, and the figures of each part that has some."""
    parts = ["# What was measured on one machine", f"{record['date'][:10]}.\n\n    {record['command']}"]
    if record["small"]:
        parts.append("**Small networks and few images, to try the campaign: no figure here means anything.**")
    parts += [machine_table(record["machine"]), "## Parts", standing(record["parts"])]
    for part in record["parts"]:
        parts.append(f"## {part['title']}")
        if part["result"] is None:
            parts.append(f"Not measured: {part['why']}.")
            continue
        if part["state"] != DONE:
            parts.append(f"**Not complete: {in_words(part)}.**")
        if (facts := _other_machine(part["machine"], record["machine"])) is not None:
            parts.append(f"On another machine than the one above: {facts}.")
        if len(commits := part.get("commits", [])) > 1:
            parts.append(f"Measured in parts, with the sources of several commits: {', '.join(commits)}.")
        page = folder / part["name"] / part["page"]
        if part["page"] and page.is_file():
            parts.append(embedded(page))  # that page has the command
        else:
            parts += [f"    {shlex.join(part['command'])}", of_summary(part["result"])]
    return "\n\n".join(parts) + "\n"


def machine_table(machine: dict[str, Any]) -> str:
    """The facts of the machine."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    rows = [
        ["device", f"{machine['devices']} x {machine['device']}"],
        *(
            [f"GPU {number}", ", ".join(f"{k} {v}" for k, v in gpu.items())]
            for number, gpu in enumerate(machine["gpus"])
        ),
        ["processor", f"{machine['cores']} cores of {machine['processor']}"],
        ["system", machine["platform"]],
        ["Python", machine["python"]],
        ["packages", packages],
        ["commit", str(machine["commit"])],
        ["XLA_FLAGS", machine["xla_flags"] or "none"],
    ]
    return report.table(["machine", ""], rows, figures=())


def standing(parts: list[dict[str, Any]]) -> str:
    """A table of the state of each part."""
    rows = [[part["name"], part["state"], _minutes(part), part["why"] or "-"] for part in parts]
    return report.table(["part", "state", "minutes", "why"], rows, figures=(2,))


def embedded(page: pathlib.Path) -> str:
    """The Markdown that a part wrote, without its title, with headings below those of this page."""
    text = _MARK.sub("", page.read_text(encoding="utf-8").removeprefix(report.TITLE)).strip()
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)  # its pictures are in another folder
    return _HEAD.sub(lambda head: "#" * min(6, len(head[1]) + 2) + " ", text)


def of_summary(summary: dict[str, Any]) -> str:
    """A table of the figures of a run."""
    rows = []
    for key, title in OF_SUMMARY.items():
        value = summary.get(key)
        rows.append([title, f"{value:.1f}" if isinstance(value, float) else str(value)])
    return report.table(["run", ""], rows, figures=())


def _minutes(part: dict[str, Any]) -> str:
    return f"{part['seconds'] / 60:.1f}" if part.get("seconds") else "-"


def _other_machine(of_part: dict[str, Any], here: dict[str, Any]) -> str | None:
    """A line on the machine of a part, if it is not this one."""
    names = ("device", "processor", "cores", "packages", "gpus", "commit")
    if all(of_part.get(name) == here.get(name) for name in names):
        return None
    drivers = ", ".join(gpu.get("driver_version", "") for gpu in of_part.get("gpus", []))
    machine = f"{of_part.get('device')}, {of_part.get('cores')} cores of {of_part.get('processor')}"
    jax = of_part.get("packages", {}).get("jax")
    return f"{machine}{f', driver {drivers}' if drivers else ''}, jax {jax}, commit {of_part.get('commit')}"
