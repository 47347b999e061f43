"""Definition of a sweep: products, zips, lists, chains and random ranges over config fields, and seeds.

A file in `configs/sweeps/` has `get_config(variant)`, the run to vary, and `get_sweep(variant)`, which returns a
`Sweep` made with the functions of this module:

    def get_sweep(variant=""):
        rates = spec.values("optim.learning_rate", [0.1, 0.01])
        sizes = spec.values("global_batch_size", [32, 128])
        return spec.sweep(spec.product(sizes, rates), seeds=3)

A field that is a list may be varied place by place: `values("model.stage_blocks[0]", [1, 2, 3])`.

Nothing here imports JAX or Optuna, and nothing is random except `sample`, which uses the given generator.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import jaxcnn.config as configs
from jaxcnn.config import Config, ConfigError, convert, networks
from jaxcnn.machine import named
from jaxcnn.study import elements

Overrides = dict[str, Any]  # flat key of a config -> value
OBJECTIVES = {"train_seconds": "training time", "parameters": "parameters", "flops": "operations", "latency": "latency"}
SEED = "seed"
MAX_CELLS = 100_000  # more planned trials are probably a mistake


@dataclasses.dataclass(frozen=True)
class Rows:
    """A list of sets of overrides; each trial has one of them."""

    rows: tuple[Overrides, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """A field drawn at random from [low, high], both ends included.

    Attributes:
      key: flat key of the field.
      low, high: the ends.
      log: uniform in the logarithm.
      integer: whole numbers only.
    """

    key: str
    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclasses.dataclass(frozen=True)
class Product:
    """Every combination of one choice of each part."""

    parts: tuple["Space", ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """The trials of the first part, then those of the next; equal trials occur once."""

    parts: tuple["Space", ...]


Space = Rows | Range | Product | Chain


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The return value of `get_sweep` in a config file.

    Attributes:
      space: what is varied.
      seeds: `config.seed` of the repetitions of every planned trial.
      trials: default number of trials of a random or searched sweep; 0: the command must give it.
      objectives: what a search minimises beside its figure on validation, some of `OBJECTIVES`; empty: "train_seconds"
        if its sampler takes several objectives, else nothing.
      inherit: trials of a search start from the weights of the finished trial that is most like them.
    """

    space: Space
    seeds: tuple[int, ...] = ()
    trials: int = 0
    objectives: tuple[str, ...] = ()
    inherit: bool = False


def values(key: str, choices: Sequence[Any]) -> Rows:
    """Varies one field, which takes each of these values; functions and classes become their open names."""
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
        raise ConfigError(f"sweep: values({key!r}, …) needs a list of at least one value, not {choices!r}")
    return rows([{key: choice} for choice in choices])


def rows(sets: Sequence[Mapping[str, Any]]) -> Rows:
    """Varies several fields: sets of overrides, such as `[{}, {"augment.cutout": 16}]`; {} changes nothing."""
    if not sets or not all(isinstance(each, Mapping) for each in sets):
        raise ConfigError(f"sweep: rows(…) needs a list of mappings from key to value, not {sets!r}")
    return Rows(tuple({key: named.plain(key, value) for key, value in each.items()} for each in sets))


def zipped(*parts: Space) -> Rows:
    """Combines the first choices of all parts, then the second ones, and so on.

    Raises:
      ConfigError: the parts differ in length, or one of them is a range.
    """
    lists = [list(_cells(part)) for part in parts]
    lengths = [len(each) for each in lists]
    if len(set(lengths)) > 1:
        raise ConfigError(
            f"sweep: zipped(…) needs parts of equal length, but their lengths are {', '.join(map(str, lengths))}"
        )
    return Rows(tuple(_merged(together) for together in zip(*lists, strict=True)))


def product(*parts: Space) -> Product:
    """Every combination of one choice of each part; the last part varies fastest."""
    return Product(parts)


def chain(*parts: Space) -> Chain:
    """Runs one part after another; trials common to several parts occur once."""
    return Chain(parts)


def uniform(key: str, low: float, high: float) -> Range:
    """A real field, uniform in [low, high]."""
    return _range(Range(key, float(low), float(high)))


