"""The progress of a run in a notebook: a bar, and a table with a row for each evaluation."""

import html
import sys
import threading
import time
from typing import Any

from jaxcnn.api.shown import Html, table, value_text
from jaxcnn.tasks import figures
from jaxcnn.train.hooks import Evaluation, Step
from jaxcnn.train.logbook import duration
from jaxcnn.train.terminal import epochs_at

REDRAW_SECONDS = 0.25
_ROWS = 15  # evaluations shown at once
_NOT_SHOWN = ("examples",)  # figures that are the same in every row


def notebook_progress() -> "NotebookProgress | None":
    """A display in the current cell; None outside notebooks."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        return None
    return NotebookProgress()


class NotebookProgress:
    """Shows steps and evaluations in a notebook's cell; it needs IPython alone, no widgets.

    It appears with the first step, and is redrawn a few times per second. Metrics are read when it is drawn.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = 0.0
        self._step: Step | None = None
        self._rows: list[Evaluation] = []
        self._pace: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def after_step(self, step: Step) -> None:
        """Show a step, unless the display was drawn just before."""
        now = time.monotonic()
        if self._step is None:
            self._pace.append((now, step.step))
        self._step = step
        if now - self._drawn >= REDRAW_SECONDS:
            self._draw(now)

    def after_evaluation(self, evaluation: Evaluation) -> None:
        """Add a row to the table for an evaluation."""
        self._rows.append(evaluation)
        self._draw(time.monotonic())

    def close(self) -> None:
        """Draw the last state."""
        if self._step is not None or self._rows:
            self._draw(time.monotonic())

    def _draw(self, now: float) -> None:
        with self._lock:
            self._drawn = now
            shown = _Shown(self._html(now), self._text())
            if self._handle is None:
                from IPython.display import display

                self._handle = display(shown, display_id=True)
            else:
                self._handle.update(shown)

    def _text(self) -> str:
        last = self._step or self._rows[-1]
        return f"step {last.step} of {last.total_steps}"

    def _html(self, now: float) -> str:
        last = self._step or self._rows[-1]
        metrics = self._step.metrics if self._step is not None else {}
        told = [f"step {last.step:,} of {last.total_steps:,}", f"epoch {epochs_at(last.step, last.epoch)}"]
        told += [f"{_title(name)} {_value(name, metrics[name])}" for name in _main(metrics)]
        if left := self._left(now, last):
            told.append(f"{left} left")
        share = 100 * last.step / last.total_steps
        bar = f'<progress value="{last.step}" max="{last.total_steps}" style="width: 20em"></progress>'
        return f"<div>{bar} {share:.0f} % &nbsp; {html.escape(', '.join(told))}</div>{self._table()}"

    def _left(self, now: float, last: Step | Evaluation) -> str:
        """The time left at the pace so far, including evaluations."""
        if not self._pace or last.step >= last.total_steps or last.step <= self._pace[0][1]:
            return ""
        began, first = self._pace[0]
        return duration((now - began) / (last.step - first) * (last.total_steps - last.step))

    def _table(self) -> str:
        if not self._rows:
            return ""
        names = [name for name in self._rows[-1].figures if name not in _NOT_SHOWN]
        rows = [
            (
                epochs_at(row.step, row.epoch),
                value_text(row.step),
                *(_value(name, row.figures[name]) for name in names),
                _best(row),
            )
            for row in self._rows[-_ROWS:]
        ]
        return table(("epoch", "step", *(f"validation {_title(name)}" for name in names), ""), rows)


class _Shown:
    """The state of the display at one time, also as text, for programs that show no HTML."""

    def __init__(self, page: str, text: str) -> None:
        self._page, self._text = page, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._page


def _main(metrics: dict[str, float]) -> list[str]:
    """The loss and the first figure after it, as texts."""
    return [name for name in metrics if name not in ("grad_norm", "learning_rate")][:2]


def _title(name: str) -> str:
    return name.replace("_", " ").replace("top1 ", "").replace("top5 accuracy", "top-5")


def _value(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if figures.is_share(name) else f"{value:.4f}"


def _best(row: Evaluation) -> Html:
    return Html("best so far" if row.is_best else "")
