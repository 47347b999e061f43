"""The cases that are measured: one for each network, mode and batch size."""

import dataclasses
from typing import Any

from jaxcnn.config import UserError

PEERS = ("jaxcnn", "torch")
TITLES = {"jaxcnn": "jaxcnn", "torch": "PyTorch"}
MODES = {"train": "training", "predict": "inference"}
BATCH_SIZES = (32, 128)
SIDE, LARGE = 32, 64  # pixels; images from LARGE on are for the ImageNet form of a network
# The rate is too low to memorise random labels, so all numbers stay in their usual range.
SGD = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
# The rates of airbench94_muon.py at a batch size of 2000, as in recipes.speedrun.
MUON: dict[str, Any] = {
    "name": "muon",
    "learning_rate": 0.24,
    "momentum": 0.6,
    "newton_schulz_steps": 3,
    "sgd_momentum": 0.85,
    "bias_gradient_factor": 0.053 * 2000 / 0.24,
    "classifier_gradient_factor": 0.67 * 2000 / 0.24,
    "weight_decay": 2e-6 * 2000 / 0.24,
    "decay_norm_and_bias": True,
    "label_smoothing": 0.2,
}
AIRBENCH: dict[str, dict[str, Any]] = {
    "model": {"name": "airbench"},
    "norm": {"momentum": 0.6, "epsilon": 1e-12},
    "optim": MUON,
}
MATRIX_SIDES = {"cpu": 2048, "gpu": 8192}
DTYPES = {"cpu": "float32", "gpu": "bfloat16"}  # unless --dtype says otherwise
# How PyTorch is run: eagerly, compiled, with CUDA graphs, with autotuned kernels. Each of these also with a C library
# that requests huge pages, as in jaxcnn's commands (`jaxcnn.machine.malloc`), but not in the usual use of PyTorch.
HUGE_PAGES = "+huge-pages"
_COMPILED = ("compile", "reduce-overhead", "max-autotune")
WAYS = tuple(way + pages for pages in ("", HUGE_PAGES) for way in ("eager", *_COMPILED))
# The variants that are tried; the fastest one counts.
VARIANTS = {
    "cpu": ("eager", "compile", "eager" + HUGE_PAGES, "compile" + HUGE_PAGES),
    "gpu": ("eager", *_COMPILED),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as both peers build it.

    Attributes:
      config: groups of fields that differ from `jaxcnn.config.Config`; the PyTorch side reads them too.
      modes: the modes that are measured.
      batch_sizes: the default of --batch_sizes.
      side: side of the images, pixels; the default of --side. Networks whose side is below LARGE have a form for each
        size.
    """

    config: dict[str, dict[str, Any]]
    modes: tuple[str, ...] = tuple(MODES)
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    side: int = SIDE


def _of_torchvision(**model: Any) -> Network:
    """A network that torchvision has, with the rates of its builder, for photos."""
    return Network({"model": model, "optim": SGD}, batch_sizes=(1, 8, 32), side=224)


NETWORKS = {
    "alexnet": Network({"model": {"name": "alexnet", "dropout": 0.5}, "optim": SGD}),
    "vgg16": Network({"model": {"name": "vgg16"}, "optim": SGD}),
    "airbench": Network(AIRBENCH, modes=("train",), batch_sizes=(2000,)),
    "resnet50": Network({"model": {"name": "resnet50"}, "optim": SGD}),
    "resnet18": _of_torchvision(name="resnet18"),
    "mobilenet_v2": _of_torchvision(name="mobilenet_v2", dropout=0.2),
    "squeezenet1_1": _of_torchvision(name="squeezenet1_1", dropout=0.5),
    "efficientnet_b0": _of_torchvision(name="efficientnet_b0", dropout=0.2, stochastic_depth=0.2),
    "convnext_tiny": _of_torchvision(name="convnext_tiny", stochastic_depth=0.1),
}
SMALL = ("alexnet", "vgg16", "airbench", "resnet50")  # the default of --models


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement, which the peers make in turns."""

    model: str
    mode: str
    batch_size: int
    device: str
    dtype: str
    width: float = 1.0
    side: int = SIDE

    @property
    def title(self) -> str:
        """A title such as "vgg16 training, batch 128, cpu float32"."""
        size = "" if self.side == SIDE else f" at {self.side} pixels"
        return f"{self.model}{size} {MODES[self.mode]}, batch {self.batch_size}, {self.device} {self.dtype}"

    def spec(self) -> dict[str, Any]:
        """The description from which a worker builds the task."""
        config = dict(NETWORKS[self.model].config)
        if self.width != 1:
            config["model"] = config["model"] | {"width": self.width}
        if self.side >= LARGE:
            config["model"] = config["model"] | {"form": "imagenet"}
        fields = {"batch_size": self.batch_size, "device": self.device, "dtype": self.dtype, "side": self.side}
        return {"task": self.mode, "config": config, **fields}


def make_cases(
    models: list[str],
    modes: list[str],
    batch_sizes: list[int],
    devices: list[str],
    dtype: str,
    width: float,
    side: int = 0,
) -> list[Case]:
    """The meaningful combinations, in order. Without batch sizes or a side, each network has its own default.

    Raises:
      UserError: no combination is meaningful, or PyTorch's network is for larger images.
    """
    for model in models:
        if width != 1 and NETWORKS[model].side >= LARGE:
            raise UserError(f"--width={width:g}: torchvision's {model} has no other width")
        if side and side < LARGE <= NETWORKS[model].side:
            raise UserError(f"--side={side}: {model} is measured from {LARGE} pixels on")
        if model == "airbench" and side >= LARGE:
            raise UserError(f"--side={side}: airbench is measured below {LARGE} pixels")
    cases = [
        Case(model, mode, batch_size, device, dtype or DTYPES[device], width, side or NETWORKS[model].side)
        for device in devices
        for model in models
        for mode in modes
        for batch_size in batch_sizes or NETWORKS[model].batch_sizes
        if mode in NETWORKS[model].modes
    ]
    if not cases:
        raise UserError(f"--models={','.join(models)} with --modes={','.join(modes)} leaves nothing to measure")
    return cases
