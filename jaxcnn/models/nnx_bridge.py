"""Networks of `flax.nnx`, by Flax's bridge to `flax.linen`."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx
from flax.nnx import bridge

from jaxcnn.models import context, linen_layers
from jaxcnn.models.layers import dropped


def is_network(target: Any) -> bool:
    """Whether a class or function makes `nnx` modules: it is an `nnx` class, or a function with an argument `rngs`."""
    if isinstance(target, type):
        return issubclass(target, nnx.Module)
    return "rngs" in inspect.signature(target).parameters


def is_made(target: Any) -> bool:
    """Whether this is a module of `nnx` itself, which has its parameters."""
    return isinstance(target, nnx.Module)


class _FromNnx(nn.Module):
    """Wraps a module of `nnx`, whose variables become those of this module.

    Attributes:
      make: makes the module from `rngs`.
    """

    make: Callable[..., nnx.Module]

    @nn.compact
    def __call__(self, images: Any, train: bool = False) -> Any:
        """The outputs of the module, whose layers are set to the mode for training or evaluation."""

        def call(module: Any, images: Any) -> Any:
            (module.train if train else module.eval)()
            taken = inspect.signature(type(module).__call__).parameters
            return module(images, **({"train": train} if "train" in taken else {}))

        inner = bridge.ToLinen(self._made, metadata_fn=lambda variable: variable.get_value())
        nn.share_scope(self, inner)
        return inner(images, nnx_method=call)

    def _made(self, rngs: nnx.Rngs) -> nnx.Module:
        module = self.make(rngs=rngs)
        run, key = context.current(), None
        if not self.is_initializing() and self.has_rng("dropout"):
            key = self.make_rng("dropout")
        for number, (_, layer) in enumerate(nnx.iter_modules(module)):
            if isinstance(layer, nnx.Conv):
                layer.conv_general_dilated = _convolution
            elif isinstance(layer, nnx.BatchNorm) and not self.is_initializing():
                layer.axis_name = layer.axis_name or run.axis_name
            elif isinstance(layer, nnx.Dropout) and key is not None and run.positions is not None:
                layer.__class__ = _Dropout
                vars(layer)["noise"] = (jax.random.fold_in(key, number), run.positions)
        return module


def _convolution(*args: Any, out_sharding: Any = None, **options: Any) -> Any:
    return linen_layers.convolution(*args, **options)


class _Dropout(nnx.Dropout):
    """Dropout whose noise depends on the positions of the examples."""

    noise: Any

    def __call__(self, inputs: Any, *, deterministic: bool | None = None, rngs: Any = None) -> Any:
        """Drop values, unless the layer is in the mode for evaluation."""
        off = self.deterministic if deterministic is None else deterministic
        if off or self.broadcast_dims or not 0 < self.rate < 1:
            return super().__call__(inputs, deterministic=deterministic, rngs=rngs)
        return dropped(inputs, self.rate, *self.noise)


def as_linen(make: Callable[..., nnx.Module]) -> nn.Module:
    """The network that `make(rngs=…)` makes, as a `flax.linen` module with `train`."""
    return _FromNnx(make)
