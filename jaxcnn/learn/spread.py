"""The step of a batch that is split over a mesh.

The part that depends on devices runs under `jax.shard_map`: each device computes the gradients of its shard of the
batch, and these are summed explicitly, in one place. The update is then the pure function of whole arrays, which XLA
partitions as the state is sharded (`learn.layout`), so norms over whole layers, clipping and orthogonalisation are
right for any sharding.

`check_vma` is off in every `shard_map`: gradients are summed explicitly, and the groups of BatchNorm need `psum` with
`axis_index_groups`, which the checker does not support.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, UInt32

from jaxcnn.data import bars, order, resident
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.data.resident import Resident
from jaxcnn.learn import layout as layouts
from jaxcnn.learn import rates
from jaxcnn.learn import step as steps
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import DATA_AXIS, MODEL_AXIS, data_devices, model_devices


def train_step(
    spec: StepSpec, mesh: Mesh, state: State, batch: Batch, constants: Constants
) -> tuple[State, steps.StepMetrics]:
    """`steps.train_step` with the batch split over the mesh; the state is sharded by `state_shardings` throughout."""
    layout = layouts.of_params(spec, mesh, state.params)
    trained = rates.trainable(layout.update, steps.layers_of(spec, state.batch_stats))
    # No axis on one device: XLA:CPU would copy every gradient without need.
    axis_name = DATA_AXIS if data_devices(mesh) > 1 else None
    batch_gradients = functools.partial(
        steps.batch_gradients, spec, axis_name=axis_name, unroll=unrolls_microbatches(mesh)
    )

    def local(*inputs: Any) -> steps.Gradients:
        own = batch_gradients(*inputs)
        grads = jax.tree.map(lambda share, partition: _sum(share, partition, mesh), own.grads, trained)
        if spec.optim.quantized:
            sums = jax.tree.map(lambda share: _sum(share, jax.P(), mesh), own.sums)
            stats = lax.pmax(own.batch_stats, axis_name) if axis_name else own.batch_stats
            return steps.Gradients(grads, sums, stats)
        sums, stats = jax.tree.map(lambda share: _sum(share, jax.P(), mesh), (own.sums, own.batch_stats))
        return steps.Gradients(grads, sums, jax.tree.map(lambda total: total / data_devices(mesh), stats))

    in_specs = (layout.step, jax.P(), jax.P(), jax.P(), jax.P(DATA_AXIS), jax.P())
    out_specs = steps.Gradients(trained, jax.P(), jax.P())  # type: ignore[arg-type]  # of arrays
    whole = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    inputs = state.batch_stats, state.step, state.hyper, batch, constants
    gradients = steps.uphill(spec, lambda params: whole(params, *inputs), state)
    state, metrics = steps.update(spec, state, gradients)
    if mesh.size > 1:
        state = lax.with_sharding_constraint(state, layouts.of_state(spec, mesh, state))
    return state, metrics


def unrolls_microbatches(mesh: Mesh) -> bool:
    """Whether a step on these devices unrolls its microbatches, which XLA:CPU computes better than a loop."""
    return mesh.devices.flat[0].platform == "cpu"


def _sum(share: Float[Array, "..."], partition: jax.P, mesh: Mesh) -> Float[Array, "..."]:
    """The sum of the devices' shares: whole or, if `partition` splits it, only this device's part.

    XLA combines all sums over the same devices into one collective, in buckets on accelerators. Devices along `model`
    have equal shares of arrays that are not split over them; the mean keeps these equal to the bit, even if kernels are
    not deterministic.
    """
    dimension = layouts.data_dimension(partition)
    alike = model_devices(mesh) > 1 and not layouts.is_over(partition, MODEL_AXIS)
    if dimension is not None:
        share = lax.psum_scatter(share, DATA_AXIS, scatter_dimension=dimension, tiled=True)
    over = (DATA_AXIS,) * (dimension is None and data_devices(mesh) > 1) + (MODEL_AXIS,) * alike
    share = lax.psum(share, over) if over else share
    return share / model_devices(mesh) if alike else share


def resident_train_step(
    spec: StepSpec, mesh: Mesh, state: State, split: Resident, constants: Constants
) -> tuple[State, steps.StepMetrics]:
    """`train_step` with the batch of this step gathered from a `split` that every device holds completely."""
    gather = functools.partial(resident_batch, spec, data_devices(mesh))
    specs = (jax.P(), jax.P(), jax.P())
    mapped = jax.shard_map(gather, mesh=mesh, in_specs=specs, out_specs=jax.P(DATA_AXIS), check_vma=False)
    # The barrier keeps the step equal, to the bit, to that of the stream loader.
    batch = lax.optimization_barrier(mapped(state.hyper.seed, state.step, split))
    return train_step(spec, mesh, state, batch, constants)


def resident_batch(
    spec: StepSpec, devices: int, seed: UInt32[Array, ""], step: Int32[Array, ""], split: Resident
) -> Batch:
    """This device's shard of the batch of a step, inside `shard_map` over `devices` parts of the batch."""
    table = order.storage_positions(spec.global_batch_size, devices, spec.optim.accumulate_steps)
    return batch_part(spec, jnp.asarray(table)[jax.lax.axis_index(DATA_AXIS)], seed, step, split)


def batch_part(
    spec: StepSpec, position: Int32[Array, " b"], seed: UInt32[Array, ""], step: Int32[Array, ""], split: Resident
) -> Batch:
    """The examples at some positions of the batch of a step."""
    shapes, side = spec.augment.shapes, spec.image_shape[0]
    kinds = bars.kinds(split.target["frame"], shapes, side) if shapes else None
    index = order.example_index(seed, step, position, spec.global_batch_size, spec.train_examples, kinds)
    return resident.gather(split, index, position)
