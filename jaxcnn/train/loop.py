"""The run: drive steps, evaluate, save, test once, sum up."""

import collections
import dataclasses
import math
import pathlib
import time
from typing import Any

import jax

from jaxcnn import config as configs
from jaxcnn import mesh as meshes
from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Split
from jaxcnn.learn import sharded
from jaxcnn.learn.program import steps_of
from jaxcnn.learn.state import State
from jaxcnn.train import curves, feed, summary, workdir
from jaxcnn.train.checkpoint import DamagedError
from jaxcnn.train.evaluate import evaluate
from jaxcnn.train.logbook import Logbook, duration
from jaxcnn.train.session import Session, open_session
from jaxcnn.train.signals import Interrupted, Interrupts


class Diverged(UserError):
    """The loss or the gradient is no longer finite."""

    exit_code = 3


def train(config: Config, folder: pathlib.Path, *, command: list[str], started: float | None = None) -> dict[str, Any]:
    """Train as the config says, in a workdir; resume if it holds checkpoints; return the summary.

    Args:
      config: checked.
      folder: the workdir; created if need be.
      command: what started this, for the record.
      started: time.time() when the process started, for the time to first step.

    Raises:
      UserError: the data, the workdir or the checkpoints are not usable.
      Diverged: a loss or gradient was not finite.
      Interrupted: SIGTERM or SIGINT came; a resumable checkpoint is in the workdir.
    """
    started = time.time() if started is None else started
    with Interrupts() as interrupts, workdir.claim(folder):
        interrupts.where = f"the same command with --workdir={folder} goes on"
        workdir.check_config(folder, config)
        if (finished := summary.read(folder)) is not None:
            print(f"jaxcnn: {folder} is finished: {summary.last_line(finished)}")
            return finished
        logbook = Logbook(folder, tensorboard=config.run.tensorboard)
        try:
            session = open_session(config, folder, started, interrupts, logbook, command)
            try:
                return _drive(session)
            finally:
                session.checkpoints.close()
        finally:
            logbook.close()


def _drive(session: Session) -> dict[str, Any]:
    """Train to the end, evaluate the test split, write the summary."""
    try:
        _train_steps(session)
        _finish_saving(session)
        test = _test(session)
    except Interrupted as error:
        _save(session)
        _finish_saving(session)
        raise Interrupted(
            f"{error}: stopped with a checkpoint of step {session.step} of {session.program.total_steps}; "
            f"{session.interrupts.where}"
        ) from None
    session.progress.wall_seconds += time.time() - session.started
    figures = summary.make(session, test)
    curves.draw(session.folder)
    workdir.write_json(session.folder / summary.FILE, figures)  # last: it says that the run is finished
    session.logbook.say(f"jaxcnn: finished: {summary.last_line(figures)}")
    session.logbook.say(f"  {session.folder}/summary.json, metrics.jsonl, curves.png, checkpoints/")
    return figures


def _train_steps(session: Session) -> None:
    """Dispatch step t + 1, then read the metrics of step t; evaluate and save where they are due."""
    program, config = session.program, session.config
    steps_per_epoch, total = program.steps_per_epoch, program.total_steps
    eval_steps = _rhythm(config.run.eval_every_epochs, steps_per_epoch, total) if session.splits.val else frozenset()
    if every := config.checkpoint.every_steps:
        save_steps = frozenset(range(every, total, every)) | {total}
    else:
        save_steps = _rhythm(config.checkpoint.every_epochs, steps_per_epoch, total)
    if every := config.checkpoint.keep_every_steps:
        save_steps |= frozenset(range(every, total, every))

    def boundary() -> None:
        """Evaluate and save where they are due after this step."""
        due = session.step in eval_steps
        better = due and _evaluate(session)
        if session.step in save_steps or (better and config.checkpoint.keep_best):
            _save(session, evaluated=due)

    compiled = sharded.compiled_train_step(program, session.mesh, session.feed.loader)

    if session.step in eval_steps and session.progress.evaluated < session.step:
        boundary()  # the stop came before or during this evaluation
    unread: collections.deque[tuple[int, Any]] = collections.deque()
    session.interrupts.phase = "train"
    session.window_started = time.time()
    with session.feed.train_inputs(session.splits.train, session.step) as inputs:
        try:
            while session.step < total:
                session.interrupts.check()
                session.state, metrics = compiled(session.state, next(inputs), session.normalization)
                session.step += 1
                unread.append((session.step, metrics))
                while len(unread) > 1:
                    _read(session, *unread.popleft())
                if session.step in eval_steps or session.step in save_steps:  # the last step is among them
                    _read_all(session, unread)
                    boundary()
                    session.interrupts.phase = "train"
                    session.window_started = time.time()
        except Interrupted:
            _read_all(session, unread)
            raise


