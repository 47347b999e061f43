"""The plan of a sweep: which trials there will be, and which of them share a compiled program."""

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from jaxcnn import config as configs
from jaxcnn.config import Config, ConfigError, UserError
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.study import spec
from jaxcnn.study.store import PLANNED
from jaxcnn.train.hooks import Shared
from jaxcnn.train.setup import spec_on

MOST_REPEATS = 10_000  # draws in a row that give nothing new, after which a space counts as exhausted


@dataclasses.dataclass(frozen=True)
class Group:
    """Trials that share one compiled program.

    Attributes:
      key: by which workers know it.
      config: of the first of its trials.
      spec: of the step.
      trials: how many there are.
      val_examples, test_examples: of the splits; 0 where there is none.
    """

    key: str
    config: Config
    spec: StepSpec
    trials: int
    val_examples: int
    test_examples: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep will do.

    Attributes:
      planned: the trials in the order they run in, `{"overrides", "seed", "program"}`; None for a search.
      groups: the programs; for a search those of some of the trials that it may draw.
      trials: how many trials there will be.
      sampler: of the trials.
      trained: how many at most will be trained; the others of a search repeat one of them, and have its outcome.
      remark: on trials that would have been one of the others again; empty if there are none.
    """

    planned: list[dict[str, Any]] | None
    groups: list[Group]
    trials: int
    sampler: str
    trained: int
    remark: str = ""


def make(sweep: spec.Sweep, base: Config, sampler: str, trials: int, shared: Shared) -> Plan:
    """The plan of a sweep that was checked; opens its data.

    Args:
      sweep: what is varied.
      base: the config that is.
      sampler: one of `store.SAMPLERS`, or "" for what fits the sweep.
      trials: as the command says; 0: as the sweep does.
      shared: keeps the data for the first trial.

    Raises:
      UserError: sampler and sweep do not fit, a number of trials is missing, or a trial does not fit its data.
    """
    sampler = choose_sampler(sweep, sampler)
    count = trials or sweep.trials
    if sampler != "grid" and not count:
        raise UserError(f"--sampler={sampler} needs --trials=<how many>, or trials=… in get_sweep()")
    if sampler == "grid" and trials:
        raise UserError("--trials is for random sweeps and searches; a grid makes all trials of its list")
    if sampler not in PLANNED:
        _check_search(sweep, base, sampler)
        groups = _group(_with_configs(_some(sweep, count), base), shared)
        different = int(min(count, _choices(sweep.space)))
        remark = f"its space has {different} different trials: what is drawn again is not trained again"
        return Plan(None, list(groups.values()), count, sampler, different, remark if different < count else "")
    cells = spec.cells(sweep.space) if sampler == "grid" else _drawn(sweep.space, base.seed, count)
    planned = [
        {"overrides": {k: v for k, v in cell.items() if k != spec.SEED}, "seed": cell.get(spec.SEED, seed)}
        for cell in cells
        for seed in (sweep.seeds or (base.seed,))
    ]
    made = _with_configs(planned, base)
    firsts = {repr(pair[1]): pair for pair in reversed(made)}  # the first of equals
    made = [pair for pair in made if firsts[repr(pair[1])] is pair]
    wanted = count * max(1, len(sweep.seeds)) if sampler == "random" else len(planned)
    planned = [trial for trial, _ in made]
    remark = f"its space has {len(planned)} different trials, not {wanted}" if len(planned) < wanted else ""
    groups = _group(made, shared)
    order = {key: place for place, key in enumerate(groups)}
    planned.sort(key=lambda trial: order[trial["program"]])  # so that one worker compiles each program once
    return Plan(planned, list(groups.values()), len(planned), sampler, len(planned), remark)


def _drawn(space: spec.Space, seed: int, count: int) -> list[spec.Overrides]:
    """So many random trials, all different, or fewer where a space has fewer."""
    wanted, found, number = min(count, _choices(space)), dict[str, spec.Overrides](), 0
    seen = 0  # draws in a row that were there already, of whole-number ranges that have no more
    while len(found) < wanted and seen < MOST_REPEATS:
        # One generator for each draw, so that a larger number of trials has the smaller as its beginning.
        cell = spec.sample(space, np.random.default_rng([seed, number]))
        seen = seen + 1 if spec.identity(cell) in found else 0
        found.setdefault(spec.identity(cell), cell)
        number += 1
    return list(found.values())


def _choices(space: spec.Space) -> float:
    """How many different trials a space has; infinity where it has ranges."""
    lists = [part.rows if isinstance(part, spec.Rows) else None for part in spec.dimensions(space)]
    return math.prod(math.inf if rows is None else len(set(map(spec.identity, rows))) for rows in lists)


def choose_sampler(sweep: spec.Sweep, asked: str) -> str:
    """The sampler asked for, or what fits the sweep: random for ranges, grid for lists."""
    return asked or ("random" if spec.has_ranges(sweep.space) else "grid")


def _check_search(sweep: spec.Sweep, base: Config, sampler: str) -> None:
    if base.data.protocol == "full":
        raise UserError(
            f"--sampler={sampler} decides on validation accuracy, which config.data.protocol='full' does not have"
        )
    if len(sweep.seeds) > 1:
        raise UserError(f"--sampler={sampler} gives each trial one seed, but the sweep has {len(sweep.seeds)}")
    spec.dimensions(sweep.space)


def _some(sweep: spec.Sweep, count: int) -> list[dict[str, Any]]:
    """Trials like those that a search will draw."""
    generator = np.random.default_rng(0)
    seed = sweep.seeds[0] if sweep.seeds else 0
    return [{"overrides": spec.sample(sweep.space, generator), "seed": seed} for _ in range(min(count, 200))]


def _with_configs(trials: list[dict[str, Any]], base: Config) -> list[tuple[dict[str, Any], Config]]:
    return [(trial, spec.apply(base, trial["overrides"] | {spec.SEED: trial["seed"]})) for trial in trials]


def _group(made: list[tuple[dict[str, Any], Config]], shared: Shared) -> dict[str, Group]:
    """The programs of the trials, by key, those on the same data together; each trial gets its "program"."""
    found: dict[str, Group] = {}
    for data in dict.fromkeys(config.data for _, config in made):
        splits = shared.splits(data)
        for trial, config in made:
            if config.data != data:
                continue
            try:
                step_spec = spec_on(config, splits)
            except ConfigError as error:
                raise ConfigError(f"{error} (in the trial with {spec.describe(trial['overrides'])})") from error
            trial["program"] = key = program_key(config, step_spec)
            val, test = (0 if split is None else len(split) for split in (splits.val, splits.test))
            group = found.get(key) or Group(key, config, step_spec, 0, val, test)
            found[key] = dataclasses.replace(group, trials=group.trials + 1)
    return found


def program_key(config: Config, step_spec: StepSpec) -> str:
    """A short name that trials have in common that share all compiled programs."""
    also = (config.data, config.run.eval_batch_size, config.run.steps_per_call, config.parallel)
    return hashlib.sha256(repr((step_spec, also)).encode()).hexdigest()[:12]


def evaluations(base: Config) -> int:
    """How often a whole run of a config is evaluated on validation; 0 where that is not known beforehand."""
    return 0 if base.run.steps else max(1, round(base.run.epochs / base.run.eval_every_epochs))


def title(group: Group, groups: list[Group]) -> str:
    """What sets a group apart from the others, for a person."""
    flat = [configs.flatten(configs.to_dict(each.config)) for each in groups]
    mine = flat[groups.index(group)]
    traced = ("seed", "optim.learning_rate", "optim.weight_decay", "optim.momentum", "optim.label_smoothing")
    keys = [key for key in mine if key not in traced and any(other[key] != mine[key] for other in flat)]
    return spec.describe({key: mine[key] for key in keys}) if keys else mine["model.name"]
