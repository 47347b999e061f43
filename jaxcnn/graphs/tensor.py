"""Values of a trace while it becomes a graph, and their layouts: channels last, as in JAX, or first, as in ONNX."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.graphs.constants import BATCH, Constant
from jaxcnn.graphs.graph import Graph

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
DTYPES = {"float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int32": 6, "int64": 7, "bool": 9, "float16": 10}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that depends on the input: its name in the graph, its shape, and whether its channels come first there.

    The shape is that of JAX, with the channels last and a batch size of `BATCH`.
    """

    name: str
    shape: tuple[int, ...]
    channels_first: bool = False


Value = Tensor | Constant  # a constant may have sizes of 1 where it is the same along an axis


def of_batch(size: int) -> bool:
    """Whether this size of a shape is the number of images, or of as many things for each image."""
    return size > 0 and size % BATCH == 0


class Layouts:
    """A graph, to which operators are added in either layout."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def channels_first(self, tensor: Tensor) -> Tensor:
        """The tensor with its channels before rows and columns."""
        if tensor.channels_first:
            return tensor
        return Tensor(self.graph.add("Transpose", tensor.name, perm=list(TO_CHANNELS_FIRST)), tensor.shape, True)

    def channels_last(self, tensor: Tensor) -> Tensor:
        """The tensor in the order of JAX."""
        if not tensor.channels_first:
            return tensor
        return Tensor(self.graph.add("Transpose", tensor.name, perm=list(TO_CHANNELS_LAST)), tensor.shape)

    def repeated(self, value: Value, shape: Sequence[int]) -> Value:
        """A value of this shape, which so far may have sizes of 1 where it is the same along an axis."""
        if not isinstance(value, Tensor) or value.shape == tuple(shape) or value.channels_first:
            return value
        sizes = [1 if of_batch(size) else size for size in shape]
        return Tensor(self.graph.add("Expand", value.name, self.whole_numbers(sizes)), tuple(shape))

    def whole_numbers(self, values: Any) -> str:
        """The name of a constant of int64, as sizes and places are."""
        return self.graph.constant(values, np.int64)

    def _aligned(self, given: Sequence[Value]) -> tuple[list[str], bool]:
        """The names of values in one layout: channels first if a tensor has them so."""
        first = any(isinstance(each, Tensor) and each.channels_first for each in given)
        names = []
        for each in given:
            if isinstance(each, Tensor):
                names.append((self.channels_first(each) if first else each).name)
            else:
                names.append(self.graph.constant(each.transpose(TO_CHANNELS_FIRST) if first and each.ndim else each))
        return names, first

    def _axis(self, tensor: Tensor, axis: int) -> int:
        return TO_CHANNELS_FIRST.index(axis) if tensor.channels_first else axis
