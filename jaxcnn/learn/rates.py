"""Learning rates by layer: patterns of parameter paths, each with a factor on the learning rate; 0 freezes.

A frozen parameter is a constant of the step: it gets no gradient, no momentum and no weight decay, and a BatchNorm
whose parameters are all frozen keeps its running statistics too. The other parameters are called trainable.

A path consists of the names of the modules and of the parameter, such as "block1_2/conv1/kernel". A pattern is a
regular expression that must match the whole path; the first pattern that matches decides.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from flax.typing import Collection
from jaxtyping import Array, Float

from jaxcnn.config import ConfigError, Optim
from jaxcnn.config.layers import Layers, check_patterns, factor_of


def path_of(keys: Sequence[Any]) -> str:
    """The path of a leaf, from the keys that `jax.tree_util.tree_map_with_path` gives."""
    return "/".join(str(key.key) for key in keys)


def trainable(params: Collection, layers: Layers) -> Collection:
    """A tree like `params` with None in place of every frozen leaf."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: None if factor_of(path_of(keys), layers) == 0 else leaf, params
    )


def merged(part: Collection, params: Collection) -> Collection:
    """`params` with its trainable leaves replaced by those of `part`, a tree from `trainable`."""
    return jax.tree.map(lambda new, old: old if new is None else new, part, params, is_leaf=lambda leaf: leaf is None)


def scale(layers: Layers, others: Mapping[str, Float[Array, ""] | float]) -> optax.GradientTransformation:
    """Multiply each update by the factor of its path, and by its factor in `others`, which may be traced."""

    def scaled(keys: Sequence[Any], update: Float[Array, "..."]) -> Float[Array, "..."]:
        path = path_of(keys)
        for factor in (factor_of(path, layers), others.get(path, 1.0)):
            update = update if isinstance(factor, float) and factor == 1.0 else factor * update
        return update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def effective(optim: Optim, own: Layers, batch_stats: Collection) -> Layers:
    """The patterns of a run, in order of precedence.

    Args:
      optim: only `layers` and `freeze_norm` are used.
      own: patterns that belong to the network, such as for a kernel that is computed from the data.
      batch_stats: the running statistics, which show where BatchNorm layers are.
    """
    norms = {path_of(keys[:-1]) for keys, _ in jax.tree_util.tree_flatten_with_path(batch_stats)[0]}
    frozen = tuple((re.escape(path) + "/(scale|bias)", 0.0) for path in sorted(norms)) if optim.freeze_norm else ()
    return (*own, *frozen, *optim.layers)


def check(layers: Layers, params: Collection) -> None:
    """Refuse patterns that have no effect.

    Args:
      layers: the patterns of the config.
      params: the parameters; shapes are enough.

    Raises:
      ConfigError: a pattern is not a regular expression or matches no parameter, or nothing is left to train.
    """
    paths = [path_of(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    modules = sorted({path.rpartition("/")[0] for path in paths})
    what = (
        f"parameter; a pattern must match the whole path of a parameter, such as {paths[0]!r}; the layers are "
        f"{', '.join(modules)}"
    )
    check_patterns("config.optim.layers", (pattern for pattern, _ in layers), paths, what)
    if all(factor_of(path, layers) == 0 for path in paths):
        raise ConfigError("config.optim.layers freezes every parameter, so nothing is left to train")
