"""The compiled programs of a run; each is also available traced or lowered, and is loaded if an earlier run kept it.

Compiling needs no data. Tracing holds Python's global lock, so one thread does it best; XLA's compilation does not.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import VariableDict
from jax.sharding import Mesh

from jaxcnn.data.batch import Batch, Constants
from jaxcnn.learn import inference, sharded, tta
from jaxcnn.learn.executables import compiled
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import alone, device_scalar, over_data, replicated

init_state = sharded.init_program


@compiled
def train_step(spec: StepSpec, mesh: Mesh, loader: str, steps_per_call: int = 1) -> jax.stages.Traced:
    """The training step for a loader, "resident" or "stream".

    With `steps_per_call` above 1 it is `sharded.resident_train_steps`, which the stream loader cannot feed.
    """
    state, constants = sharded.abstract_state(spec, mesh), sharded.abstract_constants(spec, mesh)
    if loader == "stream":
        batch = sharded.abstract_batch(spec, mesh, spec.global_batch_size)
        return sharded.train_step(spec, mesh).trace(state, batch, constants)
    split = sharded.abstract_split(spec, mesh, spec.train_examples)
    if steps_per_call == 1:
        return sharded.resident_train_step(spec, mesh).trace(state, split, constants)
    count = sharded.abstract_int(mesh)
    return sharded.resident_train_steps(spec, mesh, steps_per_call).trace(state, split, constants, count)


def call_inputs(inputs: tuple[Any, ...], mesh: Mesh, steps_per_call: int, count: int) -> tuple[Any, ...]:
    """The arguments of a compiled training step: `inputs`, and the number of steps if a call may make several."""
    return inputs if steps_per_call == 1 else (*inputs, device_scalar(count, mesh))


@compiled
def eval_step(spec: StepSpec, mesh: Mesh, batch_size: int) -> jax.stages.Traced:
    """`sharded.eval_step` for batches of `batch_size`, a multiple of the number of devices."""
    variables = sharded.abstract_state(spec, mesh).variables()
    batch = sharded.abstract_batch(spec, mesh, batch_size)
    return sharded.eval_step(spec, mesh).trace(variables, batch, sharded.abstract_constants(spec, mesh))


@compiled
def predict_step(
    spec: StepSpec, mesh: Mesh, batch_size: int, layer: str | None = None, outputs: bool = False
) -> jax.stages.Traced:
    """`sharded.predict_step` for batches of `batch_size`, a multiple of the number of devices."""
    image = sharded.abstract_batch(spec, mesh, batch_size).image
    variables = sharded.abstract_state(spec, mesh).variables()
    step = sharded.predict_step(spec, mesh, layer, outputs=outputs)
    return step.trace(variables, image, sharded.abstract_constants(spec, mesh))


@compiled
def whole_average(spec: StepSpec, mesh: Mesh) -> jax.stages.Traced:
    """Convert a moving average that is sharded over devices to the sharding of the parameters."""
    state = sharded.abstract_state(spec, mesh)
    out_shardings = jax.tree.map(lambda x: x.sharding, state.variables())
    return jax.jit(lambda average: average, out_shardings=out_shardings).trace(state.ema)


def as_evaluated(spec: StepSpec, mesh: Mesh, variables: VariableDict) -> VariableDict:
    """Variables of a state, or its moving average, sharded as the compiled evaluation step takes them."""
    wanted = jax.tree.leaves(sharded.abstract_state(spec, mesh).variables())
    if all(have.sharding == want.sharding for have, want in zip(jax.tree.leaves(variables), wanted, strict=True)):
        return variables
    return whole_average(spec, mesh)(variables)


@compiled
def eval_batch(spec: StepSpec, mesh: Mesh, batch_size: int, examples: int) -> jax.stages.Traced:
    """`sharded.resident_eval_batch` for a split of `examples` examples."""
    split = sharded.abstract_split(spec, mesh, examples)
    return sharded.resident_eval_batch(batch_size, mesh).trace(split, sharded.abstract_int(mesh))


@compiled
def of_each(spec: StepSpec, mesh: Mesh, examples: int) -> jax.stages.Traced:
    """`inference.of_each` of the trained task for a whole split of `examples` examples, on a mesh of one device."""
    task = spec.task.trained

    def of_each(outputs: Any, target: Any, constants: Constants) -> dict[str, Any]:
        return inference.of_each(task, outputs, target, constants)

    def abstract(leaf: Any, *examples: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*examples, *leaf.shape), leaf.dtype, sharding=replicated(mesh))

    outputs = jax.ShapeDtypeStruct((examples, task.targets.outputs), jnp.float32, sharding=replicated(mesh))
    target = jax.tree.map(lambda leaf: abstract(leaf, examples), task.targets.spec())
    channel = jax.ShapeDtypeStruct((spec.image_shape[-1],), jnp.float32, sharding=replicated(mesh))
    constants = Constants(channel, channel, jax.tree.map(abstract, task.loss.abstract()))
    return jax.jit(of_each).trace(outputs, target, constants)


def loss_of_each(
    spec: StepSpec, mesh: Mesh, outputs: np.ndarray, targets: Any, constants: Constants
) -> dict[str, np.ndarray]:
    """The loss and the metrics of each example of a split, by name; without communication between hosts."""
    task = {name: constants.task[name] for name in spec.task.trained.loss.abstract()}
    inputs = jax.device_get(dataclasses.replace(constants, task=task))
    return jax.device_get(of_each(spec, alone(mesh), len(outputs))(outputs, targets, inputs))


@compiled
def tta_views(spec: StepSpec, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Traced:
    """`sharded.tta_views` for batches of `batch_size`."""
    return sharded.tta_views(kind, mesh).trace(sharded.abstract_batch(spec, mesh, batch_size).image)


@compiled
def tta_sums(spec: StepSpec, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Traced:
    """`sharded.tta_sums` for batches of `batch_size`."""
    shape = (batch_size, spec.task.targets.outputs)
    outputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=over_data(mesh))] * len(tta.VIEWS[kind])
    batch, constants = sharded.abstract_batch(spec, mesh, batch_size), sharded.abstract_constants(spec, mesh)
    return sharded.tta_sums(spec.task, kind, mesh).trace(outputs, batch, constants)


def tta_eval_step(spec: StepSpec, mesh: Mesh, batch_size: int, kind: str) -> Callable[..., list[Any]]:
    """`(variables, batch, constants) -> [(sums, outputs), …]`: plain and, unless `kind` is "none", view-averaged.

    Every view goes through the same compiled evaluation step, so the network is not compiled again. Views are made from
    the pixels, since mirroring, shifting and reflecting commute with the normalisation.
    """
    step = eval_step(spec, mesh, batch_size)
    if kind == "none":
        return lambda *inputs: [step(*inputs)]
    views, sums = (made(spec, mesh, batch_size, kind) for made in (tta_views, tta_sums))

    def evaluate(variables: VariableDict, batch: Batch, constants: Constants) -> list[Any]:
        plain = step(variables, batch, constants)
        others = [dataclasses.replace(batch, image=view) for view in views(batch.image)]
        outputs = [step(variables, other, constants)[1] for other in others]
        return [plain, sums([plain[1], *outputs], batch, constants)]

    return evaluate
