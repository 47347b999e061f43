"""The messages of a run on its evaluations and its end: plain lines for grep, and shorter ones on a terminal."""

from typing import Any

from jaxcnn.learn.metrics import LOSS
from jaxcnn.tasks import by_group
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import curves, summary, terminal
from jaxcnn.train.session import Session


def evaluation(session: Session, values: dict[str, Any], *, better: bool) -> None:
    """Print the figures of a validation, including those that decide."""
    headline, book = session.spec.task.evaluation.headline, session.logbook
    name, best_score = summary.headline(session.config, headline), session.progress.best_score
    averaged = session.state.ema is not None
    if book.bar is not None:
        loss = values["ema_loss" if averaged else LOSS]
        line = terminal.evaluation_line(
            session.length, session.step, loss, headline, values[name], averaged=averaged, best=better
        )
        book.say(terminal.fitted_words(line, book.console.width), terminal.GOOD if better else "")
        return
    average = f" ema {headline.shown(values[name])}" if averaged else ""
    epoch = terminal.epochs_with_decimals(session.step, session.spec.steps_per_epoch)
    book.progress(
        f"step {session.step}/{session.spec.total_steps} epoch {epoch} "
        f"val loss {values[LOSS]:.4f} val{headline.among(values) if headline.name != LOSS else ''}{average} "
        f"best {'none' if best_score is None else headline.shown(headline.value(best_score))}",
        now=True,
    )


def phase(session: Session, what: str) -> None:
    """Show in the bar what is done between steps."""
    if session.logbook.bar is not None:
        session.logbook.bar.phase(what)


def groups(session: Session, figures: dict[str, Any]) -> None:
    """Print which group of the test is the worst, if it has groups."""
    for line in by_group.describe(figures, session.spec.task.evaluation.headline):
        session.logbook.say(f"  test {line}")


def end(session: Session, figures: dict[str, Any]) -> None:
    """Print the outcome and the files that a finished run leaves; on a terminal, first the curve of the validation."""
    book, headline = session.logbook, session.spec.task.evaluation.headline
    if book.bar is not None:
        book.bar.stop()
        points = _validated(session, headline)
        blocks = not book.console.options.ascii_only
        if line := terminal.curve_line(headline, points, book.console.width, blocks=blocks):
            book.say(line)
    book.say(f"jaxcnn: finished: {summary.last_line(figures)}", terminal.GOOD)
    left = ("summary.json", "metrics.jsonl", "test.json", "curves.png", "hardest.png", "checkpoints/")
    book.say(f"  {session.folder}/{', '.join(name for name in left if (session.folder / name).exists())}")


def _validated(session: Session, headline: Headline) -> list[tuple[str, float]]:
    """The epoch (as text) and the headline figure of each validation in all starts of the run."""
    name, length = summary.headline(session.config, headline), session.length
    try:
        records = [record for record in curves.read_records(session.folder) if record["kind"] == "val"]
        return [(terminal.epochs(record["step"], length.steps_per_epoch), float(record[name])) for record in records]
    except (OSError, KeyError, TypeError, ValueError):  # records that were changed by hand
        return []
