"""Replays the collectives of a compiled step alone: the same kinds, bytes and groups, one after another."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxcnn.learn.collectives import Collective, collectives

TOGETHER = "devices"  # the only axis of a replay's mesh, whatever axes the step has


def collectives_of(compiled: jax.stages.Compiled) -> list[Collective]:
    """The collectives of a compiled step."""
    return collectives(compiled.as_text() or "")


def program(found: Sequence[Collective], mesh: Mesh) -> Callable[[], Any]:
    """A call that runs the given collectives on the devices of a mesh, the largest first, each depending on the last.

    Each has one float32 array of the same number of bytes, except for a few. Kinds other than all-reduce, all-gather
    and reduce-scatter are left out. The call waits for the result: independent calls must not run at the same time on
    virtual CPU devices, as devices that wait for each other could occupy all threads.
    """
    compiled, inputs = _compiled(tuple(found), mesh)
    return lambda: jax.block_until_ready(compiled(*inputs))


def compiled_text(found: Sequence[Collective], mesh: Mesh) -> str:
    """The optimised HLO of `program`."""
    return _compiled(tuple(found), mesh)[0].as_text()


def _compiled(found: tuple[Collective, ...], mesh: Mesh) -> tuple[Any, list[jax.Array]]:
    # Largest first: the first collective has no dependency, so its operand needs no extra add.
    found = tuple(sorted((each for each in found if each.kind in _ONE), key=lambda each: -each.bytes))
    flat = Mesh(mesh.devices.reshape(-1), (TOGETHER,))
    split = NamedSharding(flat, jax.P(TOGETHER))
    # Shares differ between devices: XLA need not send values that it knows to be equal everywhere.
    inputs = [_zeros(_share(each, mesh.size), mesh.size, split) for each in found]

    def local(*shares: jax.Array) -> list[jax.Array]:
        results: list[jax.Array] = []
        for each, share in zip(found, shares, strict=True):
            if results:  # a dependency on the last one, else XLA would merge them (on XLA:CPU, also across a barrier)
                share = share + results[-1][0]
            results.append(_ONE[each.kind](share, each, mesh.size))
        return [result[:1] for result in results]

    mapped = jax.shard_map(local, mesh=flat, in_specs=jax.P(TOGETHER), out_specs=jax.P(TOGETHER), check_vma=False)
    return jax.jit(mapped).lower(*inputs).compile(), inputs


def _share(each: Collective, devices: int) -> int:
    """Number of float32 elements on one device before a collective."""
    elements = max(1, each.bytes // 4)
    group = each.group_size or devices
    if each.kind == "all-gather":
        return max(1, elements // group)
    return elements + -elements % group if each.kind == "reduce-scatter" else elements


def _zeros(share: int, devices: int, split: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback((share * devices,), split, lambda index: _piece(index, share * devices))


def _piece(index: Any, length: int) -> np.ndarray:
    start, stop, _ = index[0].indices(length)
    return np.zeros(stop - start, np.float32)


def _groups(each: Collective, devices: int) -> list[list[int]] | None:
    whole = each.group_size in (0, devices)
    return None if whole else [list(group) for group in each.replica_groups]


def _all_reduce(share: jax.Array, each: Collective, devices: int) -> jax.Array:
    return jax.lax.psum(share, TOGETHER, axis_index_groups=_groups(each, devices))


def _all_gather(share: jax.Array, each: Collective, devices: int) -> jax.Array:
    return jnp.ravel(jax.lax.all_gather(share, TOGETHER, axis_index_groups=_groups(each, devices)))


def _reduce_scatter(share: jax.Array, each: Collective, devices: int) -> jax.Array:
    return jax.lax.psum_scatter(share, TOGETHER, axis_index_groups=_groups(each, devices), tiled=True)


_ONE: dict[str, Callable[[jax.Array, Collective, int], jax.Array]] = {
    "all-reduce": _all_reduce,
    "all-gather": _all_gather,
    "reduce-scatter": _reduce_scatter,
}
