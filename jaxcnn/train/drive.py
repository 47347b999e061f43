"""Drives the compiled steps: starts one call, reads the metrics of the call before, and logs."""

import dataclasses
import math
import operator
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.learn import programs
from jaxcnn.learn.metrics import COUNT, LOSS, means_of
from jaxcnn.learn.step import StepMetrics
from jaxcnn.machine import malloc
from jaxcnn.train.hooks import Step
from jaxcnn.train.interrupts import Interrupted
from jaxcnn.train.logbook import duration
from jaxcnn.train.session import Session
from jaxcnn.train.steps_per_call import StepsPerCall
from jaxcnn.train.terminal import Training, epochs_with_decimals


class Diverged(UserError):
    """Raised when the loss or the gradient is no longer finite."""

    exit_code = 3


@dataclasses.dataclass(frozen=True)
class Call:
    """Steps that were started together.

    Attributes:
      first: number of the first step, counted from 1.
      count: number of steps.
      metrics: `StepMetrics` on the devices: scalars for a single step, else [n] with n >= `count`.
    """

    first: int
    count: int
    metrics: Any


class Driver:
    """Runs the steps of one start of a run, one or several per call."""

    def __init__(self, session: Session, inputs: Iterator[Any]) -> None:
        self._session, self._inputs = session, inputs
        self._calls = StepsPerCall(session.steps_per_call)
        self._stages = [
            (end, programs.train_step(spec, session.mesh, session.loader.kind, session.steps_per_call))
            for end, spec in session.spec.stages
        ]
        self._memory = malloc.KeptMemory()
        self._unread: Call | None = None

    def train_until(self, stop: int) -> None:
        """Train from `session.step` to `stop`. When this returns or raises, all steps made are read and logged.

        Raises:
          Interrupted: the run has to stop; `session.step` says how far it got.
          Diverged: a loss or gradient was not finite.
        """
        session = self._session
        session.interrupts.enter("train")
        session.window_started = time.monotonic()
        try:
            while session.step < stop:
                # Processes measure different times, but must make the same calls.
                allowed = min(filter(None, session.interrupts.agree(self._calls.allowed)), default=1)
                call = self._start(min(allowed, min(stop, self._stage[0]) - session.step))
                self._read()  # the previous call, so the devices never wait for the host
                self._unread = call
                if is_ready(call.metrics):
                    self._read()
        except Interrupted:
            self._read()
            raise
        self._read()

    @property
    def _stage(self) -> tuple[int, jax.stages.Compiled]:
        """The stage of the next step: the step at which the stage ends, and its compiled program."""
        return next(stage for stage in self._stages if stage[0] > self._session.step)

    def _start(self, count: int) -> Call:
        session = self._session
        inputs = (session.state, next(self._inputs), session.constants)
        inputs = programs.call_inputs(inputs, session.mesh, session.steps_per_call, count)
        session.state, metrics = self._stage[1](*inputs)
        call = Call(session.step + 1, count, metrics)
        session.step += count
        return call

    def _read(self) -> None:
        """Wait for the unread call, if any; record the metrics of its steps, which share its time equally."""
        session, call = self._session, self._unread
        if call is None:
            return
        self._unread = None
        metrics = jax.tree.map(np.atleast_1d, jax.device_get(call.metrics))
        now = time.monotonic()
        seconds, session.window_started = now - session.window_started, now
        if not session.time_to_first_step:
            session.time_to_first_step = now - session.started
        for i in range(call.count):
            step, of_step = call.first + i, jax.tree.map(operator.itemgetter(i), metrics)
            record_metrics(session, step, of_step, seconds / call.count)
            if session.hooks.after_step is not None:
                epoch = step / session.spec.steps_per_epoch
                session.hooks.after_step(Step(step, session.spec.total_steps, epoch, seconds / call.count, of_step))
        self._calls.measured(call.count, seconds)
        self._memory.after_call()


def is_ready(metrics: Any) -> bool:
    """Whether the metrics of a call can be read without waiting; on a CPU always, as it computes before it returns."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))


def record_metrics(session: Session, step: int, metrics: StepMetrics, seconds: float) -> None:
    """Check, add up and log the metrics of one step, given on the host, and its `seconds`.

    Raises:
      Diverged: the loss or the gradient norm is not finite.
    """
    progress, config = session.progress, session.config
    count = float(metrics.sums[COUNT])
    loss = float(metrics.sums[LOSS]) / count
    if not (math.isfinite(loss) and math.isfinite(float(metrics.grad_norm))):
        newest = max(session.checkpoints.steps(), default=None)
        kept = (
            "no checkpoint was saved before this step"
            if newest is None
            else f"checkpoint {newest} was saved before this step"
        )
        what = f"loss {loss:g}, gradient norm {float(metrics.grad_norm):g}"
        last = "there was none" if progress.last_loss is None else f"{progress.last_loss:.6g}"
        raise Diverged(
            f"step {step} is not finite ({what}); last finite loss: {last}; {kept}; lower config.optim.learning_rate, "
            "or set config.schedule.warmup or config.optim.clip_norm"
        )
    progress.last_loss = loss
    progress.window = {name: progress.window.get(name, 0.0) + float(value) for name, value in metrics.sums.items()}
    progress.images += int(count)
    progress.train_seconds += seconds
    progress.window_seconds += seconds
    if session.logbook.bar is not None:
        session.logbook.bar.stepped(step, session.length)
    if step % config.run.log_every_steps == 0 or step == session.spec.total_steps:
        _log(session, step, float(metrics.grad_norm), float(metrics.learning_rate))


def _log(session: Session, step: int, grad_norm: float, learning_rate: float) -> None:
    """Write the training record of the steps since the last record, and the progress line."""
    progress, spec = session.progress, session.spec
    means, evaluation = means_of(progress.window), spec.task.evaluation
    rate = progress.window[COUNT] / max(progress.window_seconds, 1e-9)
    progress.window, progress.window_seconds = {}, 0.0
    epoch = step / spec.steps_per_epoch
    values = {
        "epoch": round(epoch, 6),
        **{name: means[name] for name in (LOSS, *evaluation.metrics)},
        "grad_norm": grad_norm,
        "learning_rate": learning_rate,
        "images_per_second": rate,
        "train_seconds": progress.train_seconds,
    }
    session.logbook.record("train", step, values)
    if session.logbook.bar is not None:
        session.logbook.bar.trained(Training(means[LOSS], evaluation.headline.among(means), rate))
    left = (spec.total_steps - step) * spec.global_batch_size / rate
    now, end = (epochs_with_decimals(each, spec.steps_per_epoch) for each in (step, spec.total_steps))
    session.logbook.progress(
        f"step {step}/{spec.total_steps} epoch {now}/{end} "
        f"loss {means[LOSS]:.4f}{evaluation.headline.among(means)} {rate:.1f} images/s ETA {duration(left)}"
    )
