"""A graph of ONNX operators computed in JAX: to calibrate it, and to run an int8 file where JAX runs.

Between a DequantizeLinear and a QuantizeLinear, products are int8 with int32 sums; all else is float32, as in ONNX
Runtime. Both round in the same way, except for the last bit of a float32 before a QuantizeLinear. A graph of
`jaxcnn.graphs.rounding` has whole numbers as float32.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int8, Int32

from jaxcnn.config import UserError
from jaxcnn.graphs import rounding
from jaxcnn.graphs.graph import Graph, Node
from jaxcnn.graphs.rounding import Rounded
from jaxcnn.graphs.tensor import DTYPES

_ONE_BY_ONE: dict[str, Callable[..., Any]] = {
    "Add": jnp.add, "Sub": jnp.subtract, "Mul": jnp.multiply, "Div": jnp.divide, "Max": jnp.maximum,
    "Min": jnp.minimum, "Pow": jnp.power, "Greater": jnp.greater, "Less": jnp.less, "Equal": jnp.equal,
    "GreaterOrEqual": jnp.greater_equal, "LessOrEqual": jnp.less_equal, "And": jnp.logical_and, "Or": jnp.logical_or,
    "Not": jnp.logical_not, "Neg": jnp.negative, "Exp": jnp.exp, "Log": jnp.log, "Tanh": jnp.tanh,
    "Sigmoid": jax.nn.sigmoid, "Sqrt": jnp.sqrt, "Erf": lax.erf, "Abs": jnp.abs, "Floor": jnp.floor, "Ceil": jnp.ceil,
    "Reciprocal": jnp.reciprocal, "Where": jnp.where, "Relu": jax.nn.relu, "Clip": jnp.clip,
}  # fmt: skip
_TYPES = {number: name for name, number in DTYPES.items()}
_OF_IMAGES = ("NCHW", "OIHW", "NCHW")


@dataclasses.dataclass(frozen=True)
class Whole:
    """An array stored as int8, uint8 or int32: `scale` times (codes - zero), with one scale or one for each channel."""

    codes: Array
    scale: Array
    zero: Array
    axis: int | None

    def value(self) -> Float[Array, "..."]:
        """The array as float32."""
        return (self.codes.astype(jnp.float32) - self._along(self.zero).astype(jnp.float32)) * self._along(self.scale)

    def signed(self) -> tuple[Int8[Array, "..."], Int32[Array, ""]]:
        """The codes of an activation as int8, the type that products with weights need, and its zero point as int32."""
        if self.codes.dtype == jnp.int8:
            return self.codes, self.zero.astype(jnp.int32)
        return lax.bitcast_convert_type(self.codes ^ jnp.uint8(128), jnp.int8), self.zero.astype(jnp.int32) - 128

    def _along(self, each: Array) -> Array:
        shape = [-1 if axis == self.axis else 1 for axis in range(self.codes.ndim)]
        return each.reshape(shape) if each.ndim else each


def function(graph: Graph, image: str, shown: Collection[str] = ()) -> Callable[[Array], Any]:
    """A function of images that computes a graph; to be compiled by `jax.jit`.

    Args:
      graph: a graph of operators that jaxcnn writes.
      image: the name of the graph's input.
      shown: tensors to return, by name, in place of the result.

    Raises:
      UserError: the graph has an operator that jaxcnn does not write.
    """
    strange = sorted({node.op for node in graph.nodes} - set(_ONE_BY_ONE) - set(_OPERATORS))
    if strange:
        raise UserError(f"the operator {strange[0]} does not run in JAX; use --runtime=onnxruntime")

    def run(images: Array) -> Any:
        values: dict[str, Any] = {image: images, **graph.constants}
        for node in graph.nodes:
            values[node.output] = _result(node, [values[name] for name in node.inputs])
        if shown:
            return {name: _plain(values[name]) for name in shown}
        return _plain(values[graph.output])

    return run


def _plain(value: Any) -> Any:
    return value.value() if isinstance(value, Whole | Rounded) else value


def _result(node: Node, inputs: list[Any]) -> Any:
    make = _OPERATORS.get(node.op)
    if make is None:
        return _ONE_BY_ONE[node.op](*map(_plain, inputs))
    whole = node.op in ("DequantizeLinear", "Conv", "Gemm", "MatMul") and isinstance(inputs[0], Whole | Rounded)
    return make(node.attributes, *(inputs if whole else map(_plain, inputs)))


def _quantize(attributes: Mapping[str, Any], x: Array, scale: Array, zero: np.ndarray) -> Whole:
    ends = np.iinfo(zero.dtype)
    codes = jnp.clip(jnp.round(x / scale) + zero.astype(np.float32), ends.min, ends.max).astype(zero.dtype)
    return Whole(codes, jnp.asarray(scale), jnp.asarray(zero), None)


def _dequantize(attributes: Mapping[str, Any], x: Any, scale: Array, zero: Array) -> Whole:
    if isinstance(x, Whole):
        return x
    return Whole(x, jnp.asarray(scale), jnp.asarray(zero), attributes.get("axis"))  # a constant stays a constant


def _convolve(attributes: Mapping[str, Any], x: Any, kernel: Any, bias: Any = None) -> Array:
    pads, groups = attributes["pads"], attributes["group"]
    options = {
        "window_strides": attributes["strides"],
        "rhs_dilation": attributes["dilations"],
        "feature_group_count": groups,
        "dimension_numbers": _OF_IMAGES,
    }
    edges = [(pads[0], pads[2]), (pads[1], pads[3])]
    if isinstance(x, Rounded):
        sums = lax.conv_general_dilated(x.codes, kernel.codes, padding=edges, **options)
        return rounding.scaled(sums, x, kernel, bias, (1, -1, 1, 1))
    if not isinstance(x, Whole):
        y = lax.conv_general_dilated(x, _plain(kernel), padding=edges, **options)
        return y if bias is None else y + _plain(bias).reshape(1, -1, 1, 1)
    codes, zero = x.signed()
    padded = jnp.pad(codes, ((0, 0), (0, 0), *edges), constant_values=zero.astype(jnp.int8))
    if groups == 1:
        sums = _sums_of_windows(padded, kernel.codes, options["window_strides"], options["rhs_dilation"])
    else:
        sums = lax.conv_general_dilated(
            padded, kernel.codes, padding="VALID", preferred_element_type=jnp.int32, **options
        )
    of_zero = zero * kernel.codes.astype(np.int32).sum(axis=(1, 2, 3))
    return _scaled(sums, of_zero, x, kernel, bias, (1, -1, 1, 1))


def _sums_of_windows(
    x: Int8[Array, "b c h w"], kernel: Int8[Array, "o c kh kw"], strides: Any, dilations: Any
) -> Int32[Array, "b o oh ow"]:
    """A convolution as one matrix product, for which compilers use int8 instructions, as they do not for windows."""
    rows, columns = (
        (size - dilation * (side - 1) - 1) // stride + 1
        for size, side, stride, dilation in zip(x.shape[2:], kernel.shape[2:], strides, dilations, strict=True)
    )
    last = x.transpose(0, 2, 3, 1)
    taps = []
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            top, left = i * dilations[0], j * dilations[1]
            taken = last[:, top : top + (rows - 1) * strides[0] + 1 : strides[0]]
            taps.append(taken[:, :, left : left + (columns - 1) * strides[1] + 1 : strides[1]])
    windows = jnp.concatenate(taps, axis=3).reshape(-1, kernel[0].size)
    weights = kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])
    sums = _product(windows, weights)
    return sums.reshape(x.shape[0], rows, columns, -1).transpose(0, 3, 1, 2)


def _product(x: Int8[Array, "n k"], kernel: Int8[Array, "k m"]) -> Int32[Array, "n m"]:
    return lax.dot_general(x, kernel, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


def _affine(attributes: Mapping[str, Any], x: Any, kernel: Any, bias: Any = None) -> Array:
    if isinstance(x, Rounded):
        return rounding.scaled(x.codes @ kernel.codes, x, kernel, bias, (1, -1))
    if not isinstance(x, Whole):
        y = x @ _plain(kernel)
        return y if bias is None else y + _plain(bias)
    codes, zero = x.signed()
    of_zero = zero * kernel.codes.astype(np.int32).sum(axis=0)
    return _scaled(_product(codes, kernel.codes), of_zero, x, kernel, bias, (1, -1))


def _scaled(
    sums: Int32[Array, "..."], of_zero: Int32[Array, " o"], x: Whole, kernel: Whole, bias: Any, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """The float32 result of sums of products of codes, without the part that comes from the zero point of `x`."""
    more = -of_zero if bias is None else bias.codes - of_zero
    return (sums + more.reshape(shape)).astype(jnp.float32) * (x.scale * kernel.scale).reshape(shape)


def _pool(attributes: Mapping[str, Any], x: Array, start: Any, reduce: Any) -> Array:
    pads = attributes["pads"]
    edges = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    window, strides = (1, 1, *attributes["kernel_shape"]), (1, 1, *attributes["strides"])
    return lax.reduce_window(x, start, reduce, window, strides, edges)


def _max_pool(attributes: Mapping[str, Any], x: Array) -> Array:
    return _pool(attributes, x, -jnp.inf, lax.max)


def _average_pool(attributes: Mapping[str, Any], x: Array) -> Array:
    return _pool(attributes, x, 0.0, lax.add) / np.prod(attributes["kernel_shape"])


def _reshape(attributes: Mapping[str, Any], x: Array, sizes: np.ndarray) -> Array:
    return x.reshape([x.shape[i] if size == 0 else int(size) for i, size in enumerate(sizes)])


def _expand(attributes: Mapping[str, Any], x: Array, sizes: np.ndarray) -> Array:
    return jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(int, sizes))))


def _slice(attributes: Mapping[str, Any], x: Array, *where: np.ndarray) -> Array:
    cuts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(*where, strict=True):
        cuts[axis] = slice(int(start), int(end), int(step))
    return x[tuple(cuts)]


def _pad(attributes: Mapping[str, Any], x: Array, pads: np.ndarray, value: np.ndarray) -> Array:
    return jnp.pad(x, np.asarray(pads).reshape(2, -1).T.tolist(), constant_values=value)


def _sum(attributes: Mapping[str, Any], x: Array, axes: np.ndarray) -> Array:
    return x.sum(axis=tuple(int(axis) for axis in axes))


def _largest(attributes: Mapping[str, Any], x: Array, axes: np.ndarray) -> Array:
    return x.max(axis=tuple(int(axis) for axis in axes))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    rounding.OF_ACTIVATIONS: lambda attributes, x, ends: rounding.activations(x, ends),
    rounding.OF_WEIGHTS: lambda attributes, kernel: rounding.weights(kernel, **attributes),
    "Conv": _convolve,
    "Gemm": _affine,
    "MatMul": _affine,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Pad": _pad,
    "ReduceSum": _sum,
    "ReduceMax": _largest,
    "Transpose": lambda attributes, x: x.transpose(attributes["perm"]),
    "Concat": lambda attributes, *parts: jnp.concatenate(parts, attributes["axis"]),
    "Cast": lambda attributes, x: x.astype(_TYPES[attributes["to"]]),
    "Einsum": lambda attributes, x, y: jnp.einsum(attributes["equation"], x, y),
}
