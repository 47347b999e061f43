"""Mean and standard deviation of a split's pixels, from exact sums."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Num

from jaxcnn.data.batch import Split
from jaxcnn.data.examples import WHITE, read_in_order

Channels = Float32[np.ndarray, " c"]

_FLOAT_UNIT = 2**149  # every float32 is a whole number of 2^-149


def image_statistics(split: Split, workers: int = 0) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of all images.

    Sums are exact, of integers and of floating-point numbers, so neither the order of reading nor the number of threads
    changes a bit, and values far from 0 lose nothing. The standard deviation is the population's (divided by n); it is
    1 for a constant channel, which then normalises to 0.

    Args:
      split: every image is read once.
      workers: number of threads; 0 for one per core.

    Returns:
      Both in units in which the highest value of an integer type is 1; floating-point pixels keep their units.
    """
    channels, pixels = split.image_shape[-1], len(split) * math.prod(split.image_shape[:-1])
    floats = split.dtype.kind == "f"
    unit = _FLOAT_UNIT if floats else WHITE[split.dtype.name]
    totals, squares = [0] * channels, [0] * channels
    for images in read_in_order(split.read, len(split), split.image_shape, workers):
        for channel, (total, square) in enumerate(_sums_of_floats(images) if floats else _sums_of_integers(images)):
            totals[channel] += total
            squares[channel] += square
    mean, std = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for channel, (total, square) in enumerate(zip(totals, squares, strict=True)):
        variance = Fraction(square, pixels) - Fraction(total, pixels) ** 2
        mean[channel] = total / (pixels * unit)
        std[channel] = math.sqrt(variance) / unit if variance else 1.0
    return mean, std


def _sums_of_integers(images: Num[np.ndarray, "m h w c"]) -> list[tuple[int, int]]:
    """The sums of the pixels, and of their squares, of each channel of uint8 or uint16 images."""
    rows = images.reshape(len(images), -1)
    # At most 1024 rows, so that sums of 8-bit pixels fit into 32 bits, and those of 16 bits into 64.
    wide, sums = (np.uint16, np.uint32) if images.dtype == np.uint8 else (np.uint32, np.uint64)
    total = rows.sum(axis=0, dtype=sums)
    square = np.square(rows, dtype=wide).sum(axis=0, dtype=sums)
    by_channel = (each.reshape(-1, images.shape[-1]).sum(axis=0, dtype=np.uint64).tolist() for each in (total, square))
    return list(zip(*by_channel, strict=True))


def _sums_of_floats(images: Float32[np.ndarray, "m h w c"]) -> list[tuple[int, int]]:
    """The sums of float32 pixels, in units of 2^-149, and of their squares, in units of 2^-298, of each channel.

    A float32 is a whole number below 2^24, the significand, times a power of two. Significands of one power add up
    exactly as float64, up to 2^29 of them; the sums are put together as Python's integers.
    """
    found = []
    for channel in range(images.shape[-1]):
        bits = np.ascontiguousarray(images[..., channel]).reshape(-1).view(np.uint32)
        exponent = (bits >> 23 & 0xFF).astype(np.int64)
        significand = (bits & 0x7FFFFF | np.where(exponent > 0, 1 << 23, 0)).astype(np.int64)
        power = np.maximum(exponent, 1) - 1  # the value is the significand times 2^(power - 149)
        square = significand * significand  # below 2^48: added up in two halves
        signed = np.where(bits >> 31, -significand, significand)
        sums, high, low = (np.bincount(power, each) for each in (signed, square >> 24, square & 0xFFFFFF))
        total = sum(int(value) << place for place, value in enumerate(sums))
        squares = (
            (int(one) << 24) + int(other) << 2 * place for place, (one, other) in enumerate(zip(high, low, strict=True))
        )
        found.append((total, sum(squares)))
    return found
