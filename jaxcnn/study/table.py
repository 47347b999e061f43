"""The display of a running sweep: a live table on a terminal; elsewhere, a line for every trial that ends."""

import dataclasses
import datetime
import pathlib
import statistics
import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jaxcnn.machine import json_text
from jaxcnn.study import folder as files
from jaxcnn.study import spec
from jaxcnn.tasks.headline import Headline
from jaxcnn.train.logbook import duration

RUNNING_ROWS = 12
TAIL_BYTES = 4096


@dataclasses.dataclass
class Estimate:
    """The plan's measurements: seconds of a trial by program, without compilation."""

    seconds: dict[str, float]
    workers: int = 1


class Board:
    """The trials of a sweep, read from their folders; only those that may have changed are read again."""

    def __init__(
        self, folder: pathlib.Path, total: int, planned: list[dict[str, Any]] | None, figure: Headline
    ) -> None:
        self.folder, self.total, self.figure = folder, total, figure
        self._programs = [trial.get("program", "") for trial in planned or []]
        self._ended: dict[str, dict[str, Any]] = {}
        self.trials: list[dict[str, Any]] = []

    def read(self) -> None:
        """Read the folders again."""
        root = self.folder / files.TRIALS
        names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
        trials = []
        for name in names:
            trial = self._ended.get(name) or files.read_trial(root / name)
            if trial is None:
                continue
            if trial["state"] in files.ENDED:
                self._ended[name] = trial
            trials.append(trial)
        self.trials = trials

    def count(self, *states: str) -> int:
        """The number of trials in one of these states."""
        return sum(trial["state"] in states for trial in self.trials)

    def best(self) -> dict[str, Any] | None:
        """The complete trial whose headline figure is the best on validation."""
        figure, name = self.figure, self.figure.objective
        known = [trial for trial in self.trials if name in trial["values"]]
        return max(known, key=lambda trial: figure.score(trial["values"][name]), default=None)

    def seconds_left(self, estimate: Estimate) -> float | None:
        """Seconds until the last trial ends: the estimates, corrected by the times of ended trials; None if unknown."""
        done = [trial for trial in self.trials if trial["state"] == "complete" and "wall_seconds" in trial]
        ended = sum(trial["state"] in files.ENDED for trial in self.trials)
        if not self.total - ended:
            return 0.0
        known = [(trial["wall_seconds"], estimate.seconds.get(trial["program"])) for trial in done]
        ratios = [wall / expected for wall, expected in known if expected]
        if ratios and self._programs:
            expected = sum(estimate.seconds.get(program, 0.0) for program in self._programs)
            past = sum(estimate.seconds.get(t["program"], 0.0) for t in self.trials if t["state"] in files.ENDED)
            left = (expected - past) * statistics.fmean(ratios)
        elif done:
            left = statistics.fmean(wall for wall, _ in known) * (self.total - ended)
        elif estimate.seconds:
            left = statistics.fmean(estimate.seconds.values()) * (self.total - ended)
        else:
            return None
        under_way = [t for t in self.trials if t["state"] == "running"]
        spent = sum(max(0.0, _age(trial["started"])) for trial in under_way)
        return max(0.0, left - spent) / max(1, estimate.workers)

    def headline(self, estimate: Estimate) -> str:
        """The state of the sweep in one line."""
        words = [f"{self.count('complete')}/{self.total} done"]
        for state in ("running", "pruned", "diverged", "failed"):
            if count := self.count(state):
                words.append(f"{count} {state}")
        if best := self.best():
            value = best["values"][self.figure.objective]
            words.append(f"best {self.figure.shown(value)} (trial {best['number']})")
        left = self.seconds_left(estimate)
        words.append(f"ETA {'?' if left is None else duration(left)}")
        return ", ".join(words)

    def progress(self, trial: dict[str, Any]) -> dict[str, Any]:
        """The newest record of a trial's metrics; empty without one."""
        path = files.trial_folder(self.folder, trial["number"]) / "metrics.jsonl"
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - TAIL_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return {}
        for line in reversed(lines):
            try:
                record = json_text.parse(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                return record
        return {}


def _age(began: str) -> float:
    return (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(began)).total_seconds()


class Display:
    """Context manager that shows a board: updated in place on a terminal, else one line per ended trial."""

    def __init__(self, board: Board, estimate: Estimate, console: Console | None = None) -> None:
        self.board, self.estimate = board, estimate
        self.console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._told: set[tuple[int, int]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> "Display":
        self.board.read()
        self._told = {_key(trial) for trial in self.board.trials if trial["state"] in files.ENDED}
        if self.console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self.console, refresh_per_second=1)
            self._live.start()
            self.console.show_cursor(True)  # a signal may end the process before it is shown again
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line above the table."""
        self.console.print(line, markup=False)
        self.console.file.flush()

    def update(self) -> None:
        """Print what has changed, if there is no table."""
        with self._lock:
            self.board.read()
        if self._live is None:
            for trial in self.board.trials:
                if trial["state"] in files.ENDED and _key(trial) not in self._told:
                    self._told.add(_key(trial))
                    self.say(f"{line_of(trial, self.board.figure)} | {self.board.headline(self.estimate)}")

    def render(self) -> Group:
        """The table with the newest state."""
        with self._lock:
            self.board.read()
        board = self.board
        table = Table(box=None, pad_edge=False)
        for name, align in (("trial", "right"), ("what", "left"), ("step", "right"), ("", "right"), ("for", "right")):
            table.add_column(name, justify=align, no_wrap=name != "what")  # type: ignore[arg-type]
        running = [trial for trial in board.trials if trial["state"] == "running"]
        for trial in running[:RUNNING_ROWS]:
            newest = board.progress(trial)
            value = newest.get(board.figure.name)
            shown = "" if value is None else f"{newest['kind']} {board.figure.shown(value, 1)}"
            table.add_row(
                str(trial["number"]),
                Text(_what(trial)),
                str(newest.get("step", "starts")),
                shown,
                duration(_age(trial["started"])),
            )
        if len(running) > RUNNING_ROWS:
            table.add_row("", f"and {len(running) - RUNNING_ROWS} more", "", "", "")
        parts: list[Any] = [table] if running else []
        if best := board.best():
            parts.append(Text(f"best: {line_of(best, board.figure)}"))
        troubles = [trial for trial in board.trials if trial["state"] in ("failed", "diverged")]
        parts += [Text(line_of(trial, board.figure)[: self.console.width], style="red") for trial in troubles[-3:]]
        return Group(*parts, Text(board.headline(self.estimate), style="bold"))


def _key(trial: dict[str, Any]) -> tuple[int, int]:
    return trial["number"], trial["starts"]


def _what(trial: dict[str, Any]) -> str:
    return f"{spec.describe(trial['overrides'])} seed={trial['seed']}"


def line_of(trial: dict[str, Any], figure: Headline) -> str:
    """A trial and its outcome in one line."""
    outcome = trial["state"]
    if (value := trial["values"].get(figure.objective)) is not None:
        outcome = f"val {figure.label} {figure.shown(value)}"
    elif trial["reason"]:
        outcome = f"{trial['state']}: {trial['reason']}"
    if trial.get("as") is not None:
        outcome += f" (repeats trial {trial['as']})"
    seconds = trial.get("train_seconds")
    took = f" in {duration(seconds)} of training" if seconds else ""
    return f"trial {trial['number']}: {_what(trial)}: {outcome}{took}"


def watch(display: Display, alive: Any, seconds: float = 1.0) -> None:
    """Show the board while `alive()` is true, which may raise."""
    while alive():
        display.update()
        time.sleep(seconds)
