"""Finds the channels of a network that must be removed together, by following each channel through a trace.

A removed output channel of a layer is also a removed input of the layers that read it, and where layers are added, as
at the end of residual blocks, the same channel of all of them. Fang et al. 2023, "DepGraph", arXiv:2301.12900, have
such groups for PyTorch. Here every axis of every array of the trace has a label for each place on it, and an operation
that reads two places together ties their labels: tied labels are one channel. An operation whose effect on an axis is
not known below holds the channels of this axis: they stay in the network.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Int

from jaxcnn.learn.network import network
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.models import context
from jaxcnn.train import seals

HELD = 0  # the label of what always stays, such as rows, columns and the channels of the image
Axis = Int[np.ndarray, " n"] | None  # a label for each place; None if the value is the same at all places
Axes = tuple[Axis, ...]

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")
_PLACE_BY_PLACE = (
    *("abs", "add", "add_any", "and", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "div", "eq"),
    *("erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic"),
    *("lt", "max", "min", "mul", "ne", "neg", "not", "optimization_barrier", "or", "pow", "reduce_precision", "rsqrt"),
    *("select_n", "sharding_constraint", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tanh"),
)
_REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
_WINDOWS = ("reduce_window_max", "reduce_window_sum", "reduce_window_min", "reduce_window")


@dataclasses.dataclass(frozen=True)
class Group:
    """Channels of layers that are joined: they are on the same axes of the same arrays.

    Attributes:
      places: pairs (array, axis), such as ("params/conv1/kernel", 3).
      channels: numbers of the channels.
    """

    places: tuple[tuple[str, int], ...]
    channels: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Joins:
    """The channels of the arrays of a network.

    Attributes:
      of: number of the channel at each place of each axis, by the name of the array; `HELD` where it stays.
    """

    of: dict[str, tuple[Int[np.ndarray, " n"], ...]]

    def groups(self) -> list[Group]:
        """The channels that can be removed, grouped by the axes on which they are."""
        places: dict[int, list[tuple[str, int]]] = {}
        for name, axes in self.of.items():
            for axis, numbers in enumerate(axes):
                for channel in dict.fromkeys(numbers[numbers != HELD].tolist()):
                    places.setdefault(channel, []).append((name, axis))
        found: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for channel, where in places.items():
            found.setdefault(tuple(where), []).append(channel)
        return [Group(where, tuple(channels)) for where, channels in found.items()]

    def without(self, arrays: dict[str, np.ndarray], channels: set[int]) -> dict[str, np.ndarray]:
        """The arrays without some channels."""
        leave = np.array(sorted(channels), np.int64)
        made = {}
        for name, array in arrays.items():
            for axis, labels in enumerate(self.of[name]):
                keep = ~np.isin(labels, leave)
                array = array if keep.all() else np.compress(keep, array, axis)
            made[name] = array
        return made


def of(spec: StepSpec) -> Joins:
    """The channels of the network of a spec, found by tracing alone."""
    model = network(spec)
    image = jax.ShapeDtypeStruct((2, *spec.image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    names = [name for name, _ in seals.leaves(variables)]
    with context.portable():
        closed = jax.make_jaxpr(model.apply)(variables, image)
    trace = _Trace()
    leaves = jax.tree.leaves(variables)
    labels = [tuple(trace.new(size) for size in leaf.shape) for leaf in leaves]
    for result in trace.run(closed.jaxpr, closed.consts, [*labels, _held(image.shape)]):
        trace.hold(result)
    numbers = trace.channels()
    return Joins({name: tuple(numbers[axis] for axis in axes) for name, axes in zip(names, labels, strict=True)})


def _held(shape: Sequence[int]) -> Axes:
    return tuple(np.full(size, HELD) for size in shape)


def _is_held(axis: Axis) -> bool:
    return axis is None or bool(np.all(axis == HELD))


class _Trace:
    def __init__(self) -> None:
        self.count = HELD + 1
        self.tied: list[tuple[np.ndarray, np.ndarray]] = []

    def new(self, size: int) -> Int[np.ndarray, " n"]:
        """New labels, which no other axis has."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def tie(self, one: Axis, other: Axis) -> Axis:
        """Tie the labels of an axis that two values share; return the labels."""
        if one is None or other is None:
            return other if one is None else one
        if one is not other:
            self.tied.append((one, other))
        return one

    def hold(self, axes: Axes) -> None:
        """Hold all channels of a value, which then stay in the network."""
        for axis in axes:
            if axis is not None:
                self.tied.append((axis, np.full(len(axis), HELD)))

    def channels(self) -> Int[np.ndarray, " labels"]:
        """The channel of each label: tied labels have the same channel, and those tied to `HELD` are held."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ones, others = (np.concatenate(each) for each in zip(*self.tied, strict=True))
        graph = coo_array((np.ones(len(ones), np.int8), (ones, others)), shape=(self.count, self.count))
        _, found = connected_components(graph, directed=False)
        return np.where(found == found[HELD], HELD, found + 1)

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Follow the labels through a traced function; return those of its results. An integer is a known number."""
        values: dict[Any, Any] = {
            variable: _held(np.shape(value)) for variable, value in zip(jaxpr.constvars, consts, strict=True)
        }
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value_of(variable: Any) -> Any:
            return (None,) * np.ndim(variable.val) if isinstance(variable, core.Literal) else values[variable]

        for eqn in jaxpr.eqns:
            results = self._results(eqn, [value_of(each) for each in eqn.invars])
            values |= dict(zip(eqn.outvars, results, strict=True))
        return [value_of(each) for each in jaxpr.outvars]

    def _results(self, eqn: Any, given: list[Any]) -> list[Any]:
        name, params, shape = eqn.primitive.name, eqn.params, tuple(eqn.outvars[0].aval.shape)
        if name in _CALLS:
            inner = params.get("call_jaxpr", params.get("jaxpr"))
            whole = hasattr(inner, "consts")
            return self.run(inner.jaxpr if whole else inner, inner.consts if whole else (), given)
        if name == "platform_index":  # the form for any platform
            return [next(i for i, each in enumerate(params["platforms"]) if each is None)]
        if name == "cond" and isinstance(given[0], int):
            chosen = params["branches"][given[0]]
            return self.run(chosen.jaxpr, chosen.consts, given[1:])
        given = [() if isinstance(each, int) else each for each in given]
        if name in _PLACE_BY_PLACE:
            return [self._place_by_place(shape, given)]
        if name in _REDUCTIONS:
            self.hold(tuple(given[0][axis] for axis in params["axes"]))
            return [tuple(each for axis, each in enumerate(given[0]) if axis not in params["axes"])]
        if name in _WINDOWS:
            sides, strides = params["window_dimensions"], params["window_strides"]
            alone = [side == stride == 1 for side, stride in zip(sides, strides, strict=True)]
            return [self._only(given[0], alone, shape)]
        make = getattr(self, f"_{name}", None)
        if make is not None:
            return [make(shape, params | {"sizes": tuple(eqn.invars[0].aval.shape)}, *given)]
        for each in given:
            self.hold(each)
        return [_held(each.aval.shape) for each in eqn.outvars]

    def _only(self, axes: Axes, kept: Sequence[bool], shape: tuple[int, ...]) -> Axes:
        """Keep the labels of some axes, and hold those of the others."""
        self.hold(tuple(axis for axis, keep in zip(axes, kept, strict=True) if not keep))
        return tuple(axis if keep else np.full(size, HELD) for axis, keep, size in zip(axes, kept, shape, strict=True))

    def _place_by_place(self, shape: tuple[int, ...], given: Sequence[Axes]) -> Axes:
        made: list[Axis] = [None] * len(shape)
        for axes in given:
            if len(axes) == len(shape):  # otherwise it is a number
                for i, axis in enumerate(axes):
                    if axis is not None and len(axis) != shape[i]:  # otherwise one value for all places
                        self.hold((axis,))
                    else:
                        made[i] = self.tie(made[i], axis)
        return tuple(made)

    def _broadcast_in_dim(self, shape: tuple[int, ...], params: Any, x: Axes, *_: Any) -> Axes:
        made: list[Axis] = [None] * len(shape)
        for axis, place in zip(x, params["broadcast_dimensions"], strict=True):
            if axis is None or len(axis) == shape[place]:
                made[place] = axis
            else:
                self.hold((axis,))
        return tuple(made)

    def _transpose(self, shape: tuple[int, ...], params: Any, x: Axes) -> Axes:
        return tuple(x[axis] for axis in params["permutation"])

    def _squeeze(self, shape: tuple[int, ...], params: Any, x: Axes) -> Axes:
        self.hold(tuple(x[axis] for axis in params["dimensions"]))
        return tuple(each for axis, each in enumerate(x) if axis not in params["dimensions"])

    def _reshape(self, shape: tuple[int, ...], params: Any, x: Axes, *_: Any) -> Axes:
        """The labels after a reshape: axes that are joined keep the channel of each place; what is cut is held."""
        sizes, made = params["sizes"], []
        i = j = 0
        while i < len(x) or j < len(shape):  # the fewest axes of both shapes that have equally many places
            start, begin, inside, outside = i, j, 1, 1
            while inside != outside or (i, j) == (start, begin):
                if j == len(shape) or (i < len(x) and inside <= outside):
                    inside, i = inside * sizes[i], i + 1
                else:
                    outside, j = outside * shape[j], j + 1
            axes = x[start:i]
            if j - begin == 1:
                made.append(self._merged(axes, sizes[start:i]))
                continue
            if not all(map(_is_held, axes)):
                self.hold(axes)
            made += [None if axes and all(axis is None for axis in axes) else np.full(n, HELD) for n in shape[begin:j]]
        return tuple(made)

    def _merged(self, axes: Axes, sizes: Sequence[int]) -> Axis:
        if axes and all(axis is None for axis in axes):
            return None
        real = [number for number, axis in enumerate(axes) if not _is_held(axis)]
        if len(real) > 1:
            self.hold(axes)
        if len(real) != 1:
            return np.full(math.prod(sizes), HELD)
        (number,) = real
        wide = [size if each == number else 1 for each, size in enumerate(sizes)]
        return np.broadcast_to(np.reshape(axes[number], wide), sizes).reshape(-1)  # type: ignore[arg-type]

    def _slice(self, shape: tuple[int, ...], params: Any, x: Axes) -> Axes:
        return self._only(x, [axis is None or len(axis) == size for axis, size in zip(x, shape, strict=True)], shape)

    def _rev(self, shape: tuple[int, ...], params: Any, x: Axes) -> Axes:
        return self._only(x, [axis not in params["dimensions"] for axis in range(len(x))], shape)

    def _concatenate(self, shape: tuple[int, ...], params: Any, *given: Axes) -> Axes:
        along = params["dimension"]
        made = list(
            self._place_by_place(shape, [tuple(None if i == along else a for i, a in enumerate(x)) for x in given])
        )
        parts = [x[along] for x in given]
        if any(part is None for part in parts):
            self.hold(tuple(parts))
            made[along] = np.full(shape[along], HELD)
        else:
            made[along] = np.concatenate(parts)
        return tuple(made)

    def _pad(self, shape: tuple[int, ...], params: Any, x: Axes, _: Axes) -> Axes:
        return tuple(
            self._padded(axis, edges, size)
            for axis, edges, size in zip(x, params["padding_config"], shape, strict=True)
        )

    def _padded(self, axis: Axis, edges: tuple[int, int, int], size: int) -> Axis:
        """The labels of an axis with labels for zeros before and after it.

        Networks add half of the zeros on each side, as in shortcuts without parameters: so one of each
        side are removed together.
        """
        low, high, inside = edges
        if not any(edges):
            return axis
        if _is_held(axis) or inside or not 0 <= low <= high <= low + 1:
            self.hold((axis,))
            return np.full(size, HELD)
        before, after = self.new(low), self.new(high)
        self.tie(before, after[:low])
        return np.concatenate([before, axis, after])

    def _dot_general(self, shape: tuple[int, ...], params: Any, x: Axes, y: Axes) -> Axes:
        (over_x, over_y), (batch_x, batch_y) = params["dimension_numbers"]
        for one, other in zip(over_x, over_y, strict=True):
            if (x[one] is None) != (y[other] is None):
                self.hold((x[one], y[other]))
            self.tie(x[one], y[other])
        both = [self.tie(x[one], y[other]) for one, other in zip(batch_x, batch_y, strict=True)]
        of_x = [axis for i, axis in enumerate(x) if i not in (*over_x, *batch_x)]
        of_y = [axis for i, axis in enumerate(y) if i not in (*over_y, *batch_y)]
        return (*both, *of_x, *of_y)

    def _conv_general_dilated(self, shape: tuple[int, ...], params: Any, x: Axes, kernel: Axes) -> Axes:
        numbers = params["dimension_numbers"]
        batch, inputs, *_ = (x[axis] for axis in numbers.lhs_spec)
        outputs, seen, *sides = (kernel[axis] for axis in numbers.rhs_spec)
        self.hold((*sides, *(x[axis] for axis in numbers.lhs_spec[2:])))
        groups = params["feature_group_count"] if params["batch_group_count"] == 1 and inputs is not None else 0
        if groups == 1:
            self.tie(inputs, seen)
        elif groups == len(outputs) == (0 if inputs is None else len(inputs)):  # depthwise: a filter for each channel
            self.hold((seen,))
            self.tie(inputs, outputs)
        else:
            self.hold((batch, inputs, seen, outputs))
        made: list[Axis] = [np.full(size, HELD) for size in shape]
        made[numbers.out_spec[0]], made[numbers.out_spec[1]] = batch, outputs
        return tuple(made)
