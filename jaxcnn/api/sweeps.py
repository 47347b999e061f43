"""`jaxcnn.sweep`: many trials of one config, from a script or a notebook."""

import dataclasses
import html
import io
import math
import os
import pathlib
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxcnn.api import arguments
from jaxcnn.api import configs as recipes
from jaxcnn.api.configs import Recipe
from jaxcnn.api.errors import python_words
from jaxcnn.api.shown import table
from jaxcnn.config import Config, ConfigError, UserError, flatten, to_dict
from jaxcnn.machine import given
from jaxcnn.machine.extras import need
from jaxcnn.study import choices

_CHOICES = {"sampler": choices.SAMPLERS, "pruner": choices.PRUNERS, "engine": choices.ENGINES}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The trials of a sweep, in order; a notebook shows them as a table.

    Attributes:
      workdir: folder of the sweep, which `jaxcnn.report` takes, too.
      trials: one dictionary for each: "overrides" (what it changes in the config), "seed", "state" (such as "complete",
        "failed" or "waiting"), and "values" by objective, such as "val_accuracy", from 0 to 1.
      best: the complete trial whose headline figure is the best on validation; None if there is none.
    """

    workdir: pathlib.Path
    trials: list[dict[str, Any]]
    best: dict[str, Any] | None

    def __repr__(self) -> str:
        done = sum(trial["state"] == "complete" for trial in self.trials)
        return f"<sweep in {self.workdir}: {done} of {len(self.trials)} trials complete>"

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for trial in self.trials for name in trial["values"]))
        rows = [
            (str(trial["overrides"]), trial["seed"], trial["state"], *(trial["values"].get(name, "") for name in names))
            for trial in self.trials
        ]
        return f"<p>{html.escape(repr(self))}</p>" + table(("what", "seed", "state", *names), rows)


def sweep(
    config: Recipe,
    workdir: str | os.PathLike[str],
    *,
    space: Any = None,
    seeds: Sequence[int] = (),
    trials: int = 0,
    sampler: str = "",
    pruner: Literal["none", "median", "hyperband"] = "none",
    engine: Literal["inline", "processes", "slurm", "workers"] = "inline",
    workers: int = 0,
    timeout: float | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Sweep:
    """Run or continue a sweep, as `python -m jaxcnn.sweep` does.

        found = jaxcnn.sweep("sweeps/quickstart", "runs/sweep")
        found = jaxcnn.sweep("quickstart", "runs/rates", space={"lr": [0.1, 0.2, 0.4]}, seeds=(0, 1))
        found.best

    Args:
      config: a file with `get_sweep`, or the name of one that ships with jaxcnn, with a `:variant` if wanted; or with
        `space`, any config or recipe.
      workdir: folder of the sweep; the same call continues one that was stopped.
      space: what is varied: a mapping from fields to lists of values, of which all combinations are tried; or a space
        of `jaxcnn.study.spec`, which also has ranges. Functions and classes may be values, as in `jaxcnn.config`; with
        another engine than "inline" they must be in a module file.
      seeds: `config.seed` of the repetitions of every planned trial, with `space`.
      trials: number of trials of a random sweep or a search.
      sampler: "grid", "random", "tpe", "cmaes", "nsga2", "nsga3" or "gp"; empty: grid for lists, random for ranges.
      pruner: ends trials early if they have little chance.
      engine: "inline": in this process; "processes": one for each GPU or set of cores; "slurm": an array of jobs;
        "workers": only workers that are started elsewhere.
      workers: number of workers of "processes" and "slurm"; 0: as many as fit.
      timeout: seconds after which no further trial begins; None: no limit.
      dry_run: only print the plan.
      progress: whether to print the plan and the trials that end.

    Raises:
      UserError: config, space, workdir or machine do not allow it, or an argument has no effect beside the others.
      KeyboardInterrupt: the call was interrupted; the same call continues.
      MissingExtra: optuna is not installed (jaxcnn[sweep]); a UserError.
    """
    with python_words():
        need("sweep", "a sweep", "optuna")
        from rich.console import Console

        from jaxcnn.study import whole
        from jaxcnn.train.interrupts import Interrupts

        _check(sampler=sampler, pruner=pruner, engine=engine, trials=trials, workers=workers, timeout=timeout)
        base, wanted, name, file = _sources(
            config, space, tuple(arguments.several("seeds", seeds, "a list of numbers"))
        )
        folder = arguments.path(workdir, "workdir")
        board = whole.run(
            whole.Wanted(
                folder=folder,
                name=name,
                base=base,
                sweep=wanted,
                config_file=file,
                command=["jaxcnn.sweep"],
                console=Console(
                    highlight=False,
                    markup=False,
                    emoji=False,
                    soft_wrap=True,
                    file=None if progress else io.StringIO(),
                ),
                interrupts=Interrupts(),
                sampler=sampler,
                pruner=pruner,
                trials=trials,
                engine=engine,
                workers=workers,
                dry_run=dry_run,
                measures=dry_run or engine == "processes",
                until=None if timeout is None else time.time() + timeout,
            )
        )
        if board is None:
            return Sweep(folder, [], None)
        board.read()
        return Sweep(folder, board.trials, board.best())


def _check(*, sampler: str, pruner: str, engine: str, trials: int, workers: int, timeout: float | None) -> None:
    """Refuse what the command would refuse, before anything is written."""
    options = types.SimpleNamespace(sampler=sampler, pruner=pruner, engine=engine)
    given.check_choices(options, _CHOICES | ({} if sampler else {"sampler": [""]}))
    for name, value in (("trials", trials), ("workers", workers), ("timeout", timeout)):
        if value is not None:
            arguments.number(name, value, -math.inf, whole=name != "timeout")
            if not value >= 0:
                raise UserError(f"--{name}={value!r}: it must be 0 or more")
    if workers:
        given.refuse_beside("engine", engine, {"workers": ("processes", "slurm")}, {"workers"})
    if timeout is not None and engine == "workers":
        raise UserError("timeout= is not for engine='workers': give it as --timeout to each worker that you start")


def _sources(config: Recipe, space: Any, seeds: tuple[int, ...]) -> tuple[Config, Any, str, str]:
    """The config of all trials, what is varied, the name of the sweep, and the file that both come from."""
    from jaxcnn.study import spec, start

    if space is not None:
        base = recipes.checked(recipes.config(config))
        name = pathlib.Path(os.fspath(config)).stem if isinstance(config, str | os.PathLike) else base.model.name
        return base, spec.sweep(_space(space, base), seeds=seeds), name, name
    if not isinstance(config, str | os.PathLike):
        raise ConfigError("a sweep of a config needs space=, such as space={'lr': [0.1, 0.2]}")
    if seeds:
        raise ConfigError("seeds= is for space=; a file's get_sweep has its own")
    file, _, variant = os.fspath(config).partition(":")
    place = recipes.file_of(file)
    base = recipes.checked(recipes.read(place, variant))
    name = "-".join(filter(None, (place.stem, variant)))
    return base, start.load_sweep(str(place), variant), name, f"{place}:{variant}" if variant else str(place)


def _space(space: Any, base: Config) -> Any:
    """A space from a mapping of fields to lists of values."""
    from jaxcnn.study import spec

    if isinstance(space, spec.Space):
        return space
    if not isinstance(space, Mapping):
        raise ConfigError(
            f"space must be a mapping from fields to lists of values, such as {{'lr': [0.1, 0.2]}}, or a space of "
            f"jaxcnn.study.spec, not of type {type(space).__name__}"
        )
    flat = flatten(to_dict(base))
    parts = [spec.values(recipes.key_of(key, flat), values) for key, values in space.items()]
    if not parts:
        raise ConfigError("space={} varies nothing; give it a field, such as {'lr': [0.1, 0.2]}")
    return spec.product(*parts) if len(parts) > 1 else parts[0]
