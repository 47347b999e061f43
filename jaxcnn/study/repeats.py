"""Trials of a search that would be an earlier one again, to the bit: they are not trained, but have its outcome.

Runs are exact, so the same config and seed can only give the same figures. The first trial of a config is trained; what
it came to is taken over by every later one, which waits for it while it runs.
"""

import json

from optuna.trial import FrozenTrial

from jaxcnn import config as configs
from jaxcnn.config import Config, ConfigError
from jaxcnn.study import spec


def identity(base: Config, overrides: spec.Overrides, seed: int) -> str:
    """Text that is equal for equal trials: of their whole configs, so that 1 is 1.0, and a default is itself."""
    whole = overrides | {spec.SEED: seed}
    try:
        return spec.identity(configs.to_dict(spec.apply(base, whole)))
    except ConfigError:  # an impossible one fails in its own words
        return spec.identity(whole)


class Repeats:
    """Which trials of a study are an earlier one again."""

    def __init__(self, base: Config) -> None:
        self._base = base
        self._known: dict[str, str] = {}

    def _of(self, trial: FrozenTrial) -> str | None:
        """What is equal for equal trials; None for one that has not been drawn."""
        attributes = trial.user_attrs
        if "overrides" not in attributes:
            return None
        key = json.dumps([attributes["overrides"], attributes["seed"]], sort_keys=True)
        if key not in self._known:
            self._known[key] = identity(self._base, attributes["overrides"], attributes["seed"])
        return self._known[key]

    def first(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The newest try of the first trial of the same config, if that is in another folder than this one."""
        mine = self._of(trial)
        same = [other for other in trials if mine is not None and self._of(other) == mine]
        first = min(map(number, same), default=number(trial))
        return None if first >= number(trial) else [other for other in same if number(other) == first][-1]


def number(trial: FrozenTrial) -> int:
    """Of a trial's folder and row; a retried trial keeps that of the first try."""
    return trial.user_attrs.get("folder", trial.number)
