"""The explanations of jaxcnn in `benchmarks.explain`, of a network with random weights."""

from typing import Any

import jax
import numpy as np

import jaxcnn.config as configs
from benchmarks.jaxcnn_tasks import device_memory, facts, weights
from benchmarks.serve import Task
from jaxcnn.explain import cams, gradients, inside, network
from jaxcnn.explain.subject import OfRun
from jaxcnn.learn.step_spec import spec_without_data
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes

__all__ = ["build", "device_memory", "facts"]


def build(spec: dict[str, Any]) -> Task:
    """Build the task of a case of `benchmarks.explain`, and compile its programs."""
    task = Explain(spec)
    malloc.of_command()
    malloc.keep()
    kept = malloc.KeptMemory()
    task.settle()
    kept.after_call()
    return task


class Explain(Task):
    """A step is an explanation of all images."""

    def __init__(self, spec: dict[str, Any]) -> None:
        tree = configs.to_dict(configs.Config())
        tree["model"] |= spec["model"]
        config = configs.from_config_dict(tree)
        shape = (spec["side"], spec["side"], 3)
        step_spec = spec_without_data(config, shape, spec["classes"], train_examples=1)
        mesh = meshes.make_mesh(1)
        variables = jax.device_put(weights(step_spec, mesh), meshes.replicated(mesh))
        self._network = network.make(OfRun(step_spec), variables, shape)
        self._images = np.random.default_rng(0).standard_normal((spec["images"], *shape), np.float32)
        self._target = np.zeros(spec["images"], np.int32)
        self._method, self._points = spec["method"], spec["points"]
        self._layer = inside.choose(inside.layers(self._network.apply, variables, shape), spec["layer"])

    def settle(self) -> None:
        """Compute as many points as go through the network together; the first time, compile for them."""
        self._explain(self._network.copies(self._points, len(self._images)))

    def run(self, steps: int) -> None:
        """Explain the images `steps` times."""
        for _ in range(steps):
            self._explain(self._points)

    def _explain(self, points: int) -> None:
        if self._method == "integrated_gradients":
            self._values = gradients.integrated_gradients(self._network, self._images, self._target, steps=points)
        else:
            self._values = cams.gradcam(self._network, self._images, self._target, layer=self._layer)
        jax.block_until_ready(self._values)

    def facts(self) -> dict[str, Any]:
        """Points or images in a call, and the layer. Raises ValueError if a value is not finite."""
        if not np.isfinite(np.asarray(self._values)).all():
            raise ValueError("a value is not finite")
        points = self._points if self._method == "integrated_gradients" else 1
        rows = len(self._images) * self._network.copies(points, len(self._images))
        calls = -(-rows // self._network.rows)  # of equal size
        return {"rows": -(-rows // calls), "layer": self._layer.name}
