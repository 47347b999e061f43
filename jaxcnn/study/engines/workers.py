"""An engine without workers: prepares the study, and shows it while workers started elsewhere work on it."""

from jaxcnn.study.engines import Job
from jaxcnn.study.table import watch


def run(job: Job) -> None:
    """Show the table until all trials have ended."""
    board = job.display.board
    job.display.say(f"workers: python -m jaxcnn.sweep --worker --workdir={job.folder} --storage=<the same>")
    watch(job.display, lambda: board.count("complete", "pruned", "diverged", "failed") < board.total)
