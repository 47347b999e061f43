"""The base of every network: its fields, and what the optimiser and the mesh need to know about it."""

from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jaxtyping import Array, Float, Float32, Int32

import jaxcnn.config as config
from jaxcnn.config.layers import Layers

# The dimensions of arrays are named in `jaxcnn.data.batch`.
Images = Float[Array, "b h w c"]
Positions = Int32[Array, " b"]
Features = Float[Array, "b inputs"]
Logits = Float32[Array, "b k"]


class Trainable(Protocol):
    """The methods that the step needs of a network; `flax.linen.Module` has them."""

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """The initial variables of the network."""
        ...

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, and the changed variables if some are mutable."""
        ...


class Network(nn.Module):
    """Base class of the networks. A subclass has a compact `__call__(images, positions=None, train=False)`.

    It maps `Images` to `Logits`; `positions` (`Positions`, in the global batch) are needed for dropout in training.

    Attributes:
      model: the options; `jaxcnn.config.networks` says which of them each network reads.
      norm: options of the BatchNorm layers.
      outputs: number of outputs; for classification, of classes.
      axis_name: mesh axis over which the batch is sharded, or None.
      dtype: type of the computation.
      HEAD: name of the module that makes the logits; Muon leaves it to SGD.
      MAPPED: name of the layer that all outputs come from, for class activation maps; empty: one of the last layers.
      FROZEN: patterns of parameters that are never trained, because the network computes them from its data.
      LEARNS_FROM_TARGET: whether `__call__` takes `target`, too, in training, to choose what it learns from.
    """

    HEAD: ClassVar[str] = "classifier"
    MAPPED: ClassVar[str] = ""
    FROZEN: ClassVar[Layers] = ()
    LEARNS_FROM_TARGET: ClassVar[bool] = False

    model: config.Model
    norm: config.Norm
    outputs: int
    axis_name: str | None = None
    dtype: Dtype = jnp.float32
