"""CMA-ES of searches: the trials of Optuna's sampler, from a store that no pickle is read from."""

import pathlib
import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from jaxcnn.config import UserError
from jaxcnn.study import cma_es

SPACE = {
    "rate": FloatDistribution(1e-4, 1, log=True),
    "size": IntDistribution(3, 90),
    "momentum": FloatDistribution(0, 1),
    "nesterov": CategoricalDistribution([False, True]),
}


def search(sampler, trials, direction="maximize"):
    """A study whose every trial is drawn by a sampler of its own seed, as by workers."""
    study = optuna.create_study(direction=direction)
    sign = 1 if direction == "minimize" else -1
    for number in range(trials):
        study.sampler = sampler(seed=7919 * number)
        trial = study.ask(SPACE)
        values = trial.params
        study.tell(
            trial, sign * ((np.log(values["rate"]) + 3) ** 2 + (values["size"] / 40 - 1) ** 2 + values["momentum"])
        )
    return study


@pytest.fixture(scope="module", autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_trials_are_those_of_optuna_to_the_bit(direction):
    ours = search(cma_es.CmaEs, 60, direction)
    assert [each.params for each in ours.trials] == [
        each.params for each in search(optuna.samplers.CmaEsSampler, 60, direction).trials
    ]
    assert ours.trials[-1].system_attrs[cma_es.GENERATION] == 8, "seven trials make a generation"


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return pathlib.Path.touch, (self.file,)


TEXT = '{"generation": 2, "sigma": 0.2, "mean": [0.5], "p_sigma": [0.0], "pc": [0.1], "c": [1.0]}'
FORGED = {
    "no JSON": "80049525",
    "a field less": TEXT.replace('"pc": [0.1], ', ""),
    "another shape": TEXT.replace("[1.0]", "[1.0, 2.0]"),
    "not finite": TEXT.replace("[0.1]", "[NaN]"),
    "infinite": TEXT.replace("[1.0]", "[1e999]"),
    "a text": TEXT.replace("[0.1]", '["0.1"]'),
    "no mean": TEXT.replace("[0.5]", "[]"),
    "a negative sigma": TEXT.replace("0.2", "-0.2"),
    "a generation that is no number": TEXT.replace("2,", "true,", 1),
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", ["pickle", *FORGED.values()], ids=["a pickle", *FORGED])
def test_a_forged_state_is_refused_in_one_line_and_runs_nothing(text, tmp_path):
    assert cma_es.to_text(cma_es.from_text(TEXT)) == TEXT
    study, trap = search(cma_es.CmaEs, 2), tmp_path / "trap"
    text = pickle.dumps(Trap(trap)).hex() if text == "pickle" else text
    study._storage.set_trial_system_attr(study.ask(SPACE)._trial_id, f"{cma_es.STATE}:0", text)
    study.tell(2, 0.5)
    study.sampler = cma_es.CmaEs(seed=1)
    with pytest.raises(UserError, match=r"the state of the sampler in trial 2 .* restore the store") as caught:
        study.ask(SPACE)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert not trap.exists()
