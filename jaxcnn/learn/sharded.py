"""The programs of a run over a mesh: the pure functions of `learn.step`, jitted once per program and mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from jaxcnn.data import resident
from jaxcnn.data.batch import Batch
from jaxcnn.data.resident import Resident
from jaxcnn.learn import layout as layouts
from jaxcnn.learn import spread, tta
from jaxcnn.learn import step as steps
from jaxcnn.learn.compilation import jit
from jaxcnn.learn.executables import Kept
from jaxcnn.learn.program import Program
from jaxcnn.learn.state import Hyper, abstract_hyper
from jaxcnn.machine.mesh import DATA_AXIS, device_scalar, over_data, replicated


@functools.lru_cache(maxsize=64)
def init_state(program: Program, mesh: Mesh) -> Any:
    """Jitted `hyper -> State`, on the mesh as `state_shardings` says."""

    def init(hyper: Hyper) -> steps.State:
        state = steps.init_state(program, hyper)
        # Drawn whole, so that no rounding hangs on the layout.
        params = lax.with_sharding_constraint(state.params, replicated(mesh))
        state = dataclasses.replace(state, params=params)
        return lax.with_sharding_constraint(state, layouts.of_state(program, mesh, state))

    init.__name__ = "init_state"
    return jit(init, mesh)


@functools.lru_cache(maxsize=64)
def train_step(program: Program, mesh: Mesh) -> Any:
    """Jitted `(state, batch, normalization) -> (state, metrics)`; the batch is split over the mesh, the state donated.

    The batch is stored as `jaxcnn.data.order.storage_positions` says.
    """

    def train_step(state: steps.State, batch: Batch, normalization: steps.Normalization) -> Any:
        return spread.train_step(program, mesh, state, batch, normalization)

    return _jit_step(train_step, program, mesh)


@functools.lru_cache(maxsize=64)
def resident_train_step(program: Program, mesh: Mesh) -> Any:
    """Jitted `(state, split, normalization) -> (state, metrics)`: order, gather and step are one program.

    `split` is a `Resident` replicated over the mesh; nothing crosses from the host.
    """

    def resident_train_step(state: steps.State, split: Resident, normalization: steps.Normalization) -> Any:
        return spread.resident_train_step(program, mesh, state, split, normalization)

    return _jit_step(resident_train_step, program, mesh)


@functools.lru_cache(maxsize=64)
def resident_train_steps(program: Program, mesh: Mesh, most: int) -> Any:
    """Jitted `(state, split, normalization, count) -> (state, metrics)`: `count` steps in one program.

    `count` is an int32 scalar of 1 ... `most`. It is traced, so one compilation serves calls of every length, and as
    XLA cannot unroll the loop nor peel steps off it, bits do not depend on how the steps of a run are cut into calls.
    Each metric has a leading axis of `most` steps, of which the first `count` are set.
    """

    def resident_train_steps(
        state: steps.State, split: Resident, normalization: steps.Normalization, count: jax.Array
    ) -> Any:
        def one(state: steps.State) -> tuple[steps.State, steps.StepMetrics]:
            return spread.resident_train_step(program, mesh, state, split, normalization)

        return steps.repeat(one, most, state, count)

    return _jit_step(resident_train_steps, program, mesh)


@functools.lru_cache(maxsize=64)
def eval_step(program: Program, mesh: Mesh) -> Any:
    """Jitted `(variables, batch, normalization) -> (sums, logits [B, K])`, the batch split over the mesh."""

    def local(variables: Any, batch: Batch, normalization: steps.Normalization) -> Any:
        sums, logits = steps.eval_step(program, variables, batch, normalization)
        return jax.lax.psum(sums, DATA_AXIS), logits

    def eval_step(variables: Any, batch: Batch, normalization: steps.Normalization) -> Any:
        specs = (_variable_specs(program, mesh, variables), jax.P(DATA_AXIS), jax.P())
        out_specs = (jax.P(), jax.P(DATA_AXIS))
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out_specs, check_vma=False)
        return mapped(variables, batch, normalization)

    return jit(eval_step, mesh, out_shardings=(replicated(mesh), over_data(mesh)))


@functools.lru_cache(maxsize=16)
def tta_views(kind: str, mesh: Mesh) -> Any:
    """Jitted `image [B, H, W, C] -> list of views`, see `tta.views`, but the first; all split over the mesh."""

    def tta_views(image: jax.Array) -> list[jax.Array]:
        return tta.views(image, kind)[1:]

    return jax.jit(tta_views, out_shardings=over_data(mesh))


@functools.lru_cache(maxsize=16)
def tta_sums(kind: str, mesh: Mesh) -> Any:
    """Jitted `(logits of each view, batch) -> (sums, averaged logits [B, K])`."""

    def tta_sums(logits: list[jax.Array], batch: Batch) -> Any:
        averaged = tta.average(logits, kind)
        return steps.eval_sums(averaged, batch), averaged

    return jax.jit(tta_sums, out_shardings=(replicated(mesh), over_data(mesh)))


@functools.lru_cache(maxsize=64)
def predict_step(program: Program, mesh: Mesh) -> Any:
    """Jitted `(variables, image uint8 [B, H, W, C], normalization) -> logits [B, K]`, split over the mesh."""
    local = functools.partial(steps.predict_step, program)

    def predict_step(variables: Any, image: jax.Array, normalization: steps.Normalization) -> jax.Array:
        specs = (_variable_specs(program, mesh, variables), jax.P(DATA_AXIS), jax.P())
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P(DATA_AXIS), check_vma=False)
        return mapped(variables, image, normalization)

    return jit(predict_step, mesh)


def _variable_specs(program: Program, mesh: Mesh, variables: Any) -> Any:
    """How Flax variables enter `shard_map`: parameters as in the step, statistics whole."""
    params = layouts.of_params(program, mesh, variables["params"]).step
    return {name: params if name == "params" else jax.P() for name in variables}


@Kept
def compiled_predict_step(program: Program, mesh: Mesh, batch_size: int) -> jax.stages.Compiled:
    """`predict_step` for batches of `batch_size`, a multiple of the devices, compiled."""
    image = jax.ShapeDtypeStruct((batch_size, *program.image_shape), jnp.uint8, sharding=over_data(mesh))
    variables = abstract_state(program, mesh).variables()
    return predict_step(program, mesh).lower(variables, image, abstract_normalization(program, mesh)).compile()


@functools.lru_cache(maxsize=8)
def resident_eval_batch(batch_size: int, mesh: Mesh) -> Any:
    """Jitted `(split, start) -> Batch`: examples start ... start + batch_size - 1 in order, masked past the end."""

    def eval_batch(split: Resident, start: jax.Array) -> Batch:
        position = jnp.arange(batch_size, dtype=jnp.int32)
        return resident.gather(split, start + position, position)

    return jax.jit(eval_batch, out_shardings=over_data(mesh))


@functools.lru_cache(maxsize=16)
def abstract_state(program: Program, mesh: Mesh) -> Any:
    """Shapes, dtypes and shardings of the state."""
    # A kept program knows its results, and loading it is several times faster than tracing.
    kept = compiled_init_state.is_kept(program, mesh)
    shapes = (compiled_init_state if kept else _traced_init_state)(program, mesh).out_info
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        layouts.of_state(program, mesh, shapes),
    )


def state_shardings(program: Program, mesh: Mesh) -> Any:
    """The `NamedSharding` of each array of the state, as a `State`."""
    return jax.tree.map(lambda x: x.sharding, abstract_state(program, mesh))


def _traced_init_state(program: Program, mesh: Mesh) -> jax.stages.Traced:
    return init_state(program, mesh).trace(abstract_hyper())


# The programs of a run, before and after XLA's work, which comes before there is any data. Tracing holds Python's lock,
# so one thread does it best; XLA's work does not.


@functools.lru_cache(maxsize=16)
def lowered_init_state(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    """`init_state` before XLA's optimisation."""
    return _traced_init_state(program, mesh).lower()


