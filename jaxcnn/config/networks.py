"""The options of `config.model` that each of our networks reads, as data: the networks themselves are not imported."""

import dataclasses

from jaxcnn.config.fields import Model

OF_EVERY_NETWORK = ("name", "num_classes", "width", "dropout", "dtype")
VGG = ("vgg11", "vgg13", "vgg16", "vgg19")
RESNET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
CIFAR_RESNET = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
DETECTORS = ("yolo_cnn", "yolo_resnet18", "yolo_resnet50")  # of config.task.name="detection"
OPTIONS: dict[str, tuple[str, ...]] = {  # besides those
    "airbench": (),
    "airbench_residual": (),
    "alexnet": ("form", "batch_norm"),
    "cnn": (),
    "efficientnet_lite0": ("form", "stochastic_depth"),
    "mobilenet_v2": ("form", "stochastic_depth"),
    "squeezenet1_0": ("form",),
    "squeezenet1_1": ("form",),
    "yolo_cnn": (),
    **dict.fromkeys(DETECTORS[1:], ("zero_init_residual", "shortcut", "stochastic_depth")),
    **dict.fromkeys(RESNET, ("form", "zero_init_residual", "last_stride", "shortcut", "stochastic_depth")),
    **dict.fromkeys(CIFAR_RESNET, ("zero_init_residual", "stochastic_depth")),
    **dict.fromkeys(VGG, ("form", "head", "batch_norm")),
}
WHITENED = ("airbench", "airbench_residual")  # the first layer whitens patches
WITHOUT_NORM = ("squeezenet1_0", "squeezenet1_1")
# In every form: BatchNorm after each kernel except the classifier's, and no depthwise kernels.
NORMALISED = (*WHITENED, "cnn", *RESNET, *CIFAR_RESNET)


def readers(option: str) -> tuple[str, ...]:
    """Our networks that read an option of `config.model`."""
    return tuple(name for name, options in OPTIONS.items() if option in (*OF_EVERY_NETWORK, *options))


def unread(model: Model) -> list[str]:
    """One line for each option of one of our networks that has another value than its default and is not read."""
    lines = []
    for field in dataclasses.fields(model):
        value, those = getattr(model, field.name), readers(field.name)
        if value != field.default and model.name not in those:
            *others, last = those
            listed = f"{', '.join(others)} and {last}" if others else last
            lines.append(f"config.model.{field.name}={value!r} is for {listed}; {model.name} has no such option")
    return lines
