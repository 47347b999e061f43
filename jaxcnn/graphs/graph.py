"""A small graph of ONNX operators, and rewrites that make it smaller before it is written."""

import dataclasses
from typing import Any

import jax
import numpy as np

AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclasses.dataclass
class Node:
    """An operator of which one output is used (for TopK, the indices)."""

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """The names of all outputs, including those that are not used."""
        return [f"{self.output}_values", self.output] if self.op == "TopK" else [self.output]


@dataclasses.dataclass
class Graph:
    """Nodes in the order of computation, and constants by name. `output` is the name of the result.

    Constants are NumPy arrays. Weights may be JAX arrays, also traced ones; then so is all that is computed from them.
    """

    nodes: list[Node] = dataclasses.field(default_factory=list)
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)
    output: str = ""

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; return the name of its output."""
        number, taken = len(self.nodes), {node.output for node in self.nodes}
        while (output := f"{op.lower()}_{number}") in taken:  # some nodes were removed
            number += 1
        self.nodes.append(Node(op, list(inputs), output, attributes))
        return output

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant, from an array or a value that converts to one; return its name."""
        number = len(self.constants)
        while f"constant_{number}" in self.constants:  # some constants were removed
            number += 1
        name = f"constant_{number}"
        self.constants[name] = value if isinstance(value, jax.Array) else np.array(value, dtype, order="C")
        return name

    def users(self, name: str) -> int:
        """The number of inputs of nodes that have this name; the result of the graph counts as one more."""
        return sum(node.inputs.count(name) for node in self.nodes) + (name == self.output)

    def maker(self, name: str) -> Node | None:
        """The node whose output has this name; None if there is none."""
        return next((node for node in self.nodes if node.output == name), None)

    def replace(self, node: Node, name: str) -> None:
        """Remove a node; whatever read its output reads `name` instead."""
        self.nodes.remove(node)
        for other in self.nodes:
            other.inputs = [name if each == node.output else each for each in other.inputs]
        self.output = name if self.output == node.output else self.output


def simplified(graph: Graph, fold: bool = True) -> Graph:
    """Rewrite a graph in place; its results change only by rounding.

    Padding becomes part of its max-pool; a maximum with 0 becomes a ReLU, and a minimum after it a Clip. With `fold`,
    additions and multiplications by channel after a convolution or a product, such as those of BatchNorm, become part
    of its kernel and bias.
    """
    for node in list(graph.nodes):
        _join_padding(graph, node)
        _name_relu(graph, node)
        _name_clip(graph, node)
    if fold:
        for node in list(graph.nodes):
            if node.op in ("Conv", "MatMul"):
                while _fold_next(graph, node):
                    pass
    for node in graph.nodes:
        if node.op == "MatMul" and len(node.inputs) == 3:
            node.op = "Gemm"
    _drop_unused(graph)
    return graph


def _join_padding(graph: Graph, node: Node) -> None:
    padding = graph.maker(node.inputs[0]) if node.op == "MaxPool" else None
    if padding is None or padding.op != "Pad" or graph.users(padding.output) > 1:
        return
    pads, value = (graph.constants[name] for name in padding.inputs[1:3])
    if value == -np.inf and not np.any(node.attributes["pads"]) and not np.any(pads[[0, 1, 4, 5]]):
        node.attributes["pads"] = [int(pads[i]) for i in (2, 3, 6, 7)]
        graph.replace(padding, padding.inputs[0])


def _name_relu(graph: Graph, node: Node) -> None:
    if node.op == "Max" and len(node.inputs) == 2:
        zeros = [graph.constants[name] for name in node.inputs if name in graph.constants]
        if len(zeros) == 1 and isinstance(zeros[0], np.ndarray) and zeros[0].size == 1 and not zeros[0].any():
            node.op, node.inputs = "Relu", [name for name in node.inputs if name not in graph.constants]


def _name_clip(graph: Graph, node: Node) -> None:
    if node.op == "Min" and len(node.inputs) == 2:
        value, *limits = sorted(node.inputs, key=lambda name: name in graph.constants)
        relu = graph.maker(value)
        if relu is None or relu.op != "Relu" or graph.users(value) > 1 or limits[0] not in graph.constants:
            return
        if graph.constants[limits[0]].size == 1:
            high = graph.constant(graph.constants[limits[0]].reshape(()))
            node.op, node.inputs = "Clip", [relu.output, graph.constant(0, np.float32), high]
            graph.replace(relu, relu.inputs[0])


def _fold_next(graph: Graph, node: Node) -> bool:
    """Fold the node after a convolution or product into it, if that is possible; return whether it was."""
    users = [other for other in graph.nodes if node.output in other.inputs]
    if graph.users(node.output) != 1 or not users or users[0].op not in AFFINE or len(users[0].inputs) != 2:
        return False
    after = users[0]
    first = after.inputs[0] == node.output
    other = graph.constants.get(after.inputs[1 if first else 0])
    kernel = graph.constants.get(node.inputs[1])
    if other is None or kernel is None or (after.op in ("Sub", "Div") and not first):
        return False
    channels = kernel.shape[0] if node.op == "Conv" else kernel.shape[1]
    axis, ndim = (1, 4) if node.op == "Conv" else (1, 2)
    shape = (1,) * (ndim - other.ndim) + other.shape
    if any(size != 1 and place != axis for place, size in enumerate(shape)) or other.size not in (1, channels):
        return False
    values = _wide(other).reshape(-1) * np.ones(channels, other.dtype)
    bias = _wide(graph.constants[node.inputs[2]]) if len(node.inputs) == 3 else np.zeros(channels, values.dtype)
    factor = {"Mul": values, "Div": 1 / values if after.op == "Div" else values}.get(
        after.op, np.ones(channels, values.dtype)
    )
    bias = {"Add": bias + values, "Sub": bias - values}.get(after.op, bias * factor)
    scaled = kernel * (factor[:, None, None, None] if node.op == "Conv" else factor[None, :])
    inputs = [graph.constant(scaled.astype(np.float32)), graph.constant(bias.astype(np.float32))]
    node.inputs = [node.inputs[0], *inputs]
    graph.replace(after, node.output)
    return True


def _wide(values: Any) -> Any:
    """Values as float64; traced arrays keep their type, because they cannot be float64."""
    return values if isinstance(values, jax.Array) else values.astype(np.float64)


def _drop_unused(graph: Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if not graph.users(node.output):
            graph.nodes.remove(node)
    used = {name for node in graph.nodes for name in node.inputs}
    graph.constants = {name: value for name, value in graph.constants.items() if name in used}
