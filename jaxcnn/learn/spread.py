"""The step of a batch that is spread over a mesh.

What knows of devices runs under `jax.shard_map`: a device makes the gradients of its shard of the batch, and they are
summed by hand, in one place. The update then is the pure function of whole arrays, which XLA cuts as the state is cut
(`learn.layout`), so norms over whole layers, clipping and orthogonalisation are right however that is.

`check_vma` is off in every `shard_map`: gradients are summed by hand, and the groups of BatchNorm need `psum` with
`axis_index_groups`, which the checker does not know.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from jaxcnn.data import order, resident
from jaxcnn.data.batch import Batch, Normalization
from jaxcnn.data.resident import Resident
from jaxcnn.learn import layout as layouts
from jaxcnn.learn import rates
from jaxcnn.learn import step as steps
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import DATA_AXIS, MODEL_AXIS, data_devices, model_devices


def train_step(
    spec: StepSpec, mesh: Mesh, state: State, batch: Batch, normalization: Normalization
) -> tuple[State, steps.StepMetrics]:
    """`steps.train_step` with the batch over the mesh and the state as `state_shardings` says, before and after."""
    layout = layouts.of_params(spec, mesh, state.params)
    trained = rates.trainable(layout.update, steps.layers_of(spec, state.batch_stats))
    # No axis on one device, where XLA:CPU would copy every gradient for nothing.
    axis_name = DATA_AXIS if data_devices(mesh) > 1 else None
    batch_gradients = functools.partial(
        steps.batch_gradients, spec, axis_name=axis_name, unroll=unrolls_microbatches(mesh)
    )

    def local(*inputs: Any) -> steps.Gradients:
        own = batch_gradients(*inputs)
        grads = jax.tree.map(lambda share, partition: _sum(share, partition, mesh), own.grads, trained)
        sums, stats = jax.tree.map(lambda share: _sum(share, jax.P(), mesh), (own.sums, own.batch_stats))
        return steps.Gradients(grads, sums, jax.tree.map(lambda total: total / data_devices(mesh), stats))

    in_specs = (layout.step, jax.P(), jax.P(), jax.P(), jax.P(DATA_AXIS), jax.P())
    out_specs = steps.Gradients(trained, jax.P(), jax.P())  # type: ignore[arg-type]  # of arrays
    whole = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    inputs = state.params, state.batch_stats, state.step, state.hyper, batch, normalization
    state, metrics = steps.update(spec, state, whole(*inputs))
    if mesh.size > 1:
        state = lax.with_sharding_constraint(state, layouts.of_state(spec, mesh, state))
    return state, metrics


def unrolls_microbatches(mesh: Mesh) -> bool:
    """Whether a step on these devices writes its microbatches out: XLA:CPU computes that better than a loop."""
    return mesh.devices.flat[0].platform == "cpu"


def _sum(share: jax.Array, partition: jax.P, mesh: Mesh) -> jax.Array:
    """The sum of the devices' shares, whole or, where `spec` says so, this device's part of it alone.

    XLA makes one collective of all that are summed over the same devices, in buckets on accelerators. The devices of
    `model` have the same share of what is not split over them; its mean keeps it the same to the bit, should their
    kernels not be deterministic.
    """
    dimension = layouts.data_dimension(partition)
    alike = model_devices(mesh) > 1 and not layouts.is_over(partition, MODEL_AXIS)
    if dimension is not None:
        share = lax.psum_scatter(share, DATA_AXIS, scatter_dimension=dimension, tiled=True)
    over = (DATA_AXIS,) * (dimension is None and data_devices(mesh) > 1) + (MODEL_AXIS,) * alike
    share = lax.psum(share, over) if over else share
    return share / model_devices(mesh) if alike else share


def resident_train_step(
    spec: StepSpec, mesh: Mesh, state: State, split: Resident, normalization: Normalization
) -> tuple[State, steps.StepMetrics]:
    """The same with the batch of this step gathered from a `split` that every device holds whole."""
    gather = functools.partial(resident_batch, spec, data_devices(mesh))
    specs = (jax.P(), jax.P(), jax.P())
    mapped = jax.shard_map(gather, mesh=mesh, in_specs=specs, out_specs=jax.P(DATA_AXIS), check_vma=False)
    # The barrier keeps the step the same program as with the stream loader, to the bit.
    batch = lax.optimization_barrier(mapped(state.hyper.seed, state.step, split))
    return train_step(spec, mesh, state, batch, normalization)


def resident_batch(spec: StepSpec, devices: int, seed: jax.Array, step: jax.Array, split: Resident) -> Batch:
    """This device's shard of the batch of a step, inside `shard_map` over `devices` parts of the batch."""
    table = order.storage_positions(spec.global_batch_size, devices, spec.optim.accumulate_steps)
    return batch_part(spec, jnp.asarray(table)[jax.lax.axis_index(DATA_AXIS)], seed, step, split)


def batch_part(spec: StepSpec, position: jax.Array, seed: jax.Array, step: jax.Array, split: Resident) -> Batch:
    """The examples at some positions (int32 [b]) of the batch of a step."""
    index = order.example_index(seed, step, position, spec.global_batch_size, spec.train_examples)
    return resident.gather(split, index, position)
