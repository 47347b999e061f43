"""The networks with published weights in the world, and which of them a file may be of."""

from collections.abc import Mapping
from typing import Any

from jaxcnn.config import Model
from jaxcnn.config.networks import CIFAR_RESNET
from jaxcnn.weights import layout

HEAD = 2  # arrays of the classifier, which a file may lack

# The number of arrays of each network, counters of BatchNorm apart: it tells most of them apart before any is built.
ARRAYS = {
    **{"alexnet": 16, "vgg11": 22, "vgg13": 26, "vgg16": 32, "vgg19": 38},
    **{"vgg11_bn": 54, "vgg13_bn": 66, "vgg16_bn": 84, "vgg19_bn": 102},
    **{"resnet18": 102, "resnet34": 182, "resnet50": 267, "resnet101": 522, "resnet152": 777},
    **{"wide_resnet50_2": 267, "wide_resnet101_2": 522},
    **{"resnet18d": 112, "resnet34d": 192, "resnet50d": 277, "resnet101d": 532, "resnet152d": 787},
    **{"resnet20": 97, "resnet32": 157, "resnet44": 217, "resnet56": 277, "resnet110": 547},
    **{"mobilenet_v2": 262, "efficientnet_b0": 311, "efficientnet_lite0": 247, "convnext_tiny": 182},
    **{"squeezenet1_0": 52, "squeezenet1_1": 52},
}


def network(name: str) -> Model:
    """The network of a name in `ARRAYS`, as it was published: "_bn" is VGG with BatchNorm, "d" timm's ResNet-D."""
    if name in CIFAR_RESNET:
        return Model(name=name)
    if name.startswith(("alexnet", "vgg")):
        return Model(name=name.removesuffix("_bn"), form="imagenet", batch_norm=name.endswith("_bn"))
    if name.startswith("resnet") and name.endswith("d"):
        return Model(name=name.removesuffix("d"), form="imagenet", shortcut="pooled", stem="deep")
    return Model(name=name, form="imagenet")


def options(name: str) -> dict[str, Any]:
    """The options of `config.model` that make the network of a name in `ARRAYS`."""
    model, plain = network(name), Model()
    set_ = {key: getattr(model, key) for key in ("form", "batch_norm", "shortcut", "stem")}
    return {"name": model.name} | {key: value for key, value in set_.items() if value != getattr(plain, key)}


def possible(given: Mapping[str, Any]) -> list[str]:
    """The names in `ARRAYS` that have as many arrays as a file, with or without their classifier.

    Args:
      given: the arrays of the file, by name.
    """
    count = sum(not layout.is_ignored(name) for name in given)
    return [name for name, arrays in ARRAYS.items() if count in (arrays, arrays - HEAD)]
