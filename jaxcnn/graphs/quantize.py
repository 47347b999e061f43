"""Turns the products of a graph into int8: QuantizeLinear and DequantizeLinear around convolutions and dense layers.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
arXiv 1712.05877: weights are symmetric with one scale per output channel, activations (uint8) have one scale and zero
point per tensor, biases are int32 with the product of both scales. A runtime computes an operator between a
DequantizeLinear and a QuantizeLinear in integers, or else with the same result in float32. So neither stands between
a product and the ReLU after it, nor after the last products, such as the logits.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int8

from jaxcnn.config import UserError
from jaxcnn.graphs.graph import Graph, Node

LEVELS = 255  # steps of an activation: uint8, because ONNX Runtime on x86 fuses more operators of uint8 than of int8
PRODUCTS = ("Conv", "Gemm", "MatMul")
MOVES = ("MaxPool", "Reshape", "Transpose", "Slice", "Pad")  # operators whose results are values of their input, or 0
LIMITS = ("Relu", "Clip")
JOINS = ("Add", "Concat")
_LARGEST_BIAS = 2.0**30


@dataclasses.dataclass(frozen=True)
class Range:
    """The smallest and largest value that the uint8 of a tensor can represent; values outside are clipped."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """The distance between two neighbouring values; 0 is always one of the values."""
        return np.float32(max(self._ends()[1] - self._ends()[0], 1e-30) / LEVELS)

    @property
    def zero(self) -> int:
        """The zero point: the uint8 code of 0."""
        return int(np.clip(np.rint(-self._ends()[0] / self.scale), 0, LEVELS))

    def _ends(self) -> tuple[float, float]:
        return min(self.low, 0.0), max(self.high, 0.0)


def most_of(bits: int) -> int:
    """The largest code of a weight: 127 for int8; the smallest is its negative."""
    return 2 ** (bits - 1) - 1


def int8_of(
    kernel: Float[np.ndarray, "..."], axis: int, bits: int = 8
) -> tuple[Int8[np.ndarray, "..."], Float[np.ndarray, " c"]]:
    """A kernel as int8 codes, within ±`most_of(bits)`, and the scale of each channel along `axis`."""
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    largest = np.abs(kernel).max(axis=others).astype(np.float32)
    scales = np.where(largest > 0, largest, 1) / np.float32(most_of(bits))
    shape = [-1 if each == axis else 1 for each in range(kernel.ndim)]
    return np.rint(kernel / scales.reshape(shape)).astype(np.int8), scales.astype(np.float32)


def places(graph: Graph) -> dict[str, str]:
    """The tensors that become uint8, each with the name of the tensor whose range it shares, usually its own.

    Raises:
      UserError: the graph has no product with constant weights.
    """
    products = [node for node in graph.nodes if has_weights(graph, node)]
    if not products:
        raise UserError("this network has no convolution or dense layer that can be int8; leave --quantize out")
    wanted = {node.inputs[0] for node in products}
    made = {node.output for node in graph.nodes}
    found = {name: name for name in wanted if name not in made}
    before = _before_products(graph)
    for node in graph.nodes:
        source = _source(graph, node, found)
        if node.output in before and (source or node.output in wanted):
            found[node.output] = source or node.output
    return found


def _before_products(graph: Graph) -> set[str]:
    """The tensors that some product depends on, directly or through other operators."""
    found = set[str]()
    for node in reversed(graph.nodes):
        if has_weights(graph, node) or node.output in found:
            found.update(node.inputs)
    return found


def sources(graph: Graph) -> list[str]:
    """The tensors whose ranges `quantized` needs, in the order of their computation."""
    return list(dict.fromkeys(places(graph).values()))


def output_axis(node: Node) -> int:
    """The axis of the output channels in a product's kernel."""
    return 0 if node.op == "Conv" else 1


def has_weights(graph: Graph, node: Node) -> bool:
    """Whether a node is a product whose kernel and bias are constants."""
    return node.op in PRODUCTS and all(name in graph.constants for name in node.inputs[1:])


