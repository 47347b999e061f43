"""The texts of a sweep before and after it runs: its plan and its results."""

import pathlib
import shlex
import statistics
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxcnn.config import UserError
from jaxcnn.study import folder as files
from jaxcnn.study import objectives, spec
from jaxcnn.study.folder import Definition
from jaxcnn.study.table import Board, line_of
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import terminal
from jaxcnn.train.drive import Diverged
from jaxcnn.train.logbook import duration

GIB = 2**30
MOST_RANKED = 10


def describe_plan(
    name: str, plan: Any, figures: dict[str, dict[str, Any]], seconds: dict[str, float | None], peak: int, workers: int
) -> list[str | Table]:
    """The plan as text: a summary line, the programs, and the total time and memory.

    Args:
      name: name of the sweep.
      plan: a `plan.Plan`.
      figures: results of `measure.measure`; empty: nothing was measured.
      seconds: seconds of one trial, by program; None if it could not be measured.
      peak: peak host bytes of the measuring process.
      workers: number of workers at the same time.
    """
    from jaxcnn.study.plan import title

    drawn = "" if plan.planned is not None else " among the trials that it can draw"
    trials, programs = _count(plan.trials, "trial"), _count(len(plan.groups), "program")
    remarks = [f"  {plan.remark}"] if plan.remark else []
    lines: list[str | Table] = [f"jaxcnn: sweep {name}: {trials}, {programs}{drawn} ({plan.sampler})", *remarks]
    table = Table(box=None, pad_edge=False)
    for column in ("  program", "trials", "steps", "compile", "step", "trial", "memory"):
        table.add_column(column, justify="left" if "program" in column else "right")
    for group in plan.groups:
        known = figures.get(group.key, {})
        row: list[Any] = [Text(f"  {title(group, plan.groups)}"), str(group.trials), str(group.spec.total_steps)]
        if "error" in known:
            row += [Text(f"cannot run: {known['error']}", style="red")]
        elif known:
            row += [
                f"{known['compile_seconds']:.1f} s",
                f"{1000 * known['step_seconds']:.1f} ms",
                duration(seconds[group.key] or 0.0),
                f"{known['program_bytes'] / GIB:.2f} GiB" if known["program_bytes"] else "?",
            ]
        table.add_row(*row)
    lines.append(table)
    if not figures:
        return [*lines, "  not measured: time and memory are not known"]
    measured = [group for group in plan.groups if "error" not in figures[group.key]]
    if plan.planned is not None:
        total = sum((seconds[group.key] or 0.0) * group.trials for group in measured)
    else:
        shown = sum(group.trials for group in measured)
        total = plan.trained * sum((seconds[group.key] or 0.0) * group.trials for group in measured) / max(1, shown)
    compiling = sum(figures[group.key]["compile_seconds"] for group in measured)
    largest = max((figures[group.key]["program_bytes"] for group in measured), default=0.0)
    lines.append(
        f"  about {duration(total / workers)} of steps and evaluation with {_count(workers, 'worker')} like this one, "
        f"{duration(compiling)} of compiling; "
        f"the largest program needs {largest / GIB:.2f} GiB, the measuring process had {peak / GIB:.2f} GiB at most"
    )
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def show(lines: list[str | Table], console: Console) -> None:
    """Print lines and tables: on a terminal, lines are broken between words, but for commands, which can be copied; in
    a pipe, all have their full width.
    """
    if console.is_terminal:
        lines = [
            terminal.wrapped(line, console.width) if isinstance(line, str) and " python -m " not in line else line
            for line in lines
        ]
    else:
        console = Console(width=200, highlight=False, markup=False, emoji=False, file=console.file)
    for line in lines:
        if isinstance(line, str):
            console.print(line, markup=False, soft_wrap=True)
        else:
            console.print(line)


def summarize(folder: pathlib.Path, definition: Definition, board: Board, study: optuna.Study) -> list[str]:
    """The results of a sweep as text: number of trials, the best one, the Pareto front, failures and their reasons."""
    board.read()
    ended = [trial for trial in board.trials if trial["state"] in files.ENDED]
    counts = [f"{board.count(state)} {state}" for state in files.ENDED if board.count(state)]
    left = board.total - len(ended)
    lines = [
        f"jaxcnn: {folder}: {', '.join(counts) or 'no trial has ended'}"
        + (f"; {left} of {board.total} are left; the same command continues" if left > 0 else "")
    ]
    if len(definition.directions) > 1:
        lines += _front(study, board.figure, list(definition.directions)[1:]) + ranking(board)
    elif best := board.best():
        lines.append(f"  best on validation: {line_of(best, board.figure)}")
        lines += ranking(board)
    for trial in ended:
        if trial["state"] in ("failed", "diverged"):
            lines.append(f"  {line_of(trial, board.figure)}")
    if exit_code(board):
        lines.append("  no trial has a result")
    if board.count("failed", "diverged"):
        lines.append("  --retry=failed runs these trials again")
    if board.count("complete"):
        lines.append(f"  report: python -m jaxcnn.report {shlex.quote(str(folder))}")
    return lines


def ranking(board: Board) -> list[str]:
    """The settings of a sweep, best first by mean headline figure over seeds and folds; none if it has only one."""
    figure = board.figure
    found: dict[str, dict[tuple[int, Any], float]] = {}
    for trial in board.trials:
        value, setting = trial["values"].get(figure.objective), dict(trial["overrides"])
        if trial["state"] == "complete" and value is not None and trial.get("as") is None:
            fold = setting.pop("data.fold", None)
            found.setdefault(spec.describe(setting), {})[trial["seed"], fold] = value
    if len(found) < 2:
        return []
    means = {what: statistics.fmean(values.values()) for what, values in found.items()}
    order = sorted(means, key=lambda what: -figure.score(means[what]))
    several = any(len(values) > 1 for values in found.values())
    folded = any(fold is not None for values in found.values() for _, fold in values)
    noun = "fold" if folded else "seed"
    lines = [f"  ranking by validation {figure.label}{f', mean over {noun}s' * several}:"]
    for place, what in enumerate(order[:MOST_RANKED], start=1):
        seeds = f" ({_count(len(found[what]), noun)})" if several else ""
        lines.append(f"    {place:2}. {figure.shown(means[what]):>7}  {what}{seeds}")
    if len(order) > MOST_RANKED:
        lines.append(f"        and {len(order) - MOST_RANKED} more, which the report has")
    return lines


def exit_code(board: Board) -> int:
    """The exit code of a sweep: 0. If trials have ended and none has a result: 3 if all diverged, else 2."""
    ended, diverged = board.count(*files.ENDED), board.count("diverged")
    if not ended or ended > board.count("failed", "diverged"):
        return 0
    return Diverged.exit_code if diverged == ended else UserError.exit_code


def _front(study: optuna.Study, figure: Headline, others: list[str]) -> list[str]:
    """The Pareto front: trials that no other trial beats in every objective."""
    front = [trial for trial in study.best_trials if "as" not in trial.user_attrs]
    front.sort(key=lambda trial: trial.values[1])
    what = " and ".join(spec.OBJECTIVES[name] for name in others)
    lines = [f"  Pareto front of validation {figure.label} and {what}:"] if front else []
    for trial in front:
        value, *costs = trial.values
        number, what = trial.user_attrs.get("folder", trial.number), spec.describe(trial.user_attrs["overrides"])
        told = "".join(objectives.shown(*pair) for pair in zip(others, costs, strict=True))
        lines.append(f"    trial {number}: {what}: val {figure.label} {figure.shown(value)}{told}")
    return lines