def _rhythm(every_epochs: float, steps_per_epoch: float, total: int) -> frozenset[int]:
    """The steps at the end of every stretch of epochs, and the last step; only that if `every_epochs` is 0."""
    if not every_epochs:
        return frozenset({total})
    count = int(total / (every_epochs * steps_per_epoch)) + 1
    return frozenset(s for n in range(1, count + 1) if (s := steps_of(every_epochs, steps_per_epoch, n)) < total) | {
        total
    }


def _read_all(session: Session, unread: collections.deque[tuple[int, Any]]) -> None:
    """Wait for the steps under way, if there are any, and stop the clock of training."""
    if unread:
        while unread:
            _read(session, *unread.popleft())
        _count_time(session)


def _count_time(session: Session) -> None:
    now = time.time()
    session.progress.train_seconds += now - session.window_started
    session.progress.window_seconds += now - session.window_started
    session.window_started = now


def _read(session: Session, step: int, metrics: Any) -> None:
    """Take in the metrics of one step: check, add, log."""
    metrics = jax.device_get(metrics)
    progress, config = session.progress, session.config
    count = float(metrics.sums.count)
    loss = float(metrics.sums.loss) / count
    if not session.time_to_first_step:
        session.time_to_first_step = time.time() - session.started
    if not (math.isfinite(loss) and math.isfinite(float(metrics.grad_norm))):
        newest = max(session.checkpoints.steps(), default=None)
        kept = "no checkpoint was made before it" if newest is None else f"checkpoint {newest} is from before it"
        what = f"loss {loss:g}, gradient norm {float(metrics.grad_norm):g}"
        last = "there was none" if progress.last_loss is None else f"{progress.last_loss:.6g}"
        raise Diverged(
            f"step {step} is not finite ({what}); last finite loss: {last}; {kept}; "
            "lower config.optim.learning_rate, or add warm-up or config.optim.clip_norm"
        )
    progress.last_loss = loss
    sums = (metrics.sums.loss, metrics.sums.top1, metrics.sums.top5, metrics.sums.count)
    progress.window = [total + float(value) for total, value in zip(progress.window, sums, strict=True)]
    progress.images += int(count)
    if step % config.run.log_every_steps == 0 or step == session.program.total_steps:
        _count_time(session)
        _log(session, step, float(metrics.grad_norm), float(metrics.learning_rate))


def _log(session: Session, step: int, grad_norm: float, learning_rate: float) -> None:
    """Write the training record of the steps since the last one, and the progress line."""
    progress, program = session.progress, session.program
    loss, top1, top5, count = progress.window
    rate = count / max(progress.window_seconds, 1e-9)
    progress.window, progress.window_seconds = [0.0] * 4, 0.0
    epoch = step / program.steps_per_epoch
    values = {
        "epoch": round(epoch, 6),
        "loss": loss / count,
        "top1_accuracy": top1 / count,
        "top5_accuracy": top5 / count,
        "grad_norm": grad_norm,
        "learning_rate": learning_rate,
        "images_per_second": rate,
        "train_seconds": progress.train_seconds,
    }
    session.logbook.record("train", step, values)
    left = (program.total_steps - step) * program.global_batch_size / rate
    session.logbook.progress(
        f"step {step}/{program.total_steps} epoch {epoch:.2f}/{program.total_steps / program.steps_per_epoch:.2f} "
        f"loss {loss / count:.4f} accuracy {100 * top1 / count:.2f}% {rate:.1f} images/s ETA {duration(left)}"
    )


