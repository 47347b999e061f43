"""From a function of JAX to a graph of ONNX operators.

The function is traced, and each primitive of the trace becomes operators; what depends on constants alone is computed
here. ONNX has the channels of images before rows and columns, so a tensor of four dimensions is kept so from its first
convolution on, and turned back only where the order of its values is seen.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxcnn.config import UserError
from jaxcnn.graphs import constants
from jaxcnn.graphs.constants import BATCH
from jaxcnn.graphs.graph import Graph
from jaxcnn.graphs.of_objects import CALLS, Objects
from jaxcnn.graphs.tensor import DTYPES, TO_CHANNELS_FIRST, Tensor, Value, of_batch

_NHWC = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # dimension numbers of a convolution of our layers
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")
_SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint", "reduce_precision")
_BROADCASTING = ("broadcast_in_dim", "select_n", "clamp", "ne")  # their operators repeat sizes of 1 by themselves
_UNARY = {
    "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "erf": "Erf",
    "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "not": "Not",
}  # fmt: skip
_BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow",
    "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual", "eq": "Equal", "and": "And", "or": "Or",
}  # fmt: skip
_ONE_BY_ONE = {*_UNARY, *_BINARY, "rsqrt", "ne", "select_n", "integer_pow", "square"}


def lower(
    function: Callable[..., Any], image: jax.ShapeDtypeStruct, name: str, variables: Sequence[jax.Array] = ()
) -> Graph:
    """The graph of a function of images, for any batch size.

    Args:
      function: a function of one array and `variables`, with one array as its result.
      image: shape and type of one image.
      name: name of the input in the graph.
      variables: arrays that may be traced; then the constants of the graph that depend on them are, too.

    Raises:
      UserError: it has an operation that has no operator here.
    """
    graph = Graph(output=name)
    go_on(graph, function, image, variables)
    return graph


def go_on(
    graph: Graph, function: Callable[..., Any], outputs: jax.ShapeDtypeStruct, variables: Sequence[jax.Array] = ()
) -> None:
    """Add a function of the result of a graph, whose result is then that of the function.

    Args:
      graph: is changed.
      function, variables: as for `lower`.
      outputs: shape for one image, and type, of the result so far.

    Raises:
      UserError: it has an operation that has no operator here.
    """
    # A symbolic batch size would do, but then JAX has general gathers in the place of slices.
    given = jax.ShapeDtypeStruct((BATCH, *outputs.shape), outputs.dtype)
    closed = jax.make_jaxpr(function)(given, *(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in variables))
    lowering = _Lowering(graph)
    (result,) = lowering.run(closed.jaxpr, closed.consts, [Tensor(graph.output, given.shape), *variables])
    if not isinstance(result, Tensor):
        raise UserError("the outputs of this network do not depend on the image, so there is no graph to write")
    graph.output = lowering.channels_last(result).name


class _Lowering(Objects):
    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """The values of the results of a traced function."""
        values: dict[Any, Value] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value_of(variable: Any) -> Value:
            literal = isinstance(variable, core.Literal)
            return np.asarray(variable.val, variable.aval.dtype) if literal else values[variable]

        for eqn in _needed(jaxpr):
            given = [value_of(each) for each in eqn.invars]
            values |= dict(zip(eqn.outvars, self._results(eqn, given), strict=True))
        return [value_of(each) for each in jaxpr.outvars]

    def _results(self, eqn: Any, given: list[Value]) -> list[Value]:
        name, shape = eqn.primitive.name, tuple(eqn.outvars[0].aval.shape)
        if name in _CALLS and eqn.params.get("name") in CALLS:
            return self._operator(eqn.params["name"], eqn, given, shape)
        if name in _CALLS:
            inner = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
            whole = hasattr(inner, "consts")
            return self.run(inner.jaxpr if whole else inner, inner.consts if whole else (), given)
        if name in _SAME:
            return given
        if name == "platform_index":
            return [np.asarray(next(i for i, each in enumerate(eqn.params["platforms"]) if each is None))]
        if name == "cond" and isinstance(given[0], np.ndarray):
            chosen = eqn.params["branches"][int(given[0])]
            return self.run(chosen.jaxpr, chosen.consts, given[1:])
        known = [each for each in given if not isinstance(each, Tensor)]
        if len(known) == len(given):
            if name == "broadcast_in_dim":
                return [constants.placed(known[0], shape, eqn.params["broadcast_dimensions"])]
            return [*constants.computed(eqn, known, name in _ONE_BY_ONE)]
        return self._operator(name, eqn, given, shape)

    def _operator(self, name: str, eqn: Any, given: list[Any], shape: tuple[int, ...]) -> list[Value]:
        if name in _UNARY:
            return [self._like(_UNARY[name], given[0])]
        if name in _BINARY:
            return [self._elementwise(_BINARY[name], shape, *given)]
        make = getattr(self, f"_{name}", None)
        if make is None:
            raise UserError(
                f"this network has the operation {name!r}, which cannot be written as ONNX; use --format=stablehlo"
            )
        if name not in _BROADCASTING:
            given = [self.repeated(each, var.aval.shape) for each, var in zip(given, eqn.invars, strict=True)]
        made = make(shape, eqn.params, *given)
        return made if isinstance(made, list) else [made]

    # Values one by one

    def _like(self, op: str, tensor: Tensor, *others: str, **attributes: Any) -> Tensor:
        return dataclasses.replace(tensor, name=self.graph.add(op, tensor.name, *others, **attributes))

    def _elementwise(self, op: str, shape: tuple[int, ...], *given: Value) -> Tensor:
        names, first = self._aligned(given)
        return Tensor(self.graph.add(op, *names), shape, first)

    def _ne(self, shape: Any, params: Any, x: Value, y: Value) -> Tensor:
        return self._like("Not", self._elementwise("Equal", shape, x, y))

    def _select_n(self, shape: Any, params: Any, which: Value, no: Value, yes: Value) -> Tensor:
        return self._elementwise("Where", shape, which, yes, no)

    def _clamp(self, shape: Any, params: Any, low: Value, x: Value, high: Value) -> Tensor:
        return self._elementwise("Min", shape, self._elementwise("Max", shape, x, low), high)

    def _rsqrt(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._like("Reciprocal", self._like("Sqrt", x))

    def _square(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._like("Mul", x, x.name)

    def _integer_pow(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._like("Pow", x, self.graph.constant(params["y"], np.float32))

    # ONNX has none of the next three: they are right to float32's rounding of 1, not of what is much smaller.

    def _erfc(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        one = self.graph.constant(1.0, np.float32)
        return self._like("Add", self._like("Neg", self._like("Erf", x)), one)

    def _expm1(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._like("Sub", self._like("Exp", x), self.graph.constant(1.0, np.float32))

    def _log1p(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._like("Log", self._like("Add", x, self.graph.constant(1.0, np.float32)))

    def _convert_element_type(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        kind = str(np.dtype(params["new_dtype"]))
        if kind not in DTYPES:
            raise UserError(f"the type {kind} has no operators in the runtimes of ONNX")
        return self._like("Cast", x, to=DTYPES[kind])

    # Shapes

    def _reshape(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        if not (x.channels_first and x.shape[1:3] == (1, 1)):
            x = self.channels_last(x)
        if not of_batch(shape[0]) or not of_batch(x.shape[0]) or any(map(of_batch, shape[1:])):
            raise UserError("this network reshapes its batch, which cannot be written as ONNX; use --format=stablehlo")
        sizes = [0 if shape[0] == x.shape[0] else -1, *shape[1:]]  # 0: as it was; -1: what is left
        return Tensor(self.graph.add("Reshape", x.name, self.whole_numbers(sizes)), shape)

    _squeeze = _expand_dims = _reshape

    def _broadcast_in_dim(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        sizes = [1] * len(shape)
        for size, place in zip(x.shape, params["broadcast_dimensions"], strict=True):
            sizes[place] = size
        return self._reshape(tuple(sizes), params, x)  # operators repeat sizes of 1 by themselves

    def _transpose(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        x = self.channels_last(x)
        return Tensor(self.graph.add("Transpose", x.name, perm=[int(each) for each in params["permutation"]]), shape)

    def _concatenate(self, shape: Any, params: Any, *given: Value) -> Tensor:
        if not all(isinstance(each, Tensor) for each in given):
            raise UserError("this network joins constants to images, which cannot be written as ONNX here")
        names, first = self._aligned(given)
        axis = self._axis(Tensor("", shape, first), params["dimension"])
        return Tensor(self.graph.add("Concat", *names, axis=axis), shape, first)

    def _stack(self, shape: Any, params: Any, *given: Value) -> Tensor:
        axis = params["axis"]
        alone = (*shape[:axis], 1, *shape[axis + 1 :])
        apart = [self._reshape(alone, params, each) if isinstance(each, Tensor) else each for each in given]
        return self._concatenate(shape, {"dimension": axis}, *apart)

    def _slice(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        starts, ends = params["start_indices"], params["limit_indices"]
        steps = params["strides"] or (1,) * len(starts)
        axes = [i for i, size in enumerate(x.shape) if (starts[i], steps[i]) != (0, 1) or ends[i] != size]
        inputs = ([starts[i] for i in axes], [ends[i] for i in axes], [self._axis(x, i) for i in axes])
        names = [self.graph.constant(each, np.int64) for each in (*inputs, [steps[i] for i in axes])]
        return dataclasses.replace(x, name=self.graph.add("Slice", x.name, *names), shape=shape)

    def _pad(self, shape: Any, params: Any, x: Tensor, value: Value) -> Tensor:
        edges = params["padding_config"]
        if not isinstance(value, np.ndarray) or any(low < 0 or high < 0 or inner for low, high, inner in edges):
            raise UserError("this network pads images in a way that cannot be written as ONNX; use --format=stablehlo")
        if not any(low or high for low, high, _ in edges):
            return x
        places = TO_CHANNELS_FIRST if x.channels_first else range(len(edges))
        pads = [edges[i][0] for i in places] + [edges[i][1] for i in places]
        inputs = (self.graph.constant(pads, np.int64), self.graph.constant(value))
        return dataclasses.replace(x, name=self.graph.add("Pad", x.name, *inputs), shape=shape)

    # Sums over axes, windows and products

    def _reduce(self, op: str, shape: Any, params: Any, x: Tensor) -> Tensor:
        axes = tuple(params["axes"])
        if axes not in ((1, 2), (3,)):
            x = self.channels_last(x)
        where = self.graph.constant([self._axis(x, axis) for axis in axes], np.int64)
        return Tensor(self.graph.add(op, x.name, where, keepdims=0), shape)

    def _reduce_sum(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._reduce("ReduceSum", shape, params, x)

    def _reduce_max(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._reduce("ReduceMax", shape, params, x)

    def _argmax(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        x = self.channels_last(x)
        (axis,) = params["axes"]
        found = self.graph.add("ArgMax", x.name, axis=int(axis), keepdims=0)
        return Tensor(self.graph.add("Cast", found, to=DTYPES[str(np.dtype(params["index_dtype"]))]), shape)

    def _pool(self, op: str, shape: Any, params: Any, x: Tensor, **attributes: Any) -> Tensor:
        window, strides, padding = (params[name] for name in ("window_dimensions", "window_strides", "padding"))
        dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
        if len(window) != 4 or dilated or any(each[i] != 1 for each in (window, strides) for i in (0, 3)):
            raise UserError("this network has windows that cannot be written as ONNX here; use --format=stablehlo")
        x = self.channels_first(x)
        attributes |= {"kernel_shape": list(window[1:3]), "strides": list(strides[1:3])}
        attributes["pads"] = [padding[i][side] for side in (0, 1) for i in (1, 2)]
        return Tensor(self.graph.add(op, x.name, **attributes), shape, True)

    def _reduce_window_max(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        return self._pool("MaxPool", shape, params, x)

    def _reduce_window_sum(self, shape: Any, params: Any, x: Tensor) -> Tensor:
        mean = self._pool("AveragePool", shape, params, x, count_include_pad=1)
        return self._like("Mul", mean, self.graph.constant(np.prod(params["window_dimensions"]), np.float32))

    def _conv_general_dilated(self, shape: Any, params: Any, x: Tensor, kernel: Value) -> Tensor:
        numbers = params["dimension_numbers"]
        plain = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == _NHWC and {*params["lhs_dilation"]} == {1}
        if isinstance(kernel, Tensor) or not plain or params["batch_group_count"] != 1:
            raise UserError("this network has a convolution that cannot be written as ONNX here")
        x = self.channels_first(x)
        weights = self.graph.constant(kernel.transpose(3, 2, 0, 1).astype(np.float32))
        attributes = {
            "kernel_shape": list(kernel.shape[:2]),
            "strides": list(params["window_strides"]),
            "dilations": list(params["rhs_dilation"]),
            "pads": [edges[side] for side in (0, 1) for edges in params["padding"]],
            "group": params["feature_group_count"],
        }
        return Tensor(self.graph.add("Conv", x.name, weights, **attributes), shape, True)

    def _dot_general(self, shape: Any, params: Any, x: Value, y: Value) -> Tensor:
        (over_x, over_y), (batch_x, batch_y) = params["dimension_numbers"]
        if isinstance(x, Tensor) and not isinstance(y, Tensor) and len(x.shape) == y.ndim == 2 and over_x == (1,):
            kernel = y if over_y == (0,) else y.T
            return Tensor(self.graph.add("MatMul", x.name, self.graph.constant(kernel)), shape)
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        of_x = [next(letters) for _ in x.shape]
        of_y = [next(letters) for _ in y.shape]
        for mine, theirs in ((over_x, over_y), (batch_x, batch_y)):
            for one, other in zip(mine, theirs, strict=True):
                of_y[other] = of_x[one]
        free_x = [each for i, each in enumerate(of_x) if i not in (*over_x, *batch_x)]
        free_y = [each for i, each in enumerate(of_y) if i not in (*over_y, *batch_y)]
        equation = f"{''.join(of_x)},{''.join(of_y)}->{''.join([of_x[i] for i in batch_x] + free_x + free_y)}"
        names = [
            self.channels_last(each).name if isinstance(each, Tensor) else self.graph.constant(each) for each in (x, y)
        ]
        return Tensor(self.graph.add("Einsum", *names, equation=equation), shape)


def _needed(jaxpr: Any) -> list[Any]:
    """The steps of a traced function on which its results depend."""
    used = {each for each in jaxpr.outvars if not isinstance(each, core.Literal)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if used.intersection(eqn.outvars):
            used |= {each for each in eqn.invars if not isinstance(each, core.Literal)}
            kept.append(eqn)
    return kept[::-1]
