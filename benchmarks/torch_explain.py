"""The explanations of Captum in `benchmarks.explain`. This module does not import JAX.

Networks and images are channels_last; no parameter wants a gradient, so none is computed for it.
"""

from importlib import metadata
from typing import Any

import captum.attr
import torch

from benchmarks import torch_networks, torch_tasks
from benchmarks.serve import Task
from benchmarks.torch_tasks import device_memory

__all__ = ["build", "device_memory", "facts"]


def facts() -> dict[str, Any]:
    """Versions, device and threads."""
    return torch_tasks.facts() | {"captum": metadata.version("captum")}


def build(spec: dict[str, Any]) -> Task:
    """Build the task of a case of `benchmarks.explain`, and warm it up."""
    torch.manual_seed(0)
    task = Explain(spec)
    task.settle()
    return task


def layer_of(name: str, names: list[tuple[str, str]], module: torch.nn.Module) -> torch.nn.Module:
    """The module whose output are the maps of jaxcnn's layer: a whole block, or the ReLU that follows a BatchNorm."""
    theirs = next(place for ours, place in names if ours == name or ours.startswith(f"{name}/"))
    if not any(ours == name for ours, _ in names):
        return module.get_submodule(theirs.split(".")[0])
    parent, _, number = theirs.rpartition(".")
    return module.get_submodule(f"{parent}.{int(number) + 1}".lstrip("."))


class Explain(Task):
    """A step is an explanation of all images."""

    def __init__(self, spec: dict[str, Any]) -> None:
        module, names = torch_networks.build(spec["model"], spec["classes"])
        module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        side = spec["side"]
        images = torch.randn(spec["images"], 3, side, side, generator=generator)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._target = torch.zeros(spec["images"], dtype=torch.int64)
        self._points, self._rows = spec["points"], spec["torch_rows"]
        call = torch_tasks.VARIANTS[spec["variant"]](module)
        if spec["method"] == "gradcam":
            self._method: Any = captum.attr.LayerGradCam(call, layer_of(spec["layer"], names, module))
        else:
            self._method = captum.attr.IntegratedGradients(call)

    def settle(self) -> None:
        """Compute as many points as go through the network together."""
        self._explain(min(self._points, self._rows))

    def run(self, steps: int) -> None:
        """Explain the images `steps` times."""
        for _ in range(steps):
            self._explain(self._points)

    def _explain(self, points: int) -> None:
        if isinstance(self._method, captum.attr.IntegratedGradients):
            self._values = self._method.attribute(
                self._images, target=self._target, n_steps=points, internal_batch_size=self._rows
            )
            return
        maps = self._method.attribute(self._images, self._target, relu_attributions=True)
        size = tuple(self._images.shape[-2:])
        self._values = captum.attr.LayerAttribution.interpolate(maps, size, "bilinear")

    def facts(self) -> dict[str, Any]:
        """Points or images in a call. Raises ValueError if a value is not finite."""
        if not torch.isfinite(self._values).all():
            raise ValueError("a value is not finite")
        integrated = isinstance(self._method, captum.attr.IntegratedGradients)
        return {"rows": self._rows if integrated else len(self._images)}
