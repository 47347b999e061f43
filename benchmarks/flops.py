"""Floating-point operations of a network, counted from its layers. All peers are given the same count."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn import models
from jaxcnn.config.layers import factor_of
from jaxcnn.learn.network import network
from jaxcnn.learn.step_spec import StepSpec


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations per image of convolutions and dense layers; a multiply-add is two, and zero padding counts as pixels.

    BatchNorm, activations, pooling, the loss and the optimiser are not counted; they are below one per cent.

    Attributes:
      predict: operations of the forward pass.
      train: operations of the forward pass and of both gradients of each layer, without the gradient of the images and
        without the gradients of frozen weights.
    """

    predict: int
    train: int


def count(spec: StepSpec) -> Flops:
    """Count the operations by tracing the network of `spec`, without computing anything."""
    model = network(spec)
    rates = (*models.frozen(spec.model), *spec.optim.layers)
    layers: dict[tuple[str, ...], tuple[int, bool]] = {}  # path -> (operations, is it trained); in the order of calls

    def record(next_function, args, kwargs, context):
        output = next_function(*args, **kwargs)
        params = context.module.variables.get("params", {})
        if context.method_name == "__call__" and "kernel" in params:
            flops = 2 * math.prod(params["kernel"].shape) * math.prod(output.shape[1:-1])
            # A layer that shares the scope of another, as whitening and its convolution do, counts once.
            kernel = "/".join((*context.module.path, "kernel"))
            layers.setdefault(context.module.path, (flops, factor_of(kernel, rates) != 0))
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *spec.image_shape)))
    predict = sum(flops for flops, _ in layers.values())
    first = next(iter(layers.values()))[0]
    train = predict + sum(flops * (1 + trained) for flops, trained in layers.values()) - first
    return Flops(predict, train)
