"""A graph that rounds weights and activations as int8 does but computes in float32, for quantization-aware training.

Jacob et al. 2018, arXiv 1712.05877, section 3: training sees the rounding of inference in the tensors that inference
rounds. Gradients pass the rounding unchanged (the straight-through estimator of Bengio et al. 2013, arXiv
1308.3432); activations outside their range get no gradient. Tensors and arithmetic are those of
`jaxcnn.graphs.quantize` to the bit: products are sums of whole numbers, exact in float32 up to 2^24.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxcnn.graphs import quantize
from jaxcnn.graphs.graph import Graph

Values = Float[Array, "..."]
Scalar = Float[Array, ""]
OF_ACTIVATIONS, OF_WEIGHTS = "RoundActivations", "RoundWeights"  # operators that only `in_jax` has


@dataclasses.dataclass(frozen=True)
class Rounded:
    """A tensor as whole numbers times a scale, all float32; gradients pass to the values that were rounded.

    Attributes:
      codes: the whole numbers; 0 stands for the value 0.
      scale: one scale for all values; for weights [channels], along an axis.
      axis: axis of the channels.
    """

    codes: Values
    scale: Values
    axis: int | None = None

    def value(self) -> Values:
        """The values of the tensor: codes times scale."""
        shape = [-1 if axis == self.axis else 1 for axis in range(self.codes.ndim)]
        return self.codes * (self.scale.reshape(shape) if self.scale.ndim else self.scale)


def rounded(graph: Graph, ends: Float[Array, "tensors 2"], bits: int) -> Graph:
    """A new graph, for `in_jax`, that computes in float32 what `quantize.quantized` computes in integers.

    Args:
      graph: a graph of float32 operators, with BatchNorm folded; its weights may be traced.
      ends: the smallest and largest value of each of `quantize.sources`.
      bits: bits of the weights.
    """
    where, new = quantize.places(graph), Graph(output=graph.output, constants=dict(graph.constants))
    numbers = {name: number for number, name in enumerate(quantize.sources(graph))}
    ends = jnp.asarray(ends)

    def rounding(name: str) -> str:
        return new.add(OF_ACTIVATIONS, name, new.constant(ends[numbers[where[name]]]))

    now = {name: rounding(name) for name in where if not graph.maker(name)}
    for node in graph.nodes:
        inputs = [now.get(name, name) for name in node.inputs]
        if quantize.has_weights(graph, node):
            inputs[1] = new.add(OF_WEIGHTS, inputs[1], axis=quantize.output_axis(node), bits=bits)
        new.nodes.append(dataclasses.replace(node, inputs=inputs))
        if node.output in where:
            now[node.output] = rounding(node.output)
    return new


def weights(kernel: Values, axis: int, bits: int = 8) -> Rounded:
    """A kernel rounded as by `quantize.int8_of`."""
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    largest = lax.stop_gradient(jnp.abs(kernel).max(axis=others, keepdims=True))
    scales = _divided(jnp.where(largest > 0, largest, jnp.float32(1)), quantize.most_of(bits))
    exact = kernel / scales
    return Rounded(_straight_through(exact, jnp.round(exact)), scales.reshape(-1), axis)


def activations(x: Values, ends: Float[Array, "2"]) -> Rounded:
    """A tensor rounded as by the uint8 of `quantize.Range`; values outside the range get no gradient.

    A range from 0 to 0 means that nothing is known of the tensor yet: then nothing is rounded.
    """
    scale, zero = scale_and_zero(*lax.stop_gradient(ends))
    known = ends[1] > ends[0]
    exact = x / scale
    unlimited = jnp.round(exact) + zero
    codes = jnp.clip(unlimited, 0, quantize.LEVELS)
    rounded = _straight_through(exact, codes - zero, codes == unlimited)
    return Rounded(jnp.where(known, rounded, x), jnp.where(known, scale, jnp.float32(1)))


def scale_and_zero(low: Scalar, high: Scalar) -> tuple[Scalar, Scalar]:
    """The scale and the zero point of a range of two float32, as in `quantize.Range`."""
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = _divided(jnp.maximum(high - low, jnp.float32(1e-30)), quantize.LEVELS)
    return scale, jnp.clip(jnp.round(-low / scale), 0, quantize.LEVELS)


def _divided(positive: Values, number: int) -> Values:
    """Positive values over a number that the compiler must not know: it would multiply by the rounded inverse."""
    return positive / jnp.where(positive > 0, jnp.float32(number), jnp.float32(1))


def scaled(sums: Values, x: Rounded, kernel: Rounded, bias: Values | None, shape: tuple[int, ...]) -> Values:
    """The result of a product from sums of products of codes, with the bias rounded as int32.

    The exporter's result is coarser only where weights are so small beside their bias that int32 would overflow.
    """
    scale = x.scale * kernel.scale
    if bias is not None:
        exact = bias.reshape(-1) / lax.stop_gradient(scale)
        sums = sums + _straight_through(exact, jnp.round(exact)).reshape(shape)
    return sums * scale.reshape(shape)


def _straight_through(x: Values, value: Values, passes: Bool[Array, "..."] | None = None) -> Values:
    """Returns `value` to the bit, with the gradient of `x` where `passes` is True."""
    nothing = x - lax.stop_gradient(x)  # 0, or NaN where x is not finite
    return lax.stop_gradient(value) + (nothing if passes is None else jnp.where(passes, nothing, jnp.float32(0)))
