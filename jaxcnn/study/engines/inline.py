"""An engine with one worker, in this process: programs and data stay from trial to trial."""

from jaxcnn.study.engines import Job
from jaxcnn.study.worker import work


def run(job: Job) -> None:
    """Work until all trials have ended.

    Raises:
      Interrupted: it was stopped; the current trial has a checkpoint.
    """
    job.display.estimate.workers = job.population.members if job.population else 1
    work(
        job.folder,
        job.definition,
        job.storage,
        job.command,
        until=job.until,
        shared=job.shared,
        began=lambda _: job.display.update(),
        ended=lambda *_: job.display.update(),
        population=job.population,
        say=job.display.say,
        interrupts=job.interrupts,
    )
