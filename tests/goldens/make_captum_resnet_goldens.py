"""Makes captum_resnet_goldens.npz: what Captum computes in float64 for a small network with what AlexNet lacks.

Two bottleneck blocks of a ResNet (a stride, a projected and an identity shortcut), a grouped convolution of stride 2,
and a depthwise one.

pip install torch==2.13.0 captum==0.9.0 numpy
python tests/goldens/make_captum_resnet_goldens.py
"""

import pathlib

import draw
import numpy as np
import torch
from captum import attr
from torch import nn

CASE, SIDE, IMAGES, STEPS = "mixed_blocks", 12, 2, 20


def drawn(path: str, shape: tuple[int, ...], collection: str = "params") -> torch.Tensor:
    """A leaf of `draw`, whose kernels become those of PyTorch."""
    value = draw.leaf(CASE, collection, path, shape)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim, (0,))
    return torch.from_numpy(np.ascontiguousarray(value.transpose(axes)))


def convolution(path: str, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias."""
    made = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False).double()
    made.weight = nn.Parameter(drawn(f"{path}/kernel", (size, size, inputs // groups, outputs)))
    return made


def norm(path: str, channels: int) -> nn.BatchNorm2d:
    """A BatchNorm in inference mode."""
    made = nn.BatchNorm2d(channels).double()
    made.weight, made.bias = (nn.Parameter(drawn(f"{path}/{name}", (channels,))) for name in ("scale", "bias"))
    made.running_mean, made.running_var = (
        drawn(f"{path}/{name}", (channels,), "batch_stats") for name in ("mean", "var")
    )
    return made


class Bottleneck(nn.Module):
    """A bottleneck block; each ReLU is a module, as Captum wants it."""

    def __init__(self, path: str, inputs: int, channels: int, outputs: int, stride: int, *, project: bool):
        super().__init__()
        self.branch = nn.Sequential(
            convolution(f"{path}/conv1", inputs, channels, 1), norm(f"{path}/bn1", channels), nn.ReLU(),
            convolution(f"{path}/conv2", channels, channels, 3, stride), norm(f"{path}/bn2", channels), nn.ReLU(),
            convolution(f"{path}/conv3", channels, outputs, 1), norm(f"{path}/bn3", outputs),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                convolution(f"{path}/shortcut_conv", inputs, outputs, 1, stride), norm(f"{path}/shortcut_bn", outputs)
            )
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation of the sum of branch and shortcut."""
        return self.relu(self.branch(x) + self.shortcut(x))


class Network(nn.Module):
    """The whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Bottleneck("first", 3, 4, 8, 2, project=True)
        self.second = Bottleneck("second", 8, 2, 8, 1, project=False)
        self.rest = nn.Sequential(
            convolution("grouped", 8, 16, 3, 2, groups=4), nn.ReLU(),
            convolution("depthwise", 16, 16, 3, groups=16), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(16, draw.CLASSES).double()
        self.classifier.weight = nn.Parameter(drawn("classifier/kernel", (16, draw.CLASSES)))
        self.classifier.bias = nn.Parameter(drawn("classifier/bias", (draw.CLASSES,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return self.classifier(self.rest(self.second(self.first(x))).mean((2, 3)))


def main() -> None:
    """Write captum_resnet_goldens.npz beside this file."""
    net = Network().eval()
    images, labels = draw.batch(CASE, SIDE)
    x, target = torch.from_numpy(images[:IMAGES].transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels[:IMAGES])
    maps = {
        "gradient": attr.Saliency(net).attribute(x.clone(), target, abs=False),
        "integrated_gradients": attr.IntegratedGradients(net).attribute(
            x, 0.5 * torch.ones_like(x), target, n_steps=STEPS
        ),
        "guided_backprop": attr.GuidedBackprop(net).attribute(x.clone(), target),
    }
    found = {"outputs": net(x).detach().numpy()}
    found |= {name: values.detach().numpy().transpose(0, 2, 3, 1) for name, values in maps.items()}
    for name, layer in (("second", net.second), ("depthwise", net.rest[-1])):
        cam = attr.LayerGradCam(net, layer).attribute(x, target, relu_attributions=True)
        found[f"gradcam_{name}"] = cam.detach().numpy()[:, 0]
    for name, values in found.items():
        print(name, values.shape, np.abs(values).max())
    np.savez_compressed(pathlib.Path(__file__).with_name("captum_resnet_goldens.npz"), **found)


if __name__ == "__main__":
    main()