@Kept
def compiled_init_state(program: Program, mesh: Mesh) -> jax.stages.Compiled:
    """`init_state`, compiled."""
    return lowered_init_state(program, mesh).compile()


@functools.lru_cache(maxsize=16)
def traced_train_step(program: Program, mesh: Mesh, loader: str, steps_per_call: int = 1) -> jax.stages.Traced:
    """The training step for a loader ("resident" or "stream"), not yet lowered for any platform.

    With `steps_per_call` above 1 it is `resident_train_steps`, which the stream loader cannot feed.
    """
    state, normalization = abstract_state(program, mesh), abstract_normalization(program, mesh)
    if loader == "stream":
        batch = _abstract_batch(program, program.global_batch_size, over_data(mesh))
        return train_step(program, mesh).trace(state, batch, normalization)
    split = abstract_split(program, mesh, program.train_examples)
    if steps_per_call == 1:
        return resident_train_step(program, mesh).trace(state, split, normalization)
    return resident_train_steps(program, mesh, steps_per_call).trace(state, split, normalization, abstract_int(mesh))


@functools.lru_cache(maxsize=16)
def lowered_train_step(program: Program, mesh: Mesh, loader: str, steps_per_call: int = 1) -> jax.stages.Lowered:
    """The training step before XLA's optimisation."""
    return traced_train_step(program, mesh, loader, steps_per_call).lower()


