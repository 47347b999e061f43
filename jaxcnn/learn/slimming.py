"""The penalty of network slimming: BatchNorm scales of filters that are not needed go to 0, so they can be removed.

Liu et al. 2017, "Learning efficient convolutional networks through network slimming", arXiv 1708.06519, equation 1: the
loss is that of the task plus a factor times the sum of |scale| over the scales of BatchNorm. Its gradient for a scale
is the factor times the sign. Like weight decay, it is not part of the loss that is reported.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Collection

from jaxcnn.config import ConfigError
from jaxcnn.learn import rates

SCALE, MEAN = "scale", "mean"


def scales(params: Collection, batch_stats: Collection) -> set[str]:
    """The paths of the scales of BatchNorm that are trained; shapes are enough.

    Args:
      params: parameters, with None in place of those that are not trained.
      batch_stats: running statistics, which other normalisations do not have.
    """
    known = {rates.path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(batch_stats)[0]}
    paths = (rates.path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(params)[0])
    return {path for path in paths if path.endswith(SCALE) and f"{path.removesuffix(SCALE)}{MEAN}" in known}


def penalized(factor: float, grads: Collection, params: Collection, batch_stats: Collection) -> Collection:
    """Gradients plus the gradient of the penalty; None where a parameter is not trained."""
    chosen = scales(grads, batch_stats)

    def one(keys: Sequence[Any], grad: Any, weights: Any) -> Any:
        return grad + factor * jnp.sign(weights) if rates.path_of(keys) in chosen else grad

    return jax.tree_util.tree_map_with_path(one, grads, params, is_leaf=lambda leaf: leaf is None)


def check(params: Collection, batch_stats: Collection) -> None:
    """Refuse networks without trained scales of BatchNorm.

    Raises:
      ConfigError: there are none.
    """
    if not scales(params, batch_stats):
        raise ConfigError(
            "config.optim.slimming is for the scales of BatchNorm, and this network trains none; set it to 0"
        )
