"""From a config file with `get_sweep` to a study that workers can work on, new or gone on with."""

import dataclasses
import importlib.util
import pathlib
import traceback
import types
import uuid
from typing import Any

from jaxcnn import config as configs
from jaxcnn.config import Config, ConfigError, UserError
from jaxcnn.data import place
from jaxcnn.machine import paths
from jaxcnn.study import folder as files
from jaxcnn.study import plan as plans
from jaxcnn.study import spec, store
from jaxcnn.study.folder import Definition
from jaxcnn.study.trial_queue import TrialQueue
from jaxcnn.text import counted
from jaxcnn.train.workdir import MAY_CHANGE

DIRECTIONS = {"val_accuracy": "maximize", "train_seconds": "minimize"}
DATABASE = "study.db"
MULTI_OBJECTIVE = ("nsga2", "nsga3")


def load_sweep(file: str, variant: str) -> spec.Sweep:
    """The sweep of a config file.

    Raises:
      UserError: the file has no `get_sweep`, or it fails.
    """
    try:
        module = _import(pathlib.Path(file))
        if not hasattr(module, "get_sweep"):
            raise UserError(
                f"--config={file} has no get_sweep(variant), so it says nothing to vary; configs/sweeps/ has some"
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
        raise UserError(f"--config={path}: there is no such Python file")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


def refuse_overridden(sweep: spec.Sweep, argv: list[str]) -> None:
    """Refuse `--config.<key>` for a field that the sweep varies.

    Raises:
      ConfigError: there is one.
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
    if plan.sampler in MULTI_OBJECTIVE:
        directions = dict(DIRECTIONS)
    else:  # without a validation split nothing may be decided on accuracy
        objective = "train_seconds" if full else "val_accuracy"
        directions = {objective: DIRECTIONS[objective]}
    if pruner != "none" and (full or len(directions) > 1):
        reason = "config.data.protocol='full' has no validation accuracy" if full else "two objectives cannot be pruned"
        raise UserError(f"--pruner={pruner}: {reason}; leave it out")
    return Definition(
        name=name,
        study=f"{name}-{uuid.uuid4().hex[:12]}",
        storage=storage,
        base=dataclasses.replace(base, data=place.absolute(base.data)),  # as every trial keeps it
        sampler=plan.sampler,
        pruner=pruner,
        directions=directions,
        space=None if plan.planned is not None else sweep.space,
        trials=plan.trials,
        seed=sweep.seeds[0] if sweep.seeds else base.seed,
        heartbeat=heartbeat,
        evaluations=plans.evaluations(base),
        generation=_generation(plan) if plan.sampler in MULTI_OBJECTIVE else 0,
    )


def _generation(plan: plans.Plan) -> int:
    """Trials in a generation of an evolutionary search: four generations in all, of 4 to 50 trials.

    Optuna's own 50 would make a search of up to 50 trials a random one.
    """
    return min(max(plan.trials // 4, 4), 50)


def go_on(folder: pathlib.Path, new: Definition) -> Definition:
    """The definition that a folder has, held against what the command says now; a search may be given more trials.

    Raises:
      UserError: it is of another sweep; the message has a line for each thing that differs.
    """
    old = files.read_definition(folder)
    there, here = (configs.flatten(definition.to_json()["base"]) for definition in (old, new))
    there["data.source"] = place.absolute_source(there["data.source"])  # older versions kept it as it was typed
    differ = [
        f"  config.{key}: {there[key]} in the folder, {here[key]} now"
        for key in here
        if _plain(there[key]) != _plain(here[key]) and not key.startswith(MAY_CHANGE)
    ]
    for field in ("name", "sampler", "pruner", "directions", "storage", "seed"):
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
    """Make the study and its `sweep.json`; return them as they are, which another command may have made meanwhile.

    Raises:
      UserError: as of `go_on` and `open_desk`.
    """
    with files.held(folder / files.BEGIN):
        if (folder / files.SWEEP).exists():
            definition = go_on(folder, definition)
        queue = open_desk(folder, definition, storage, plan)
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
    """Write `sweep.json`, from which workers and reports know the sweep."""
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
    files.write_json(folder / files.SWEEP, definition.to_json() | record)


def open_desk(folder: pathlib.Path, definition: Definition, storage: Any, plan: plans.Plan) -> TrialQueue:
    """The study in its store, with all planned trials in the queue.

    Raises:
      UserError: trials that were planned before no longer are.
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
    """How `sweep.json` names a storage: without a password, and the default one wherever the folder may be seen."""
    return DATABASE if url == default_url(folder) else store.public_url(url)


def without_storage(arguments: list[str]) -> list[str]:
    """Arguments without --storage and its URL, which may hold a password."""
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
    """Refuse a storage that the sweep does not have.

    Raises:
      UserError: it is another one.
    """
    if definition.storage == DATABASE and url != default_url(folder):
        raise UserError(f"the study of --workdir={folder} is in its {DATABASE}; leave --storage out")
    if definition.storage != DATABASE and url == default_url(folder):
        raise UserError(f"the study of --workdir={folder} is in {definition.storage}; name that by --storage")


def default_url(folder: pathlib.Path) -> str:
    """A SQLite file in the sweep's folder."""
    return store.sqlite_url(folder.absolute() / DATABASE)


def with_home(url: str) -> str:
    """A storage's URL with `~` expanded where its path begins."""
    scheme, separator, path = url.partition(":///" if url.startswith("sqlite") else ":")
    return f"{scheme}{separator}{paths.expand(path, '--storage: ')}" if path.startswith("~") else url