def _source(graph: Graph, node: Node, found: Mapping[str, str]) -> str | None:
    """The tensor whose range the output of a node shares; None if the output should stay float32."""
    users = [other for other in graph.nodes if node.output in other.inputs]
    if len(users) == 1 and users[0].op in LIMITS and (node.op in JOINS or has_weights(graph, node)):
        return None  # runtimes fuse the two into one operator
    tensors = [name for name in node.inputs if name not in graph.constants]
    if node.op in MOVES and node.inputs[0] in found:
        other = node.op == "Pad" and np.any(graph.constants[node.inputs[2]])
        return None if other else found[node.inputs[0]]
    if has_weights(graph, node):
        return node.output
    if node.op in JOINS and len(tensors) == len(node.inputs) and all(name in found for name in tensors):
        return node.output
    before = graph.maker(node.inputs[0])
    if node.op in LIMITS and before is not None and node.inputs[0] not in found:
        joined = before.op in JOINS and all(name in found for name in before.inputs)
        return node.output if joined or has_weights(graph, before) else None
    return None


def without_empty_pads(graph: Graph) -> None:
    """Remove paddings of size 0: behind one, no runtime computes a sum in integers."""
    for node in [node for node in graph.nodes if node.op == "Pad"]:
        if not np.any(graph.constants[node.inputs[1]]):
            graph.replace(node, node.inputs[0])


def quantized(graph: Graph, ranges: Mapping[str, Range], bits: int = 8) -> Graph:
    """A new graph whose products are int8.

    Args:
      graph: a graph of float32 operators, with BatchNorm folded.
      ranges: the range of each of `sources`.
      bits: bits of the weights; with fewer than 8, they are still stored as int8.
    """
    where, new = places(graph), Graph(output=graph.output)
    new.constants = dict(graph.constants)
    now = {name: _quantize(new, name, ranges[source]) for name, source in where.items() if not graph.maker(name)}
    for node in graph.nodes:
        inputs = [now.get(name, name) for name in node.inputs]
        if has_weights(graph, node):
            inputs[1:] = _weights(new, node, ranges[where[node.inputs[0]]], bits)
        new.nodes.append(dataclasses.replace(node, inputs=inputs))
        if node.output in where:
            now[node.output] = _quantize(new, node.output, ranges[where[node.output]])
    used = {name for node in new.nodes for name in node.inputs}
    new.constants = {name: value for name, value in new.constants.items() if name in used}
    return new


def _quantize(graph: Graph, name: str, within: Range) -> str:
    scale, zero = graph.constant(within.scale, np.float32), graph.constant(within.zero, np.uint8)
    return graph.add("DequantizeLinear", graph.add("QuantizeLinear", name, scale, zero), scale, zero)


def _weights(graph: Graph, node: Node, within: Range, bits: int) -> list[str]:
    """Add a product's kernel as int8 and its bias, if any, as int32; return the names of both after dequantization."""
    kernel = graph.constants[node.inputs[1]]
    axis = output_axis(node)
    codes, scales = int8_of(kernel, axis, bits)
    names = []
    if len(node.inputs) == 3:
        bias = graph.constants[node.inputs[2]].astype(np.float64).reshape(-1)
        least = (np.abs(bias) / _LARGEST_BIAS / within.scale).astype(np.float32)
        if np.any(least > scales):  # weights so small beside the bias that its code would overflow int32
            scales = np.maximum(scales, least)
            shape = [-1 if each == axis else 1 for each in range(kernel.ndim)]
            codes = np.rint(kernel / scales.reshape(shape)).astype(np.int8)
        of_bias = (scales * within.scale).astype(np.float32)
        whole = np.rint(bias / of_bias).astype(np.int32)
        zeros = graph.constant(np.zeros(len(whole), np.int32))
        names = [graph.add("DequantizeLinear", graph.constant(whole), graph.constant(of_bias), zeros, axis=0)]
    zeros = graph.constant(np.zeros(len(scales), np.int8))
    return [graph.add("DequantizeLinear", graph.constant(codes), graph.constant(scales), zeros, axis=axis), *names]
