"""Several runs of one spec trained together: the step of `learn.step` over stacked states.

A member is a whole run: its state has its own hyper-parameters, seed and step, and so its own order of examples, random
keys and schedule. Members share only the training split and the normalisation; none depends on their number. They are
stacked along the first axis of every state array, which is split over the devices of a mesh with one axis. Each device
runs its members under `jax.vmap`; a single member runs without it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import Array, Int32

from jaxcnn.data import order
from jaxcnn.data.batch import Constants
from jaxcnn.data.resident import Resident
from jaxcnn.learn import sharded, spread
from jaxcnn.learn import step as steps
from jaxcnn.learn.compilation import jit
from jaxcnn.learn.state import State, abstract_hyper
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import replicated

MEMBER_AXIS = "member"


def make_mesh(devices: int) -> Mesh:
    """A mesh with one axis, that of members, over the first `devices` devices of this process."""
    return Mesh(np.array(jax.local_devices()[:devices]), (MEMBER_AXIS,), axis_types=(AxisType.Auto,))


def over_members(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the members."""
    return NamedSharding(mesh, jax.P(MEMBER_AXIS))


def member_step(
    spec: StepSpec, mesh: Mesh, state: State, split: Resident, constants: Constants
) -> tuple[State, steps.StepMetrics]:
    """Take one step of one member on one device: gather its batch from the shared split, then `steps.train_step`."""
    position = jnp.asarray(order.storage_positions(spec.global_batch_size, 1, spec.optim.accumulate_steps)[0])
    batch = lax.optimization_barrier(spread.batch_part(spec, position, state.hyper.seed, state.step, split))
    return steps.train_step(spec, state, batch, constants, unroll=spread.unrolls_microbatches(mesh))


def _share_step(
    spec: StepSpec, mesh: Mesh, states: State, split: Resident, constants: Constants
) -> tuple[State, steps.StepMetrics]:
    """Take one step of the members on one device."""
    step = functools.partial(member_step, spec, mesh)
    if states.step.shape[0] > 1:
        return jax.vmap(step, in_axes=(0, None, None))(states, split, constants)
    # Without vmap, which would turn ordinary convolutions into grouped ones with a single group.
    alone = step(jax.tree.map(lambda x: x[0], states), split, constants)
    return jax.tree.map(lambda x: x[None], alone)


def train_step(
    spec: StepSpec, mesh: Mesh, states: State, split: Resident, constants: Constants
) -> tuple[State, steps.StepMetrics]:
    """Take one step of every member.

    Args:
      spec: the spec of every member.
      mesh: a mesh from `make_mesh`; its size divides the number of members.
      states: the states with a leading axis of members, split over the mesh.
      split, constants: replicated on every device.

    Returns:
      The next states, and the metrics [members].
    """
    share = functools.partial(_share_step, spec, mesh)
    if mesh.size > 1:
        over = jax.P(MEMBER_AXIS)
        specs = (over, jax.P(), jax.P())
        share = jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=(over, over), check_vma=False)
    return share(states, split, constants)


def train_steps(
    spec: StepSpec,
    mesh: Mesh,
    most: int,
    states: State,
    split: Resident,
    constants: Constants,
    count: Int32[Array, ""],
) -> tuple[State, steps.StepMetrics]:
    """Take `count` (1 ... `most`) steps of every member; metrics [most, members] have their first `count` rows set."""

    def one(states: State) -> tuple[State, steps.StepMetrics]:
        return train_step(spec, mesh, states, split, constants)

    return steps.repeat(one, most, states, count)


@functools.lru_cache(maxsize=16)
def compiled_train_step(spec: StepSpec, mesh: Mesh, members: int, steps_per_call: int) -> jax.stages.Compiled:
    """The compiled step of `members` members; with `steps_per_call` above 1, `train_steps`. The states are donated.

    Raises:
      ValueError: the size of the mesh does not divide the number of members.
    """
    if members % mesh.size:
        raise ValueError(f"{members} members cannot be divided equally over {mesh.size} devices")
    states, whole = abstract_states(spec, mesh, members), replicated(mesh)
    split = sharded.abstract_split(spec, mesh, spec.train_examples)
    inputs: list[Any] = [states, split, sharded.abstract_constants(spec, mesh)]
    function: Callable[..., Any] = functools.partial(train_step, spec, mesh)
    if steps_per_call > 1:
        function = functools.partial(train_steps, spec, mesh, steps_per_call)
        inputs.append(sharded.abstract_int(mesh))
    rows = whole if mesh.size == 1 or steps_per_call > 1 else over_members(mesh)
    out_shardings = (jax.tree.map(lambda x: x.sharding, states), rows)
    return jit(function, mesh, donate_argnums=0, out_shardings=out_shardings).lower(*inputs).compile()


def abstract_states(spec: StepSpec, mesh: Mesh, members: int) -> State:
    """Shapes, dtypes and shardings of the states of `members` members."""
    one = jax.eval_shape(functools.partial(steps.init_state, spec), abstract_hyper(spec.task))
    sharding = over_members(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype, sharding=sharding), one)


def stack(states: list[State], mesh: Mesh) -> State:
    """The states of members, from any devices, stacked along a new first axis on the mesh."""
    on_host = jax.device_get(states)
    return jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *on_host), over_members(mesh))


def unstack(states: State) -> list[State]:
    """The state of each member, on the host."""
    on_host = jax.device_get(states)
    return [jax.tree.map(lambda leaf, row=row: leaf[row], on_host) for row in range(len(on_host.step))]
