"""Layers split over the devices of the mesh axis `model`; each device computes a part of the output channels.

A split layer's kernel and bias are cut along the outputs into equal parts, one per device; every device has the whole
input, and the parts of the output are gathered. So no sum is split, and the code between split layers is unchanged.
This is the column-parallel layer of Shoeybi et al. 2019, "Megatron-LM" (arXiv:1909.08053), section 3. They leave
outputs split if the next layer is row-parallel; here, dropout, BatchNorm and pooling prevent this.
"""

import re

import jax
from jax import lax

from jaxcnn.machine.mesh import MODEL_AXIS

# The layers wide enough to benefit: 4096 outputs of dense layers, 256 to 2048 channels of convolutions.
_DENSE = r"dense[12]"  # alexnet, vgg16
_CONVOLUTIONS = (
    r"conv[345]"  # alexnet (and cnn's third)
    r"|block[345]_conv[123]"  # vgg16
    r"|block[34]_\d/(conv[123]|shortcut_conv)"  # resnet50
    r"|group[23]_conv[123]"  # airbench (its residual form has the third)
)
RULES: dict[str, jax.P] = {
    rf"({_DENSE})/(kernel|bias)": jax.P(MODEL_AXIS),
    rf"({_CONVOLUTIONS})/kernel": jax.P(None, None, None, MODEL_AXIS),
    rf"({_CONVOLUTIONS})/bias": jax.P(MODEL_AXIS),
}


def rule_of(path: str) -> str | None:
    """The first pattern of `RULES` that matches a parameter's whole path, such as "dense1/kernel"; None: not split."""
    return next((pattern for pattern in RULES if re.fullmatch(pattern, path)), None)


def parts(path: tuple[str, ...]) -> int:
    """The number of devices over which the layer at `path` is split in the current trace; 1 outside `jax.shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    if MODEL_AXIS not in mesh.manual_axes or rule_of("/".join((*path, "kernel"))) is None:
        return 1
    return mesh.shape[MODEL_AXIS]


@jax.custom_vjp
def enter(x: jax.Array) -> jax.Array:
    """The unchanged input of a split layer; its gradient is the sum over the devices that share the layer."""
    return x


enter.defvjp(lambda x: (x, None), lambda _, dy: (lax.psum(dy, MODEL_AXIS),))


@jax.custom_vjp
def leave(y: jax.Array) -> jax.Array:
    """The whole output `[..., channels]` of a split layer, gathered from each device's part of the channels."""
    return lax.all_gather(y, MODEL_AXIS, axis=y.ndim - 1, tiled=True)


def _own_part(_: None, dy: jax.Array) -> tuple[jax.Array]:
    # All devices compute the same from the whole output, so each has the whole gradient and takes its part.
    size = dy.shape[-1] // lax.axis_size(MODEL_AXIS)
    return (lax.dynamic_slice_in_dim(dy, lax.axis_index(MODEL_AXIS) * size, size, axis=dy.ndim - 1),)


leave.defvjp(lambda y: (leave(y), None), _own_part)
