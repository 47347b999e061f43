"""Makes torch_goldens.npz: what PyTorch computes for the networks of `jaxcnn.models`, in float64.

    pip install torch==2.13.0 numpy && python tests/goldens/make_torch_goldens.py

The networks are written here a second time, in torchvision's layout, from nn.Module parts. For every case of
`draw.CASES`: logits in evaluation and training mode, fingerprints of all gradients, the losses of five steps of SGD
(Nesterov, weight decay on kernels), and fingerprints of parameters and running statistics after them.
"""

import pathlib

import draw
import numpy as np
import torch
from torch import nn

HIDDEN = 4096


def scaled(channels: int) -> int:
    """Channels at the goldens' width."""
    return round(channels * draw.WIDTH)


def alexnet(form: str = "cifar", batch_norm: bool = True) -> tuple[nn.Module, list[tuple[str, str]]]:
    """The network and its (jaxcnn name, torch name) pairs; torchvision/models/alexnet.py and its CIFAR form."""
    imagenet = form == "imagenet"
    geometry = [(11, 4, 2), (5, 1, 2)] if imagenet else [(3, 2, 1), (3, 1, 1)]
    geometry += [(3, 1, 1)] * 3
    features: list[nn.Module] = []
    names = []
    inputs = 3
    for i, (channels, (size, stride, padding)) in enumerate(zip([64, 192, 384, 256, 256], geometry, strict=True), 1):
        names.append((f"conv{i}", f"0.{len(features)}"))
        features.append(nn.Conv2d(inputs, scaled(channels), size, stride, padding, bias=not batch_norm))
        inputs = scaled(channels)
        if batch_norm:
            names.append((f"bn{i}", f"0.{len(features)}"))
            features.append(nn.BatchNorm2d(inputs))
        features.append(nn.ReLU())
        if i in (1, 2, 5):
            features.append(nn.MaxPool2d(3 if imagenet else 2, 2))
    side = 6 if imagenet else 2
    pool = nn.AdaptiveAvgPool2d(side) if imagenet else nn.Identity()
    hidden = scaled(HIDDEN)
    classifier = nn.Sequential(
        nn.Dropout(0.0),
        nn.Linear(inputs * side * side, hidden),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, draw.CLASSES),
    )
    names += [("dense1", "3.1"), ("dense2", "3.4"), ("classifier", "3.6")]
    return nn.Sequential(nn.Sequential(*features), pool, nn.Flatten(), classifier), names


def vgg16(
    form: str = "cifar", batch_norm: bool = True, head: str = "linear"
) -> tuple[nn.Module, list[tuple[str, str]]]:
    """torchvision/models/vgg.py, configuration D, and its CIFAR form."""
    imagenet = form == "imagenet"
    features: list[nn.Module] = []
    names = []
    inputs = 3
    for block, channels in enumerate([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], 1):
        for i, output in enumerate(channels, 1):
            names.append((f"block{block}_conv{i}", f"0.{len(features)}"))
            features.append(nn.Conv2d(inputs, scaled(output), 3, padding=1, bias=imagenet or not batch_norm))
            inputs = scaled(output)
            if batch_norm:
                names.append((f"block{block}_bn{i}", f"0.{len(features)}"))
                features.append(nn.BatchNorm2d(inputs))
            features.append(nn.ReLU())
        features.append(nn.MaxPool2d(2, 2))
    side = 7 if imagenet else 1
    hidden = scaled(HIDDEN)
    if imagenet or head == "dense4096":
        classifier = nn.Sequential(
            nn.Linear(inputs * side * side, hidden),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, draw.CLASSES),
        )
        names += [("dense1", "3.0"), ("dense2", "3.3"), ("classifier", "3.6")]
    else:
        classifier = nn.Sequential(nn.Linear(inputs, draw.CLASSES))
        names += [("classifier", "3.0")]
    return nn.Sequential(nn.Sequential(*features), nn.AdaptiveAvgPool2d(side), nn.Flatten(), classifier), names


