"""`results/endurance.md`: what many steps and many requests took, first and last."""

import os
import platform
from typing import Any

from tests.endurance.samples import MEMORY, SLOWER, TENTHS

ROWS = {  # name, what, and how it is written
    "memory": ("resident memory, MiB", lambda value: f"{value / 2**20:.1f}"),
    "files": ("open files", str),
    "threads": ("threads", str),
    "per_second": ("{} per second", lambda value: f"{value:.1f}"),
    "processor": ("processor time of one, ms", lambda value: f"{1000 * value:.3f}"),
}
WHAT = {"steps": "Training steps", "requests": "Requests"}


def page(record: dict[str, Any]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Endurance",
        "",
        "A process that makes many steps, and a server that gets many requests. Memory may grow by "
        f"{MEMORY:.0%} from the second tenth of the work to the last, open files not at all, threads not after the "
        f"fifth tenth. A step or request of the last tenth may take {SLOWER:.0%} more processor time than one of the "
        "second. What is made per second also depends on what else the machine had to do.",
    ]
    for name, what in WHAT.items():
        if not (told := record.get(name, {}).get("figures")):
            continue
        lines += ["", f"## {what}", "", f"{told['done']} {name} in {told['seconds']:.0f} s.", ""]
        tenths = [tenth for tenth in TENTHS if tenth in told]  # older records have no fifth
        lines += [f"| | {' | '.join(f'{tenth} tenth' for tenth in tenths)} |", "|---|" + "---:|" * len(tenths)]
        for row, (title, written) in ROWS.items():
            cells = (written(told[tenth][row]) for tenth in tenths)
            lines.append(f"| {title.format(name)} | {' | '.join(cells)} |")
        wrong = record[name]["wrong"]
        lines += ["", *([f"- wrong: {each}" for each in wrong] or ["Nothing grew, became slower or was wrong."])]
    made = f"Made by `{record['command']}` on {platform.machine()}, {os.cpu_count()} cores."
    return "\n".join([*lines, "", f"{made} How: [Reliability](../docs/reliability.md).", ""])
