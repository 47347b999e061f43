"""A sweep for tests that start commands: three learning rates, one program, about a second of steps each."""

import ml_collections

from jaxcnn.config import to_dict
from jaxcnn.study import spec
from tests import digits


def get_config(variant=""):
    run = {"steps": 900, "eval_every_epochs": 1.0}
    config = to_dict(digits.config(model={"width": 0.25}, run=run, global_batch_size=8))
    config["checkpoint"] |= {"every_steps": 200, "keep_every_steps": 0}
    return ml_collections.ConfigDict(config)


def get_sweep(variant=""):
    return spec.sweep(spec.values("optim.learning_rate", [0.05, 0.1, 0.2]))
