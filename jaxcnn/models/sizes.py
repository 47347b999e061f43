"""The output channels of layers: those of the network times its width, or those that `model.channels` tells."""

import contextvars
from collections.abc import Callable
from typing import Any

import jax

import jaxcnn.config as config
from jaxcnn.models.layers import scaled

_noted: contextvars.ContextVar[dict[str, int] | None] = contextvars.ContextVar("noted", default=None)


def sized(model: config.Model, layer: str, channels: int) -> int:
    """The output channels of a layer of a network.

    A network asks for each layer whose channels are its own, not those of a layer that it is added to.

    Args:
      model: the options of the network.
      layer: the path of the layer, such as "block1_1/conv1".
      channels: those of the network at width 1.
    """
    usual, found = scaled(channels, model.width), _noted.get()
    if found is not None:
        found[layer] = usual
    return dict(model.channels).get(layer, usual)


def usual_sizes(initialize: Callable[[], Any]) -> dict[str, int]:
    """The layers of a network whose channels `model.channels` may tell, and the channels that each has without.

    Args:
      initialize: makes the network's variables; it is traced only.
    """
    found: dict[str, int] = {}
    token = _noted.set(found)
    try:
        jax.eval_shape(initialize)
    finally:
        _noted.reset(token)
    return found
