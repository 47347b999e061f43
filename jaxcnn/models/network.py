"""What every network has: its fields, and what the optimiser and the mesh need to know of it."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn import config
from jaxcnn.config.layers import Layers


class Network(nn.Module):
    """Base class of the networks. A subclass has a compact `__call__(images, positions=None, train=False)`.

    It returns logits float32 [B, num_classes] of images [B, H, W, C]; `positions`, int32 [B] in the global batch, are
    needed for dropout in training.

    Attributes:
      model: the options; a network's docstring says which of them it reads.
      norm: options of the BatchNorm layers.
      num_classes: number of classes.
      axis_name: mesh axis over which the batch is sharded, or None.
      dtype: type of the computation.
      HEAD: name of the module that makes the logits; Muon leaves it to SGD.
      FROZEN: patterns of parameters that are never trained, because the network computes them from its data.
    """

    HEAD: ClassVar[str] = "classifier"
    FROZEN: ClassVar[Layers] = ()

    model: config.Model
    norm: config.Norm
    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32
