"""A graph of ONNX operators as a function of TensorFlow, from which a SavedModel and a file of LiteRT are made.

ONNX has the channels of images before rows and columns, TensorFlow and LiteRT after them. So a tensor that the graph
has with its channels first is computed with them last, and each operator's axes are those of that order.

The rounding of an int8 graph becomes TensorFlow's fake quantisation with the same ranges, of which LiteRT's converter
makes integers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data.tensorflow import import_tensorflow
from jaxcnn.graphs.graph import Graph
from jaxcnn.graphs.tensor import DTYPES, TO_CHANNELS_FIRST, TO_CHANNELS_LAST

_TYPES = {number: name for name, number in DTYPES.items()}
_ONE_BY_ONE = {
    "Add": "math.add", "Sub": "math.subtract", "Mul": "math.multiply", "Div": "math.divide", "Max": "math.maximum",
    "Min": "math.minimum", "Pow": "math.pow", "Greater": "math.greater", "Less": "math.less", "Equal": "math.equal",
    "GreaterOrEqual": "math.greater_equal", "LessOrEqual": "math.less_equal", "And": "math.logical_and",
    "Or": "math.logical_or", "Not": "math.logical_not", "Neg": "math.negative", "Exp": "math.exp", "Log": "math.log",
    "Tanh": "math.tanh", "Sigmoid": "math.sigmoid", "Sqrt": "math.sqrt", "Erf": "math.erf", "Abs": "math.abs",
    "Floor": "math.floor", "Ceil": "math.ceil", "Reciprocal": "math.reciprocal", "Where": "where", "Relu": "nn.relu",
}  # fmt: skip
_TO_KERNEL = (2, 3, 1, 0)
_LEAST = float(np.finfo(np.float32).min)


class Held(NamedTuple):
    """A value: a tensor, or a constant array; whether the graph has its channels first, and the tensor has not."""

    value: Any
    first: bool = False


class Whole(NamedTuple):
    """What QuantizeLinear and DequantizeLinear make of a value: its float32, and the distance between two values."""

    held: Held
    scale: np.ndarray


def function(graph: Graph, image: str) -> Callable[[Any], Any]:
    """The function of a tensor of images that a graph is, for `tf.function`.

    Args:
      graph: its operators are those that jaxcnn writes.
      image: the name of its input.

    Raises:
      UserError: it has an operator that is not there in TensorFlow.
    """
    tf = import_tensorflow()
    strange = sorted({node.op for node in graph.nodes} - set(_ONE_BY_ONE) - set(_OPERATORS))
    if strange:
        raise UserError(f"the operator {strange[0]} cannot be written for TensorFlow; use --format=onnx")

    def run(images: Any) -> Any:
        values: dict[str, Any] = {image: Held(images)}
        values |= {name: Held(value) for name, value in graph.constants.items()}
        for node in graph.nodes:
            given = [values[name] for name in node.inputs]
            if node.op in _ONE_BY_ONE:
                values[node.output] = _one_by_one(tf, node.op, [_plain(each) for each in given])
            elif node.op == "MaxPool":
                edge = 0.0 if _is_positive(graph, node.inputs[0]) else _LEAST
                values[node.output] = _max_pool(tf, node.attributes, _plain(given[0]), edge)
            else:
                values[node.output] = _OPERATORS[node.op](tf, node.attributes, *given)
        return _plain(values[graph.output]).value

    return run


def _is_positive(graph: Graph, name: str) -> bool:
    """Whether a tensor is known to have no value below 0."""
    node = graph.maker(name)
    if node is None or node.op != "DequantizeLinear":
        return node is not None and node.op == "Relu"
    zero = graph.constants[node.inputs[2]]
    return bool(zero == np.iinfo(zero.dtype).min)


def _plain(given: Any) -> Held:
    return given.held if isinstance(given, Whole) else given


def _last(held: Held) -> Any:
    """A tensor, or a constant, with its channels last."""
    if isinstance(held.value, np.ndarray) and held.value.ndim == 4:
        return held.value.transpose(TO_CHANNELS_LAST)
    return held.value


def _in_order(tf: Any, given: Any) -> Any:
    """A tensor or constant in the order that the graph has it in."""
    held = _plain(given)
    if held.first and tuple(held.value.shape[1:3]) == (1, 1):  # the same order of values
        return tf.reshape(held.value, (-1, held.value.shape[3], 1, 1))
    return tf.transpose(held.value, TO_CHANNELS_FIRST) if held.first else held.value


def _one_by_one(tf: Any, op: str, given: Sequence[Held]) -> Held:
    place: Any = tf
    for name in _ONE_BY_ONE[op].split("."):
        place = getattr(place, name)
    first = any(each.first for each in given)
    return Held(place(*(_last(each) if first else each.value for each in given)), first)


def _clip(tf: Any, attributes: Mapping[str, Any], x: Any, low: Held, high: Held) -> Held:
    x = _plain(x)
    if (float(low.value), float(high.value)) == (0.0, 6.0):
        return Held(tf.nn.relu6(x.value), x.first)
    return Held(tf.clip_by_value(x.value, low.value, high.value), x.first)


def _edges(tf: Any, x: Any, window: Sequence[int], strides: Sequence[int], pads: Sequence[int], value: float) -> Any:
    """x with "SAME" if TensorFlow's own padding is the wanted one, otherwise the padded x with "VALID".

    Args:
      window: rows and columns that a window reaches over, dilation included.
      pads: top, left, bottom, right.
      value: value of the padding.
    """
    if not any(pads):
        return x, "VALID"
    same = []
    for size, side, stride in zip(x.shape[1:3], window, strides, strict=True):
        whole = max((-(-size // stride) - 1) * stride + side - size, 0)
        same.append((whole // 2, whole - whole // 2))
    if [pads[0], pads[2], pads[1], pads[3]] == [*same[0], *same[1]]:
        return x, "SAME"
    edges = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    return tf.pad(x, edges, constant_values=value), "VALID"


def _convolve(tf: Any, attributes: Mapping[str, Any], x: Any, kernel: Any, bias: Any = None) -> Held:
    value = _plain(kernel).value.transpose(_TO_KERNEL)  # [rows, columns, in, out]
    weights = _rounded(tf, kernel, value) if isinstance(kernel, Whole) else tf.constant(value)
    dilations, groups, strides = attributes["dilations"], attributes["group"], attributes["strides"]
    reach = [d * (side - 1) + 1 for d, side in zip(dilations, weights.shape[:2], strict=True)]
    value, padding = _edges(tf, _plain(x).value, reach, strides, attributes["pads"], 0.0)
    channels = value.shape[3]
    if groups == channels and groups > 1:
        rows, columns, _, outputs = weights.shape
        each = tf.reshape(weights, (rows, columns, groups, outputs // groups))
        y = tf.nn.depthwise_conv2d(value, each, (1, *strides, 1), padding, dilations=dilations)
    elif groups > 1:
        parts = zip(tf.split(value, groups, 3), tf.split(weights, groups, 3), strict=True)
        y = tf.concat([tf.nn.conv2d(a, b, strides, padding, dilations=dilations) for a, b in parts], 3)
    else:
        y = tf.nn.conv2d(value, weights, strides, padding, dilations=dilations)
    return Held(y if bias is None else tf.nn.bias_add(y, _bias(bias)), True)


def _affine(tf: Any, attributes: Mapping[str, Any], x: Any, kernel: Any, bias: Any = None) -> Held:
    """One of an int8 graph as a convolution of one pixel, as LiteRT's dense layers have one scale for all outputs."""
    value, added = _plain(x).value, None if bias is None else _bias(bias)
    if not isinstance(kernel, Whole):
        y = tf.linalg.matmul(value, kernel.value)
        return Held(y if added is None else tf.nn.bias_add(y, added))
    weights = _rounded(tf, kernel, kernel.held.value[None, None])
    y = tf.nn.conv2d(value[:, None, None, :], weights, 1, "VALID")
    y = y if added is None else tf.nn.bias_add(y, added)
    return Held(tf.reshape(y, (-1, weights.shape[3])))


