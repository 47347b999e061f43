"""A whole sweep: its plan, its study, its engine and its outcome."""

import dataclasses
import importlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from jaxcnn.config import Config, UserError
from jaxcnn.machine import plugins
from jaxcnn.study import folder as files
from jaxcnn.study import measure, outcome, spec, start, store, table, together
from jaxcnn.study import plan as plans
from jaxcnn.study.engines import STORAGE_VARIABLE, Job, processes
from jaxcnn.study.folder import Definition
from jaxcnn.tasks import by_name
from jaxcnn.train.hooks import Shared
from jaxcnn.train.interrupts import Interrupts


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A sweep as it is asked for.

    Attributes:
      folder: folder of the sweep; one that was started there continues.
      name: name of the sweep.
      base: config of all trials.
      sweep: what is varied.
      config_file: where both come from, for the record.
      command: the command line, for the record.
      console: where the plan, the progress and the outcome are printed.
      interrupts: what may stop the sweep, as in `train`.
      sampler, pruner, trials, retry, engine, workers, population, population_way, pbt_every_epochs, heartbeat, dry_run:
        as the flags of `python -m jaxcnn.sweep`.
      measures: whether programs are compiled and measured for the plan.
      storage: URL of the store; empty: that of the environment, or a file in the folder.
      until: time.time() after which no further trial begins; None: no limit.
      options: options of the engine, by name.
    """

    folder: pathlib.Path
    name: str
    base: Config
    sweep: spec.Sweep
    config_file: str
    command: list[str]
    console: Console
    interrupts: Interrupts
    sampler: str = ""
    pruner: str = "none"
    trials: int = 0
    retry: str = ""
    engine: str = "inline"
    workers: int = 0
    population: int = 1
    population_way: str = "auto"
    pbt_every_epochs: float = 0.0
    heartbeat: int = 60
    dry_run: bool = False
    measures: bool = True
    storage: str = ""
    until: float | None = None
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def url(self) -> str:
        """The URL of the store."""
        return storage_url(self.folder, self.storage)


def storage_url(folder: pathlib.Path, given: str) -> str:
    """The URL of the store of a sweep: the one given, that of the environment, or a file in the folder."""
    url = given or os.environ.get(STORAGE_VARIABLE)
    return start.with_home(url) if url else start.default_url(folder)


def run(wanted: Wanted) -> table.Board | None:
    """Plan the sweep, run or continue it, and print its outcome; return its trials; None if only planned.

    Raises:
      UserError: sweep, config, folder or storage do not allow it.
      Interrupted: it was stopped; the same call continues.
    """
    folder, console, shared = wanted.folder, wanted.console, Shared()
    plan, definition = _define(wanted, shared)
    population = _population(wanted, plan, shared)
    if not wanted.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        if wanted.engine == "inline":
            files.work_alone(folder)
    environment, estimate = _show_plan(wanted, plan, definition.name, shared)
    if wanted.dry_run:
        return None
    with files.held(folder / files.BEGIN):  # two commands at once would both create the store's tables
        storage = store.open_storage(wanted.url, definition.heartbeat)
    definition, queue = start.begin(
        folder,
        definition,
        storage,
        plan,
        wanted.sweep,
        wanted.command,
        config_file=wanted.config_file,
        environment=environment,
    )
    if wanted.retry:
        again = queue.retry({"failed", "diverged"} if wanted.retry == "failed" else {wanted.retry})
        console.print(f"jaxcnn: {again} trial{' is' if again == 1 else 's are'} tried again")
    board = table.Board(folder, definition.trials, plan.planned, by_name.headline(definition.base.task))
    with table.Display(board, estimate, console) as display:
        job = Job(
            folder=folder,
            definition=definition,
            storage=storage,
            url=wanted.url,
            command=wanted.command,
            until=wanted.until,
            workers=wanted.workers,
            options=dict(wanted.options),
            display=display,
            shared=shared,
            interrupts=wanted.interrupts,
            population=population,
        )
        importlib.import_module(f"jaxcnn.study.engines.{wanted.engine}").run(job)
    outcome.show(list(outcome.summarize(folder, definition, board, queue.study)), console)
    return board


def _define(wanted: Wanted, shared: Shared) -> tuple[plans.Plan, Definition]:
    """The plan of the sweep and the definition of its study, checked against that in the folder."""
    _check_objects(wanted)
    spec.check(wanted.sweep, wanted.base)
    store.check_sampler(plans.choose_sampler(wanted.sweep, wanted.sampler))
    made = plans.make(wanted.sweep, wanted.base, wanted.sampler, wanted.trials, shared)
    storage = start.storage_name(wanted.folder, wanted.url)
    definition = start.define(wanted.name, wanted.sweep, wanted.base, made, storage, wanted.pruner, wanted.heartbeat)
    if (wanted.folder / files.SWEEP).exists():
        definition = start.go_on(wanted.folder, definition)
    return made, definition


def _check_objects(wanted: Wanted) -> None:
    """Refuse objects that only this process has, if others work on the sweep."""
    own = [*plugins.needs(wanted.base), *filter(_is_of_a_session, _listed(wanted.sweep.space))]
    if own and wanted.engine != "inline":
        raise UserError(
            f"config.{own[0][0]}={own[0][1]!r} is an object of this session, but other processes may work on the "
            "sweep; put it into a module and name it as package.module:attribute"
        )


def _listed(space: spec.Space) -> Iterator[tuple[str, Any]]:
    """(field, value) of everything listed in a space; ranges list nothing."""
    if isinstance(space, spec.Rows):
        yield from (pair for row in space.rows for pair in row.items())
    for part in space.parts if isinstance(space, spec.Product | spec.Chain) else ():
        yield from _listed(part)


def _is_of_a_session(choice: tuple[str, Any]) -> bool:
    names = choice[1] if isinstance(choice[1], list | tuple) else choice[1:]
    return any(isinstance(name, str) and plugins.is_of_a_session(name) for name in names)


def _population(wanted: Wanted, plan: plans.Plan, shared: Shared) -> together.Settings | None:
    """The settings by which trials are trained together, checked against the plan; None if each is trained alone."""
    if wanted.population == 1:
        if wanted.pbt_every_epochs:
            raise UserError("--pbt_every_epochs needs --population=<number of trials that exchange their weights>")
        if wanted.population_way != "auto":
            raise UserError("--population_way needs --population=<number of trials that are trained together>")
        return None
    if wanted.engine != "inline":
        raise UserError(
            f"--population is for --engine=inline, where one process trains many trials, not for {wanted.engine}"
        )
    settings = together.Settings(wanted.population, wanted.population_way, wanted.pbt_every_epochs)
    together.check(plan, shared, settings)
    return settings


def _show_plan(wanted: Wanted, plan: plans.Plan, name: str, shared: Shared) -> tuple[dict[str, Any], table.Estimate]:
    """Measure the plan where its trials will run, and print it; return that environment and the estimate."""
    places: list[Any] = [{}]  # a separate process, since this one must not occupy devices or cores of the workers
    if wanted.engine == "inline":
        places = [None]
    elif wanted.engine == "processes":
        places = list(processes.places_of(wanted.workers))
    here = wanted.engine in ("inline", "processes")  # other engines run on other machines
    workers = len(places) if here else max(1, wanted.workers)
    figures, environment, peak = measure.here_or_apart(
        plan,
        wanted.folder,
        shared,
        wanted.command,
        wanted.console.print,
        place=places[0],
        wanted=wanted.measures and here,
    )
    seconds = {
        group.key: measure.seconds_of(group, figures[group.key]) for group in plan.groups if group.key in figures
    }
    outcome.show(outcome.describe_plan(name, plan, figures, seconds, peak, workers), wanted.console)
    return environment, table.Estimate({key: value for key, value in seconds.items() if value}, workers)
