"""Published scaling figures, for comparison with ours."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """Speed-up of training over devices, as stated in its source.

    Attributes:
      what: network and machine.
      devices: number of devices, compared with `base`.
      speedup: images/s relative to those of `base` devices.
      base: number of devices of the smaller run.
      source: source of the figure.
    """

    what: str
    devices: int
    speedup: float
    source: str
    base: int = 1

    @property
    def efficiency(self) -> float:
        """Speed-up divided by the ratio of devices."""
        return self.speedup / (self.devices / self.base)


_NVIDIA = (
    "github.com/NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md, training "
    "performance (21.03)"
)
FIGURES = (
    Published(
        "CNNs on CIFAR, the paper that jaxcnn grew from",
        4,
        3.5,
        "as it reports; set-up not known here",
    ),
    Published("ResNet50 v1.5, DGX A100, TF32", 8, 7248 / 938, f"{_NVIDIA}: 938 and 7248 images/s"),
    Published("ResNet50 v1.5, DGX A100, mixed precision", 8, 16621 / 2470, f"{_NVIDIA}: 2470 and 16621 images/s"),
    Published("ResNet50 v1.5, DGX-1 V100 16 GB, FP32", 8, 2855 / 367, f"{_NVIDIA}: 367 and 2855 images/s"),
    Published("ResNet50 v1.5, DGX-1 V100 16 GB, mixed precision", 8, 8322 / 1200, f"{_NVIDIA}: 1200 and 8322 images/s"),
    Published(
        "ResNet50, from 8 to 256 P100",
        256,
        0.9 * 32,
        "Goyal et al. 2017, arXiv 1706.02677, abstract: about 90 % from 8 to 256 GPUs",
        base=8,
    ),
)
