"""The whole run: train, evaluate, save, test once, summarise."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import Config, UserError, flatten, to_dict
from jaxcnn.data.selection import groups_of
from jaxcnn.learn import sharded
from jaxcnn.learn.state import State
from jaxcnn.machine import extras
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster, Standing
from jaxcnn.tasks import by_name, kept
from jaxcnn.train import (
    assess,
    curves,
    final_figures,
    measured,
    mistakes,
    network_of_weights,
    origin,
    packages,
    plateau,
    summary,
    told,
    workdir,
)
from jaxcnn.train.damage import DamagedError
from jaxcnn.train.drive import Driver
from jaxcnn.train.due import Due, due_steps
from jaxcnn.train.hooks import Evaluation, Hooks
from jaxcnn.train.interrupts import Interrupted, Interrupts
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.loggers import Loggers
from jaxcnn.train.session import Session, open_session
from jaxcnn.train.terminal import LOOK


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
      started: time.monotonic() when the process started, for the time to first step.
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
    started = time.monotonic() if started is None else started
    interrupts.where = hooks.where or interrupts.goes_on(folder)
    interrupts.leaving, interrupts.cluster = hooks.leaving, cluster
    interrupts.enter("start")
    by_name.headline(config.task)  # refuses a figure that cannot decide before any work
    with contextlib.ExitStack() as held:
        if cluster.first:
            held.enter_context(workdir.claim(folder, None if cluster.alone else config.hosts.join_seconds))
        config, adopted = network_of_weights.of_run(config, folder, cluster)
        if cluster.first:
            workdir.check_config(folder, config)
        finished = cluster.of_first(lambda: None if workdir.asks_for_longer(folder, config) else summary.read(folder))
        if finished is not None:
            if cluster.first:
                for damage in filter(None, (*origin.damage(folder, finished.get("steps")), assess.damage(folder))):
                    print(f"jaxcnn: {damage}", file=hooks.output)
                print(f"jaxcnn: {folder} is finished: {summary.last_line(finished)}", file=hooks.output)
            yield finished
            return
        packages.check(config)
        cluster.tell_with(lambda: Standing(0, folder))
        workdir.check_shared(folder, cluster)
        logbook = Logbook(
            folder,
            tensorboard=config.run.tensorboard,
            writes=cluster.first,
            output=hooks.output,
            progress_lines=hooks.progress_lines,
            loggers=Loggers(config.run.loggers, folder, flatten(to_dict(config))) if cluster.first else None,
        )
        if adopted:
            logbook.say(adopted)
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
    """Evaluate the test split, if any, once after the last step, write the summary and return it.

    Raises:
      Interrupted: a signal came before the end of the test.
    """
    _finish_saving(session)
    began = time.monotonic()
    test, collected = _test(session)
    session.interrupts.enter("finish")
    session.progress.wall_seconds += time.monotonic() - session.started
    figures = final_figures.of(session, test, time.monotonic() - began)
    if session.cluster.first:
        if test is not None:
            assess.write_test(session.folder, test | collected)
        if session.config.run.curves:
            _draw(session)
        session.logbook.finished = True
        summary.write(session.folder, figures)  # last, as this file marks the run as finished
    told.end(session, figures)
    return figures


def _draw(session: Session) -> None:
    """Draw the training curves."""
    with _reported(session, "curves.png"):
        for remark in curves.damage(session.folder):
            session.logbook.say(f"jaxcnn: {remark}", LOOK)
        curves.draw(session.folder, session.spec.task.evaluation.headline)


@contextlib.contextmanager
def _reported(session: Session, picture: str) -> Iterator[None]:
    """Report a picture that cannot be drawn, so that a finished run still gets its summary."""
    try:
        yield
    except Exception as error:  # matplotlib may raise anything, and records may have been changed by hand
        error = extras.missing(error, picture)
        why = f"{picture} could not be drawn ({type(error).__name__}: {error})"
        session.logbook.say(f"jaxcnn: {error if isinstance(error, extras.MissingExtra) else why}", LOOK)


def _train_steps(session: Session) -> None:
    """Train up to each step at which something is due, including the last; evaluate and save there."""
    due = due_of(session)
    begin(session, due)
    with session.loader.train_inputs(session.splits.train, session.step) as inputs:
        driver = Driver(session, inputs)
        for step in due.steps:
            if ended(session, due):
                break
            if step > session.step:
                driver.train_until(step)
                at_step(session, due)


def ended(session: Session, due: Due) -> bool:
    """Whether a run has made its last step, or has been validated `run.patience` times without a new best."""
    patience, progress = session.config.run.patience, session.progress
    stale = patience > 0 and due.since(progress.advanced_step, progress.evaluated) >= patience
    return stale or session.step >= session.spec.total_steps


def due_of(session: Session) -> Due:
    """The due steps of a run."""
    return due_steps(session.spec, session.config, validates=session.splits.val is not None)


def begin(session: Session, due: Due) -> None:
    """Do what was due at the step from which a start resumes, if it was not done, before the first step."""
    if session.progress.evaluated:
        session.hooks.evaluated(session.progress.evaluated, session.progress.score)
    if session.step in due.evaluate and session.progress.evaluated < session.step:
        at_step(session, due)  # the stop came during this evaluation


def at_step(session: Session, due: Due) -> None:
    """Evaluate and save if these are due after the current step."""
    evaluate = session.step in due.evaluate
    better = evaluate and _evaluate(session)
    if evaluate:
        plateau.after_validation(session, due)
    if session.step in due.save or (better and session.config.checkpoint.keep_best) or ended(session, due):
        save(session, evaluated=evaluate)
    if evaluate:
        if session.hooks.after_evaluation is not None and session.evaluation is not None:
            session.hooks.after_evaluation(session.evaluation)
        session.hooks.evaluated(session.step, session.progress.score)


def _evaluate(session: Session) -> bool:
    """Evaluate the validation split; return whether its headline figure is the best so far."""
    session.interrupts.enter("evaluate")
    told.phase(session, "validating")
    began = time.monotonic()
    assert session.splits.val is not None
    split, evaluation = session.splits.val, session.spec.task.evaluation
    collector = evaluation.collector(session.constants) if evaluation.collects else None
    values = measured.figures(session, split, session.state, collector=collector)
    if collector is not None:
        values |= measured.recorded(session, collector.figures(split.class_names, {}))
    progress = session.progress
    progress.eval_seconds += time.monotonic() - began
    epoch = round(session.step / session.spec.steps_per_epoch, 6)
    session.logbook.record("val", session.step, {"epoch": epoch, **values, "train_seconds": progress.train_seconds})
    headline = evaluation.headline
    decisive = values.get(summary.headline(session.config, headline))
    if decisive is None:
        raise UserError(
            f"config.task.monitor={headline.name!r}: the validation split has no such figure, so it cannot decide; it "
            f"has {', '.join(name for name in values if name != 'examples')}"
        )
    better = progress.validated(session.step, headline.score(decisive), session.config.run.min_delta)
    session.evaluation = Evaluation(session.step, session.spec.total_steps, epoch, values, better)
    told.evaluation(session, values, better=better)
    return better


def save(session: Session, *, evaluated: bool = False) -> None:
    """Start saving the state, unless it is saved already."""
    session.interrupts.enter("save")
    if session.saved == session.step and not evaluated:
        return
    progress = session.progress
    progress.log_bytes, progress.log_crc32 = session.logbook.length(), session.logbook.crc32
    wall_seconds = progress.wall_seconds + time.monotonic() - session.started
    record = {
        "step": session.step,
        "progress": dataclasses.asdict(progress) | {"wall_seconds": wall_seconds},
        "config": configs.to_dict(session.config),
        "devices": meshes.describe(session.mesh),
        **origin.of(session.splits, session.constants),
    }
    session.checkpoints.save(session.state, record, progress.score if evaluated else None)
    session.saved = session.step


def _finish_saving(session: Session) -> None:
    session.interrupts.enter("save")
    session.checkpoints.wait()


def _test(session: Session) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Evaluate the test split, the only time in a run: its figures, and those of its collected outputs.

    Before it, thresholds and temperature are fitted to the validation split, also in a run without a test split.
    """
    split = session.splits.test
    if split is None and session.splits.val is None:
        return None, {}
    session.interrupts.enter("evaluate")
    told.phase(session, "validating" if split is None else "testing")
    state, step = _tested(session)
    found, of_validation = measured.fit(session, state, step)
    if split is None:
        return None, {}
    by = session.config.data.group
    collector = kept.of(session.spec.task, session.constants, groups_of(split), by)
    values = {"of_step": step, **measured.figures(session, split, state, session.config.run.tta, collector)}
    collected = collector.figures(session.splits.class_names, found)
    values |= measured.recorded(session, collected)
    session.logbook.record("test", session.step, values)
    if session.config.run.curves and session.cluster.first:
        session.interrupts.enter("finish")
        with _reported(session, mistakes.FILE):
            mistakes.draw_test(session.folder, session.spec, session.mesh, split, collector, session.constants, found)
    told.groups(session, collected)
    return values, collected | of_validation


def _tested(session: Session) -> tuple[State, int]:
    """The state that is tested, and its step: the last, or the best on validation with `run.test_with="best"`."""
    step = session.progress.best_step  # 0: no figure of validation was finite
    if session.config.run.test_with != "best" or not step:
        return session.state, session.step
    try:
        shardings = sharded.state_shardings(session.spec, session.mesh)
        return session.checkpoints.restore(step, session.state, shardings).state, step
    except DamagedError as error:
        instead = f"test the last checkpoint with --mode=eval --workdir={session.folder}"
        if session.splits.test is None:
            instead = "continue with --config.run.test_with=last"
        raise UserError(
            f"config.run.test_with='best': {error}; restore {session.folder}/checkpoints/{step} from a backup, or "
            f"{instead}"
        ) from error
