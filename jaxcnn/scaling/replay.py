"""The collectives of a compiled step alone: the same kinds, bytes and groups one after the other, without the step."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxcnn.learn.collectives import Collective, collectives

TOGETHER = "devices"  # the one axis of a replay's mesh, whatever axes the step has


def collectives_of(compiled: jax.stages.Compiled) -> list[Collective]:
    """The collectives of a compiled step."""
    return collectives(compiled.as_text() or "")


def program(found: Sequence[Collective], mesh: Mesh) -> Callable[[], Any]:
    """A call that makes the given collectives on the devices of a mesh, the largest first, each needing the one before.

    Each is of one float32 array of as many bytes, up to a few. Kinds other than all-reduce, all-gather and
    reduce-scatter are left out. The call waits for them: calls that do not depend on each other must not be under way
    at once on virtual CPU devices, whose threads could all be taken by devices that wait for each other.
    """
    compiled, inputs = _compiled(tuple(found), mesh)
    return lambda: jax.block_until_ready(compiled(*inputs))


def compiled_text(found: Sequence[Collective], mesh: Mesh) -> str:
    """The optimised HLO of `program`."""
    return _compiled(tuple(found), mesh)[0].as_text()


def _compiled(found: tuple[Collective, ...], mesh: Mesh) -> tuple[Any, list[jax.Array]]:
    # The largest first: it needs no other, so its operand is not touched before it is sent.
    found = tuple(sorted((each for each in found if each.kind in _ONE), key=lambda each: -each.bytes))
    flat = Mesh(mesh.devices.reshape(-1), (TOGETHER,))
    split = NamedSharding(flat, jax.P(TOGETHER))
    # Shares that differ between devices: what XLA knows to be equal everywhere it need not send.
    inputs = [_zeros(_share(each, mesh.size), mesh.size, split) for each in found]

    def local(*shares: jax.Array) -> list[jax.Array]:
        results: list[jax.Array] = []
        for each, share in zip(found, shares, strict=True):
            if results:  # it needs the one before, else XLA would join them (a barrier does not keep XLA:CPU from it)
                share = share + results[-1][0]
            results.append(_ONE[each.kind](share, each, mesh.size))
        return [result[:1] for result in results]

    mapped = jax.shard_map(local, mesh=flat, in_specs=jax.P(TOGETHER), out_specs=jax.P(TOGETHER), check_vma=False)
    return jax.jit(mapped).lower(*inputs).compile(), inputs


def _share(each: Collective, devices: int) -> int:
    """Elements of float32 that one device holds before a collective."""
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
