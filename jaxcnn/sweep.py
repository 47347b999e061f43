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

import pathlib
import sys
import time

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine.extras import need
from jaxcnn.study import choices

CONFIG = command.define_config("The sweep: a file of configs/sweeps/, with :variant if wanted.")
WORKDIR = command.define_path("workdir", None, "Folder of the sweep; a sweep that was started there continues.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print the plan.")
MEASURE = flags.DEFINE_bool("measure", True, "For the plan, compile each program and measure a few of its steps.")
SAMPLER = flags.DEFINE_enum(
    "sampler", None, list(choices.SAMPLERS),
    "Who chooses the trials; default: grid for lists, random for ranges. nsga2 and nsga3 also minimise training time.",
)  # fmt: skip
PRUNER = flags.DEFINE_enum(
    "pruner",
    "none",
    list(choices.PRUNERS),
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
    "engine", "inline", list(choices.ENGINES),
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
    from jaxcnn.study import start, store, whole, worker

    worker.ignore_preemption_notice()
    definition = files.read_definition(folder)
    url = whole.storage_url(folder, STORAGE.value or "")
    start.check_storage(folder, definition, url)
    storage = store.open_storage(url, definition.heartbeat)
    worker.work(
        folder,
        definition,
        storage,
        _command(),
        until=_until(),
        began=lambda lease: print(f"trial {lease.number} {'continues' if lease.resumed else 'begins'}", flush=True),
        ended=lambda lease, outcome: print(f"trial {lease.number} {outcome.state}", flush=True),
        interrupts=command.interrupts(),
    )
    return 0


def _sweep(folder: pathlib.Path) -> int:
    """Run the sweep: plan, study, engine, outcome; return the exit code."""
    from rich.console import Console

    from jaxcnn.study import outcome, start, whole

    base = command.read_config(CONFIG)
    file, _, variant = _config_file().partition(":")
    sweep = start.load_sweep(file, variant)
    start.refuse_overridden(sweep, sys.argv[1:])
    board = whole.run(
        whole.Wanted(
            folder=folder,
            name=command.config_name(flags.FLAGS),
            base=base,
            sweep=sweep,
            config_file=_config_file(),
            command=_command(),
            console=Console(highlight=False, markup=False, emoji=False, soft_wrap=True),
            interrupts=command.interrupts(),
            sampler=SAMPLER.value or "",
            pruner=PRUNER.value,
            trials=TRIALS.value,
            retry=RETRY.value or "",
            engine=ENGINE.value,
            workers=WORKERS.value,
            population=POPULATION.value,
            population_way=POPULATION_WAY.value,
            pbt_every_epochs=PBT.value,
            heartbeat=HEARTBEAT.value,
            dry_run=DRY_RUN.value,
            measures=MEASURE.value,
            storage=STORAGE.value or "",
            until=_until(),
            options=_options(),
        )
    )
    return 0 if board is None else outcome.exit_code(board)


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