@Kept
def compiled_train_step(program: Program, mesh: Mesh, loader: str, steps_per_call: int = 1) -> jax.stages.Compiled:
    """The training step for a loader, compiled."""
    return lowered_train_step(program, mesh, loader, steps_per_call).compile()


def call_inputs(inputs: tuple[Any, ...], mesh: Mesh, steps_per_call: int, count: int) -> tuple[Any, ...]:
    """What a compiled training step takes: `inputs`, and how many steps to make where a call may make several."""
    return inputs if steps_per_call == 1 else (*inputs, device_scalar(count, mesh))


@functools.lru_cache(maxsize=16)
def lowered_eval_step(program: Program, mesh: Mesh, batch_size: int) -> jax.stages.Lowered:
    """The evaluation step for batches of `batch_size`, a multiple of the devices, before XLA's optimisation."""
    batch = _abstract_batch(program, batch_size, over_data(mesh))
    variables = abstract_state(program, mesh).variables()
    return eval_step(program, mesh).lower(variables, batch, abstract_normalization(program, mesh))


@Kept
def compiled_eval_step(program: Program, mesh: Mesh, batch_size: int) -> jax.stages.Compiled:
    """The evaluation step for batches of `batch_size`, compiled."""
    return lowered_eval_step(program, mesh, batch_size).compile()


@functools.lru_cache(maxsize=16)
def lowered_whole_average(program: Program, mesh: Mesh) -> jax.stages.Lowered:
    """What brings a moving average that is cut over devices into the form of the parameters, before optimisation."""
    state = abstract_state(program, mesh)
    out_shardings = jax.tree.map(lambda x: x.sharding, state.variables())
    return jax.jit(lambda average: average, out_shardings=out_shardings).lower(state.ema)


@Kept
def compiled_whole_average(program: Program, mesh: Mesh) -> jax.stages.Compiled:
    """`lowered_whole_average`, compiled."""
    return lowered_whole_average(program, mesh).compile()


def as_evaluated(program: Program, mesh: Mesh, variables: Any) -> Any:
    """Variables of a state, or its moving average, as the compiled evaluation step takes them."""
    wanted = jax.tree.leaves(abstract_state(program, mesh).variables())
    if all(have.sharding == want.sharding for have, want in zip(jax.tree.leaves(variables), wanted, strict=True)):
        return variables
    return compiled_whole_average(program, mesh)(variables)


@functools.lru_cache(maxsize=16)
def lowered_eval_batch(program: Program, mesh: Mesh, batch_size: int, examples: int) -> jax.stages.Lowered:
    """`resident_eval_batch` for a split of so many examples, before XLA's optimisation."""
    split = abstract_split(program, mesh, examples)
    return resident_eval_batch(batch_size, mesh).lower(split, abstract_int(mesh))


