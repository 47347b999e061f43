"""The tasks of PyTorch in `benchmarks.peers`: the same work in PyTorch's usual style. This module does not import JAX.

Images are uint8 and are normalised in the step; networks and images are channels_last. On a GPU: TF32 for float32,
cuDNN's benchmark mode, and bfloat16 under autocast.
"""

import contextlib
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import torch_networks
from benchmarks.serve import Task
from benchmarks.torch_muon import Muon

WARM_UP = 3  # steps
EXAMPLES = 4096  # of 32 pixels, or as many bytes; as in jaxcnn_tasks
SIDE, CLASSES = 32, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
# How a function is run: eagerly, compiled, also with CUDA graphs, and also with autotuned kernels.
VARIANTS: dict[str, Callable[[Any], Any]] = {
    "eager": lambda function: function,
    "compile": torch.compile,
    "reduce-overhead": lambda function: torch.compile(function, mode="reduce-overhead"),
    "max-autotune": lambda function: torch.compile(function, mode="max-autotune"),
}
CUDA_GRAPHS = ("reduce-overhead", "max-autotune")


def facts() -> dict[str, Any]:
    """Start the backend; return versions, device and threads."""
    gpu = torch.cuda.is_available()
    torch.zeros((), device="cuda" if gpu else "cpu")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "device_kind": "gpu" if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def device_memory() -> int | None:
    """Peak memory of the GPU's allocator, bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None


def build(spec: dict[str, Any]) -> Task:
    """Build a task of `benchmarks.cases` and warm it up."""
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high" if spec["device"] == "gpu" else "highest")
    torch.backends.cudnn.allow_tf32 = True
    task = TASKS[spec["task"]](spec)
    task.run(WARM_UP)
    return task


class _Network:
    """A network on its device, with the normalisation of its images."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.device = torch.device({"cpu": "cpu", "gpu": "cuda"}[spec["device"]])
        self._dtype = getattr(torch, spec["dtype"])
        module = torch_networks.build(spec["config"]["model"], CLASSES).module
        self.module = module.to(self.device, memory_format=torch.channels_last)
        self._mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(STD, device=self.device).view(1, 3, 1, 1)

    def normalized(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 [B, H, W, 3] to float32 [B, 3, H, W], channels_last."""
        return (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 [B, K] of images uint8 [B, H, W, 3]."""
        x = self.normalized(images)
        if self._dtype == torch.float32:
            return self.module(x)
        with torch.autocast(self.device.type, self._dtype):
            return self.module(x).float()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Train(Task):
    """Training steps: gather a batch of resident images, normalise, differentiate, update."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._network = network = _Network(spec)
        self._batch_size = spec["batch_size"]
        images, labels = _examples(self._batch_size, spec.get("side", SIDE))
        self._images, self._labels = images.to(network.device), labels.to(network.device)
        network.module.train()
        compiled = VARIANTS[spec["variant"]]
        if isinstance(network.module, torch_networks.Airbench):
            network.module.init_whitening(network.normalized(self._images[:EXAMPLES]))
        self._optimizers = OPTIMIZERS.get(spec["config"]["model"]["name"], _sgd)(network.module, spec, compiled)
        self._loss_of = compiled(self._loss)
        self._graphs = spec["variant"] in CUDA_GRAPHS
        self._smoothing = spec["config"].get("optim", {}).get("label_smoothing", 0.0)
        self._order = torch.empty(0, dtype=torch.int64, device=network.device)
        self._last: Any = None

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self._network.logits(images)
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self._smoothing)

    def run(self, steps: int) -> None:
        """Train, and wait for the last step."""
        for _ in range(steps):
            if len(self._order) < self._batch_size:
                self._order = torch.randperm(len(self._images), device=self._network.device)
            index, self._order = self._order[: self._batch_size], self._order[self._batch_size :]
            if self._graphs:
                torch.compiler.cudagraph_mark_step_begin()
            loss = self._loss_of(self._images[index], self._labels[index])
            loss.backward()
            for optimizer in self._optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self._last = loss.detach()
        self._network.synchronize()

    def facts(self) -> dict[str, Any]:
        """Loss of the last step. Raises ValueError if it is not finite."""
        loss = float(self._last)
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        return {"loss": loss}


class Predict(Task):
    """Prediction: logits of uint8 images."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._network = _Network(spec)
        self._network.module.eval()
        images, _ = _examples(spec["batch_size"], spec.get("side", SIDE))
        self._images = images[: spec["batch_size"]].to(self._network.device)
        self._logits_of = VARIANTS[spec["variant"]](self._network.logits)
        self._logits: Any = None

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        """Predict, and wait for the last batch."""
        for _ in range(steps):
            self._logits = self._logits_of(self._images)
        self._network.synchronize()

    def facts(self) -> dict[str, Any]:
        """No facts, an empty mapping.

        Raises:
          ValueError: a logit is not finite.
        """
        if not torch.isfinite(self._logits).all():
            raise ValueError("a logit is not finite")
        return {}


class MatrixProduct(Task):
    """Products of two square matrices."""

    def __init__(self, spec: dict[str, Any]) -> None:
        device = torch.device({"cpu": "cpu", "gpu": "cuda"}[spec["device"]])
        shape, dtype = (spec["size"], spec["size"]), getattr(torch, spec["dtype"])
        self._factors = [torch.randn(shape, device=device).to(dtype) for _ in range(2)]
        self._product = torch.empty(shape, dtype=dtype, device=device)

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        """Multiply, one product after the other."""
        for _ in range(steps):
            torch.mm(*self._factors, out=self._product)
        if self._product.is_cuda:
            torch.cuda.synchronize()


TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "matrix_product": MatrixProduct,
    "predict": Predict,
    "train": Train,
}


