"""The study in an Optuna store: storages by URL, samplers and pruners by name."""

import importlib.util
import os
import pathlib
import re
import time
import urllib.parse
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

import jaxcnn.config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.study import elements, spec
from jaxcnn.study.choices import PLANNED
from jaxcnn.study.cma_es import CmaEs
from jaxcnn.study.folder import Definition

DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}  # defaults for URLs without a driver, by extra of the package
JOURNAL = "journal:"
# Options in a URL that tell no secret; others may, and each driver has its own.
HARMLESS = (
    *("host", "port", "mode", "uri", "timeout", "charset", "application_name", "unix_socket", "target_session_attrs"),
    *("connect_timeout", "read_timeout", "write_timeout", "sslmode", "sslrootcert", "ssl_ca", "ssl_check_hostname"),
)


def open_storage(url: str, heartbeat: int) -> optuna.storages.BaseStorage:
    """The storage at an SQLAlchemy URL, or at `journal:<file>`.

    Raises:
      UserError: the driver is missing, or the storage cannot be reached.
    """
    _quieten()
    if url.startswith(JOURNAL):
        path = url.removeprefix(JOURNAL)
        if not pathlib.Path(path).absolute().parent.is_dir():
            raise UserError(f"--storage={url}: there is no folder {pathlib.Path(path).parent}")
        try:
            return optuna.storages.JournalStorage(JournalFileBackend(path))
        except OSError:
            raise
        except Exception as error:  # Optuna replays the lines of the file, and takes them to be its own
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"--storage={url} is damaged ({type(error).__name__}: {why}); restore it from a backup, or start the "
                "sweep again in another workdir"
            ) from error
    import sqlalchemy.exc

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise UserError(
            f"--storage={url[:12]!r}… is not a URL; write for example sqlite:///study.db, "
            "postgresql://user:password@host/database, mysql://… or journal:<file>"
        ) from error
    if parsed.drivername in DRIVERS:
        parsed = parsed.set(drivername=f"{parsed.drivername}+{DRIVERS[parsed.drivername]}")
    arguments = {"connect_args": {"timeout": 100}} if parsed.get_backend_name() == "sqlite" else {"pool_pre_ping": True}
    try:
        return optuna.storages.get_storage(
            optuna.storages.RDBStorage(
                parsed.render_as_string(hide_password=False), engine_kwargs=arguments, heartbeat_interval=heartbeat
            )
        )
    except ImportError as error:
        driver, database = parsed.get_driver_name(), parsed.get_backend_name()
        brings = f"'jaxcnn[{database}]'" if DRIVERS.get(database) == driver else driver
        raise UserError(
            f"--storage={_public(parsed)} needs the driver {driver!r}, which is not installed: pip install {brings}"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:  # the second: tables of another Optuna
        reason = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        advice = (
            "; on a file system without locks for SQLite, use --storage=journal:<file>, which needs none"
            if "lock" in reason[0]
            else ""
        )
        raise UserError(f"--storage={_public(parsed)} cannot be used: {reason[0][:300]}{advice}") from error


def sqlite_url(path: pathlib.Path) -> str:
    """The URL of a SQLite file, with any characters in its absolute path."""
    import sqlalchemy

    if re.fullmatch(r"[\w./ ,:;=@~+-]+", str(path)):  # no character special in a URL, or in Optuna's template of one
        return f"sqlite:///{path}"
    file = f"file:{urllib.parse.quote(os.fsencode(path))}"  # SQLite's own file URL, which allows any bytes
    return sqlalchemy.engine.URL.create("sqlite", database=file, query={"uri": "true"}).render_as_string()


def public_url(url: str) -> str:
    """A storage URL without its password and any other option that may be secret."""
    if url.startswith(JOURNAL):
        return url
    import sqlalchemy

    return _public(sqlalchemy.engine.make_url(url))


def _public(parsed: Any) -> str:
    if hidden := {name: "***" for name in parsed.query if name.lower() not in HARMLESS}:
        parsed = parsed.update_query_dict(hidden)
    return parsed.render_as_string(hide_password=True)


def _quieten() -> None:
    """Silence Optuna: its lines would break the table, and it warns of heartbeats outside `optimize`, such as ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used")


def create_study(definition: Definition, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study of a definition, created if it does not exist."""
    return optuna.create_study(
        study_name=definition.study,
        storage=storage,
        directions=[StudyDirection[name.upper()] for name in definition.directions.values()],
        load_if_exists=True,
    )


def load_study(definition: Definition, storage: optuna.storages.BaseStorage, trials: int = 0) -> optuna.Study:
    """The study with its pruner and the sampler for trial number `trials`.

    Each trial is drawn by its own sampler, seeded by the number of earlier trials. So a search that was stopped and
    continued draws the same trials as an uninterrupted one, and two workers never draw the same trial.

    Raises:
      UserError: the store does not contain the study.
    """
    try:
        return optuna.load_study(
            study_name=definition.study,
            storage=storage,
            sampler=make_sampler(definition.sampler, definition.seed + 7919 * trials, definition.generation),
            pruner=make_pruner(definition.pruner, definition.evaluations),
        )
    except KeyError as error:
        raise UserError(
            f"the store has no study {definition.study!r} of this sweep (it was in {definition.storage}); set "
            "--storage to that, or restore it"
        ) from error


def check_sampler(name: str) -> None:
    """Refuse a sampler whose package is not installed.

    Raises:
      UserError: the package is missing.
    """
    package, extra = {"gp": ("torch", "gp"), "cmaes": ("cmaes", "sweep")}.get(name, ("", ""))
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"--sampler={name} needs {package}, which is not installed: pip install 'jaxcnn[{extra}]'")