def log_uniform(key: str, low: float, high: float) -> Range:
    """A real field whose logarithm is uniform between those of low and high, both above 0."""
    return _range(Range(key, float(low), float(high), log=True))


def integers(key: str, low: int, high: int, *, log: bool = False) -> Range:
    """A whole-number field in low ... high, both included; with `log`, uniform in the logarithm."""
    return _range(Range(key, low, high, log=log, integer=True))


def sweep(
    space: Space,
    *,
    seeds: int | Sequence[int] = (),
    trials: int = 0,
    objectives: Sequence[str] = (),
    inherit: bool = False,
) -> Sweep:
    """A sweep over a space; `seeds` is a list, n for 0 ... n - 1, or empty for the config's own seed."""
    if unknown := [name for name in objectives if name not in OBJECTIVES]:
        raise ConfigError(f"sweep: unknown objective {unknown[0]!r}; use some of {', '.join(OBJECTIVES)}")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(set(chosen)) < len(chosen) or any(type(seed) is not int or not 0 <= seed < 2**31 for seed in chosen):
        raise ConfigError(f"sweep: seeds must be distinct integers in [0, 2^31), but are {seeds!r}")
    return Sweep(space, chosen, trials, tuple(dict.fromkeys(objectives)), inherit)


def _range(made: Range) -> Range:
    whole = not made.integer or (type(made.low) is int and type(made.high) is int)
    if not (whole and math.isfinite(made.low) and math.isfinite(made.high) and made.low < made.high):
        raise ConfigError(f"sweep: the range of {made.key} needs low < high, but is {made.low} to {made.high}")
    if made.log and made.low <= 0:
        raise ConfigError(f"sweep: the logarithmic range of {made.key} must be above 0, but starts at {made.low}")
    return made


def dimensions(space: Space) -> list[Rows | Range]:
    """The independent dimensions of a space, as a sampler sees them.

    Raises:
      ConfigError: it contains a chain, whose parts are not dimensions.
    """
    if isinstance(space, Product):
        return [each for part in space.parts for each in dimensions(part)]
    if isinstance(space, Chain):
        if len(space.parts) != 1:
            raise ConfigError("sweep: a chain is a list of trials, not a space to search; use --sampler=grid")
        return dimensions(space.parts[0])
    return [space]


def has_ranges(space: Space) -> bool:
    """Whether a space has random ranges, so its trials cannot be listed."""
    if isinstance(space, Product | Chain):
        return any(has_ranges(part) for part in space.parts)
    return isinstance(space, Range)


def varied(space: Space) -> list[str]:
    """The fields that a space varies, by their flat keys, each once, in order."""
    return list(dict.fromkeys(map(elements.field_of, keys_of(space))))


def keys_of(space: Space) -> list[str]:
    """The keys that a space gives values to, each once, in order: fields, and places of lists."""
    if isinstance(space, Product | Chain):
        keys = [key for part in space.parts for key in keys_of(part)]
    else:
        keys = [space.key] if isinstance(space, Range) else [key for row in space.rows for key in row]
    return list(dict.fromkeys(keys))


def cells(space: Space) -> list[Overrides]:
    """The trials of a space without random ranges, each once.

    Raises:
      ConfigError: it has a range, sets a key twice, or has more than `MAX_CELLS` trials.
    """
    return [elements.joined(cell) for cell in _distinct(space)]


def _distinct(space: Space) -> list[Overrides]:
    found: dict[str, Overrides] = {}
    for cell in itertools.islice(_cells(space), MAX_CELLS + 1):
        found.setdefault(identity(cell), cell)
    if len(found) > MAX_CELLS:
        raise ConfigError(f"sweep: more than {MAX_CELLS} trials are planned")
    return list(found.values())


def _cells(space: Space) -> Iterator[Overrides]:
    if isinstance(space, Range):
        raise ConfigError(f"sweep: {space.key} is a random range, which has no list of values; use --sampler=random")
    if isinstance(space, Rows):
        yield from space.rows
    elif isinstance(space, Chain):
        for part in space.parts:
            yield from _cells(part)
    else:
        for together in itertools.product(*map(_distinct, space.parts)):
            yield _merged(together)