def _sgd(module: nn.Module, spec: dict[str, Any], compiled: Callable[[Any], Any]) -> list[torch.optim.Optimizer]:
    """SGD with Nesterov momentum, and weight decay on kernels only, as in jaxcnn; fused if the device supports it."""
    optim = spec["config"]["optim"]
    kernels = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": optim["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    with contextlib.suppress(RuntimeError):
        return [torch.optim.SGD(groups, optim["learning_rate"], optim["momentum"], nesterov=True, fused=True)]
    return [torch.optim.SGD(groups, optim["learning_rate"], optim["momentum"], nesterov=True, foreach=True)]


def _airbench(module: nn.Module, spec: dict[str, Any], compiled: Callable[[Any], Any]) -> list[torch.optim.Optimizer]:
    """Muon for filters, SGD for the rest, with the initial rates of airbench94_muon.py, which sums the losses."""
    filters = [p for p in module.parameters() if p.ndim == 4 and p.requires_grad]
    others = [p for p in module.parameters() if p.ndim != 4 and p.requires_grad]
    batch_size = spec["batch_size"]
    rates = [batch_size * (0.67 if p.ndim == 2 else 0.053) for p in others]
    decay = 2e-6 * batch_size
    groups = [{"params": [p], "lr": r, "weight_decay": decay / r} for p, r in zip(others, rates, strict=True)]
    return [torch.optim.SGD(groups, momentum=0.85, nesterov=True, fused=True), Muon(filters, 0.24, 0.6, compiled)]


OPTIMIZERS: dict[str, Callable[..., list[torch.optim.Optimizer]]] = {
    "airbench": _airbench,
}  # of the others: _sgd


def _examples(batch_size: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images uint8 [N, side, side, 3] and labels int64 [N]."""
    generator = np.random.default_rng(0)
    count = max(EXAMPLES * SIDE**2 // side**2, batch_size)
    images = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    return torch.from_numpy(images), torch.from_numpy(generator.integers(0, CLASSES, count))
