"""The run: train, evaluate, save, test once, summarise."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from jaxcnn import config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Split
from jaxcnn.learn import sharded
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import steps_of
from jaxcnn.machine import extras
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster, Standing
from jaxcnn.train import assess, curves, loaders, origin, summary, workdir
from jaxcnn.train.checkpoint import DamagedError
from jaxcnn.train.drive import Driver
from jaxcnn.train.evaluate import Outputs, evaluate
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.session import Session, open_session


def train(
    config: Config,
    folder: pathlib.Path,
    *,
    command: list[str],
    started: float | None = None,
    hooks: Hooks | None = None,
    cluster: Cluster | None = None,
    interrupts: Interrupts | None = None,
) -> dict[str, Any]:
    """Train as the config says, in a workdir; resume if it holds checkpoints; return the summary.

    Args:
      config: the checked config.
      folder: the workdir; created if missing.
      command: the command line of this start, for the record.
      started: time.time() when the process started, for the time to first step.
      hooks: hooks of a caller that makes many runs, such as a sweep.
      cluster: the processes that train together, from `hosts.join`; None: this process alone.
      interrupts: what may stop the run, such as `Interrupts(event.is_set)` for a button; None: KeyboardInterrupt only.

    Raises:
      UserError: the data, the workdir or the checkpoints are not usable.
      Diverged: a loss or gradient was not finite.
      Interrupted: `interrupts` asked for it; a resumable checkpoint is in the workdir.
      KeyboardInterrupt: at once up to the first step, as nothing needs saving; later, after a checkpoint of the current
        step is saved; while the last files are written, after they are complete.
      Exception: what `hooks.evaluated` raises.
    """
    interrupts = interrupts or Interrupts()
    with (
        interrupts.one_run(),
        opened(config, folder, interrupts, command=command, started=started, hooks=hooks, cluster=cluster) as run,
    ):
        return interrupts.drive(lambda: _drive(run)) if isinstance(run, Session) else run


@contextlib.contextmanager
def opened(
    config: Config,
    folder: pathlib.Path,
    interrupts: Interrupts,
    *,
    command: list[str],
    started: float | None = None,
    hooks: Hooks | None = None,
    cluster: Cluster | None = None,
) -> Iterator[Session | dict[str, Any]]:
    """Open a run up to its first step, with its workdir locked; or give its summary if it is finished.

    Arguments and errors are those of `train`. The caller has to undo the changes of `interrupts`.
    """
    hooks, cluster = hooks or Hooks(), cluster or Cluster()
    started = time.time() if started is None else started
    interrupts.where = hooks.where or interrupts.goes_on(folder)
    interrupts.leaving, interrupts.cluster = hooks.leaving, cluster
    interrupts.enter("start")
    with contextlib.ExitStack() as held:
        if cluster.first:
            held.enter_context(workdir.claim(folder, None if cluster.alone else config.hosts.join_seconds))
            workdir.check_config(folder, config)
        finished = cluster.of_first(lambda: None if workdir.asks_for_longer(folder, config) else summary.read(folder))
        if finished is not None:
            if cluster.first:
                for damage in filter(None, (*origin.damage(folder), assess.damage(folder))):
                    print(f"jaxcnn: {damage}", file=hooks.output)
                print(f"jaxcnn: {folder} is finished: {summary.last_line(finished)}", file=hooks.output)
            yield finished
            return
        cluster.tell_with(lambda: Standing(0, folder))
        workdir.check_shared(folder, cluster)
        logbook = Logbook(folder, tensorboard=config.run.tensorboard, writes=cluster.first, output=hooks.output)
        try:
            session = open_session(config, folder, started, interrupts, logbook, command, hooks, cluster)
            cluster.tell_with(lambda: Standing(session.step, folder))
            try:
                yield session
            finally:
                session.checkpoints.close()
        finally:
            logbook.close()


def _drive(session: Session) -> dict[str, Any]:
    """Train to the end, evaluate the test split, write the summary."""
    try:
        _train_steps(session)
        return finish(session)
    except Interrupted as error:
        raise Interrupted(stop(session, error)) from None


def stop(session: Session, why: Interrupted) -> str:
    """Save a run that is asked to stop; return the message for the user."""
    save(session)
    _finish_saving(session)
    return (
        f"{why}: stopped with a checkpoint of step {session.step} of {session.spec.total_steps}; "
        f"{session.interrupts.where}"
    )


def finish(session: Session) -> dict[str, Any]:
    """After the last step: evaluate the test split once, write the summary and return it.

    Raises:
      Interrupted: a signal came before the end of the test.
    """
    _finish_saving(session)
    began = time.time()
    test, outputs = _test(session)
    session.interrupts.enter("finish")
    session.progress.wall_seconds += time.time() - session.started
    figures = summary.make(session, test, time.time() - began)
    if session.cluster.first:
        if test is not None:
            assess.write_test(session.folder, test, outputs, session.splits.class_names)
        if session.config.run.curves:
            _draw(session)
        summary.write(session.folder, figures)  # last, as this file marks the run as finished
    session.logbook.say(f"jaxcnn: finished: {summary.last_line(figures)}")
    left = ("summary.json", "metrics.jsonl", "test.json", "curves.png", "checkpoints/")
    session.logbook.say(f"  {session.folder}/{', '.join(name for name in left if (session.folder / name).exists())}")
    return figures


def _draw(session: Session) -> None:
    """Draw the curves; a failure is only reported, so that a finished run still gets its summary."""
    try:
        remarks = curves.damage(session.folder)
        curves.draw(session.folder)
    except Exception as error:  # matplotlib may fail in any way, and so may records that somebody changed
        error = extras.missing(error, "curves.png")
        told = f"curves.png could not be drawn ({type(error).__name__}: {error})"
        remarks = [str(error) if isinstance(error, extras.MissingExtra) else told]
    for remark in remarks:
        session.logbook.say(f"jaxcnn: {remark}")


def _train_steps(session: Session) -> None:
    """Train to each step at which something is due, the last step included; evaluate and save there."""
    due = due_steps(session)
    begin(session, due)
    with session.loader.train_inputs(session.splits.train, session.step) as inputs:
        driver = Driver(session, inputs)
        for step in due.steps:
            if step > session.step:
                driver.train_until(step)
                at_step(session, due)


@dataclasses.dataclass(frozen=True)
class Due:
    """The steps after which a run is evaluated on validation, and those after which it is saved."""

    evaluate: frozenset[int]
    save: frozenset[int]

    @property
    def steps(self) -> list[int]:
        """All due steps, in order; the last one ends the run."""
        return sorted(self.evaluate | self.save)


def due_steps(session: Session) -> Due:
    """The due steps of a run, from its config."""
    spec, config = session.spec, session.config
    steps_per_epoch, total = spec.steps_per_epoch, spec.total_steps
    eval_steps = rhythm(config.run.eval_every_epochs, steps_per_epoch, total) if session.splits.val else frozenset()
    if every := config.checkpoint.every_steps:
        save_steps = frozenset(range(every, total, every)) | {total}
    else:
        save_steps = rhythm(config.checkpoint.every_epochs, steps_per_epoch, total)
    if every := config.checkpoint.keep_every_steps:
        save_steps |= frozenset(range(every, total, every))
    return Due(eval_steps, save_steps)


def begin(session: Session, due: Due) -> None:
    """Before the first step of a start: do what was due at the step it resumes from, but was not done."""
    if session.progress.evaluated:
        session.hooks.evaluated(session.progress.evaluated, session.progress.accuracy)
    if session.step in due.evaluate and session.progress.evaluated < session.step:
        at_step(session, due)  # the stop came before or during this evaluation


def at_step(session: Session, due: Due) -> None:
    """Evaluate and save where they are due after this step."""
    evaluate = session.step in due.evaluate
    better = evaluate and _evaluate(session)
    if session.step in due.save or (better and session.config.checkpoint.keep_best):
        save(session, evaluated=evaluate)
    if evaluate:
        session.hooks.evaluated(session.step, session.progress.accuracy)


def rhythm(every_epochs: float, steps_per_epoch: float, total: int) -> frozenset[int]:
    """The step at the end of each interval of `every_epochs`, and the last step; only the last step if that is 0."""
    if not every_epochs:
        return frozenset({total})
    count = int(min(total, total / (every_epochs * steps_per_epoch))) + 1  # as an interval has at least one step
    return frozenset(s for n in range(1, count + 1) if (s := steps_of(every_epochs, steps_per_epoch, n)) < total) | {
        total
    }


def _evaluate(session: Session) -> bool:
    """Evaluate the validation split; return whether the accuracy is the best so far."""
    session.interrupts.enter("evaluate")
    began = time.time()
    assert session.splits.val is not None
    values = _figures(session, session.splits.val, session.state)
    progress = session.progress
    progress.eval_seconds += time.time() - began
    progress.evaluated = session.step
    epoch = round(session.step / session.spec.steps_per_epoch, 6)
    session.logbook.record("val", session.step, {"epoch": epoch, **values, "train_seconds": progress.train_seconds})
    accuracy = progress.accuracy = values[summary.headline(session.config)]
    better = accuracy > progress.best_accuracy
    if better:
        progress.best_accuracy, progress.best_step = accuracy, session.step
    averaged = f" ema {100 * accuracy:.2f}%" if session.state.ema is not None else ""
    session.logbook.progress(
        f"step {session.step}/{session.spec.total_steps} epoch {epoch:.2f} val loss {values['loss']:.4f} "
        f"val accuracy {100 * values['top1_accuracy']:.2f}%{averaged} best {100 * progress.best_accuracy:.2f}%",
        now=True,
    )
    return better


def _figures(
    session: Session, split: Split, state: State, tta: str = "none", outputs: list[Outputs] | None = None
) -> dict[str, Any]:
    """Loss and accuracies of a split; those of the moving average, if the run keeps one, are named ema_….

    Those with test-time augmentation, if any, are named tta_… and ema_tta_…. The `Outputs` of the weights behind the
    headline figure are appended to `outputs`.
    """
    batch_size = loaders.eval_batch_size(session.config.run.eval_batch_size, session.spec, session.mesh)

    def measure(variables: Any, outputs: list[Outputs] | None) -> dict[str, float]:
        check = session.interrupts.check
        return evaluate(session.loader, split, variables, session.normalization, batch_size, check, tta, outputs)

    values = measure(state.variables(), outputs if state.ema is None else None)
    if state.ema is not None:
        averaged = measure(state.ema, outputs)
        values |= {f"ema_{name}": value for name, value in averaged.items() if name != "examples"}
    return values


def save(session: Session, *, evaluated: bool = False) -> None:
    """Start saving the state, unless it is saved already."""
    session.interrupts.enter("save")
    if session.saved == session.step and not evaluated:
        return
    progress = session.progress
    progress.log_bytes, progress.log_crc32 = session.logbook.length(), session.logbook.crc32
    wall_seconds = progress.wall_seconds + time.time() - session.started
    record = {
        "step": session.step,
        "progress": dataclasses.asdict(progress) | {"wall_seconds": wall_seconds},
        "config": configs.to_dict(session.config),
        "devices": meshes.describe(session.mesh),
        **origin.of(session.splits, session.normalization),
    }
    session.checkpoints.save(session.state, record, progress.accuracy if evaluated else None)
    session.saved = session.step


def _finish_saving(session: Session) -> None:
    session.interrupts.enter("save")
    session.checkpoints.wait()


def _test(session: Session) -> tuple[dict[str, Any] | None, list[Outputs]]:
    """The one evaluation of the test split: its figures, and the outputs for its examples."""
    split, outputs = session.splits.test, list[Outputs]()
    if split is None:
        return None, outputs
    session.interrupts.enter("evaluate")
    state, step = session.state, session.step
    if session.config.run.test_with == "best":
        step = session.progress.best_step
        try:
            shardings = sharded.state_shardings(session.spec, session.mesh)
            state = session.checkpoints.restore(step, session.state, shardings).state
        except DamagedError as error:
            raise UserError(
                f"config.run.test_with='best': {error}; restore {session.folder}/checkpoints/{step} from a backup, or "
                f"test the last checkpoint with --mode=eval --workdir={session.folder}"
            ) from error
    values = _figures(session, split, state, session.config.run.tta, outputs)
    session.logbook.record("test", session.step, {"of_step": step, **values})
    return {"of_step": step, **values}, outputs
