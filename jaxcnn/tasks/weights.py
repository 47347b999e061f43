"""Weights of classes that have few or many examples."""

from collections.abc import Sequence

import numpy as np

from jaxcnn.config import ConfigError, Task, convert
from jaxcnn.text import listed


def is_weighted(config: Task) -> bool:
    """Whether the classes have weights in the loss."""
    return bool(config.class_weights != "none" or config.weights_by_name)


def class_weights(config: Task, names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """The weight of each class in the loss, float32 [k].

    "auto" is the inverse of the class's frequency, with a mean of 1 over the classes. For the classes named,
    the weights by name replace these weights, or the weight 1.

    Args:
      config: the group `config.task`.
      names: names of the classes.
      counts: examples of each class in the training split, all above 0.

    Raises:
      ConfigError: a name is not that of a class.
    """
    weights = np.ones(len(names))
    if config.class_weights == "auto":
        weights = 1.0 / counts
        weights *= len(names) / weights.sum()
    check_names(config, names)
    for name, weight in config.weights_by_name:
        weights[list(names).index(name)] = weight
    return weights.astype(np.float32)


def check_names(config: Task, names: Sequence[str]) -> None:
    """Raise ConfigError if `weights_by_name` names what is none of the classes."""
    for name, _ in config.weights_by_name:
        if name not in names:
            raise ConfigError(
                f"config.task.weights_by_name names {name!r}, which is no class{convert.nearest(name, names)}; the "
                f"classes are {listed(names, 10)}"
            )


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """The natural logarithm of the frequency of each class, float32 [k]."""
    return np.log(counts / counts.sum()).astype(np.float32)
