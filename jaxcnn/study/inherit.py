"""Trials of a search that start from the weights of an earlier one: of its finished trials, the one most like them.

A search over networks then needs fewer epochs for each: what two networks have in common is trained already. Layers of
other shapes take the part that fits (`config.init.partial`). Cf. Real et al. 2017, arXiv:1703.01041, section 3.4.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from jaxcnn.config import Config
from jaxcnn.study import folder as files
from jaxcnn.study.folder import Definition
from jaxcnn.study.repeats import number
from jaxcnn.train import network_of_weights


def parent_of(definition: Definition, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int | None:
    """The number of the complete trial whose parameters are nearest; None if there is none.

    Of several, it is the best on validation, then the first. Parameters drawn from a list differ by 1 or 0; numbers by
    their distance within the range.
    """
    maximise = next(iter(definition.directions.values())) == "maximize"

    def order(other: FrozenTrial) -> tuple[float, float, int]:
        value = other.values[0]
        return _distance(trial, other), -value if maximise else value, number(other)

    complete = [each for each in trials if each.state == TrialState.COMPLETE and "as" not in each.user_attrs]
    return number(min(complete, key=order)) if complete else None


def _distance(one: FrozenTrial, other: FrozenTrial) -> float:
    total = 0.0
    for name, distribution in one.distributions.items():
        mine, its = one.params[name], other.params.get(name)
        if isinstance(distribution, CategoricalDistribution) or its is None:
            total += mine != its
        else:
            total += abs(mine - its) / (distribution.high - distribution.low)  # type: ignore[attr-defined]
    return total


def started(config: Config, folder: pathlib.Path, parent: int) -> Config:
    """The config of a trial that starts from the last weights of another trial of its sweep."""
    config = network_of_weights.of(config)  # that of its own source, not of the trial
    source = f"workdir:{files.trial_folder(folder, parent).absolute()}"
    return dataclasses.replace(config, init=dataclasses.replace(config.init, source=source, partial=True))
