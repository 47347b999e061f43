"""The tasks of jaxcnn in `benchmarks.peers`: the trainer's own compiled step, prediction, and matrix products."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn.config as configs
from benchmarks import flops
from benchmarks.serve import Task
from jaxcnn.data import resident
from jaxcnn.data.batch import Constants
from jaxcnn.learn import programs, sharded
from jaxcnn.learn.state import make_hyper
from jaxcnn.learn.step_spec import StepSpec, spec_without_data
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import environment
from jaxcnn.train.steps_per_call import choose_steps_per_call

WARM_UP = malloc.SETTLING  # steps
EXAMPLES = 4096  # of 32 pixels in the resident set, or as many bytes, but at least one batch
SIDE, CLASSES = 32, 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # any values will do, but both peers must use the same


def facts() -> dict[str, Any]:
    """Start the backend; return the environment as runs record it, without the command of this worker.

    The program cache is on, as in every command of jaxcnn.
    """
    meshes.prepare_backend()
    found = environment.facts([])
    del found["command"]
    return found | {"device_kind": "cpu" if jax.default_backend() == "cpu" else "gpu"}


def device_memory() -> int | None:
    """Peak memory of the device's allocator, bytes; None on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def build(spec: dict[str, Any]) -> Task:
    """Build a task of `benchmarks.cases` and warm it up."""
    task = TASKS[spec["task"]](spec)
    malloc.of_command()
    malloc.keep()  # as the trainer does after compilation
    kept = malloc.KeptMemory()
    for _ in range(WARM_UP):
        task.run(1)
        kept.after_call()
    return task


class Train(Task):
    """Training steps of the trainer: order, gather, normalisation, gradients, optimiser and metrics in one program.

    Attributes:
      compiled: the compiled program.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._program, mesh = spec_of(spec), meshes.make_mesh(1)
        config = _config(spec)
        image, label = examples(spec["batch_size"], spec.get("side", SIDE))
        self._data = jax.device_put(resident.Resident(image, label), meshes.replicated(mesh))
        self._normalization = _normalization(mesh)
        platform = mesh.devices.flat[0].platform
        self._most, _ = choose_steps_per_call(config.run.steps_per_call, "resident", platform)
        self.compiled = programs.train_step(self._program, mesh, "resident", self._most)
        self._mesh = mesh
        self._state = sharded.init_state(self._program, mesh)(make_hyper(config))
        self._metrics: Any = None

    def run(self, steps: int) -> None:
        """Train in calls of the trainer's length; wait only for the last, because each needs the state before it."""
        for start in range(0, steps, self._most):
            self._in_call = min(self._most, steps - start)
            inputs = (self._state, self._data, self._normalization)
            inputs = programs.call_inputs(inputs, self._mesh, self._most, self._in_call)
            self._state, self._metrics = self.compiled(*inputs)
        jax.block_until_ready((self._state, self._metrics))

    def facts(self) -> dict[str, Any]:
        """Loss of the last step, steps in a call, FLOPs per image. Raises ValueError if the loss is not finite."""
        sums = jax.tree.map(lambda rows: np.ravel(rows)[self._in_call - 1], self._metrics.sums)
        loss = float(sums["loss"] / sums["count"])
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        return {"loss": loss, "steps_per_call": self._most, "flops_per_image": flops.count(self._program).train}


class Predict(Task):
    """Prediction: logits of uint8 images, as `--mode=predict` computes them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._program, mesh = spec_of(spec), meshes.make_mesh(1)
        self._variables = jax.device_put(weights(self._program, mesh), meshes.replicated(mesh))
        image, _ = examples(spec["batch_size"], spec.get("side", SIDE))
        self._image = jax.device_put(image[: spec["batch_size"]], meshes.over_data(mesh))
        self._normalization = _normalization(mesh)
        self._step = programs.predict_step(self._program, mesh, spec["batch_size"])

    def run(self, steps: int) -> None:
        """Predict; wait for each batch only after the next one has started, as evaluation does."""
        waiting = self._step(self._variables, self._image, self._normalization)
        for _ in range(steps - 1):
            logits = self._step(self._variables, self._image, self._normalization)
            waiting.block_until_ready()
            waiting = logits
        self._logits = waiting.block_until_ready()

    def facts(self) -> dict[str, Any]:
        """FLOPs per image. Raises ValueError if a logit is not finite."""
        if not np.isfinite(self._logits).all():
            raise ValueError("a logit is not finite")
        return {"flops_per_image": flops.count(self._program).predict}


class MatrixProduct(Task):
    """Products of two square matrices."""

    def __init__(self, spec: dict[str, Any]) -> None:
        key, shape = jax.random.key(0), (spec["size"], spec["size"])
        self._factors = [jax.random.normal(k, shape, jnp.dtype(spec["dtype"])) for k in jax.random.split(key)]
        self._product = jax.jit(jnp.matmul)

    def run(self, steps: int) -> None:
        """Multiply, one product after the other."""
        waiting = self._product(*self._factors)
        for _ in range(steps - 1):
            product = self._product(*self._factors)
            waiting.block_until_ready()
            waiting = product
        waiting.block_until_ready()


TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "matrix_product": MatrixProduct,
    "predict": Predict,
    "train": Train,
}


def spec_of(spec: dict[str, Any]) -> StepSpec:
    """The `StepSpec` of a case."""
    side = spec.get("side", SIDE)
    return spec_without_data(_config(spec), (side, side, 3), CLASSES, example_count(spec["batch_size"], side))


def weights(step_spec: StepSpec, mesh: jax.sharding.Mesh) -> Any:
    """Flax variables on the host, as restored from a checkpoint: without optimiser state and without an initialiser.

    Kernels are random, with the variance that preserves the variance of their input; all other values are 1.
    """
    generator = np.random.default_rng(0)

    def leaf(like: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(like.shape) < 2:
            return np.ones(like.shape, like.dtype)
        values = generator.standard_normal(like.shape, np.float32)
        outputs = like.shape[0] if len(like.shape) == 2 else like.shape[-1]
        values *= (outputs / values.size) ** 0.5
        return values.astype(like.dtype, copy=False)

    return jax.tree.map(leaf, sharded.abstract_state(step_spec, mesh).variables())


def _config(spec: dict[str, Any]) -> configs.Config:
    """The config of a case: images are normalised, but not augmented."""
    tree = configs.to_dict(configs.Config())
    for group, fields in spec["config"].items():
        tree[group] |= fields
    tree["model"]["dtype"] = spec["dtype"]
    tree["schedule"]["name"] = "constant"
    tree["global_batch_size"] = spec["batch_size"]
    tree["run"]["steps"] = 10**6
    return configs.from_config_dict(tree)


def example_count(batch_size: int, side: int) -> int:
    """Number of images of a side in the resident set."""
    return max(EXAMPLES * SIDE**2 // side**2, batch_size)


def examples(batch_size: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 [N, side, side, 3] and labels int32 [N]."""
    generator = np.random.default_rng(0)
    count = example_count(batch_size, side)
    image = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    return image, generator.integers(0, CLASSES, count, np.int32)


def _normalization(mesh: jax.sharding.Mesh) -> Constants:
    values = Constants(np.array(MEAN, np.float32), np.array(STD, np.float32))
    return jax.device_put(values, meshes.replicated(mesh))
