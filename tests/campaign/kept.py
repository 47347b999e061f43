"""The outcomes behind `results/faults.md`, kept beside it from one campaign to the next, a line for each trial."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

Outcome = dict[str, Any]
EARLIER = "earlier"  # marks counts of a page whose outcomes were not kept


def added(file: pathlib.Path, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """All outcomes, those of the file first, and the counts of earlier pages; what is new is written to the file."""
    lines = file.read_text().splitlines() if file.exists() else []
    there = [json.loads(line) for line in lines]
    new = [json.dumps(_short(each)) for each in outcomes]
    lines += [line for line in new if line not in set(lines)]
    file.write_text("".join(line + "\n" for line in lines))
    whole = [json.loads(line) for line in lines]
    assert whole[: len(there)] == there
    return [each for each in whole if EARLIER not in each], [each for each in whole if EARLIER in each]


def _short(outcome: Outcome) -> Outcome:
    """An outcome without the output of what went wrong, which names folders of a machine."""
    faults = [
        {name: value for name, value in fault.items() if name not in ("output", "said")} for fault in outcome["faults"]
    ]
    return {name: value for name, value in outcome.items() if name != "output"} | {"faults": faults}
