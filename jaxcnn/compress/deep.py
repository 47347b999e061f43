"""Deep Compression of a trained network into one file, with the size and the figures after each step.

Han, Mao & Dally 2016, arXiv 1510.00149: prune (in training, `config.prune`), share weights, code by Huffman. The last
row is measured on what the file decodes to. `begun` makes a run that trains the shared values (`jaxcnn.learn.sharing`).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.compress import codebooks, floors
from jaxcnn.config import Init, Prune, UserError
from jaxcnn.config.layers import Layers, check_patterns, number_of
from jaxcnn.data.batch import Split
from jaxcnn.text import markdown_table
from jaxcnn.train import exported, seals
from jaxcnn.train.trained import Trained
from jaxcnn.weights import compressed
from jaxcnn.weights.shared import Shared, relative

MOST_BITS = 12  # largest number of bits of a shared value: more saves little compared with float16
VALUE_BITS = 32
SHARED_VALUES = "shared values and indices"  # a step
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bits:
    """The bits of the shared values of each layer.

    Attributes:
      convolution, dense: bits for kernels of these kinds; the paper has 8 and 5.
      layers: pairs (pattern of paths, bits), which come first.
    """

    convolution: int = 8
    dense: int = 5
    layers: Layers = ()

    def of(self, path: str, kernel: np.ndarray) -> int:
        """The bits for a kernel."""
        return int(number_of(path, self.layers, self.dense if kernel.ndim == 2 else self.convolution))


@dataclasses.dataclass(frozen=True)
class Row:
    """A step: its name, the bytes of the network after it, those after general coders, and its figures on the split."""

    step: str
    size: int
    coded: dict[str, int]
    figures: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A kernel in the file: its weights, how many of them are not zero, and its shared values and bytes."""

    path: str
    weights: int
    live: int
    values: int
    index_bits: int
    size: int


def with_arrays(trained: Trained, arrays: Mapping[str, np.ndarray]) -> Trained:
    """The network with other weights.

    Raises:
      UserError: the weights belong to another network.
    """
    if seals.shapes(trained.variables) != {name: each.shape for name, each in arrays.items()}:
        raise compressed.OtherNetwork
    return dataclasses.replace(trained, variables=seals.replaced(trained.variables, arrays))


def share(arrays: Mapping[str, np.ndarray], bits: Bits) -> dict[str, Shared | np.ndarray]:
    """The arrays with shared values in place of kernels; all others as they are.

    Raises:
      UserError: a pattern of `bits` matches no kernel.
    """
    kernels = {path_of(name): each for name, each in arrays.items() if each.ndim > 1}
    patterns = (pattern for pattern, _ in bits.layers)
    check_patterns("--layer_bits", patterns, list(kernels), f"kernel; there are {', '.join(kernels)}", UserError)
    return {
        name: codebooks.share(each, bits.of(path_of(name), each)) if each.ndim > 1 else each
        for name, each in arrays.items()
    }


def begun(trained: Trained, bits: Bits) -> Trained:
    """The network with shared values, as a run at step 0 that trains them and keeps zeros at zero.

    Raises:
      UserError: a pattern of `bits` matches no kernel.
    """
    shared = share(seals.on_host(trained.variables), bits)
    values, arrays = most_values(shared), decoded_of(shared)
    optim = dataclasses.replace(trained.config.optim, shared_values=values)
    config = dataclasses.replace(trained.config, optim=optim, prune=Prune(), init=Init())
    spec = dataclasses.replace(
        trained.spec, optim=dataclasses.replace(trained.spec.optim, shared_values=values), prune=Prune()
    )
    return dataclasses.replace(with_arrays(trained, arrays), config=config, spec=spec, step=0, fitted={})


