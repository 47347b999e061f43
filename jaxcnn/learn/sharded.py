"""The pure functions of `learn.step` over a mesh, jitted once per spec and mesh, and the shapes of their inputs."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import VariableDict
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int32, Num

from jaxcnn.data import resident
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.data.resident import Resident
from jaxcnn.learn import features, inference, metrics, spread, tta
from jaxcnn.learn import layout as layouts
from jaxcnn.learn import step as steps
from jaxcnn.learn.compilation import jit
from jaxcnn.learn.executables import compiled
from jaxcnn.learn.state import Hyper, State, abstract_hyper
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import DATA_AXIS, over_data, replicated
from jaxcnn.tasks.task import Task

StepResult = tuple[State, steps.StepMetrics]
Evaluated = tuple[metrics.Sums, inference.Outputs]


@functools.lru_cache(maxsize=64)
def init_state(spec: StepSpec, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `hyper -> State`, on the mesh, sharded as in `state_shardings`."""

    def init(hyper: Hyper) -> State:
        state = steps.init_state(spec, hyper)
        # Drawn without sharding, so that no rounding depends on the layout.
        params = lax.with_sharding_constraint(state.params, replicated(mesh))
        state = dataclasses.replace(state, params=params)
        return lax.with_sharding_constraint(state, layouts.of_state(spec, mesh, state))

    init.__name__ = "init_state"
    return jit(init, mesh)


@compiled
def init_program(spec: StepSpec, mesh: Mesh) -> jax.stages.Traced:
    """The program of `init_state`."""
    return init_state(spec, mesh).trace(abstract_hyper(spec.task))


