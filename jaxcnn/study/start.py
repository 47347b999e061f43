"""Creates or continues the study of a config file with `get_sweep`, ready for workers."""

import dataclasses
import importlib.util
import pathlib
import traceback
import types
import uuid
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import Config, ConfigError, UserError
from jaxcnn.data import place
from jaxcnn.machine import paths
from jaxcnn.study import folder as files
from jaxcnn.study import plan as plans
from jaxcnn.study import spec, store
from jaxcnn.study.folder import Definition
from jaxcnn.study.trial_queue import TrialQueue
from jaxcnn.tasks import by_name
from jaxcnn.text import counted
from jaxcnn.train.workdir import MAY_CHANGE, write_json

DATABASE = "study.db"
EVOLUTIONARY = ("nsga2", "nsga3")
MULTI_OBJECTIVE = ("tpe", *EVOLUTIONARY)


def load_sweep(file: str, variant: str) -> spec.Sweep:
    """The sweep defined in a config file.

    Raises:
      UserError: the file has no `get_sweep`, or this function fails.
    """
    try:
        module = _import(pathlib.Path(file))
        if not hasattr(module, "get_sweep"):
            raise UserError(
                f"--config={file} has no get_sweep(variant), so it does not define a sweep; see configs/sweeps/ for "
                "examples"
            )
        return module.get_sweep(variant) if variant else module.get_sweep()
    except UserError:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        line = f"line {frames[-1].lineno}: " if frames else ""
        raise ConfigError(f"--config={file}: {line}{type(error).__name__}: {error}") from error


def _import(path: pathlib.Path) -> types.ModuleType:
    made = importlib.util.spec_from_file_location(f"_sweep_{path.stem}", path)
    if made is None or made.loader is None:
        raise UserError(f"--config={path}: this Python file does not exist")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def refuse_overridden(sweep: spec.Sweep, argv: list[str]) -> None:
    """Refuse `--config.<key>` for a field that the sweep varies.

    Raises:
      ConfigError: `argv` contains one.
    """
    given = {argument.lstrip("-").partition("=")[0].removeprefix("config.") for argument in argv}
    varied = spec.varied(sweep.space) + ([spec.SEED] if sweep.seeds else [])
    for key in varied:
        if key in given:
            raise ConfigError(f"--config.{key} has no effect, since the sweep varies it; change its get_sweep()")


def define(
    name: str, sweep: spec.Sweep, base: Config, plan: plans.Plan, storage: str, pruner: str, heartbeat: int
) -> Definition:
    """The definition of a new study.

    Raises:
      UserError: pruner and config do not fit.
    """
    full = base.data.protocol == "full"
    headline = by_name.headline(base.task)
    better = "maximize" if headline.better == "higher" else "minimize"
    possible = {headline.objective: better} | dict.fromkeys(sweep.objectives or ("train_seconds",), "minimize")
    if plan.sampler in EVOLUTIONARY or (sweep.objectives and plan.sampler in MULTI_OBJECTIVE):
        directions = possible
    elif sweep.objectives and plan.planned is None:
        raise UserError(
            f"--sampler={plan.sampler} takes one objective, but the sweep has several; use {', '.join(MULTI_OBJECTIVE)}"
        )
    elif sweep.inherit and plan.planned is not None:
        raise UserError(f"--sampler={plan.sampler} plans all trials beforehand; none can inherit weights")
    else:  # without a validation split, no decision may use the headline figure
        objective = "train_seconds" if full else headline.objective
        directions = {objective: possible.get(objective, "minimize")}
    if pruner != "none" and (full or len(directions) > 1):
        reason = "config.data.protocol='full' has no validation split" if full else "two objectives cannot be pruned"
        raise UserError(f"--pruner={pruner}: {reason}; leave it out")
    return Definition(
        name=name,
        study=f"{name}-{uuid.uuid4().hex[:12]}",
        storage=storage,
        base=dataclasses.replace(base, data=place.absolute(base.data)),  # as in the config of every trial
        sampler=plan.sampler,
        pruner=pruner,
        directions=directions,
        space=None if plan.planned is not None else sweep.space,
        trials=plan.trials,
        seed=sweep.seeds[0] if sweep.seeds else base.seed,
        heartbeat=heartbeat,
        evaluations=plans.evaluations(base),
        generation=_generation(plan) if plan.sampler in EVOLUTIONARY else 0,
        inherit=sweep.inherit,
    )