def _rounded(tf: Any, kernel: Whole, value: np.ndarray) -> Any:
    """The kernel of an int8 graph, its outputs last, with its rounding told to LiteRT's converter."""
    most = np.asarray(kernel.scale * np.float32(127))
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(value), -most, most, num_bits=8, narrow_range=True
    )


def _bias(bias: Any) -> np.ndarray:
    return np.asarray(_plain(bias).value, np.float32)


def _quantize(tf: Any, attributes: Mapping[str, Any], x: Held, scale: Held, zero: Held) -> Whole:
    ends = np.iinfo(zero.value.dtype)
    low, high = (float(scale.value) * (int(end) - int(zero.value)) for end in (ends.min, ends.max))
    y = tf.quantization.fake_quant_with_min_max_args(x.value, low, high, num_bits=8)
    return Whole(Held(y, x.first), scale.value)


def _dequantize(tf: Any, attributes: Mapping[str, Any], x: Any, scale: Held, zero: Held) -> Whole:
    if isinstance(x, Whole):
        return x
    axis, step = attributes.get("axis"), scale.value
    shape = [-1 if place == axis else 1 for place in range(x.value.ndim)]
    value = x.value.astype(np.float32) * (step.reshape(shape) if step.ndim else step)
    return Whole(Held(value), step)


def _max_pool(tf: Any, attributes: Mapping[str, Any], x: Held, edge: float) -> Held:
    """`edge`: what lies around the image; 0 leaves the range of an image without negative values as it is."""
    window, strides = attributes["kernel_shape"], attributes["strides"]
    value, padding = _edges(tf, x.value, window, strides, attributes["pads"], edge)
    return Held(tf.nn.max_pool2d(value, window, strides, padding), True)


