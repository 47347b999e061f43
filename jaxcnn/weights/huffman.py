"""Canonical Huffman codes of whole numbers, encoded and decoded with NumPy.

Huffman 1952, "A method for the construction of minimum-redundancy codes". A canonical code (Schwartz & Kallick 1964) is
known from the lengths of its words alone. The symbols are cut into blocks whose lengths in bits are kept, so that all
blocks are decoded side by side, one symbol of each at a time.
"""

import dataclasses
import heapq

import numpy as np
from jaxtyping import Integer, UInt8, UInt16

from jaxcnn.config import UserError

Symbols = Integer[np.ndarray, " n"]
Lengths = UInt8[np.ndarray, " symbols"]  # bits of the words; 0: the symbol does not occur

LONGEST = 24  # largest number of bits of a word
BLOCK = 2048  # symbols; 2048 words of 24 bits are less than the 65,536 bits that a uint16 counts
_CHUNK = 512  # blocks that are encoded at once, which bounds the memory


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Symbols encoded as Huffman words.

    Attributes:
      count: number of symbols.
      lengths: lengths of the words of all symbols.
      blocks: bits of each block of `BLOCK` symbols; the last may have fewer.
      bits: the words, one after another, the first bit of each byte being its highest.
    """

    count: int
    lengths: Lengths
    blocks: UInt16[np.ndarray, " blocks"]
    bits: UInt8[np.ndarray, " bytes"]


def lengths_of(counts: Integer[np.ndarray, " symbols"]) -> Lengths:
    """The lengths of the words of a Huffman code, from how often each symbol occurs.

    Words longer than `LONGEST` are avoided by halving the counts until there are none, which costs next to nothing:
    such a word belongs to a symbol that occurs once in millions.
    """
    counts = counts.astype(np.int64)
    while True:
        lengths = _lengths_of(counts)
        if lengths.max(initial=0) <= LONGEST:
            return lengths
        counts = np.where(counts > 0, np.maximum(counts // 2, 1), 0)


def _lengths_of(counts: Integer[np.ndarray, " symbols"]) -> Lengths:
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        lengths[used] = 1
    # (count, number of the tree); the numbers order trees of equal counts, so that equal counts give equal codes.
    heap = [(int(counts[symbol]), number) for number, symbol in enumerate(used)]
    heapq.heapify(heap)
    parents: dict[int, int] = {}
    for tree in range(len(used), 2 * len(used) - 1):
        (one, first), (other, second) = heapq.heappop(heap), heapq.heappop(heap)
        parents[first] = parents[second] = tree
        heapq.heappush(heap, (one + other, tree))
    depths: dict[int, int] = {}
    for tree in sorted(parents, reverse=True):  # a parent has a higher number than its children
        depths[tree] = depths.get(parents[tree], 0) + 1
    for number, symbol in enumerate(used):
        if number in depths:
            lengths[symbol] = depths[number]
    return lengths


def words_of(lengths: Lengths) -> Integer[np.ndarray, " symbols"]:
    """The words of the canonical code of these lengths: shorter words first, then in the order of the symbols."""
    words = np.zeros(len(lengths), np.uint32)
    word, before = 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            word <<= length - before
            words[symbol], before = word, length
            word += 1
    return words


def encode(symbols: Symbols, alphabet: int) -> Encoded:
    """The code of symbols from 0 to `alphabet` - 1."""
    lengths = lengths_of(np.bincount(symbols, minlength=alphabet))
    words, parts, blocks = words_of(lengths), [], []
    left = np.zeros(0, np.uint8)  # the bits of the last byte, which is not full
    for start in range(0, len(symbols), BLOCK * _CHUNK):
        part = symbols[start : start + BLOCK * _CHUNK]
        each = lengths[part].astype(np.int64)
        blocks.append(np.add.reduceat(each, np.arange(0, len(part), BLOCK)))
        ends = np.cumsum(each)
        place = np.repeat(ends, each) - 1 - np.arange(ends[-1])  # of each bit in its word, from the lowest bit
        made = ((np.repeat(words[part], each) >> place.astype(np.uint32)) & 1).astype(np.uint8)
        made = np.concatenate([left, made])
        whole = len(made) // 8 * 8
        parts.append(np.packbits(made[:whole]))
        left = made[whole:]
    parts.append(np.packbits(left))
    of_blocks = np.concatenate(blocks) if blocks else np.zeros(0, np.int64)
    return Encoded(len(symbols), lengths, of_blocks.astype(np.uint16), np.concatenate(parts))


def decode(encoded: Encoded) -> Symbols:
    """The symbols from their code.

    Raises:
      UserError: these are no words of such a code, or their bits do not fill the blocks.
    """
    if not encoded.count:
        return np.zeros(0, np.int64)
    lengths = encoded.lengths
    longest = int(lengths.max(initial=0))
    kraft = np.sum(2.0 ** -lengths[lengths > 0].astype(np.float64))  # exact: a sum of powers of two from 2^-24 on
    if not 0 < longest <= LONGEST or kraft > 1 or len(encoded.blocks) != -(-encoded.count // BLOCK):
        raise UserError("the lengths of its Huffman code are impossible")
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    words, used = words_of(lengths), np.unique(lengths[lengths > 0]).astype(np.int64)
    ranks = np.searchsorted(lengths[order], used)  # rank of the first word of each length
    firsts = words[order[ranks]].astype(np.int64)
    counts = np.diff([*ranks, len(order)])
    limits = (firsts + counts) << (LONGEST - used)  # words of each length, with bits added behind, are below these
    padded = np.concatenate([encoded.bits, np.zeros(8, np.uint8)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 8)
    ends = np.cumsum(encoded.blocks.astype(np.int64))
    places = ends - encoded.blocks
    if -(-int(ends[-1]) // 8) != len(encoded.bits):
        raise UserError("its Huffman code has another length than its blocks")
    symbols = np.zeros((BLOCK, len(places)), np.int64)
    in_last = encoded.count - (len(places) - 1) * BLOCK
    for turn in range(min(BLOCK, encoded.count)):
        lanes = len(places) if turn < in_last else len(places) - 1
        at = places[:lanes]
        if at.max(initial=0) >= 8 * len(encoded.bits):
            raise UserError("its Huffman code ends too early")
        window = windows[at >> 3].view(">u8")[:, 0].astype(np.uint64)
        head = ((window << (at & 7).astype(np.uint64)) >> np.uint64(64 - LONGEST)).astype(np.int64)
        which = np.searchsorted(limits, head, side="right")
        if which.max(initial=0) == len(used):
            raise UserError("its Huffman code has a word that does not exist")
        length = used[which]
        symbols[turn, :lanes] = order[ranks[which] + (head >> (LONGEST - length)) - firsts[which]]
        places[:lanes] = at + length
    if not np.array_equal(places, ends):
        raise UserError("its Huffman code does not fill its blocks")
    return symbols.T.reshape(-1)[: encoded.count]
