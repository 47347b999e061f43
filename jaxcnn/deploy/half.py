"""A graph in float16 from its first convolution or dense layer on; images are normalised in float32 before it."""

import dataclasses

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.graphs.graph import Graph, Node
from jaxcnn.graphs.quantize import PRODUCTS

_FLOAT32, _FLOAT16 = 1, 10  # of ONNX


def halved(graph: Graph) -> Graph:
    """A new graph, whose weights and activations are float16, and whose result is float32 again.

    Raises:
      UserError: a weight is too large for float16.
    """
    new, halves = Graph(), set[str]()
    new.constants = dict(graph.constants)
    known: dict[str, str] = {}

    def half(name: str) -> str:
        """The name of a float32 tensor or constant as float16."""
        value = graph.constants.get(name)
        if name in halves or (value is not None and value.dtype != np.float32):
            return name
        if name not in known:
            if value is None:
                known[name] = f"half_of_{name}"
                new.nodes.append(Node("Cast", [name], known[name], {"to": _FLOAT16}))
            elif np.abs(value[np.isfinite(value)]).max(initial=0) > np.finfo(np.float16).max:
                raise UserError("this network has numbers above 65504, which float16 cannot hold; use --quantize=int8")
            else:
                known[name] = new.constant(value, np.float16)
        return known[name]

    for node in graph.nodes:
        is_half = node.op in PRODUCTS or any(name in halves for name in node.inputs)
        if is_half and node.op == "Cast" and node.attributes["to"] == _FLOAT32:
            node = dataclasses.replace(node, attributes={"to": _FLOAT16})
        inputs = [half(name) for name in node.inputs] if is_half else node.inputs
        new.nodes.append(dataclasses.replace(node, inputs=inputs))
        if is_half:
            halves.add(node.output)
    new.output = graph.output
    if graph.output in halves:
        new.output = f"whole_of_{graph.output}"
        new.nodes.append(Node("Cast", [graph.output], new.output, {"to": _FLOAT32}))
    used = {name for node in new.nodes for name in node.inputs}
    new.constants = {name: value for name, value in new.constants.items() if name in used}
    return new
