"""CMA-ES whose state is kept in the study's store as numbers: Hansen 2016, arXiv 1604.00772.

Optuna's own sampler keeps it as a pickle, so whoever writes to the store could run code in every worker. The trials are
the same, to the bit.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from jaxcnn.config import UserError
from jaxcnn.machine import json_text

if TYPE_CHECKING:
    import cmaes

GENERATION = "cma:generation"  # attribute of a trial: the generation that drew it
STATE = "cma:optimizer"  # attributes of a trial: the state after a generation, in pieces STATE:0, STATE:1, …
_PIECE = 2000  # letters; Optuna allows 2045
_LARGEST = 1e32  # as in cmaes
_ARRAYS = ("mean", "p_sigma", "pc", "c")


class CmaEs(optuna.samplers.BaseSampler):
    """Draws numbers by CMA-ES, and other values at random.

    Args:
      seed: seed of this trial.
    """

    def __init__(self, seed: int):
        self._random = np.random.RandomState(seed)
        self._others = optuna.samplers.RandomSampler(seed=seed)
        self._common = optuna.search_space.IntersectionSearchSpace()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The dimensions of all finished trials that are numbers and vary."""
        numbers = (FloatDistribution, IntDistribution)
        common = self._common.calculate(study)
        return {name: each for name, each in common.items() if isinstance(each, numbers) and not each.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the dimensions of `search_space`; none before the first trial has finished.

        Raises:
          UserError: the state in the store is damaged.
        """
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not search_space or not done:
            return {}
        space = _SearchSpaceTransform(search_space, transform_0_1=True)
        size = len(space.bounds)
        optimizer = _latest(done)
        if optimizer is None:
            optimizer = _optimizer(np.full(size, 0.5), 1 / 6, self._random.randint(1, 2**31 - 2))
        if optimizer.dim != size:
            return {}
        sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
        own = [each for each in done if each.system_attrs.get(GENERATION) == optimizer.generation]
        if len(own) >= optimizer.population_size:
            told = own[: optimizer.population_size]
            optimizer.tell([(space.transform(each.params), sign * float(each.values[0])) for each in told])
            text = to_text(optimizer)
            for piece, start in enumerate(range(0, len(text), _PIECE)):
                _keep(study, trial, f"{STATE}:{piece}", text[start : start + _PIECE])
        optimizer.reseed_rng(int(self._random.randint(1, 2**16)) + trial.number)
        drawn = optimizer.ask()
        _keep(study, trial, GENERATION, optimizer.generation)
        return space.untransform(drawn)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value for one dimension."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _keep(study: optuna.Study, trial: FrozenTrial, name: str, value: str | int) -> None:
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def _latest(done: Sequence[FrozenTrial]) -> "cmaes.CMA | None":
    """The optimiser that the latest of these trials has kept; None if none has. Raises UserError."""
    for trial in reversed(done):
        pieces = {name: value for name, value in trial.system_attrs.items() if name.startswith(STATE)}
        if pieces:
            try:
                return from_text("".join(pieces[f"{STATE}:{piece}"] for piece in range(len(pieces))))
            except (KeyError, TypeError, ValueError) as error:
                why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise UserError(
                    f"the state of the sampler in trial {trial.number} of the study's store is not one that jaxcnn "
                    f"wrote ({' '.join(why.split())[:120]}); restore the store from a backup, or start the "
                    "sweep again in another workdir"
                ) from None
    return None


def _optimizer(mean: np.ndarray, sigma: float, seed: int) -> "cmaes.CMA":
    import cmaes

    bounds = np.array([[0.0, 1.0]] * len(mean))
    return cmaes.CMA(mean=mean, sigma=sigma, bounds=bounds, seed=seed, n_max_resampling=10 * len(mean))


def to_text(optimizer: "cmaes.CMA") -> str:
    """What an optimiser has learnt, as JSON, where each float64 keeps its bits."""
    state: dict[str, Any] = {"generation": optimizer._g, "sigma": float(optimizer._sigma)}
    state |= {name: getattr(optimizer, f"_{name}").tolist() for name in _ARRAYS[:-1]}
    return json.dumps(state | {"c": optimizer._C[np.triu_indices(optimizer.dim)].tolist()})


def from_text(text: str) -> "cmaes.CMA":
    """The optimiser of a text; the next use must seed it.

    Raises:
      ValueError: the text is no state: a field is missing, or has another shape, or is not finite.
    """
    state = json_text.parse(text)
    if not isinstance(state, dict) or state.keys() != {"generation", "sigma", *_ARRAYS}:
        raise ValueError(f"it must have generation, sigma, {', '.join(_ARRAYS)}")
    generation, sigma = state["generation"], state["sigma"]
    if type(generation) is not int or generation < 1 or type(sigma) is not float or not 0 < sigma <= _LARGEST:
        raise ValueError("generation must be an integer from 1, and sigma above 0")
    size = len(state["mean"]) if isinstance(state["mean"], list) else 0
    for name, length in zip(_ARRAYS, (size, size, size, size * (size + 1) // 2), strict=True):
        values = state[name]
        if not isinstance(values, list) or not size or len(values) != length:
            raise ValueError(f"{name} must be a list of {length} numbers")
        if not all(type(value) is float and abs(value) < _LARGEST for value in values):  # not for NaN
            raise ValueError(f"{name} must be finite numbers")
    optimizer = _optimizer(np.full(size, 0.5), 1 / 6, 1)
    optimizer._g, optimizer._sigma = generation, sigma
    optimizer._mean, optimizer._p_sigma, optimizer._pc = (np.array(state[name]) for name in _ARRAYS[:-1])
    upper, optimizer._C = np.triu_indices(size), np.zeros((size, size))
    optimizer._C[upper] = optimizer._C.T[upper] = state["c"]
    return optimizer
