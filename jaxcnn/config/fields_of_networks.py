"""The fields of a run's configuration that say what the network is: `config.model` and `config.norm`."""

import dataclasses
from typing import Annotated, Literal

from jaxcnn.config.open_names import Open
from jaxcnn.config.ranges import AboveZero, AtLeast, AtMost, Count, Fraction, Positive

NETWORKS = (
    *("alexnet", "vgg11", "vgg13", "vgg16", "vgg19"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnet20", "resnet32", "resnet44", "resnet56", "resnet110"),
    *("mobilenet_v2", "efficientnet_b0", "efficientnet_lite0", "squeezenet1_0", "squeezenet1_1", "convnext_tiny"),
    *("cnn", "airbench", "airbench_residual"),
    *("yolo_cnn", "yolo_resnet18", "yolo_resnet50", "yolo_csp_s", "yolo_csp_m", "yolo_mobilenet_v2"),
    *("yolox_tiny", "yolox_s", "yolox_m", "yolox_l", "yolox_x"),
    *("faster_rcnn_cnn", "faster_rcnn_resnet18", "faster_rcnn_resnet50"),
    *("unet", "unet_small", "unet_resnet18", "unet_resnet50"),
    *("mask_rcnn_cnn", "mask_rcnn_resnet18", "mask_rcnn_resnet50"),
)

AUTO = "auto"  # in place of the name of a network: that of the weights from which the run starts
DRAWN = "resnet50"  # the network for AUTO without such weights


@dataclasses.dataclass(frozen=True)
class Model:
    """The network (`jaxcnn.models`). Which of our networks reads which option: `jaxcnn.config.networks`."""

    name: Annotated[str, Open("networks", NETWORKS, chosen=(AUTO,))] = (
        "vgg16"  # the architecture; auto: that of config.init's weights, with its options; without weights resnet50
    )
    form: Literal["cifar", "imagenet"] = "cifar"  # stem for small images, or torchvision's layout
    num_classes: Count = 0  # number of outputs; 0: that of the data set
    width: Annotated[AboveZero, AtMost(1024.0)] = 1.0  # multiplies every channel count and hidden size
    channels: tuple[tuple[str, int], ...] = ()  # (layer, its output channels) where they are others, as after slimming
    head: Literal["linear", "dense4096"] = "linear"  # form="cifar": the classifier alone, or after two hidden layers
    batch_norm: bool = True  # after each convolution; the other networks always have it
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "mish"] = (
        "relu"  # the nonlinearity after convolutions and hidden layers
    )
    pooling: Literal["max", "mean", "both"] = "max"  # where windows of an image become one value; both: the sum
    colours: Literal["rgb", "grey", "ycbcr", "learned"] = (
        "rgb"  # what the first layer sees of three channels: these, their luma, luma and chroma, or a learnt mix
    )
    stage_blocks: tuple[Annotated[int, AtLeast(1), AtMost(200)], ...] = ()  # blocks of each stage; empty: as published
    stage_channels: tuple[
        Annotated[int, AtLeast(1), AtMost(65536)], ...
    ] = ()  # channels of each stage at width 1; empty: as published
    stage_kernels: tuple[
        Annotated[int, AtLeast(1), AtMost(15)], ...
    ] = ()  # side of the kernels in the blocks of each stage, odd; empty: 3
    class_agnostic: Literal["none", "boxes", "masks", "both"] = (
        "none"  # detectors of two stages: one box, or one mask, of an object whatever its class is, not one of each
    )
    box_bins: Annotated[Count, AtMost(256)] = (
        0  # one-stage detectors: bins of a distribution for each side of a box, such as 17, in strides; 0: one number
    )
    dropout: Fraction = 0.0  # rate; at torchvision's places, else before the classifier
    dtype: Literal["float32", "bfloat16"] = "float32"  # type of computation; parameters stay float32
    zero_init_residual: bool = True  # the last BatchNorm scale of each residual block starts at 0
    last_stride: Annotated[Positive, AtMost(2)] = 2  # stride of the last stage; 1: maps as large as those before it
    shortcut: Literal["strided", "pooled"] = "strided"  # path into a smaller map; pooled: 2x2 means first ("ResNet-D")
    stem: Literal["plain", "deep"] = "plain"  # first layers: one convolution, or three of 3x3 ("ResNet-D")
    stochastic_depth: Fraction = 0.0  # rate at which an example skips the last residual block; less for those before
    attention: Literal["none", "se", "eca", "cbam", "bam", "gc", "nonlocal", "coordinate"] = (
        "none"  # layers that weigh channels or pixels by what the whole image shows
    )
    attention_ratio: Count = 0  # their input has this many times the channels inside; 0: as in the method's paper
    attention_place: Literal["auto", "inner", "branch", "block", "stage"] = (
        "auto"  # inside a residual branch, at its end, after each block, after each stage; auto: as in the paper
    )
    attention_stages: tuple[int, ...] = ()  # those that have it, from 1; empty: all, with place="stage" but the last


@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm, or GroupNorm in its place. Statistics never depend on the device count."""

    name: Literal["batch", "group"] = "batch"  # group: normalises each example alone, by groups of channels
    groups: Positive = 32  # group: groups of channels; the greatest common divisor of this and the number of channels
    momentum: Fraction = 0.9  # weight of the old running statistics
    epsilon: AboveZero = 1e-5  # number added to the variance
    group_size: Count = 0  # examples that share statistics; 0: the whole global batch
