"""`results/bad_input.md`: what became of wrong configs and damaged files, by kind."""

import collections
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from tests.bad_input.outcome import ACCEPTED, DEFECT, REFUSED

Told = tuple[str, str, str, str]  # the kind, the case in words, what became of it, and why
STATES = (REFUSED, ACCEPTED, DEFECT)


def counted(told: Iterable[Told], command: str) -> dict[str, Any]:
    """The record of a command: how many cases of each kind were refused, accepted, and defects."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for kind, _, state, _ in told:
        counts[kind][STATES.index(state)] += 1
    return {"command": command, "counts": counts}


def kept(file: pathlib.Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """All records of a file, with one more, which takes the place of an earlier one of the same command."""
    lines = file.read_text().splitlines() if file.exists() else []
    records = [each for each in map(json.loads, lines) if each["command"] != record["command"]] + [record]
    file.write_text("".join(json.dumps(each) + "\n" for each in records))
    return records


def summed(records: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """The counts of each kind over all records, each case once.

    Cases of a kind come one after the other from their seed: of two commands with one seed, such as `--only=facts` and
    `--only=ONNX`, the shorter one made the first cases of the longer one again. The longer one counts; of equals, the
    later one.
    """
    drawn: dict[tuple[str, ...], list[int]] = {}
    for record in records:
        flags = [flag for flag in record["command"].split() if flag.startswith(("--seed=", "--images="))]
        for kind, of in record["counts"].items():
            place = (kind, *(flags or [record["command"]]))
            if sum(of) >= sum(drawn.get(place, ())):
                drawn[place] = of
    counts: dict[str, list[int]] = {}
    for (kind, *_), of in drawn.items():
        counts[kind] = [one + two for one, two in zip(counts.get(kind, (0, 0, 0)), of, strict=True)]
    return counts


def page(told: Iterable[Told], command: str = "", *records: dict[str, Any]) -> str:
    """What became of all cases, of a command and of the records of others, in Markdown."""
    whole = [*records, *([counted(told, command)] if command else [])]
    counts = summed(whole)
    lines = [
        "# Bad input",
        "",
        f"{sum(map(sum, counts.values()))} wrong configs and damaged files. A damaged file may be read all the same: "
        "what is damaged may not be needed, or be another sound value.",
        "",
        "| what | cases | refused in one line | accepted | defects |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [f"| {kind} | {sum(of)} | {' | '.join(map(str, of))} |" for kind, of in counts.items()]
    made = ", ".join(f"`{record['command']}`" for record in whole)
    note = " `--images` names a folder of odd images that is not part of the repository." if "--images" in made else ""
    return "\n".join([*lines, "", f"Made by {made}.{note}", ""])
