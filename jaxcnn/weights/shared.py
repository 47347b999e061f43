"""Arrays with few different values, written as short symbols.

Han, Mao & Dally 2016, "Deep Compression", arXiv 1510.00149: a layer keeps a codebook of its values and, for each weight
that is not zero, the number of its value and the distance from the one before it. A distance that is too long for its
bits is cut by a filler, a weight that is zero.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32, Int, Integer

from jaxcnn.weights import huffman

INDEX_BITS = range(1, 9)  # bits of a distance that are tried
FILLER = 0  # the code of the value zero


@dataclasses.dataclass(frozen=True)
class Shared:
    """An array with few different values.

    Attributes:
      codebook: the values other than zero.
      codes: number of the value of each weight, from 1; 0 stands for zero.
    """

    codebook: Float32[np.ndarray, " values"]
    codes: Integer[np.ndarray, "..."]

    def decoded(self) -> Float32[np.ndarray, "..."]:
        """The array with its values."""
        return np.concatenate([np.zeros(1, np.float32), self.codebook])[self.codes]

    @property
    def alphabet(self) -> int:
        """The number of different codes, zero included."""
        return len(self.codebook) + 1

    @functools.cached_property
    def shortest(self) -> "Streams":
        """The streams that take the fewest bits as Huffman words: every weight, or distances of some number of bits."""
        tried = [dense(self), *(relative(self, bits) for bits in INDEX_BITS)]

        def cost(streams: Streams) -> int:
            of_distances = bits_of(streams.distances, 2**streams.index_bits) if streams.index_bits else 0
            return bits_of(streams.codes, self.alphabet) + of_distances

        return min(tried, key=cost)


@dataclasses.dataclass(frozen=True)
class Streams:
    """The symbols of a `Shared` array, not yet encoded.

    Attributes:
      index_bits: bits of each distance; 0: there are no distances, and `codes` has every weight.
      codes: codes of the weights that are not zero, and of fillers.
      distances: number of zeros before each of them.
    """

    index_bits: int
    codes: Int[np.ndarray, " n"]
    distances: Int[np.ndarray, " n"]


def dense(array: Shared) -> Streams:
    """The streams with the code of every weight and without distances."""
    return Streams(0, array.codes.reshape(-1).astype(np.int64), np.zeros(0, np.int64))


def relative(array: Shared, index_bits: int) -> Streams:
    """The streams with the codes of nonzero weights and, in `index_bits` bits, the numbers of zeros before them.

    A run of 2^bits zeros or more needs fillers. A filler is one zero with 2^bits - 1 zeros before it.
    """
    flat, most = array.codes.reshape(-1), 2**index_bits
    places = np.flatnonzero(flat)
    zeros = np.diff(places, prepend=-1) - 1
    fillers = zeros // most
    ends = np.cumsum(fillers + 1)
    codes = np.full(ends[-1] if len(ends) else 0, FILLER, np.int64)
    distances = np.full(len(codes), most - 1, np.int64)
    codes[ends - 1], distances[ends - 1] = flat[places], zeros % most
    return Streams(index_bits, codes, distances)


def restored(streams: Streams, shape: tuple[int, ...]) -> Int[np.ndarray, "..."]:
    """The codes of an array of this shape from its streams.

    Raises:
      ValueError: the symbols do not fit the shape.
    """
    if not streams.index_bits:
        return streams.codes.reshape(shape)
    flat = np.zeros(int(np.prod(shape, dtype=np.int64)), np.int64)
    places = np.cumsum(streams.distances + 1) - 1
    if len(places) != len(streams.codes) or (len(places) and places[-1] >= len(flat)):
        raise ValueError("distances beyond the end of an array")
    flat[places] = streams.codes
    return flat.reshape(shape)


def bits_of(symbols: Int[np.ndarray, " n"], alphabet: int) -> int:
    """The number of bits that symbols take as Huffman words."""
    counts = np.bincount(symbols, minlength=alphabet)
    return int(np.sum(counts * huffman.lengths_of(counts).astype(np.int64)))