class Bottleneck(nn.Module):
    """torchvision/models/resnet.py's, with the stride on the 3x3 convolution."""

    def __init__(self, inputs: int, channels: int, outputs: int, stride: int, project: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50(form: str = "cifar") -> tuple[nn.Module, list[tuple[str, str]]]:
    """torchvision/models/resnet.py, and its CIFAR form: a 3x3 stem of stride 1, no max-pool."""
    inputs = scaled(64)
    if form == "imagenet":
        stem = [nn.Conv2d(3, inputs, 7, 2, 3, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [nn.Conv2d(3, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()]
    layers = list(stem)
    names = [("stem_conv", "0"), ("stem_bn", "1")]
    parts = [(part, part) for i in (1, 2, 3) for part in (f"conv{i}", f"bn{i}")]
    for stage, (channels, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for i in range(1, blocks + 1):
            ours, theirs = f"block{stage}_{i}", str(len(layers))
            first = i == 1
            outputs = scaled(4 * channels)
            layers.append(Bottleneck(inputs, scaled(channels), outputs, 2 if first and stage > 1 else 1, first))
            inputs = outputs
            shortcut = [("shortcut_conv", "downsample.0"), ("shortcut_bn", "downsample.1")] if first else []
            names += [(f"{ours}/{a}", f"{theirs}.{b}") for a, b in parts + shortcut]
    names.append(("classifier", str(len(layers) + 2)))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, draw.CLASSES)]
    return nn.Sequential(*layers), names


NETWORKS = {"alexnet": alexnet, "vgg16": vgg16, "resnet50": resnet50}


def jax_layout(weight: np.ndarray, spatial: int) -> np.ndarray:
    """A torch weight in jaxcnn's layout; spatial: pixels that a dense layer's input was flattened from."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if weight.ndim == 2:  # PyTorch flattens (channel, pixel), jaxcnn (pixel, channel)
        outputs, inputs = weight.shape
        return weight.reshape(outputs, inputs // spatial, spatial).transpose(2, 1, 0).reshape(inputs, outputs)
    return weight


def torch_layout(weight: np.ndarray, spatial: int) -> np.ndarray:
    """The inverse of `jax_layout`."""
    if weight.ndim == 4:
        return weight.transpose(3, 2, 0, 1)
    if weight.ndim == 2:
        inputs, outputs = weight.shape
        return weight.reshape(spatial, inputs // spatial, outputs).transpose(2, 1, 0).reshape(outputs, inputs)
    return weight


def leaves(network: nn.Module, names: list[tuple[str, str]]) -> tuple[dict, dict]:
    """jaxcnn's path -> (torch tensor, spatial), of parameters and of running statistics."""
    parameters, statistics = {}, {}
    channels = 0
    for ours, theirs in names:
        module = network.get_submodule(theirs)
        is_norm = isinstance(module, nn.BatchNorm2d)
        # The first dense layer alone sees pixels: as many as inputs per channel of the last convolution.
        spatial = module.in_features // channels if isinstance(module, nn.Linear) else 1
        channels = module.out_features if isinstance(module, nn.Linear) else module.weight.shape[0]
        parameters[f"{ours}/{'scale' if is_norm else 'kernel'}"] = module.weight, spatial
        if module.bias is not None:
            parameters[f"{ours}/bias"] = module.bias, 1
        if is_norm:
            statistics[f"{ours}/mean"] = module.running_mean, 1
            statistics[f"{ours}/var"] = module.running_var, 1
    assert {id(tensor) for tensor, _ in parameters.values()} == {id(p) for p in network.parameters()}
    return parameters, statistics


def fingerprints(tensors: dict) -> np.ndarray:
    """[leaves, 1 + PROJECTIONS], leaves in the order of their sorted paths."""
    return np.array(
        [
            draw.fingerprint(path, jax_layout(tensor.detach().numpy(), spatial))
            for path, (tensor, spatial) in sorted(tensors.items())
        ]
    )


def run(case: str) -> dict[str, np.ndarray]:
    """Everything of one case."""
    fields, side = draw.CASES[case]
    network, names = NETWORKS[fields["name"]](**{key: value for key, value in fields.items() if key != "name"})
    network.double()
    parameters, statistics = leaves(network, names)
    with torch.no_grad():
        for collection, tensors in (("params", parameters), ("batch_stats", statistics)):
            for path, (tensor, spatial) in tensors.items():
                value = draw.leaf(case, collection, path, jax_layout(tensor.numpy(), spatial).shape)
                tensor.copy_(torch.from_numpy(torch_layout(value, spatial).copy()))
    images, labels = draw.batch(case, side)
    images, labels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)

    result = {"logits_eval": network.eval()(images).detach().numpy()}
    network.train()
    kernels = [tensor for path, (tensor, _) in parameters.items() if path.endswith("/kernel")]
    others = [tensor for path, (tensor, _) in parameters.items() if not path.endswith("/kernel")]
    optimizer = torch.optim.SGD(
        [{"params": kernels, "weight_decay": draw.SGD["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=draw.SGD["learning_rate"],
        momentum=draw.SGD["momentum"],
        nesterov=True,
    )
    losses = []
    for step in range(draw.STEPS):
        optimizer.zero_grad()
        logits = network(images)
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if step == 0:
            result["logits_train"] = logits.detach().numpy()
            result["gradients"] = fingerprints({path: (t.grad, spatial) for path, (t, spatial) in parameters.items()})
        optimizer.step()
        losses.append(loss.item())
    result["losses"] = np.array(losses)
    result["params"] = fingerprints(parameters)
    result["batch_stats"] = fingerprints(statistics)
    return result


def main() -> None:
    """Write torch_goldens.npz beside this file."""
    arrays = {f"{case}/{key}": value for case in draw.CASES for key, value in run(case).items()}
    for case in draw.CASES:
        print(case, arrays[f"{case}/losses"])
    np.savez_compressed(pathlib.Path(__file__).with_name("torch_goldens.npz"), **arrays)


if __name__ == "__main__":
    main()
