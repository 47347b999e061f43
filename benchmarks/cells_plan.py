"""The plan of `benchmarks.cells`, from the costs in short runs, and the section of the Markdown file."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import report

EVALUATIONS = 20  # most validations of a run


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network in seconds, from a short run.

    Attributes:
      start: from the command to the first step, and from the last one to the end of the process, without tests.
      epoch: the steps of an epoch.
      evaluation, test: one validation, and the test at the end.
    """

    start: float
    epoch: float
    evaluation: float
    test: float

    def of_run(self, epochs: float) -> float:
        """The seconds of a run of this length."""
        return self.start + epochs * self.epoch + min(epochs, EVALUATIONS) * self.evaluation + self.test


def cost(figures: dict[str, Any]) -> Cost:
    """The cost of a network, from the summary of its short run, which was validated once."""
    inside = figures["train_seconds"] + figures["eval_seconds"] + figures["test_seconds"]
    return Cost(
        start=figures["wall_seconds"] - inside,
        epoch=figures["train_seconds"] / figures["epochs"],
        evaluation=figures["eval_seconds"],
        test=figures["test_seconds"],
    )


def choose(costs: Sequence[Cost], sets: int, seconds: float, most: float, most_seeds: int) -> tuple[float, int]:
    """The number of epochs and of seeds for all networks on each set; 0 epochs if not even one fits."""

    def needed(epochs: float) -> float:
        return sets * sum(each.of_run(epochs) for each in costs)

    if needed(most) <= seconds:
        return most, min(most_seeds, int(seconds / needed(most)))
    fitting = (epochs for epochs in range(int(most), 0, -1) if needed(epochs) <= seconds)
    return float(next(fitting, 0)), 1


def described(plan: dict[str, Any]) -> str:
    """How the length was chosen, in one or two sentences."""
    steps = ", ".join(f"{model} {each['epoch']:.2f} s" for model, each in plan["costs"].items())
    return (
        f"{plan['epochs']:g} epochs, {plan['seeds']} seed{'' if plan['seeds'] == 1 else 's'}: what fits into "
        f"{plan['minutes']:g} minutes by short runs of {plan['probe_steps']} steps, {plan['probe_seconds']:.0f} s in "
        f"all. An epoch takes: {steps}."
    ) + (
        f" {max(plan['seeds'], plan['together_seeds'])} seeds of {' and '.join(plan['together'])} are trained together."
        if plan.get("together")
        else ""
    )


def table(record: dict[str, Any]) -> str:
    """A Markdown table with a row for each cell, also those not trained yet."""
    rows = []
    for model in record["models"]:
        for name in record["sets"]:
            of_cell = [each["summary"] for each in record["runs"] if (each["model"], each["set"]) == (model, name)]
            if not of_cell:
                rows.append([f"{model}, {name}", "not trained yet", *["-"] * 5])
                continue
            tested = [100 * each["test"][each["headline"]] for each in of_cell]
            validated = [100 * each["val_last"] for each in of_cell if each["val_last"] is not None]
            seconds = statistics.median(each["train_seconds"] for each in of_cell)
            speed = statistics.median(each["images_per_second"] for each in of_cell)
            figures = [_spread(tested), _spread(validated), f"{len(of_cell)}", f"{of_cell[0]['epochs']:g}"]
            rows.append([f"{model}, {name}", *figures, report.figure(seconds), report.figure(speed)])
    heads = ["cell", "test accuracy, %", "validation, %", "n", "epochs", "seconds of training", "images/s"]
    return report.table(heads, rows)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file."""
    config = "configs/<model>_<set>.py" + (f":{record['variant']}" if record["variant"] else "")
    text = (
        f"Runs of `{config}`; ± is the standard deviation over n seeds. Validation examples are held out "
        "of training; the test split was read once, at the end of each run, and nothing was chosen by it. Seconds and "
        "images/s are those of one run; runs of a population share the time of their steps."
    )
    parts = ["## Networks and sets", report.describe(record), text]
    parts += [described(record["plan"])] if record["plan"] else []
    return "\n\n".join([*parts, table(record), *(f"Failed: {line}" for line in record["failed"])])
