"""The figures of `benchmarks.population`: the times of trials one after another, and as a population."""

import dataclasses
import statistics
from typing import Any

from benchmarks import report

ALONE = "one after another"


@dataclasses.dataclass(frozen=True)
class Swept:
    """A finished sweep.

    Attributes:
      rows: the contents of `trial.json` of its trials.
      seconds: time of the whole command: start, compilation, timing the ways of a population, steps, evaluation, files.
      said: the lines of the log about its populations.
      environment: the contents of `environment.json`.
    """

    rows: list[dict[str, Any]]
    seconds: float
    said: list[str]
    environment: dict[str, Any]

    def parts(self) -> dict[str, float]:
        """Seconds of the whole command, and seconds of its parts, summed over the trials."""
        names = ("train_seconds", "compile_seconds", "eval_seconds")
        return {"total_seconds": self.seconds} | {name: sum(row[name] for row in self.rows) for name in names}


def describe(swept: Swept) -> str:
    """The seconds as one line of text."""
    parts = swept.parts()
    return (
        f"{parts['total_seconds']:.1f} s in total: steps {parts['train_seconds']:.1f}, compiling "
        f"{parts['compile_seconds']:.1f}, evaluation {parts['eval_seconds']:.1f}"
    )


def figures(found: dict[str, dict[str, list[Swept]]]) -> dict[str, Any]:
    """Medians over the rounds, by case and way, and the speed relative to one after another in the same round."""
    cases = {}
    for case, ways in found.items():
        rounds = {way: [swept.parts() for swept in each] for way, each in ways.items()}
        cases[case] = {
            "trials": len(ways[ALONE][0].rows),
            "ways": {way: _of_way(each, rounds[ALONE], ways[way][-1].said) for way, each in rounds.items()},
        }
    return {"rounds": len(next(iter(found.values()))[ALONE]), "cases": cases}


def _of_way(rounds: list[dict[str, float]], alone: list[dict[str, float]], said: list[str]) -> dict[str, Any]:
    ratios = {
        name: [other[name] / one[name] for one, other in zip(rounds, alone, strict=True)]
        for name in ("total_seconds", "train_seconds")
    }
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return medians | {"rounds": rounds, "ratios": ratios, "said": said}


def table(record: dict[str, Any]) -> str:
    """A Markdown table with a row for each case and way."""
    rows = []
    for case, facts in record["cases"].items():
        for way, its in facts["ways"].items():
            seconds = [its[key] for key in ("total_seconds", "train_seconds", "compile_seconds")]
            if way == ALONE:
                name, ratios = f"{case}: {facts['trials']} trials, {way}", ["", ""]
            else:
                name = f"{case}: population, {way}"
                ratios = [_ratio(its["ratios"][key]) for key in ("total_seconds", "train_seconds")]
            rows.append([name, *(f"{value:.1f}" for value in seconds), *ratios])
    heads = ["trials", "total, s", "steps, s", "compiling, s", "speed, total", "speed, steps"]
    return report.table(heads, rows)


def _ratio(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement, a table, and the ways that were chosen."""
    text = (
        f"Sweeps of `configs/sweeps/population.py`: medians of {record['rounds']} rounds in which the ways take turns, "
        "each a command in a process of its own with an empty cache of compiled programs. *Total* is the time of the "
        "whole command; *compiling* includes the measurement by which the way of a population is chosen. Speeds are "
        "those of the population over those of the trials one after another, in the same round (least to most)."
    )
    cases = record["cases"].items()
    said = [f"- {case}: {line}" for case, facts in cases for its in facts["ways"].values() for line in its["said"]]
    parts = ["## Populations", report.describe(record), text, table(record)]
    return "\n\n".join([*parts, "What was chosen in the last round, and why:\n\n" + "\n".join(said)] if said else parts)
