"""Workers on this machine, one per device or set of cores; a worker that dies is restarted."""

import os
import pathlib
import subprocess
import time

from jaxcnn.config import UserError
from jaxcnn.machine import cores, malloc
from jaxcnn.study import folder as files
from jaxcnn.study.engines import STORAGE_VARIABLE, Job, worker_command
from jaxcnn.study.table import watch
from jaxcnn.train.interrupts import Interrupted

MAX_RESTARTS = 20  # per worker; a trial that kills its workers is given up earlier
GRACE_SECONDS = 60.0


def run(job: Job) -> None:
    """Start the workers and show the table until all have ended.

    Raises:
      Interrupted: a signal arrived and was passed on, and every worker has saved its trial.
      UserError: a worker could not start working.
    """
    places = places_of(job.workers)
    job.display.estimate.workers = len(places)
    workers = [_Worker(job, number, place) for number, place in enumerate(places)]
    interrupts = job.interrupts
    with interrupts.one_run():
        interrupts.grace_seconds = GRACE_SECONDS
        interrupts.where = interrupts.goes_on(job.folder)
        interrupts.enter("train")
        try:

            def alive() -> bool:
                interrupts.check()
                return any([worker.look_after() for worker in workers])

            watch(job.display, alive)
        except Interrupted as error:
            stop(workers, job.folder)
            raise Interrupted(f"{error}: stopped, every running trial has a checkpoint; {interrupts.where}") from None
        except BaseException:
            stop(workers, job.folder)
            raise


class _Worker:
    """A worker process that is restarted when it dies."""

    def __init__(self, job: Job, number: int, place: dict[str, str] | set[int]) -> None:
        self._job, self._place, self._restarts = job, place, 0
        self._log = job.folder / f"worker-{number}.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        job, place = self._job, self._place
        environment = os.environ | {STORAGE_VARIABLE: job.url} | (place if isinstance(place, dict) else {})
        timeout = None if job.until is None else job.until - time.time()
        with self._log.open("ab") as log:
            # A new session: Ctrl-C in a terminal reaches only this process, which passes it on once.
            process = subprocess.Popen(
                worker_command(job.folder, timeout), env=environment, stdout=log, stderr=log, start_new_session=True
            )
        if isinstance(place, set):
            os.sched_setaffinity(process.pid, place)
        return process

    def look_after(self) -> bool:
        """Return whether it is working; restart it if it died."""
        code = self.process.poll()
        if code is None:
            return True
        if code == 0:
            return False
        if code in (UserError.exit_code, 1):
            raise UserError(f"a worker ended with exit code {code}: {_last_line(self._log)} (see {self._log})")
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise UserError(f"a worker died {self._restarts} times, the last time by {code}; see {self._log}")
        self._job.display.say(f"a worker died (exit code {code}) and is restarted; see {self._log}")
        self.process = self._start()
        return True


def stop(workers: list[_Worker], folder: pathlib.Path) -> None:
    """Ask all workers to save and stop, and wait until they have."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    for worker in workers:
        worker.process.wait()
    files.settle(folder)


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote no output"


def settle(place: dict[str, str] | set[int]) -> None:
    """Give this process the place of a worker (GPU or cores), so that it behaves the same. Call it before using JAX."""
    malloc.of_command()
    if isinstance(place, dict):
        os.environ.update(place)
    else:
        os.sched_setaffinity(0, place)


def places_of(workers: int) -> list[dict[str, str] | set[int]]:
    """The place of each worker: its own GPU by an environment variable, or a set of cores.

    Raises:
      UserError: more workers than GPUs.
    """
    gpus = _gpus()
    if gpus:
        if workers > len(gpus):
            raise UserError(f"--workers={workers}, but there are {len(gpus)} GPUs")
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[: workers or len(gpus)]]
    if not hasattr(os, "sched_getaffinity"):  # macOS cannot bind a process to cores
        return [{} for _ in range(workers or 1)]
    here = cores.usable()
    count = workers or max(1, len(here) // 4)  # one program uses up to about four cores well
    if count > len(here):
        return [{} for _ in range(count)]
    return [set(here[number::count]) for number in range(count)]


def _gpus() -> list[str]:
    """NVIDIA GPUs that workers may use, found without calling the driver."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each and each != "-1"]
    return sorted(path.name.removeprefix("nvidia") for path in pathlib.Path("/dev").glob("nvidia[0-9]*"))