def _generation(plan: plans.Plan) -> int:
    """Trials per generation of an evolutionary search: four generations in total, of 4 to 50 trials.

    Optuna's default of 50 would turn a search of up to 50 trials into a random one.
    """
    return min(max(plan.trials // 4, 4), 50)


def go_on(folder: pathlib.Path, new: Definition) -> Definition:
    """The definition in a folder, after comparison with the one of the current command; a search may get more trials.

    Raises:
      UserError: the folder belongs to another sweep; the message has one line per difference.
    """
    old = files.read_definition(folder)
    there, here = (configs.flatten(definition.to_json()["base"]) for definition in (old, new))
    there["data.source"] = place.absolute_source(there["data.source"])  # older versions stored it as typed
    differ = [
        f"  config.{key}: {there[key]} in the folder, {here[key]} now"
        for key in here
        if _plain(there[key]) != _plain(here[key]) and not key.startswith(MAY_CHANGE)
    ]
    for field in ("name", "sampler", "pruner", "directions", "storage", "seed", "inherit"):
        if getattr(old, field) != getattr(new, field):
            differ.append(f"  {field}: {getattr(old, field)} in the folder, {getattr(new, field)} now")
    if _plain(old.to_json()["space"]) != _plain(new.to_json()["space"]):
        differ.append("  the space of the search")
    if differ:
        raise UserError(
            f"--workdir={folder} holds another sweep; choose another workdir, or undo:\n" + "\n".join(differ)
        )
    return dataclasses.replace(old, base=new.base, trials=max(old.trials, new.trials), heartbeat=new.heartbeat)


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def begin(
    folder: pathlib.Path,
    definition: Definition,
    storage: Any,
    plan: plans.Plan,
    sweep: spec.Sweep,
    command: list[str],
    *,
    config_file: str,
    environment: dict[str, Any],
) -> tuple[Definition, TrialQueue]:
    """Create the study and its `sweep.json`, unless another command has done so meanwhile; return what exists.

    Raises:
      UserError: as in `go_on` and `open_queue`.
    """
    with files.held(folder / files.BEGIN):
        if (folder / files.SWEEP).exists():
            definition = go_on(folder, definition)
        queue = open_queue(folder, definition, storage, plan)
        _write(folder, definition, plan, sweep, command, config_file, environment)
    return definition, queue


def _write(
    folder: pathlib.Path,
    definition: Definition,
    plan: plans.Plan,
    sweep: spec.Sweep,
    command: list[str],
    config_file: str,
    environment: dict[str, Any],
) -> None:
    """Write `sweep.json`, which describes the sweep to workers and reports."""
    there = files.read_sweep(folder) if (folder / files.SWEEP).exists() else {}
    first = without_storage(there.get("command") or command)
    commands = there.get("commands") or [first]
    planned = None
    if plan.planned is not None:
        planned = [{"overrides": trial["overrides"], "seed": trial["seed"]} for trial in plan.planned]
    record = {
        "command": first,
        "commands": commands + [command] * (command not in commands),
        "config_file": config_file,
        "varied": spec.varied(sweep.space) + ([spec.SEED] if len(sweep.seeds) > 1 else []),
        "planned": planned,
        "programs": len(plan.groups),
        "created": there.get("created") or files.now(),
        "environment": environment,
    }
    write_json(folder / files.SWEEP, definition.to_json() | record)


def open_queue(folder: pathlib.Path, definition: Definition, storage: Any, plan: plans.Plan) -> TrialQueue:
    """The study in its store, with all planned trials in the queue.

    Raises:
      UserError: trials planned before are not planned any more.
    """
    store.create_study(definition, storage)
    queue = TrialQueue(folder, definition, storage)
    if plan.planned is not None:
        now = {spec.identity(_cell(trial)) for trial in plan.planned}
        there = [trial.user_attrs for trial in queue.study.get_trials(deepcopy=False)]
        if gone := [trial for trial in there if spec.identity(_cell(trial)) not in now]:
            raise UserError(
                f"--workdir={folder} has {counted(len(gone), 'trial')} no longer planned, such as "
                f"{spec.describe(gone[0]['overrides'])} seed={gone[0]['seed']}; choose another workdir"
            )
        queue.plan(plan.planned)
    return queue


def _cell(trial: Any) -> dict[str, Any]:
    return {"overrides": trial["overrides"], "seed": trial["seed"]}


def storage_name(folder: pathlib.Path, url: str) -> str:
    """The storage as named in `sweep.json`: without a password; the default one is independent of the folder's path."""
    return DATABASE if url == default_url(folder) else store.public_url(url)


def without_storage(arguments: list[str]) -> list[str]:
    """The arguments without --storage and its URL, which may contain a password."""
    kept: list[str] = []
    url_follows = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        storage = name in ("--storage", "-storage")
        if not storage and not url_follows:
            kept.append(argument)
        url_follows = storage and not equals
    return kept


def check_storage(folder: pathlib.Path, definition: Definition, url: str) -> None:
    """Refuse a storage other than that of the sweep.

    Raises:
      UserError: it is another one.
    """
    if definition.storage == DATABASE and url != default_url(folder):
        raise UserError(f"the study of --workdir={folder} is in its {DATABASE}; leave out --storage")
    if definition.storage != DATABASE and url == default_url(folder):
        raise UserError(f"the study of --workdir={folder} is in {definition.storage}; set --storage to that")


def default_url(folder: pathlib.Path) -> str:
    """The URL of a SQLite file in the sweep's folder."""
    return store.sqlite_url(folder.absolute() / DATABASE)


def with_home(url: str) -> str:
    """A storage URL with a `~` at the beginning of its path expanded."""
    scheme, separator, path = url.partition(":///" if url.startswith("sqlite") else ":")
    return f"{scheme}{separator}{paths.expand(path, '--storage: ')}" if path.startswith("~") else url
