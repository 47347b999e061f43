"""Workers as an array of Slurm jobs, by submitit: preempted or timed-out jobs are queued again and continue.

Every job runs `python -m jaxcnn.sweep --worker` as a child process. On Slurm's notice (SIGUSR2, some time before the
end), submitit requests a checkpoint; the child is then asked to save its trial, and the job is queued again. Preemption
may also come as SIGTERM to all processes of a job: submitit ignores it, while the worker saves and ends. The job then
stays until Slurm queues it again, and continues if Slurm does not: a job that ended would not be queued again.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.study.engines import STORAGE_VARIABLE, Job, worker_command
from jaxcnn.study.table import watch
from jaxcnn.train.interrupts import INTERRUPTED

JOBS = "jobs.json"
SAVE_SECONDS = 120  # notice before the end, enough for a step, a save and queuing
STAY_SECONDS = 120.0  # time for Slurm to remove the job after a signal stopped the worker
MINUTES = 240  # default time limit of a job, which is queued again until the sweep has ended
MAX_TIMEOUTS = 10_000


class Worker:
    """The function of a job. submitit pickles it, calls it in the job, and calls `checkpoint` on notice.

    Args:
      folder: folder of the sweep.
      storage: URL of its storage.
      until: time.time() after which no trial starts, however long jobs wait in Slurm's queue; None: no limit.
    """

    def __init__(self, folder: pathlib.Path, storage: str, until: float | None = None) -> None:
        self.folder, self.storage, self.until = folder, storage, until
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Work until all trials have ended; return the exit code, which is 0.

        Raises:
          RuntimeError: the worker failed.
        """
        while (code := self._run()) == INTERRUPTED:  # not ended by a notice, for which `checkpoint` ends this process
            print(f"the worker was stopped by a signal; it restarts in {STAY_SECONDS:.0f} s", flush=True)
            time.sleep(STAY_SECONDS)
        if code:
            raise RuntimeError(f"the worker ended with exit code {code}; its last lines are in this job's log")
        return code

    def _run(self) -> int:
        timeout = None if self.until is None else self.until - time.time()
        # Slurm's notice goes to all processes of a job. This process handles it, and the worker must not die of it, so
        # it is blocked there: a child has the mask of its parent. One that comes meanwhile is handled after the start.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            self._process = subprocess.Popen(
                worker_command(self.folder, timeout), env=os.environ | {STORAGE_VARIABLE: self.storage}
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # Not `wait`: its lock would block the waiting in `checkpoint`, which runs in a signal handler of this thread.
        while (code := self._process.poll()) is None:
            time.sleep(0.5)
        return code

    def checkpoint(self) -> Any:
        """Save the current trial; return the job to queue again."""
        import submitit

        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(Worker(self.folder, self.storage, self.until))


def run(job: Job) -> None:
    """Submit an array of the workers still missing, and show the table until all trials have ended.

    Options are those of `sbatch` as named by submitit without `slurm_`, such as `partition=gpu,time=240,
    gpus_per_node=1,cpus_per_task=8`; `cluster=local` runs the workers on this machine for a trial.

    Raises:
      UserError: Slurm is missing, or refuses.
    """
    import submitit

    logs = job.folder / "slurm"
    logs.mkdir(exist_ok=True)
    logs.chmod(0o700)  # submitit stores each job's function there, which has the storage's password
    executor = make_executor(logs, dict(job.options), job.definition.name)
    running = [old for old in _known(logs, executor) if not old.done()]
    wanted = max(0, (job.workers or 1) - len(running))
    worker = Worker(job.folder.absolute(), job.url, job.until)
    if wanted:
        try:
            with executor.batch():
                submitted = [executor.submit(worker) for _ in range(wanted)]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise UserError(f"Slurm refused the jobs: {' '.join(str(error).split())[:400]}") from error
        running += submitted
    (logs / JOBS).write_text(json.dumps([each.job_id for each in running]) + "\n", encoding="utf-8")
    job.display.say(f"jobs {', '.join(each.job_id for each in running)}; logs in {logs}; Ctrl-C does not stop them")
    job.display.estimate.workers = len(running)
    board = job.display.board

    def alive() -> bool:
        if board.count("complete", "pruned", "diverged", "failed") >= board.total:
            return False
        return not all(each.done() for each in running)

    watch(job.display, alive, 5.0)


def make_executor(logs: pathlib.Path, options: dict[str, str], name: str) -> Any:
    """submitit's executor with these options.

    Raises:
      UserError: Slurm is missing, or an option is unknown.
    """
    import submitit

    cluster = options.pop("cluster", "slurm")
    try:
        often = {f"{cluster}_max_num_timeout": MAX_TIMEOUTS}
        executor = submitit.AutoExecutor(folder=logs / "%j", cluster=cluster, **often)
        parameters: dict[str, Any] = {key: int(text) if text.isdigit() else text for key, text in options.items()}
        if cluster == "slurm":
            parameters = {"job_name": name, "signal_delay_s": SAVE_SECONDS, "time": MINUTES} | parameters
            executor.update_parameters(**{f"slurm_{key}": value for key, value in parameters.items()})
        else:
            executor.update_parameters(**{"timeout_min": 60} | parameters)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"--slurm={options}: {' '.join(str(error).split())[:400]}") from error
    return executor


def _known(logs: pathlib.Path, executor: Any) -> list[Any]:
    """Jobs that an earlier command submitted."""
    path = logs / JOBS
    names = json_text.parse(path.read_text(encoding="utf-8")) if path.exists() else []
    return [executor._executor.job_class(folder=logs / "%j", job_id=name, tasks=[0]) for name in names]
