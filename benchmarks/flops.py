"""Floating-point operations of a network, counted from its layers. All peers are given the same count."""

import dataclasses

from jaxcnn.learn import costs
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
    layers = [layer for layer in costs.layers(spec) if layer.flops]
    return Flops(sum(layer.flops for layer in layers), sum(layer.train_flops for layer in layers) - layers[0].flops)