def _merged(parts: Sequence[Overrides]) -> Overrides:
    merged: Overrides = {}
    for part in parts:
        if common := merged.keys() & part.keys():
            raise ConfigError(
                f"sweep: config.{min(common)} is varied twice in one trial; for alternatives, use chain(…)"
            )
        merged |= part
    return merged


def sample(space: Space, generator: np.random.Generator) -> Overrides:
    """A random trial of a space: every dimension is uniform (with `log`, its logarithm is)."""
    return elements.joined(_merged([_draw(dimension, generator) for dimension in dimensions(space)]))


def _draw(dimension: Rows | Range, generator: np.random.Generator) -> Overrides:
    if isinstance(dimension, Rows):
        return dimension.rows[int(generator.integers(len(dimension.rows)))]
    low, high = dimension.low, dimension.high
    if dimension.integer:  # half a step wider on both sides, so that the ends are as likely as the rest
        low, high = low - 0.5, high + 0.5
    if dimension.log:
        drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        drawn = float(generator.uniform(low, high))
    drawn = min(max(drawn, dimension.low), dimension.high)
    return {dimension.key: round(drawn) if dimension.integer else drawn}


def identity(overrides: Overrides) -> str:
    """A text of the overrides, equal for equal trials."""
    return json.dumps(overrides, sort_keys=True, default=list)


def apply(base: Config, overrides: Overrides) -> Config:
    """A config with some fields changed.

    Raises:
      ConfigError: unknown keys, wrong types, values out of range or impossible combinations, one line each.
    """
    flat = configs.flatten(configs.to_dict(base))
    for key in overrides:
        if key not in flat:
            raise ConfigError(f"unknown key config.{key}{_nearest(key, flat)}")
    flat |= overrides
    if mistakes := networks.beside_auto(flat, overrides):
        raise ConfigError("\n".join(mistakes))
    return configs.from_config_dict(configs.nested(flat))


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    if any(each.startswith(f"{key}.") for each in known):
        return ", which is a group of fields; choose one of them"
    close = convert.nearest_key(key, known)
    return f" (did you mean config.{close}?)" if close else ""


def check(sweep: Sweep, base: Config) -> None:
    """Check a sweep's trials on its config: all of them, or the ends of its random ranges.

    Raises:
      ConfigError: the first mistakes, one line each.
    """
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"get_sweep() must return the result of spec.sweep(…), not {type(sweep).__name__}")
    if sweep.trials < 0:
        raise ConfigError(f"sweep: trials must not be negative, but is {sweep.trials}")
    trials = _corners(sweep.space) if has_ranges(sweep.space) else cells(sweep.space)
    mistakes: dict[str, str] = {}
    for overrides in trials:
        if SEED in overrides and sweep.seeds:
            mistakes["seed"] = "sweep: config.seed is varied by values and by seeds=…; leave one out"
        try:
            apply(base, overrides)
        except ConfigError as error:
            for line in str(error).splitlines():
                mistakes.setdefault(line, f"sweep: {line} (in the trial with {describe(overrides)})")
    if mistakes:
        lines = list(mistakes.values())
        more = [f"sweep: and {len(lines) - 5} more mistakes"] if len(lines) > 5 else []
        raise ConfigError("\n".join(lines[:5] + more))


def _corners(space: Space) -> list[Overrides]:
    """Trials that together contain every listed choice and both ends of every range."""
    choices = [
        list(dimension.rows)
        if isinstance(dimension, Rows)
        else [{dimension.key: dimension.low}, {dimension.key: dimension.high}]
        for dimension in dimensions(space)
    ]
    longest = max(len(each) for each in choices)
    return [
        elements.joined(_merged([each[min(number, len(each) - 1)] for each in choices])) for number in range(longest)
    ]


def describe(overrides: Overrides) -> str:
    """Overrides in readable form: `optim.learning_rate=0.1 seed=2`."""
    return " ".join(f"{key}={_short(value)}" for key, value in overrides.items()) or "the config as it is"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
