"""The plan of a sweep: its trials, and which of them share a compiled program."""

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

import jaxcnn.config as configs
from jaxcnn.config import Config, ConfigError, UserError
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.study import spec
from jaxcnn.study.choices import PLANNED
from jaxcnn.train import network_of_weights
from jaxcnn.train.hooks import Shared
from jaxcnn.train.setup import spec_on

MOST_OF_SEARCH = 3  # programs of a search that are measured beforehand; over networks, each trial may have its own
MOST_REPEATS = 10_000  # consecutive draws without a new trial after which a space counts as exhausted


@dataclasses.dataclass(frozen=True)
class Group:
    """Trials that share one compiled program.

    Attributes:
      key: name of the program among workers.
      config: config of its first trial.
      spec: the `StepSpec` of its step.
      trials: number of trials.
      val_examples, test_examples: sizes of these splits; 0 without the split.
    """

    key: str
    config: Config
    spec: StepSpec
    trials: int
    val_examples: int
    test_examples: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trials of a sweep and their programs.

    Attributes:
      planned: the trials in their order, each `{"overrides", "seed", "program"}`; None for a search.
      groups: the programs; for a search, those of some trials that it may draw.
      trials: number of trials.
      sampler: name of the sampler.
      trained: most trials that will be trained; the others of a search repeat one of these and take over its outcome.
      remark: text about trials left out because they equal another one; empty without any.
    """

    planned: list[dict[str, Any]] | None
    groups: list[Group]
    trials: int
    sampler: str
    trained: int
    remark: str = ""


def make(sweep: spec.Sweep, base: Config, sampler: str, trials: int, shared: Shared) -> Plan:
    """The plan of a checked sweep; opens its data.

    Args:
      sweep: what is varied.
      base: the config that is varied.
      sampler: one of `choices.SAMPLERS`, or "" to choose one that fits the sweep.
      trials: number of trials given to the command; 0: that of the sweep.
      shared: keeps the data for the first trial.

    Raises:
      UserError: sampler and sweep do not fit, the number of trials is missing, or a trial does not fit its data.
    """
    sampler = choose_sampler(sweep, sampler)
    count = trials or sweep.trials
    if sampler != "grid" and not count:
        raise UserError(f"--sampler={sampler} needs --trials=<number>, or trials=… in get_sweep()")
    if sampler == "grid" and trials:
        raise UserError("--trials is for random sweeps and searches; a grid runs all trials of its list")
    if sampler not in PLANNED:
        _check_search(sweep, base, sampler)
        groups = list(_group(_with_configs(_some(sweep, count), base), shared).values())
        different = int(min(count, _choices(sweep.space)))
        remarks = []
        if different < count:
            remarks += [f"its space has {different} different trials: a trial that is drawn again is not trained again"]
        if len(groups) > MOST_OF_SEARCH:
            remarks += [f"of the programs that its trials may need, {MOST_OF_SEARCH} examples"]
        return Plan(None, groups[:MOST_OF_SEARCH], count, sampler, different, "; ".join(remarks))
    cells = spec.cells(sweep.space) if sampler == "grid" else _drawn(sweep.space, base.seed, count)
    planned = [
        {"overrides": {k: v for k, v in cell.items() if k != spec.SEED}, "seed": cell.get(spec.SEED, seed)}
        for cell in cells
        for seed in (sweep.seeds or (base.seed,))
    ]
    made = _with_configs(planned, base)
    firsts = {repr(pair[1]): pair for pair in reversed(made)}  # keeps the first of equal trials
    made = [pair for pair in made if firsts[repr(pair[1])] is pair]
    wanted = count * max(1, len(sweep.seeds)) if sampler == "random" else len(planned)
    planned = [trial for trial, _ in made]
    remark = f"its space has {len(planned)} different trials, not {wanted}" if len(planned) < wanted else ""
    found = _group(made, shared)
    order = {key: place for place, key in enumerate(found)}
    planned.sort(key=lambda trial: order[trial["program"]])  # so that a worker compiles each program once
    return Plan(planned, list(found.values()), len(planned), sampler, len(planned), remark)


def _drawn(space: spec.Space, seed: int, count: int) -> list[spec.Overrides]:
    """`count` different random trials, or fewer if the space has fewer."""
    wanted, found, number = min(count, _choices(space)), dict[str, spec.Overrides](), 0
    seen = 0  # consecutive repeated draws, from integer ranges that are exhausted
    while len(found) < wanted and seen < MOST_REPEATS:
        # One generator per draw, so that a larger number of trials begins with the same trials as a smaller one.
        cell = spec.sample(space, np.random.default_rng([seed, number]))
        seen = seen + 1 if spec.identity(cell) in found else 0
        found.setdefault(spec.identity(cell), cell)
        number += 1
    return list(found.values())


def _choices(space: spec.Space) -> float:
    """The number of different trials in a space; infinity if it has ranges."""
    lists = [part.rows if isinstance(part, spec.Rows) else None for part in spec.dimensions(space)]
    return math.prod(math.inf if rows is None else len(set(map(spec.identity, rows))) for rows in lists)


def choose_sampler(sweep: spec.Sweep, asked: str) -> str:
    """The requested sampler, or the one that fits the sweep: random for ranges, grid for lists; nsga2 for several."""
    if asked or sweep.objectives:
        return asked or "nsga2"
    return "random" if spec.has_ranges(sweep.space) else "grid"


def _check_search(sweep: spec.Sweep, base: Config, sampler: str) -> None:
    if base.data.protocol == "full":
        raise UserError(
            f"--sampler={sampler} decides by figures on validation, which config.data.protocol='full' does not have"
        )
    if len(sweep.seeds) > 1:
        raise UserError(f"--sampler={sampler} gives each trial one seed, but the sweep has {len(sweep.seeds)}")
    spec.dimensions(sweep.space)


def _some(sweep: spec.Sweep, count: int) -> list[dict[str, Any]]:
    """Examples of the trials that a search will draw."""
    generator = np.random.default_rng(0)
    seed = sweep.seeds[0] if sweep.seeds else 0
    return [{"overrides": spec.sample(sweep.space, generator), "seed": seed} for _ in range(min(count, 200))]


def _with_configs(trials: list[dict[str, Any]], base: Config) -> list[tuple[dict[str, Any], Config]]:
    applied = ((trial, spec.apply(base, trial["overrides"] | {spec.SEED: trial["seed"]})) for trial in trials)
    return [(trial, network_of_weights.of(config)) for trial, config in applied]


def _group(made: list[tuple[dict[str, Any], Config]], shared: Shared) -> dict[str, Group]:
    """The programs of the trials by key, those with the same data together; sets the "program" of each trial."""
    found: dict[str, Group] = {}
    for data, task in dict.fromkeys((config.data, config.task) for _, config in made):
        splits = shared.splits(data, task)
        for trial, config in made:
            if (config.data, config.task) != (data, task):
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
    """A short name, equal for trials that share all compiled programs."""
    also = (config.data, config.run.eval_batch_size, config.run.steps_per_call, config.parallel)
    return hashlib.sha256(repr((step_spec, also)).encode()).hexdigest()[:12]


def evaluations(base: Config) -> int:
    """The number of validation evaluations in a whole run of a config; 0 if unknown beforehand."""
    return 0 if base.run.steps else max(1, round(base.run.epochs / base.run.eval_every_epochs))


def title(group: Group, groups: list[Group]) -> str:
    """A title of a group that shows how it differs from the others."""
    flat = [configs.flatten(configs.to_dict(each.config)) for each in groups]
    mine = flat[groups.index(group)]
    traced = ("seed", "optim.learning_rate", "optim.weight_decay", "optim.momentum", "optim.label_smoothing")
    keys = [key for key in mine if key not in traced and any(other[key] != mine[key] for other in flat)]
    return spec.describe({key: mine[key] for key in keys}) if keys else mine["model.name"]