def compress(
    trained: Trained, split: Split, out: pathlib.Path, bits: Bits, say: Callable[[str], None] = print
) -> tuple[list[Row], list[Layer]]:
    """Write the file, and measure each step on a split.

    Args:
      trained: the network, usually a pruned one.
      split: the examples of the figures.
      out: the file.
      bits: bits of shared values.
      say: called with the name of each step before it is measured, which takes time, and with what is not measured.
    """
    for line in floors.lacks():
        say(line)
    arrays = seals.on_host(trained.variables)
    rows = []
    for name, form in floors.FORMS.items():
        say(f"measuring {name} on {split.description}")
        content, decoded = form(arrays)
        figures = with_arrays(trained, decoded).evaluate(split)
        rows.append(Row(name, len(content), floors.coded(content), figures))
    of_float32 = rows[0].figures
    say("sharing weights")
    shared = share(arrays, bits)
    rows.append(Row("pruned: float32 and indices", size_with_indices(arrays), {}, of_float32))
    size = compressed.write(out, shared, exported.facts(trained))
    decoded, _ = compressed.read(out)
    for name, each in shared.items():
        if not np.array_equal(decoded[name], each.decoded() if isinstance(each, Shared) else each):
            raise AssertionError(f"{name} was not decoded as it was encoded")
    say(f"measuring {out} on {split.description}")
    figures = with_arrays(trained, decoded).evaluate(split)
    rows.append(Row(SHARED_VALUES, size_of_shared(shared), {}, figures))
    rows.append(Row(f"Huffman words: {out.name}", size, {}, figures))
    return rows, [_layer(name, each) for name, each in shared.items() if isinstance(each, Shared)]


def size_with_indices(arrays: Arrays) -> int:
    """The bytes of arrays whose kernels have only their nonzero weights, float32, and indices of fixed length."""
    kernels = {name: Shared(np.unique(each[each != 0]), each != 0) for name, each in arrays.items() if each.ndim > 1}
    others = sum(each.nbytes for name, each in arrays.items() if name not in kernels)
    return others + sum(_fixed_length(each, VALUE_BITS, 0) for each in kernels.values())


def size_of_shared(arrays: Mapping[str, Shared | np.ndarray]) -> int:
    """The bytes of arrays whose kernels have the numbers of shared values, and indices, all of fixed length."""
    sizes = [
        _fixed_length(each, _width(each), len(each.codebook)) if isinstance(each, Shared) else each.nbytes
        for each in arrays.values()
    ]
    return sum(sizes)


def most_values(arrays: Mapping[str, Shared | np.ndarray]) -> int:
    """The largest number of shared values of a kernel."""
    return max(len(each.codebook) for each in arrays.values() if isinstance(each, Shared))


def decoded_of(arrays: Mapping[str, Shared | np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with weights in place of the numbers of shared values."""
    return {name: each.decoded() if isinstance(each, Shared) else each for name, each in arrays.items()}


def path_of(name: str) -> str:
    """The path of a parameter without its collection."""
    return name.partition("/")[2]


def _width(array: Shared) -> int:
    """The bits that number a shared value, including those for fillers."""
    return max(1, (array.alphabet - 1).bit_length())


def _fixed_length(array: Shared, bits: int, values: int) -> int:
    """The fewest bytes of a kernel with words of fixed length: for every weight, or for nonzero weights and indices.

    Args:
      array: only the places of its zeros are used.
      bits: bits of a value.
      values: number of values in its codebook, float32.
    """
    tried = [array.codes.size * bits]
    for index_bits in range(1, 9):
        tried.append(len(relative(array, index_bits).codes) * (bits + index_bits))
    return -(-min(tried) // 8) + 4 * values


def _layer(name: str, array: Shared) -> Layer:
    size = len(compressed.packed({name: array}, {})) - len(compressed.packed({}, {}))
    live = int(np.count_nonzero(array.codes))
    return Layer(path_of(name), array.codes.size, live, len(array.codebook), array.shortest.index_bits, size)


def table(rows: Sequence[Row], trained: Trained) -> list[str]:
    """The rows as lines of a Markdown table."""
    headline = trained.spec.task.evaluation.headline
    coders = sorted({name for row in rows for name in row.coded})
    head = ["step", "bytes", "times smaller", *coders, headline.label, "loss"]
    lines = []
    for row in rows:
        coded = [f"{row.coded[name]:,}" if name in row.coded else "" for name in coders]
        times, figure = rows[0].size / row.size, headline.shown(row.figures[headline.name])
        lines.append([row.step, f"{row.size:,}", f"{times:.1f}", *coded, figure, f"{row.figures['loss']:.4f}"])
    return markdown_table(head, lines)


def table_of_layers(layers: Sequence[Layer]) -> list[str]:
    """The layers as lines of a Markdown table."""
    lines = []
    for each in layers:
        live = f"{100 * each.live / each.weights:.1f}%"
        rate = f"{8 * each.size / each.weights:.2f}"
        lines.append(
            [each.path, f"{each.weights:,}", live, f"{each.values}", f"{each.index_bits}", f"{each.size:,}", rate]
        )
    return markdown_table(["kernel", "weights", "not zero", "values", "index bits", "bytes", "bits per weight"], lines)
