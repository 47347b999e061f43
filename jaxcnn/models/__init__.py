"""The networks, by name."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn import config
from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.cnn import CNN
from jaxcnn.models.resnet import ResNet50
from jaxcnn.models.vgg import VGG16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "cnn": CNN,
    "resnet50": ResNet50,
    "vgg16": VGG16,
}


def build(model: config.Model, norm: config.Norm, num_classes: int, axis_name: str | None = None) -> nn.Module:
    """Make the network `model` names.

    `module.init(key, zeros)` gives float32 "params" and, with BatchNorm, "batch_stats".
    `module.apply(variables, images, positions=positions, train=True, rngs={"dropout": key}, mutable=["batch_stats"])`
    gives logits float32 [B, K] of images [B, H, W, C], and the new running statistics; `train=False`, the default,
    uses the running ones. positions (int32 [B], in the global batch) and the key are needed only with dropout.

    Args:
      model: the architecture; its `num_classes` is not read here.
      norm: of the BatchNorm layers.
      num_classes: K.
      axis_name: mesh axis, inside `jax.shard_map(..., check_vma=False)`, that the images are sharded over; device d
        holds the d-th part of the batch. None: the whole batch is here.
    """
    return MODELS[model.name](model, norm, num_classes, axis_name, jnp.dtype(model.dtype))
