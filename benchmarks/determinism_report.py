"""The report of `benchmarks.determinism`: where runs differ, and the section of the Markdown file."""

from typing import Any

from benchmarks import report

PAIRS = (
    ("two starts", "first", "second"),
    ("stopped and resumed", "first", "resumed"),
    ("two starts without the flag", "plain-first", "plain-second"),
)


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The arrays whose CRC-32 differs, and the step of the first record that differs; None if all are equal."""
    names = sorted(one["arrays"].keys() | other["arrays"].keys())
    arrays = [name for name in names if one["arrays"].get(name) != other["arrays"].get(name)]
    longest = max(len(one["records"]), len(other["records"]))
    both = [(each["records"] + [{}] * longest)[:longest] for each in (one, other)]
    steps = [(a or b).get("step") for a, b in zip(*both, strict=True) if a != b]
    return {
        "equal": not arrays and not steps,
        "arrays": len(names),
        "differing_arrays": arrays,
        "records": longest,
        "differing_records": len(steps),
        "first_differing_step": steps[0] if steps else None,
    }


def pairs(made: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs of runs that were made, each with the places where they differ."""
    return [{"pair": name} | difference(made[a], made[b]) for name, a, b in PAIRS if a in made and b in made]


def table(record: dict[str, Any]) -> str:
    """A Markdown table with a row for each pair."""
    rows = []
    for pair in record["pairs"]:
        arrays = f"{len(pair['differing_arrays'])} of {pair['arrays']}"
        records = f"{pair['differing_records']} of {pair['records']}"
        first = "-" if pair["first_differing_step"] is None else f"{pair['first_differing_step']}"
        rows.append([pair["pair"], "equal" if pair["equal"] else "not equal", arrays, records, first])
    return report.table(["", "bits", "arrays that differ", "records that differ", "first at step"], rows)


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file."""
    text = (
        f"Each start of `jaxcnn.main {' '.join(record['run'])}` had an empty cache of compiled programs. *Arrays* are "
        "those of the last checkpoint, by CRC-32; *records* the lines of `metrics.jsonl` without times. "
        f"All but those without the flag had `{record['flag']}`."
    )
    speeds = [
        [name, f"{made['steps']}", _listed(made["stopped_at"]), report.figure(made["images_per_second"])]
        for name, made in record["starts"].items()
    ]
    of_speed = report.table(["run", "steps", "stopped after", "images/s"], speeds)
    return "\n\n".join(["## Equal bits", report.describe(record), text, table(record), of_speed])


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "-"
