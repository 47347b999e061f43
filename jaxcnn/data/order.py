"""The order of examples: the example at each position of each batch, computed from the seed and the step alone.

The examples of a run form one endless sequence: batch `t` takes the places `t * B ... t * B + B - 1`. Place `o` is in
epoch `o // N`. Each epoch has its own permutation of the N examples, so each example is seen exactly once per epoch,
none is dropped, and a batch may cross the end of an epoch. The permutation is a Feistel network (Luby & Rackoff 1988),
applied repeatedly until the result is below N, as in bandwidth-optimal shuffling on GPUs (Mitchell et al. 2021, arXiv
2106.06161). It is computed only for the places needed, on any device, and needs neither memory nor state.

If batches have kinds (`augment.shapes`), the places of every `WINDOW` batches are sorted by the kind of their example,
and these batches come in a drawn order. So nearly all batches have examples of one kind, and still none is dropped or
seen twice; an example moves by less than `WINDOW` batches.

All arithmetic is in uint32, so NumPy (stream loader) and JAX (resident loader) give the same integers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, Integer, UInt32

Scalar = Integer[Any, ""] | int
Positions = Int[Any, " b"]
Words = UInt32[Any, " b"]

ROUNDS = 12
MAX_PLACES = 2**32
WINDOW_BITS = 4
WINDOW = 2**WINDOW_BITS  # batches whose examples are sorted together


def storage_positions(global_batch_size: int, devices: int, microbatches: int = 1) -> Int32[np.ndarray, "d b"]:
    """Global position of each storage place of a batch, on each device.

    A global batch consists of microbatches of consecutive positions, each split evenly over the devices in order; a
    device stores its parts of all microbatches one after another.
    """
    positions = np.arange(global_batch_size, dtype=np.int32).reshape(microbatches, devices, -1)
    return np.ascontiguousarray(positions.swapaxes(0, 1).reshape(devices, -1))


def example_index(
    seed: Scalar, step: Scalar, position: Positions, global_batch_size: int, examples: int, kinds: Any = None
) -> Int32[Any, " b"]:
    """Index, in the split, of the example at `position` of batch `step`.

    Args:
      seed: seed of the run.
      step: batch number from 0.
      position: positions in the global batch.
      global_batch_size: B.
      examples: N, the size of the split.
      kinds: the kind of each example, integers [N]; None if batches have none.

    Returns:
      Indices in [0, N): a JAX array if any argument is one, else a NumPy array.
    """
    xp: Any = jnp if any(isinstance(x, jax.Array) for x in (seed, step, position)) else np
    if kinds is None:
        return _index_at(seed, _place(step, position, global_batch_size, xp), examples, xp)
    window = xp.asarray(step).astype(xp.uint32) // xp.uint32(WINDOW)
    key = _mix(_mix(xp.asarray(seed).astype(xp.uint32).reshape(1) ^ xp.uint32(0xBB67AE85)) + window)
    slot = _feistel(xp.asarray(step).astype(xp.uint32).reshape(1) % xp.uint32(WINDOW), key, WINDOW_BITS, xp)
    whole = np.arange(WINDOW * global_batch_size, dtype=np.uint32)
    index = _index_at(seed, _place(window * WINDOW, xp.asarray(whole), global_batch_size, xp), examples, xp)
    kind = xp.asarray(kinds)[index]
    by_kind = jnp.argsort(kind, stable=True) if xp is jnp else np.argsort(kind, kind="stable")
    return index[by_kind[slot * xp.uint32(global_batch_size) + xp.asarray(position).astype(xp.uint32)]]


def _index_at(seed: Scalar, place: Words, examples: int, xp: Any) -> Int32[Any, " b"]:
    """The index of the example at each place of the endless sequence."""
    uint32 = xp.uint32
    epoch, rank = place // uint32(examples), place % uint32(examples)
    key = _mix(_mix(xp.asarray(seed).astype(uint32).reshape(1) ^ uint32(0x6A09E667)) + epoch * uint32(0x9E3779B9))
    bits = max(2, (examples - 1).bit_length())

    def outside(index):
        return index >= uint32(examples)

    def walk(index):
        return xp.where(outside(index), _feistel(index, key, bits, xp), index)

    index = _feistel(rank, key, bits, xp)
    if xp is jnp:
        index = jax.lax.while_loop(lambda i: jnp.any(outside(i)), walk, index)
    else:
        while outside(index).any():
            index = walk(index)
    return index.astype(xp.int32)


def epoch_of(step: Scalar, position: Positions, global_batch_size: int, examples: int) -> Words:
    """The epoch, from 0, of the example at `position` of batch `step`; arguments as for `example_index`."""
    xp: Any = jnp if any(isinstance(x, jax.Array) for x in (step, position)) else np
    return _place(step, position, global_batch_size, xp) // xp.uint32(examples)


def _place(step: Scalar, position: Positions, global_batch_size: int, xp: Any) -> Words:
    """Place in the endless sequence of examples."""
    return xp.asarray(step).astype(xp.uint32) * xp.uint32(global_batch_size) + xp.asarray(position).astype(xp.uint32)


def _feistel(value: Words, key: Words, bits: int, xp: Any) -> Words:
    """A permutation of [0, 2^bits), chosen by `key`."""
    low_bits = bits // 2
    widths = (bits - low_bits, low_bits)
    uint32 = xp.uint32
    left, right = value >> uint32(low_bits), value & uint32(2**low_bits - 1)
    for turn in range(ROUNDS):
        noise = _mix(right ^ _mix(key + uint32(turn * 0x85EBCA6B % 2**32)))
        left, right = right, left ^ (noise & uint32(2 ** widths[turn % 2] - 1))
    return (left << uint32(low_bits)) | right


def _mix(x: Words) -> Words:
    """The finaliser of MurmurHash3 (A. Appleby, public domain): a bijection of uint32 that mixes all bits."""
    x = x ^ (x >> 16)
    x = x * x.dtype.type(0x85EBCA6B)
    x = x ^ (x >> 13)
    x = x * x.dtype.type(0xC2B2AE35)
    return x ^ (x >> 16)
