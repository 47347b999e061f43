"""The networks of `jaxcnn.models` in PyTorch, in torchvision's layout, from parts of `torch.nn`.

The golden values of the tests come from these networks (`tests/goldens/make_torch_goldens.py`), so they are known to
compute the same as jaxcnn's networks. This module does not import JAX.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

HIDDEN = 4096
AIRBENCH_WHITENING = 24  # filters: the eigenvectors of 2x2 patches of three channels, and their negatives
AIRBENCH_GROUPS = (64, 256, 256)


class Network(NamedTuple):
    """A network, and a pair (jaxcnn's name, PyTorch's name) for every layer with parameters."""

    module: nn.Module
    names: list[tuple[str, str]]


def build(model: dict[str, Any], num_classes: int) -> Network:
    """Build a network from fields of `jaxcnn.config.Model`; absent fields have the defaults of that class.

    Networks that are not here are torchvision's, in its own form and with its own rates, and without names.
    """
    if model["name"] not in NETWORKS:
        import torchvision

        return Network(torchvision.models.get_model(model["name"], weights=None, num_classes=num_classes), [])
    fields = {key: value for key, value in model.items() if key not in ("name", "dtype")}
    return NETWORKS[model["name"]](num_classes=num_classes, **fields)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1."""
    return max(1, round(channels * width))


def alexnet(
    num_classes: int, form: str = "cifar", batch_norm: bool = True, width: float = 1.0, dropout: float = 0.0
) -> Network:
    """torchvision/models/alexnet.py and its CIFAR form."""
    imagenet = form == "imagenet"
    geometry = [(11, 4, 2), (5, 1, 2)] if imagenet else [(3, 2, 1), (3, 1, 1)]
    geometry += [(3, 1, 1)] * 3
    features: list[nn.Module] = []
    names = []
    inputs = 3
    for i, (channels, (size, stride, padding)) in enumerate(zip([64, 192, 384, 256, 256], geometry, strict=True), 1):
        outputs = scaled(channels, width)
        names.append((f"conv{i}", f"0.{len(features)}"))
        features.append(nn.Conv2d(inputs, outputs, size, stride, padding, bias=not batch_norm))
        inputs = outputs
        if batch_norm:
            names.append((f"bn{i}", f"0.{len(features)}"))
            features.append(nn.BatchNorm2d(inputs))
        features.append(nn.ReLU())
        if i in (1, 2, 5):
            features.append(nn.MaxPool2d(3 if imagenet else 2, 2))
    side = 6 if imagenet else 2
    pool = nn.AdaptiveAvgPool2d(side) if imagenet else nn.Identity()
    hidden = scaled(HIDDEN, width)
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(inputs * side * side, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
    names += [("dense1", "3.1"), ("dense2", "3.4"), ("classifier", "3.6")]
    return Network(nn.Sequential(nn.Sequential(*features), pool, nn.Flatten(), classifier), names)


def vgg16(
    num_classes: int,
    form: str = "cifar",
    batch_norm: bool = True,
    head: str = "linear",
    width: float = 1.0,
    dropout: float = 0.0,
) -> Network:
    """torchvision/models/vgg.py, configuration D, and its CIFAR form."""
    imagenet = form == "imagenet"
    features: list[nn.Module] = []
    names = []
    inputs = 3
    for block, channels in enumerate([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], 1):
        for i, output in enumerate(channels, 1):
            outputs = scaled(output, width)
            names.append((f"block{block}_conv{i}", f"0.{len(features)}"))
            features.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=imagenet or not batch_norm))
            inputs = outputs
            if batch_norm:
                names.append((f"block{block}_bn{i}", f"0.{len(features)}"))
                features.append(nn.BatchNorm2d(inputs))
            features.append(nn.ReLU())
        features.append(nn.MaxPool2d(2, 2))
    side = 7 if imagenet else 1
    hidden = scaled(HIDDEN, width)
    if imagenet or head == "dense4096":
        classifier = nn.Sequential(
            nn.Linear(inputs * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        names += [("dense1", "3.0"), ("dense2", "3.3"), ("classifier", "3.6")]
    else:
        classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, num_classes))
        names += [("classifier", "3.1")]
    return Network(nn.Sequential(nn.Sequential(*features), nn.AdaptiveAvgPool2d(side), nn.Flatten(), classifier), names)