@Kept
def compiled_eval_batch(program: Program, mesh: Mesh, batch_size: int, examples: int) -> jax.stages.Compiled:
    """`resident_eval_batch` for a split of so many examples, compiled."""
    return lowered_eval_batch(program, mesh, batch_size, examples).compile()


@functools.lru_cache(maxsize=16)
def lowered_tta_views(program: Program, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Lowered:
    """`tta_views` of batches of `batch_size`, before XLA's optimisation."""
    return tta_views(kind, mesh).lower(_abstract_batch(program, batch_size, over_data(mesh)).image)


@Kept
def compiled_tta_views(program: Program, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Compiled:
    """`tta_views` of batches of `batch_size`, compiled."""
    return lowered_tta_views(program, mesh, batch_size, kind).compile()


@functools.lru_cache(maxsize=16)
def lowered_tta_sums(program: Program, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Lowered:
    """`tta_sums` of batches of `batch_size`, before XLA's optimisation."""
    split = over_data(mesh)
    logits = jax.ShapeDtypeStruct((batch_size, program.num_classes), jnp.float32, sharding=split)
    return tta_sums(kind, mesh).lower([logits] * len(tta.VIEWS[kind]), _abstract_batch(program, batch_size, split))


@Kept
def compiled_tta_sums(program: Program, mesh: Mesh, batch_size: int, kind: str) -> jax.stages.Compiled:
    """`tta_sums` of batches of `batch_size`, compiled."""
    return lowered_tta_sums(program, mesh, batch_size, kind).compile()


def tta_eval_step(program: Program, mesh: Mesh, batch_size: int, kind: str) -> Callable[..., list[Any]]:
    """`(variables, batch, normalization) -> [(sums, logits), …]`: as they are, and if asked for, with views averaged.

    Every view goes through the one compiled evaluation step, so the network is not compiled again. Views are made of
    the uint8 pixels, since mirroring, moving and reflecting commute with the normalisation.
    """
    step = compiled_eval_step(program, mesh, batch_size)
    if kind == "none":
        return lambda *inputs: [step(*inputs)]
    views, sums = (made(program, mesh, batch_size, kind) for made in (compiled_tta_views, compiled_tta_sums))

    def evaluate(variables: Any, batch: Batch, normalization: steps.Normalization) -> list[Any]:
        plain = step(variables, batch, normalization)
        others = [dataclasses.replace(batch, image=view) for view in views(batch.image)]
        logits = [step(variables, other, normalization)[1] for other in others]
        return [plain, sums([plain[1], *logits], batch)]

    return evaluate


def abstract_split(program: Program, mesh: Mesh, examples: int) -> Resident:
    """A split of so many examples, on every device of the mesh."""
    whole = replicated(mesh)
    image = jax.ShapeDtypeStruct((examples, *program.image_shape), jnp.uint8, sharding=whole)
    return Resident(image, jax.ShapeDtypeStruct((examples,), jnp.int32, sharding=whole))


def abstract_int(mesh: Mesh) -> jax.ShapeDtypeStruct:
    """An int32 scalar on every device of the mesh."""
    return jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh))


def _abstract_batch(program: Program, batch_size: int, sharding: Any) -> Batch:
    image = jax.ShapeDtypeStruct((batch_size, *program.image_shape), jnp.uint8, sharding=sharding)
    integer = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=sharding)
    mask = jax.ShapeDtypeStruct((batch_size,), jnp.bool_, sharding=sharding)
    return Batch(image, integer, integer, integer, mask)


def abstract_normalization(program: Program, mesh: Mesh) -> steps.Normalization:
    """On every device of the mesh."""
    channel = jax.ShapeDtypeStruct((program.image_shape[-1],), jnp.float32, sharding=replicated(mesh))
    return steps.Normalization(channel, channel)


def _jit_step(step: Any, program: Program, mesh: Mesh) -> Any:
    out_shardings = (state_shardings(program, mesh), replicated(mesh))
    return jit(step, mesh, donate_argnums=0, out_shardings=out_shardings)