def make_sampler(name: str, seed: int, generation: int = 0) -> optuna.samplers.BaseSampler:
    """A sampler by name; evolutionary ones use `generation` trials per generation. Planned sweeps draw nothing."""
    seed %= 2**32
    if name in PLANNED:
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)  # considers other workers' running trials
    if name == "cmaes":
        return CmaEs(seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=generation or 50)
    if name == "nsga3":
        return optuna.samplers.NSGAIIISampler(seed=seed, population_size=generation or 50)
    check_sampler(name)
    return optuna.samplers.GPSampler(seed=seed)


def make_pruner(name: str, evaluations: int) -> optuna.pruners.BasePruner:
    """A pruner by name; its steps are evaluations."""
    if name == "median":  # Golovin et al. 2017, Google Vizier
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "hyperband":  # Li et al. 2018, arXiv 1603.06560
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=evaluations or "auto")
    return optuna.pruners.NopPruner()


def distributions(space: spec.Space) -> dict[str, BaseDistribution]:
    """Optuna's distributions for a space, one per dimension."""
    made: dict[str, BaseDistribution] = {}
    for dimension in spec.dimensions(space):
        if isinstance(dimension, spec.Rows):
            made[_name(dimension)] = CategoricalDistribution(list(_labels(dimension)))
        elif dimension.integer:
            made[dimension.key] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            made[dimension.key] = FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return made


def overrides(space: spec.Space, params: dict[str, Any]) -> spec.Overrides:
    """The overrides that correspond to drawn parameters."""
    found: spec.Overrides = {}
    for dimension in spec.dimensions(space):
        if isinstance(dimension, spec.Rows):
            found |= _labels(dimension)[params[_name(dimension)]]
        else:
            found[dimension.key] = params[dimension.key]
    return elements.joined(found)


def _name(dimension: spec.Rows) -> str:
    return "+".join(spec.keys_of(dimension))


def _labels(dimension: spec.Rows) -> dict[Any, spec.Overrides]:
    """The choices of a list, keyed by labels that Optuna can store: the value itself if one scalar field varies."""
    keys = spec.keys_of(dimension)
    alone = len(keys) == 1 and all(keys[0] in row for row in dimension.rows)
    if alone and all(isinstance(row[keys[0]], str | int | float | bool) for row in dimension.rows):
        return {row[keys[0]]: row for row in dimension.rows}
    return {spec.describe(row): row for row in dimension.rows}


def planned_params(trials: list[spec.Overrides]) -> list[tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    """Parameters and distributions of planned trials, for dashboards; fields that are lists are left out."""
    fields = configs.flatten(configs.to_dict(Config()))
    kinds: dict[str, BaseDistribution] = {}
    for key in dict.fromkeys(key for trial in trials for key in trial):
        seen = [trial[key] for trial in trials if key in trial]
        if isinstance(fields[key], bool):  # by the field, not its values, so that later trials get the same type
            kinds[key] = CategoricalDistribution([False, True])
        elif isinstance(fields[key], int):
            kinds[key] = IntDistribution(min(seen), max(seen))
        elif isinstance(fields[key], float):
            kinds[key] = FloatDistribution(min(seen), max(seen))
        elif (choices := configs.choices(key)) and set(seen) <= set(choices):  # not code of the user
            kinds[key] = CategoricalDistribution(choices)
    return [
        ({key: trial[key] for key in trial if key in kinds}, {key: kinds[key] for key in trial if key in kinds})
        for trial in trials
    ]


def waiting_trial(trial: FrozenTrial, attributes: dict[str, Any]) -> FrozenTrial:
    """A waiting trial with the same parameters."""
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=attributes,
        system_attrs={"fixed_params": trial.params},
    )


def patiently(call: Callable[[], Any], seconds: float = 300.0) -> Any:
    """The result of a call to the store, retried for up to `seconds` while the store is unavailable.

    Raises:
      UserError: the store stays unavailable.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except optuna.exceptions.StorageInternalError as error:
            if time.monotonic() > deadline:
                reason = str(error.__cause__ or error).strip().splitlines()[0][:200]
                raise UserError(
                    f"the store could not be reached for {seconds:.0f} s ({reason}); start the same command again when "
                    "it can be reached: nothing in the folders of the trials is lost"
                ) from error
            time.sleep(min(5.0, seconds / 10))
