"""Flax's own layers inside a run: fast on the CPU, and independent of devices, as ours are.

A network of plain `flax.linen` layers is called within an interceptor, which lets
- `nn.Conv` convolve by `jaxcnn.models.convolution`, since XLA:CPU is slow at the gradients of its convolutions,
- `nn.BatchNorm` compute its statistics over all devices, and keep them if it is frozen,
- `nn.Dropout` draw its noise by the positions of the examples.
Other layers are left as they are. Layers that draw random numbers otherwise, such as the dropout inside attention, draw
the same ones on every device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import InterceptorContext
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.models import context
from jaxcnn.models.batch_norm import PartlyFrozen
from jaxcnn.models.convolution import convolve
from jaxcnn.models.layers import dropped

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def adapted(network: str, train: bool) -> Callable[..., Any]:
    """The interceptor for a call of a network, which reads the context of the call (`jaxcnn.models.context`)."""

    def call(method: Callable[..., Any], args: Any, kwargs: Any, told: InterceptorContext) -> Any:
        layer = told.module
        if told.method_name != "__call__":
            return method(*args, **kwargs)
        if isinstance(layer, nn.Conv) and layer.conv_general_dilated is None and layer.conv_general_dilated_cls is None:
            object.__setattr__(layer, "conv_general_dilated", convolution)
        elif isinstance(layer, nn.BatchNorm) and train and not layer.is_initializing():
            if _adapt_norm(network, layer):
                return method(args[0], **(kwargs | {"use_running_average": True}))
        elif isinstance(layer, nn.Dropout) and train and not layer.is_initializing():
            return _dropout(method, layer, args, kwargs)
        return method(*args, **kwargs)

    return call


def _adapt_norm(network: str, layer: nn.BatchNorm) -> bool:
    """Make a BatchNorm layer compute its statistics over all devices; return whether it is frozen instead."""
    run = context.current()
    if run.norm.group_size:
        raise UserError(
            f"the network {network!r} has the layer {'/'.join(layer.path)} of flax.linen, whose statistics are those "
            "of the whole batch: set config.norm.group_size=0, or use jaxcnn.layers.BatchNorm"
        )
    names = tuple(name for name, there in (("scale", layer.use_scale), ("bias", layer.use_bias)) if there)
    if isinstance(run.norm, PartlyFrozen) and names and run.norm.is_frozen(layer.path, names):
        object.__setattr__(layer, "use_running_average", None)  # the call says whether running statistics are used
        return True
    if layer.axis_name is None:
        object.__setattr__(layer, "axis_name", run.axis_name)
    return False


def _dropout(method: Callable[..., Any], layer: nn.Dropout, args: Any, kwargs: dict[str, Any]) -> Any:
    x, *others = args
    deterministic = others[0] if others else kwargs.get("deterministic", layer.deterministic)
    positions = context.current().positions
    if positions is None or deterministic or layer.broadcast_dims or not 0 < layer.rate < 1 or len(positions) != len(x):
        return method(*args, **kwargs)
    return dropped(x, layer.rate, layer.make_rng(layer.rng_collection), positions)


def convolution(
    x: Float[Array, "b *image i"],
    kernel: Float[Array, "*kernel i o"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | None = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "b *out o"]:
    """`lax.conv_general_dilated` as Flax calls it, but by `convolve` for images with a square kernel."""
    dilation = tuple(rhs_dilation or (1, 1))
    plain = x.ndim == 4 and dimension_numbers == _NHWC and set(lhs_dilation or (1,)) == {1}
    if not (plain and kernel.shape[0] == kernel.shape[1] and len({*window_strides}) == len({*dilation}) == 1):
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            **options,
        )
    extent = dilation[0] * (kernel.shape[0] - 1) + 1
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (extent, extent), window_strides, padding)
    (top, bottom), (left, right) = padding
    around = top if top == bottom == left == right and top < extent else 0
    if not around:
        x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return convolve(x, kernel, window_strides[0], around, feature_group_count, dilation[0])