class Bottleneck(nn.Module):
    """The bottleneck block of torchvision/models/resnet.py, with the stride on the 3x3 convolution."""

    def __init__(self, inputs: int, channels: int, outputs: int, stride: int, project: bool, pooled: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = None
        pool: nn.Module = nn.Identity()
        if pooled and stride > 1:  # ResNet-D
            pool, stride = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False), 1
        if project:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(pool, convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50(
    num_classes: int,
    form: str = "cifar",
    width: float = 1.0,
    dropout: float = 0.0,
    last_stride: int = 2,
    shortcut: str = "strided",
) -> Network:
    """torchvision/models/resnet.py, and its CIFAR form: a 3x3 stem of stride 1, no max-pool."""
    inputs = scaled(64, width)
    if form == "imagenet":
        stem = [nn.Conv2d(3, inputs, 7, 2, 3, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [nn.Conv2d(3, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()]
    layers: list[nn.Module] = list(stem)
    names = [("stem_conv", "0"), ("stem_bn", "1")]
    parts = [(part, part) for i in (1, 2, 3) for part in (f"conv{i}", f"bn{i}")]
    for stage, (channels, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for i in range(1, blocks + 1):
            ours, theirs = f"block{stage}_{i}", str(len(layers))
            first = i == 1
            outputs = scaled(4 * channels, width)
            stride = {1: 1, 4: last_stride}.get(stage, 2) if first else 1
            layers.append(
                Bottleneck(inputs, scaled(channels, width), outputs, stride, first, pooled=shortcut == "pooled")
            )
            inputs = outputs
            projection = [("shortcut_conv", "downsample.1"), ("shortcut_bn", "downsample.2")] if first else []
            names += [(f"{ours}/{a}", f"{theirs}.{b}") for a, b in parts + projection]
    names.append(("classifier", str(len(layers) + 3)))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, num_classes)]
    return Network(nn.Sequential(*layers), names)


class AirbenchGroup(nn.Module):
    """Two 3x3 convolutions with BatchNorm of fixed scale and GELU; a max-pool follows the first convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        for convolution in (self.conv1, self.conv2):
            nn.init.dirac_(convolution.weight.data[: convolution.in_channels])
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the group, with half the side of the image."""
        x = nn.functional.gelu(self.norm1(nn.functional.max_pool2d(self.conv1(x), 2)))
        return nn.functional.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """The network of airbench94_muon (Jordan 2024, arXiv 2404.00498): 94 % on CIFAR-10 in eight epochs."""

    def __init__(self, num_classes: int, width: float):
        super().__init__()
        self.whiten = nn.Conv2d(3, AIRBENCH_WHITENING, 2)
        self.whiten.weight.requires_grad = False
        channels = [AIRBENCH_WHITENING, *(scaled(channels, width) for channels in AIRBENCH_GROUPS)]
        self.groups = nn.ModuleList(itertools.starmap(AirbenchGroup, itertools.pairwise(channels)))
        self.head = nn.Linear(channels[-1], num_classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    @torch.no_grad()
    def init_whitening(self, images: torch.Tensor) -> None:
        """Set the first layer to the whitening transform of the 2x2 patches of normalised images [N, 3, H, W]."""
        patches = nn.functional.unfold(images, 2).transpose(1, 2).flatten(0, 1).double()  # [patches, 12]
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of normalised images [B, 3, 32, 32]."""
        x = nn.functional.gelu(self.whiten(x))
        for group in self.groups:
            x = group(x)
        x = nn.functional.max_pool2d(x, 3).flatten(1)
        return self.head(x) / x.shape[1]


def airbench(num_classes: int, width: float = 1.0) -> Network:
    """The network of the speedrun. It is only measured, so its layers need no names of jaxcnn."""
    return Network(Airbench(num_classes, width), [])


class ResidualAirbenchLayer(nn.Module):
    """A convolution, max-pool if wanted, and BatchNorm of fixed scale; the convolution starts as a partial identity."""

    def __init__(self, inputs: int, outputs: int, size: int, pool: bool = False):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2 if size % 2 else 0, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.norm.weight.requires_grad = False
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        nn.init.dirac_(self.convolution.weight.data[:inputs])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The normalised output."""
        return self.norm(self.pool(self.convolution(x)))


class ResidualAirbenchGroup(nn.Module):
    """A layer with a max-pool, and a residual branch of two layers; see `jaxcnn.models.airbench.Group`."""

    def __init__(self, inputs: int, outputs: int, size: int, inner: int, branch: tuple[int, int]):
        super().__init__()
        self.layer1 = ResidualAirbenchLayer(inputs, outputs, size, pool=True)
        self.layer2 = ResidualAirbenchLayer(outputs, inner, branch[0])
        self.layer3 = ResidualAirbenchLayer(inner, outputs, branch[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the group, with half the side of the image."""
        x = nn.functional.gelu(self.layer1(x))
        y = nn.functional.gelu(self.layer2(x))
        return nn.functional.gelu(self.layer3(y) + x)


class ResidualAirbench(Airbench):
    """The network of the speedrun on CIFAR-100; see `jaxcnn.models.airbench.ResidualAirbench`."""

    GROUPS = ((64, 3, 64, (1, 1)), (256, 3, 192, (3, 1)), (768, 2, 512, (3, 3)))

    def __init__(self, num_classes: int, width: float):
        super().__init__(num_classes, width)
        inputs, groups = AIRBENCH_WHITENING, []
        for channels, size, inner, branch in self.GROUPS:
            outputs = scaled(channels, width)
            groups.append(ResidualAirbenchGroup(inputs, outputs, size, scaled(inner, width), branch))
            inputs = outputs
        self.groups = nn.ModuleList(groups)
        self.head = nn.Linear(inputs, num_classes, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of normalised images [B, 3, S, S]."""
        x = nn.functional.gelu(self.whiten(x))
        for group in self.groups:
            x = group(x)
        return self.head(x.amax((2, 3)) + x.mean((2, 3))) / x.shape[1]


def airbench_residual(num_classes: int, width: float = 1.0) -> Network:
    """The network of the speedrun on CIFAR-100, with a pair of names for each layer."""
    names = [("whitening", "whiten"), ("classifier", "head")]
    for group in (1, 2, 3):
        for layer in (1, 2, 3):
            theirs = f"groups.{group - 1}.layer{layer}"
            names.append((f"group{group}_conv{layer}", f"{theirs}.convolution"))
            names.append((f"group{group}_bn{layer}", f"{theirs}.norm"))
    return Network(ResidualAirbench(num_classes, width), names)


NETWORKS: dict[str, Callable[..., Network]] = {
    "airbench": airbench,
    "airbench_residual": airbench_residual,
    "alexnet": alexnet,
    "resnet50": resnet50,
    "vgg16": vgg16,
}
