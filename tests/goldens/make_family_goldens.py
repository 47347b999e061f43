"""Makes family_goldens.npz and torchvision_layouts.json.gz: what other libraries have and compute, in float64.

    pip install torch==2.13.0 torchvision==0.28.0 efficientnet-lite-pytorch==0.1.0 timm==1.0.31
    python tests/goldens/make_family_goldens.py      # where jaxcnn is installed too

For every case of `draw.FAMILY_CASES`: logits in evaluation and training mode, and fingerprints of all gradients of the
cross-entropy in training mode. The networks are torchvision's own, timm's for ResNet-18-D, that of
EfficientNet-Lite-PyTorch, and, for ResNet-20, one written here after akamaster/pytorch_resnet_cifar10.

The layouts are the names and shapes of the arrays of torchvision's networks.
"""

import gzip
import json
import pathlib
import sys

import draw
import numpy as np
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from jaxcnn import config
from jaxcnn.weights import layout

HERE = pathlib.Path(__file__).parent
LAYOUTS = (
    *("alexnet", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("mobilenet_v2", "squeezenet1_0", "squeezenet1_1", "efficientnet_b0", "convnext_tiny"),
    *("maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"),
)


def without_weights(name: str) -> dict:
    """Arguments with which nothing is fetched."""
    return {"weights_backbone": None} if "rcnn" in name else {}


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut of option A."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the block."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)))


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, with n = 3."""

    def __init__(self, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def build(name: str, side: int) -> nn.Module:
    """The network of another library, without dropout, with the epsilon of `config.Norm`."""
    if name == "resnet20":
        return ResNet20(draw.CLASSES)
    if name == "resnet18d":
        return timm.create_model(name, num_classes=draw.CLASSES)
    if name == "efficientnet_lite0":
        options = {"image_size": side, "num_classes": draw.CLASSES, "dropout_rate": 0.0, "drop_connect_rate": 0.0}
        network = EfficientNet.from_name("efficientnet-lite0", **options)
    else:
        network = torchvision.models.get_model(name, num_classes=draw.CLASSES)
    for module in network.modules():
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
        if isinstance(module, nn.BatchNorm2d):
            module.eps = config.Norm().epsilon
    return network


def run(case: str) -> dict[str, np.ndarray]:
    """Everything of one case."""
    import jax

    from jaxcnn import models

    fields, side = draw.FAMILY_CASES[case]
    model = config.Model(**fields)
    ours = models.build(model, config.Norm(), draw.CLASSES)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), "float32"))
    flat = {
        "/".join(str(key.key) for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    naming = "lukemelas" if case == "efficientnet_lite0" else "torchvision"
    network = build(case, side).double()
    theirs = dict(network.state_dict(keep_vars=True))
    leaves = layout.leaves(naming, model, flat)
    assert {leaf.theirs[0] for leaf in leaves} == {name for name in theirs if not layout.is_ignored(name)}
    with torch.no_grad():
        for leaf in leaves:
            collection, path = leaf.key.split("/", 1)
            value = draw.leaf(case, collection, path, leaf.shape)
            theirs[leaf.theirs[0]].copy_(torch.from_numpy(layout.to_theirs(naming, leaf, value).copy()))
    images, labels = draw.batch(case, side)
    images, labels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)
    result = {"logits_eval": network.eval()(images).detach().numpy()}
    logits = network.train()(images)
    nn.functional.cross_entropy(logits, labels).backward()
    result["logits_train"] = logits.detach().numpy()
    result["gradients"] = np.array(
        [
            draw.fingerprint(
                leaf.key.split("/", 1)[1],
                layout.to_ours(naming, leaf, theirs[leaf.theirs[0]].grad.numpy()),
            )
            for leaf in sorted(leaves, key=lambda leaf: leaf.key)
            if leaf.key.startswith("params/")
        ]
    )
    return result


def main() -> None:
    """Write both files beside this one."""
    made = {}
    for case in draw.FAMILY_CASES:
        made |= {f"{case}/{key}": value for key, value in run(case).items()}
        print(case, made[f"{case}/logits_train"][0])
    np.savez_compressed(HERE / "family_goldens.npz", **made)
    with torch.device("meta"):
        layouts = {
            name: {
                key: list(value.shape)
                for key, value in torchvision.models.get_model(name, **without_weights(name)).state_dict().items()
                if not layout.is_ignored(key)
            }
            for name in LAYOUTS
        }
    content = json.dumps(layouts, separators=(",", ":")).encode()
    (HERE / "torchvision_layouts.json.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
