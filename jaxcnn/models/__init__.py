"""The networks, made by their names."""

import jax.numpy as jnp
import numpy as np
from flax.typing import Collection
from jaxtyping import Float, Num

import jaxcnn.config as config
from jaxcnn.config.layers import Layers
from jaxcnn.config.networks import FASTER, INSTANCES, SEGMENTERS, YOLO
from jaxcnn.config.networks import YOLOX as YOLOX_SIZES
from jaxcnn.models import own, whitening
from jaxcnn.models.airbench import Airbench, ResidualAirbench
from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.cnn import CNN
from jaxcnn.models.convnext import ConvNeXt
from jaxcnn.models.detector import Detector
from jaxcnn.models.faster_rcnn import FasterRCNN
from jaxcnn.models.mask_rcnn import MaskRCNN
from jaxcnn.models.mobilenet import InvertedResidualNet
from jaxcnn.models.network import Network, Trainable
from jaxcnn.models.resnet import VARIANTS, ResNet
from jaxcnn.models.resnet_cifar import BLOCKS, CifarResNet
from jaxcnn.models.squeezenet import SqueezeNet
from jaxcnn.models.unet import UNet
from jaxcnn.models.vgg import CONVOLUTIONS, VGG
from jaxcnn.models.yolox import YOLOX

MODELS: dict[str, type[Network]] = {
    "airbench": Airbench,
    "airbench_residual": ResidualAirbench,
    "alexnet": AlexNet,
    "cnn": CNN,
    "convnext_tiny": ConvNeXt,
    "efficientnet_b0": InvertedResidualNet,
    "efficientnet_lite0": InvertedResidualNet,
    "mobilenet_v2": InvertedResidualNet,
    "squeezenet1_0": SqueezeNet,
    "squeezenet1_1": SqueezeNet,
    **dict.fromkeys(CONVOLUTIONS, VGG),
    **dict.fromkeys(VARIANTS, ResNet),
    **dict.fromkeys(BLOCKS, CifarResNet),
    **dict.fromkeys(YOLO, Detector),
    **dict.fromkeys(YOLOX_SIZES, YOLOX),
    **dict.fromkeys(SEGMENTERS, UNet),
    **dict.fromkeys(FASTER, FasterRCNN),
    **dict.fromkeys(INSTANCES, MaskRCNN),
}


def frozen(model: config.Model) -> Layers:
    """Patterns of the parameters that a network never trains, because it computes them from its data."""
    return MODELS[model.name].FROZEN if model.name in MODELS else own.frozen(model.name)


def build(model: config.Model, norm: config.Norm, outputs: int, axis_name: str | None = None) -> Trainable:
    """Build the network that `model` names.

    `module.init(key, zeros)` returns float32 "params" and, with BatchNorm, "batch_stats".
    `module.apply(variables, images, positions=positions, train=True, rngs={"dropout": key}, mutable=["batch_stats"])`
    returns the logits (`network.Logits`) of `network.Images`, and the new running statistics; `train=False`, the
    default, uses the running ones. The positions in the global batch and the key are needed only with dropout.

    Args:
      model: the architecture; its `num_classes` is not used here.
      norm: options of the BatchNorm layers.
      outputs: k.
      axis_name: inside `jax.shard_map(..., check_vma=False)`, the mesh axis over which images are sharded; device d
        holds the d-th part of the batch. None if the whole batch is on this device.

    Raises:
      UserError: a network that is not ours cannot be loaded, or does not fit the config.
    """
    if model.name not in MODELS:
        return own.build(model, norm, outputs, axis_name)
    return MODELS[model.name](model, norm, outputs, axis_name, jnp.dtype(model.dtype))


def examples_for_initialization(params: Collection) -> int:
    """The number of training images that `initialize_from_data` needs for these parameters; 0 if it does nothing."""
    return whitening.EXAMPLES if whitening.NAME in params else 0


def initialize_from_data(
    params: Collection,
    images: Num[np.ndarray, "n h w c"],
    mean: Float[np.ndarray, " c"],
    std: Float[np.ndarray, " c"],
) -> Collection:
    """A copy of the parameters in which those computed from data are set: the kernel of a whitening layer.

    Args:
      params: the initial parameters; not changed.
      images: the first images of the training split.
      mean, std: mean and standard deviation for normalisation.
    """
    if whitening.NAME not in params:
        return params
    kernel = whitening.whitening_kernel(images, mean, std)
    return {**params, whitening.NAME: {**params[whitening.NAME], "kernel": kernel}}