def _average_pool(tf: Any, attributes: Mapping[str, Any], x: Any) -> Held:
    pads = attributes["pads"]
    edges = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
    value = _plain(x).value
    value = tf.pad(value, edges) if any(pads) else value
    return Held(tf.nn.avg_pool2d(value, attributes["kernel_shape"], attributes["strides"], "VALID"), True)


def _reshape(tf: Any, attributes: Mapping[str, Any], x: Any, sizes: Held) -> Held:
    value = _in_order(tf, x)
    batch = tf.shape(value)[0]
    return Held(tf.reshape(value, [batch if size == 0 else int(size) for size in sizes.value]))


def _expand(tf: Any, attributes: Mapping[str, Any], x: Any, sizes: Held) -> Held:
    value = _in_order(tf, x)
    return Held(tf.broadcast_to(value, tf.broadcast_dynamic_shape(tf.shape(value), np.asarray(sizes.value, np.int32))))


def _axis(held: Held, axis: int) -> int:
    return TO_CHANNELS_FIRST[axis] if held.first else axis


def _slice(tf: Any, attributes: Mapping[str, Any], x: Any, *where: Held) -> Held:
    x = _plain(x)
    cuts = [slice(None)] * len(x.value.shape)
    for start, end, axis, step in zip(*(each.value.tolist() for each in where), strict=True):
        cuts[_axis(x, axis)] = slice(start, end, step)
    return Held(x.value[tuple(cuts)], x.first)


def _pad(tf: Any, attributes: Mapping[str, Any], x: Any, pads: Held, value: Held) -> Held:
    x = _plain(x)
    pairs = np.asarray(pads.value).reshape(2, -1).T
    edges = np.zeros_like(pairs)
    for axis, pair in enumerate(pairs):
        edges[_axis(x, axis)] = pair
    filled = value.value if np.isfinite(value.value) else np.float32(_LEAST)
    return Held(tf.pad(x.value, edges.astype(np.int32), constant_values=filled), x.first)


def _reduced(name: str) -> Callable[..., Held]:
    def reduce(tf: Any, attributes: Mapping[str, Any], x: Any, axes: Held) -> Held:
        x = _plain(x)
        return Held(getattr(tf, name)(x.value, [_axis(x, int(axis)) for axis in axes.value]))

    return reduce


def _transpose(tf: Any, attributes: Mapping[str, Any], x: Any) -> Any:
    held, order = _plain(x), tuple(attributes["perm"])
    if order == (TO_CHANNELS_LAST if held.first else TO_CHANNELS_FIRST):
        turned = Held(held.value, not held.first)
        return x._replace(held=turned) if isinstance(x, Whole) else turned
    return Held(tf.transpose(_in_order(tf, held), order))


def _concat(tf: Any, attributes: Mapping[str, Any], *parts: Any) -> Held:
    held = [_plain(each) for each in parts]
    return Held(tf.concat([each.value for each in held], _axis(held[0], attributes["axis"])), held[0].first)


def _cast(tf: Any, attributes: Mapping[str, Any], x: Any) -> Held:
    x = _plain(x)
    return Held(tf.cast(x.value, _TYPES[attributes["to"]]), x.first)


def _arg_max(tf: Any, attributes: Mapping[str, Any], x: Any) -> Held:
    return Held(tf.math.argmax(_in_order(tf, x), attributes["axis"]))


def _einsum(tf: Any, attributes: Mapping[str, Any], *given: Any) -> Held:
    """TensorFlow's does not repeat sizes of 1, so constants are made as large as they have to be."""
    equation = attributes["equation"]
    equation = equation.decode() if isinstance(equation, bytes) else equation
    values, axes = [_in_order(tf, each) for each in given], equation.partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for value, letters in zip(values, axes, strict=True):
        sizes |= {letter: size for letter, size in zip(letters, value.shape, strict=True) if size != 1}
    for number, (value, letters) in enumerate(zip(values, axes, strict=True)):
        if isinstance(value, np.ndarray):
            values[number] = np.broadcast_to(value, [sizes.get(letter, 1) for letter in letters])
    return Held(tf.einsum(equation, *values))


_OPERATORS: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": lambda tf, attributes, x, *more: _quantize(tf, attributes, _plain(x), *more),
    "DequantizeLinear": _dequantize,
    "Conv": _convolve,
    "Gemm": _affine,
    "MatMul": _affine,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Reshape": _reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Pad": _pad,
    "ReduceSum": _reduced("reduce_sum"),
    "ReduceMax": _reduced("reduce_max"),
    "Transpose": _transpose,
    "Concat": _concat,
    "Cast": _cast,
    "ArgMax": _arg_max,
    "Einsum": _einsum,
}
