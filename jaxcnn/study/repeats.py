"""Trials of a search that would repeat an earlier one bit for bit: they are not trained, but take over its outcome.

Runs are exact, so the same config and seed always give the same results. Only the first trial of a config is trained;
later ones take over its outcome, and wait for it while it runs.
"""

import json

from optuna.trial import FrozenTrial

import jaxcnn.config as configs
from jaxcnn.config import Config, ConfigError
from jaxcnn.study import spec


def identity(base: Config, overrides: spec.Overrides, seed: int) -> str:
    """A text that is equal for equal trials. It uses the whole config, so 1 equals 1.0, and a default equals itself."""
    whole = overrides | {spec.SEED: seed}
    try:
        return spec.identity(configs.to_dict(spec.apply(base, whole)))
    except ConfigError:  # an impossible config fails later with its own message
        return spec.identity(whole)


class Repeats:
    """Finds the trials of a study that repeat an earlier one."""

    def __init__(self, base: Config) -> None:
        self._base = base
        self._known: dict[str, str] = {}

    def _of(self, trial: FrozenTrial) -> str | None:
        """A text that is equal for equal trials; None if the trial is not completely drawn."""
        attributes = trial.user_attrs
        if "overrides" not in attributes:
            return None
        key = json.dumps([attributes["overrides"], attributes["seed"]], sort_keys=True)
        if key not in self._known:
            self._known[key] = identity(self._base, attributes["overrides"], attributes["seed"])
        return self._known[key]

    def first(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The newest attempt of the first trial of the same config, unless that is this trial (the same folder)."""
        mine = self._of(trial)
        same = [other for other in trials if mine is not None and self._of(other) == mine]
        first = min(map(number, same), default=number(trial))
        return None if first >= number(trial) else [other for other in same if number(other) == first][-1]


def number(trial: FrozenTrial) -> int:
    """The number of a trial's folder and row; a retried trial keeps the number of its first attempt."""
    return trial.user_attrs.get("folder", trial.number)
