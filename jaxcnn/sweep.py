"""Run a sweep or a search: many trials of one config, as one study.

    python -m jaxcnn.sweep --config=configs/sweeps/<file>.py[:variant] --workdir=<folder> [--dry_run]
    python -m jaxcnn.sweep --worker --workdir=<folder> [--storage=<URL>]

The first prints the plan and runs it; the same command continues after a stop. The second is a worker for a sweep
started by the first. Any number of workers can run, on any host that can access the folder and the storage.

Exit codes: 0 all possible work is done; 2 an error, reported in one line; 75 stopped by a signal, the same command
continues. A failed trial is a row of the sweep and does not stop it; but if trials have ended and none has a result,
the code is 3 if all diverged, and 2 if some failed otherwise.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import importlib
import os
import pathlib
import sys
import time
from typing import Any

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine.extras import need

CONFIG = command.define_config("The sweep: a file of configs/sweeps/, with :variant if wanted.")
WORKDIR = command.define_path("workdir", None, "Folder of the sweep; a sweep that was started there continues.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the plan.")
MEASURE = flags.DEFINE_bool("measure", True, "For the plan, compile each program and measure a few of its steps.")
SAMPLER = flags.DEFINE_enum(
    "sampler", None, ["grid", "random", "tpe", "cmaes", "nsga2", "nsga3", "gp"],
    "Who chooses the trials; default: grid for lists, random for ranges. nsga2 and nsga3 also minimise training time.",
)  # fmt: skip
PRUNER = flags.DEFINE_enum(
    "pruner",
    "none",
    ["none", "median", "hyperband"],
    "Method that ends trials early if they have little chance of a good result.",
)
TRIALS = flags.DEFINE_integer("trials", 0, "Number of trials of a random sweep or a search.", lower_bound=0)
TIMEOUT = flags.DEFINE_float("timeout", None, "Seconds after which no further trial begins.", lower_bound=0)
RETRY = flags.DEFINE_enum(
    "retry", None, ["failed", "pruned"], "First return trials that failed or diverged (or were pruned) to the queue; "
        "each continues from its checkpoint.")  # fmt: skip
STORAGE = flags.DEFINE_string(
    "storage", None, "Optuna storage: sqlite:///…, postgresql://…, mysql://… or journal:<file>; default: study.db in "
        "the folder. $JAXCNN_STORAGE sets the same without showing a password.")  # fmt: skip
ENGINE = flags.DEFINE_enum(
    "engine", "inline", ["inline", "processes", "slurm", "workers"],
    "inline: in this process; processes: one per GPU or set of cores; slurm: an array of jobs; workers: only workers "
    "that are started elsewhere with --worker.",
)  # fmt: skip
WORKERS = flags.DEFINE_integer("workers", 0, "processes, slurm: number of workers; 0: as many as fit.", lower_bound=0)
SLURM = flags.DEFINE_list("slurm", [], "slurm: options of sbatch, such as partition=gpu,time=240,gpus_per_node=1.")
POPULATION = flags.DEFINE_integer(
    "population", 1, "inline: number of trials of one program that are trained together, in the way that was "
        "measured as the fastest.", lower_bound=1)  # fmt: skip
POPULATION_WAY = flags.DEFINE_enum(
    "population_way", "auto", ["auto", "vmap", "devices", "in_turn"],
    "auto: measured; vmap: in one program on one device; devices: members spread over the devices of this machine; "
    "in_turn: one after the other, step by step.",
)  # fmt: skip
PBT = flags.DEFINE_float(
    "pbt_every_epochs", 0.0, "Population-based training: after each interval of this many epochs, the worst fifth of a "
        "population continues with the weights of the best, and with a changed learning rate and weight decay. "
        "0: off.", lower_bound=0)  # fmt: skip
WORKER = flags.DEFINE_bool("worker", False, "Work on the sweep in --workdir until all its trials have ended.")
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat", 60, "Seconds between heartbeats; a worker on another host counts as dead after two missed ones.",
    lower_bound=1,
)  # fmt: skip
OF_SWEEP = (  # flags that workers read from the folder
    "config", "dry_run", "measure", "sampler", "pruner", "trials", "retry", "engine", "population", "population_way",
    "pbt_every_epochs", "heartbeat",
)  # fmt: skip


def main() -> int:
    """Run the sweep or the worker given by the flags; return the exit code."""
    if not WORKDIR.value:
        raise UserError("--workdir=<folder of the sweep> is missing")
    folder = pathlib.Path(WORKDIR.value)
    from jaxcnn.train.interrupts import INTERRUPTED, Interrupted

    _refuse_without_effect()
    need("sweep", "a sweep", "optuna")
    try:
        return _work(folder) if WORKER.value else _sweep(folder)
    except Interrupted as error:
        print(f"jaxcnn: {error}", file=sys.stderr)
        return INTERRUPTED


def _refuse_without_effect() -> None:
    """Refuse flags that would be ignored.

    Raises:
      UserError: such a flag is set.
    """
    given = [name for name in (*OF_SWEEP, "slurm", "workers") if flags.FLAGS[name].present]
    if WORKER.value:
        for name in given:
            raise UserError(
                f"--{name} is not for --worker, which takes its settings from the folder; leave out this flag or "
                "--worker"
            )
    for name, engines in {"slurm": ("slurm",), "workers": ("processes", "slurm")}.items():
        if name in given and ENGINE.value not in engines:
            raise UserError(f"--{name} is not for --engine={ENGINE.value}, but for {' and '.join(engines)}")
    if ENGINE.value == "workers" and TIMEOUT.value is not None:
        raise UserError(
            "--timeout is not for --engine=workers, whose workers are started elsewhere; give it to each --worker"
        )


def _work(folder: pathlib.Path) -> int:
    """Run a worker; return the exit code."""
    from jaxcnn.study import folder as files
    from jaxcnn.study import start, store, worker

    worker.ignore_preemption_notice()
    definition = files.read_definition(folder)
    url = _storage(folder)
    start.check_storage(folder, definition, url)
    storage = store.open_storage(url, definition.heartbeat)
    worker.work(
        folder,
        definition,
        storage,
        _command(),
        until=_until(),
        began=lambda lease: print(f"trial {lease.number} {'continues' if lease.gone_on else 'begins'}", flush=True),
        ended=lambda lease, outcome: print(f"trial {lease.number} {outcome.state}", flush=True),
        interrupts=command.interrupts(),
    )
    return 0


def _sweep(folder: pathlib.Path) -> int:
    """Run the sweep: plan, study, engine, outcome; return the exit code."""
    from rich.console import Console

    from jaxcnn.study import folder as files
    from jaxcnn.study import outcome, start, store, table
    from jaxcnn.study.engines import Job
    from jaxcnn.tasks import by_name
    from jaxcnn.train.hooks import Shared

    console, shared = Console(highlight=False, markup=False, emoji=False, soft_wrap=True), Shared()
    sweep, plan, definition = _define(folder, shared)
    population = _population(plan, shared)
    if not DRY_RUN.value:
        folder.mkdir(parents=True, exist_ok=True)
        if ENGINE.value == "inline":
            files.work_alone(folder)
    environment, estimate = _show_plan(folder, plan, definition.name, shared, console)
    if DRY_RUN.value:
        return 0
    with files.held(folder / files.BEGIN):  # two commands at once would both create the store's tables
        storage = store.open_storage(_storage(folder), definition.heartbeat)
    definition, queue = start.begin(
        folder, definition, storage, plan, sweep, _command(), config_file=_config_file(), environment=environment
    )
    if RETRY.value:
        again = queue.retry({"failed", "diverged"} if RETRY.value == "failed" else {RETRY.value})
        console.print(f"jaxcnn: {again} trial{' is' if again == 1 else 's are'} tried again")
    board = table.Board(folder, definition.trials, plan.planned, by_name.headline(definition.base.task))
    with table.Display(board, estimate, console) as display:
        job = Job(
            folder=folder,
            definition=definition,
            storage=storage,
            url=_storage(folder),
            command=_command(),
            until=_until(),
            workers=WORKERS.value,
            options=_options(),
            display=display,
            shared=shared,
            interrupts=command.interrupts(),
            population=population,
        )
        importlib.import_module(f"jaxcnn.study.engines.{ENGINE.value}").run(job)
    outcome.show(list(outcome.summarize(folder, definition, board, queue.study)), console)
    return outcome.exit_code(board)


def _define(folder: pathlib.Path, shared: Any) -> tuple[Any, Any, Any]:
    """The sweep of the config file, its plan, and the definition of its study, checked against that in the folder."""
    from jaxcnn.study import folder as files
    from jaxcnn.study import plan, spec, start, store

    base = command.read_config(CONFIG)
    file, _, variant = _config_file().partition(":")
    sweep = start.load_sweep(file, variant)
    spec.check(sweep, base)
    start.refuse_overridden(sweep, sys.argv[1:])
    store.check_sampler(plan.choose_sampler(sweep, SAMPLER.value or ""))
    made = plan.make(sweep, base, SAMPLER.value or "", TRIALS.value, shared)
    name, storage = command.config_name(flags.FLAGS), start.storage_name(folder, _storage(folder))
    definition = start.define(name, sweep, base, made, storage, PRUNER.value, HEARTBEAT.value)
    if (folder / files.SWEEP).exists():
        definition = start.go_on(folder, definition)
    return sweep, made, definition


def _population(plan: Any, shared: Any) -> Any:
    """The settings by which trials are trained together, checked against the plan; None if each is trained alone."""
    from jaxcnn.study import together

    if POPULATION.value == 1:
        if PBT.value:
            raise UserError("--pbt_every_epochs needs --population=<number of trials that exchange their weights>")
        if POPULATION_WAY.value != "auto":
            raise UserError("--population_way needs --population=<number of trials that are trained together>")
        return None
    if ENGINE.value != "inline":
        raise UserError(
            f"--population is for --engine=inline, where one process trains many trials, not for {ENGINE.value}"
        )
    settings = together.Settings(POPULATION.value, POPULATION_WAY.value, PBT.value)
    together.check(plan, shared, settings)
    return settings


def _show_plan(folder: pathlib.Path, plan: Any, name: str, shared: Any, console: Any) -> tuple[dict[str, Any], Any]:
    """Measure the plan where its trials will run, and print it; return that environment and the estimate."""
    from jaxcnn.study import measure, outcome, table
    from jaxcnn.study.engines import processes

    places: list[Any] = [{}]  # a separate process, since this one must not occupy devices or cores of the workers
    if ENGINE.value == "inline":
        places = [None]
    elif ENGINE.value == "processes":
        places = list(processes.places_of(WORKERS.value))
    workers = len(places) if ENGINE.value in ("inline", "processes") else max(1, WORKERS.value)
    wanted = MEASURE.value and ENGINE.value in ("inline", "processes")  # other engines run on other machines
    figures, environment, peak = measure.here_or_apart(
        plan, folder, shared, _command(), console.print, place=places[0], wanted=wanted
    )
    seconds = {
        group.key: measure.seconds_of(group, figures[group.key]) for group in plan.groups if group.key in figures
    }
    outcome.show(outcome.describe_plan(name, plan, figures, seconds, peak, workers), console)
    return environment, table.Estimate({key: value for key, value in seconds.items() if value}, workers)


def _storage(folder: pathlib.Path) -> str:
    from jaxcnn.study import start
    from jaxcnn.study.engines import STORAGE_VARIABLE

    url = STORAGE.value or os.environ.get(STORAGE_VARIABLE)
    return start.with_home(url) if url else start.default_url(folder)


def _until() -> float | None:
    return None if TIMEOUT.value is None else time.time() + TIMEOUT.value


def _options() -> dict[str, str]:
    """The options in --slurm, by name."""
    options = {}
    for part in SLURM.value:
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"--slurm={part!r} is not of the form name=value")
        options[name.strip()] = value.strip()
    return options


def _config_file() -> str:
    from ml_collections import config_flags

    return config_flags.get_config_filename(flags.FLAGS["config"])


def _command() -> list[str]:
    from jaxcnn.study import start

    return [pathlib.Path(sys.argv[0]).name, *start.without_storage(sys.argv[1:])]


if __name__ == "__main__":
    command.run(main)