@functools.lru_cache(maxsize=64)
def train_step(spec: StepSpec, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `(state, batch, constants) -> (state, metrics)`; the batch is split over the mesh, the state donated.

    The batch is stored in the order of `jaxcnn.data.order.storage_positions`.
    """

    def train_step(state: State, batch: Batch, constants: Constants) -> StepResult:
        return spread.train_step(spec, mesh, state, batch, constants)

    return _jit_step(train_step, spec, mesh)


@functools.lru_cache(maxsize=64)
def resident_train_step(spec: StepSpec, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `(state, split, constants) -> (state, metrics)`: order, gather and step are one program.

    `split` is a `Resident` replicated over the mesh; nothing is copied from the host.
    """

    def resident_train_step(state: State, split: Resident, constants: Constants) -> StepResult:
        return spread.resident_train_step(spec, mesh, state, split, constants)

    return _jit_step(resident_train_step, spec, mesh)


@functools.lru_cache(maxsize=64)
def resident_train_steps(spec: StepSpec, mesh: Mesh, most: int) -> jax.stages.Wrapped:
    """Jitted `(state, split, constants, count) -> (state, metrics)`: `count` steps in one program.

    `count` is 1 ... `most`. It is traced, so one compilation serves calls of every length. As XLA can
    neither unroll the loop nor peel steps off it, the number of steps per call changes no bit of a run. Each metric has
    a leading axis of `most` steps, of which the first `count` are set.
    """

    def resident_train_steps(
        state: State, split: Resident, constants: Constants, count: Int32[Array, ""]
    ) -> StepResult:
        def one(state: State) -> StepResult:
            return spread.resident_train_step(spec, mesh, state, split, constants)

        return steps.repeat(one, most, state, count)

    return _jit_step(resident_train_steps, spec, mesh)


@functools.lru_cache(maxsize=64)
def eval_step(spec: StepSpec, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `(variables, batch, constants) -> (sums, outputs)`, the batch split over the mesh."""

    def local(variables: VariableDict, batch: Batch, constants: Constants) -> Evaluated:
        sums, outputs = inference.eval_step(spec, variables, batch, constants)
        return jax.lax.psum(sums, DATA_AXIS), outputs

    def eval_step(variables: VariableDict, batch: Batch, constants: Constants) -> Evaluated:
        specs = (_variable_specs(spec, mesh, variables), jax.P(DATA_AXIS), jax.P())
        out_specs = (jax.P(), jax.P(DATA_AXIS))
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)
        return mapped(variables, batch, constants)

    return jit(eval_step, mesh, out_shardings=(replicated(mesh), over_data(mesh)))


@functools.lru_cache(maxsize=16)
def tta_views(kind: str, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `image -> list of views`: those of `tta.views` except the first, split over the mesh."""

    def tta_views(image: tta.Images) -> list[tta.Images]:
        return tta.views(image, kind)[1:]

    return jax.jit(tta_views, out_shardings=over_data(mesh))


@functools.lru_cache(maxsize=16)
def tta_sums(task: Task, kind: str, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `(outputs of each view, batch, constants) -> (sums, averaged outputs)`."""

    def tta_sums(outputs: list[inference.Outputs], batch: Batch, constants: Constants) -> Evaluated:
        averaged = tta.average(outputs, kind)
        return inference.eval_sums(task, averaged, batch, constants), averaged

    return jax.jit(tta_sums, out_shardings=(replicated(mesh), over_data(mesh)))


@functools.lru_cache(maxsize=64)
def predict_step(spec: StepSpec, mesh: Mesh, layer: str | None = None, *, outputs: bool = False) -> jax.stages.Wrapped:
    """Jitted `(variables, image, constants) -> outputs`, split over the mesh; or -> features of a `layer`.

    `outputs`: as for `features.features_step`.
    """
    if layer is None:
        local = functools.partial(inference.answer_step, spec)
    else:
        local = functools.partial(features.features_step, spec, layer, outputs=outputs)

    def predict_step(
        variables: VariableDict, image: Num[Array, "b h w c"], constants: Constants
    ) -> Float[Array, "b ..."]:
        specs = (_variable_specs(spec, mesh, variables), jax.P(DATA_AXIS), jax.P())
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P(DATA_AXIS), check_vma=False)
        return mapped(variables, image, constants)

    return jit(predict_step, mesh)


def _variable_specs(spec: StepSpec, mesh: Mesh, variables: VariableDict) -> dict[str, Any]:
    """The partition of Flax variables in `shard_map`: parameters as in the step, statistics replicated."""
    params = layouts.of_params(spec, mesh, variables["params"]).step
    return {name: params if name == "params" else jax.P() for name in variables}


@functools.lru_cache(maxsize=8)
def resident_eval_batch(batch_size: int, mesh: Mesh) -> jax.stages.Wrapped:
    """Jitted `(split, start) -> Batch`: examples start ... start + batch_size - 1 in order, masked past the end."""

    def eval_batch(split: Resident, start: Int32[Array, ""]) -> Batch:
        position = jnp.arange(batch_size, dtype=jnp.int32)
        return resident.gather(split, start + position, position)

    return jax.jit(eval_batch, out_shardings=over_data(mesh))


@functools.lru_cache(maxsize=16)
def abstract_state(spec: StepSpec, mesh: Mesh) -> State:
    """Shapes, dtypes and shardings of the state."""
    # A kept program knows the shapes of its results, and loading it is several times faster than tracing.
    kept = init_program.is_kept(spec, mesh)
    shapes = (init_program if kept else init_program.traced)(spec, mesh).out_info
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        layouts.of_state(spec, mesh, shapes),
    )


def state_shardings(spec: StepSpec, mesh: Mesh) -> State:
    """The `NamedSharding` of each array of the state, as a `State`."""
    return jax.tree.map(lambda x: x.sharding, abstract_state(spec, mesh))


def abstract_split(spec: StepSpec, mesh: Mesh, examples: int) -> Resident:
    """The shapes of a split of `examples` examples, on every device of the mesh."""
    whole = replicated(mesh)
    image = jax.ShapeDtypeStruct((examples, *spec.image_shape), jnp.dtype(spec.image_dtype), sharding=whole)
    return Resident(image, _abstract_targets(spec, examples, whole))


def abstract_int(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """The shape of an int32 scalar on every device of the mesh."""
    return jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))


def abstract_batch(spec: StepSpec, mesh: Mesh, batch_size: int) -> Batch:
    """The shapes of a batch of `batch_size` examples, split over the mesh."""
    sharding = over_data(mesh)
    image = jax.ShapeDtypeStruct((batch_size, *spec.image_shape), jnp.dtype(spec.image_dtype), sharding=sharding)
    integer = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=sharding)
    mask = jax.ShapeDtypeStruct((batch_size,), jnp.bool_, sharding=sharding)
    return Batch(image, _abstract_targets(spec, batch_size, sharding), integer, integer, mask)


def _abstract_targets(spec: StepSpec, examples: int, sharding: NamedSharding) -> Any:
    return jax.tree.map(
        lambda of_one: jax.ShapeDtypeStruct((examples, *of_one.shape), of_one.dtype, sharding=sharding),
        spec.task.targets.spec(),
    )


def abstract_constants(spec: StepSpec, mesh: Mesh) -> Constants:
    """The shapes of the constants, on every device of the mesh."""
    whole = replicated(mesh)
    channel = jax.ShapeDtypeStruct((spec.image_shape[-1],), jnp.float32, sharding=whole)
    task = jax.tree.map(
        lambda of_task: jax.ShapeDtypeStruct(of_task.shape, of_task.dtype, sharding=whole), spec.task.loss.abstract()
    )
    return Constants(channel, channel, task)


def _jit_step(step: Callable[..., StepResult], spec: StepSpec, mesh: Mesh) -> jax.stages.Wrapped:
    out_shardings = (state_shardings(spec, mesh), replicated(mesh))
    return jit(step, mesh, donate_argnums=0, out_shardings=out_shardings)
