"""Layers split over the devices of the mesh axis `model`; each device computes a part of the output channels.

A split layer's kernel and bias are cut along the outputs into equal parts, one per device; every device has the whole
input, and the parts of the output are gathered. So no sum is split, and the code between split layers is unchanged.
This is the column-parallel layer of Shoeybi et al. 2019, "Megatron-LM" (arXiv:1909.08053), section 3. They leave
outputs split if the next layer is row-parallel; here, dropout, BatchNorm and pooling prevent this.
"""

from collections.abc import Callable

import jax
from flax.typing import VariableDict
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.machine.mesh import MODEL_AXIS
from jaxcnn.models.noted import Noted

_noted = Noted[jax.P]("split")


def layers_of(initialize: Callable[[], VariableDict]) -> dict[str, jax.P]:
    """The parameters of the split layers of a network, by path such as "dense1/kernel", and how each is cut.

    Args:
      initialize: makes the network's variables; it is traced only.
    """
    return _noted.of(initialize)


def parts(path: tuple[str, ...], split: bool, kernel_ndim: int) -> int:
    """The number of devices over which the layer at `path` is split in the traced program; 1 outside `jax.shard_map`.

    Args:
      path: path of the module.
      split: whether the layer may be split, because it is wide enough to be worth it.
      kernel_ndim: 4 for a convolution, whose kernel has the outputs last, or 2 for a dense layer, which has them first.
    """
    if not split:
        return 1
    cut = jax.P(MODEL_AXIS) if kernel_ndim == 2 else jax.P(*[None] * (kernel_ndim - 1), MODEL_AXIS)
    _noted.note("/".join((*path, "kernel")), cut)
    _noted.note("/".join((*path, "bias")), jax.P(MODEL_AXIS))
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[MODEL_AXIS] if MODEL_AXIS in mesh.manual_axes else 1


@jax.custom_vjp
def enter(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The unchanged input of a split layer; its gradient is the sum over the devices that share the layer."""
    return x


enter.defvjp(lambda x: (x, None), lambda _, dy: (lax.psum(dy, MODEL_AXIS),))


@jax.custom_vjp
def leave(y: Float[Array, "... part"]) -> Float[Array, "... o"]:
    """The whole output of a split layer, gathered from each device's part of the channels."""
    return lax.all_gather(y, MODEL_AXIS, axis=y.ndim - 1, tiled=True)


def _own_part(_: None, dy: Float[Array, "... o"]) -> tuple[Float[Array, "... part"]]:
    # All devices compute the same from the whole output, so each has the whole gradient and takes its own part.
    size = dy.shape[-1] // lax.axis_size(MODEL_AXIS)
    return (lax.dynamic_slice_in_dim(dy, lax.axis_index(MODEL_AXIS) * size, size, axis=dy.ndim - 1),)


leave.defvjp(lambda y: (leave(y), None), _own_part)
