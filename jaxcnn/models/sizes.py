"""The output channels of layers: the network's usual ones times its width, or those of `model.channels`."""

from collections.abc import Callable
from typing import Any

import jaxcnn.config as config
from jaxcnn.models.layers import scaled
from jaxcnn.models.noted import Noted

_noted = Noted[int]("channels")


def sized(model: config.Model, layer: str, channels: int) -> int:
    """The output channels of a layer of a network.

    A network calls it for each layer that has channels of its own, not those of a layer whose output is added to it.

    Args:
      model: the options of the network.
      layer: the path of the layer, such as "block1_1/conv1".
      channels: channels of this layer at width 1.
    """
    return sized_from(model, layer, scaled(channels, model.width))


def sized_from(model: config.Model, layer: str, usual: int) -> int:
    """The output channels of a layer whose `usual` ones, width included, follow from those of another layer."""
    _noted.note(layer, usual)
    return dict(model.channels).get(layer, usual)


def usual_sizes(initialize: Callable[[], Any]) -> dict[str, int]:
    """The layers of a network whose channels `model.channels` can set, with the channels that each has by default.

    Args:
      initialize: makes the network's variables; it is traced only.
    """
    return _noted.of(initialize)