def _evaluate(session: Session) -> bool:
    """Evaluate the validation split; return whether it is the best so far."""
    session.interrupts.phase = "evaluate"
    began = time.time()
    assert session.splits.val is not None
    values = _figures(session, session.splits.val, session.state)
    progress = session.progress
    progress.eval_seconds += time.time() - began
    progress.evaluated = session.step
    epoch = round(session.step / session.program.steps_per_epoch, 6)
    session.logbook.record("val", session.step, {"epoch": epoch, **values, "train_seconds": progress.train_seconds})
    accuracy = progress.accuracy = values[summary.headline(session.config)]
    better = accuracy > progress.best_accuracy
    if better:
        progress.best_accuracy, progress.best_step = accuracy, session.step
    averaged = f" ema {100 * accuracy:.2f}%" if session.state.ema is not None else ""
    session.logbook.progress(
        f"step {session.step}/{session.program.total_steps} epoch {epoch:.2f} val loss {values['loss']:.4f} "
        f"val accuracy {100 * values['top1_accuracy']:.2f}%{averaged} best {100 * progress.best_accuracy:.2f}%",
        now=True,
    )
    return better


def _figures(session: Session, split: Split, state: State, tta: str = "none") -> dict[str, Any]:
    """Loss and accuracies of a split, with those of the moving average, if there is one, named ema_…

    Those with test-time augmentation, if there is one, are named tta_… and ema_tta_….
    """
    batch_size = feed.eval_batch_size(session.config.run.eval_batch_size, session.program, session.mesh)

    def measure(variables: Any) -> dict[str, float]:
        check = session.interrupts.check
        return evaluate(session.feed, split, variables, session.normalization, batch_size, check, tta)

    values = measure(state.variables())
    if state.ema is not None:
        values |= {f"ema_{name}": value for name, value in measure(state.ema).items() if name != "examples"}
    return values


def _save(session: Session, *, evaluated: bool = False) -> None:
    """Start to save the state, unless the same is saved already."""
    session.interrupts.phase = "save"
    if session.saved == session.step and not evaluated:
        return
    progress = session.progress
    progress.log_bytes = session.logbook.length()
    wall_seconds = progress.wall_seconds + time.time() - session.started
    record = {
        "step": session.step,
        "progress": dataclasses.asdict(progress) | {"wall_seconds": wall_seconds},
        "config": configs.to_dict(session.config),
    }
    session.checkpoints.save(session.state, record, progress.accuracy if evaluated else None)
    session.saved = session.step


def _finish_saving(session: Session) -> None:
    session.interrupts.phase = "save"
    session.checkpoints.wait()


def _test(session: Session) -> dict[str, Any] | None:
    """The one look at the test split."""
    split = session.splits.test
    if split is None:
        return None
    session.interrupts.phase = "evaluate"
    state, step = session.state, session.step
    if session.config.run.test_with == "best":
        step = session.progress.best_step
        try:
            state = session.checkpoints.restore(step, session.state, meshes.replicated(session.mesh)).state
        except DamagedError as error:
            raise UserError(
                f"config.run.test_with='best': {error}; bring {session.folder}/checkpoints/{step} back, or test the "
                f"last one by --mode=eval --workdir={session.folder}"
            ) from error
    values = _figures(session, split, state, session.config.run.tta)
    session.logbook.record("test", session.step, {"of_step": step, **values})
    return {"of_step": step, **values}
