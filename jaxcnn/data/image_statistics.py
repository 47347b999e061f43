"""Mean and standard deviation of a split's pixels, from exact sums."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, Int64, UInt32

from jaxcnn.data.batch import Split
from jaxcnn.data.examples import read_in_order

Channels = Float32[np.ndarray, " c"]


def image_statistics(split: Split, workers: int = 0) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of all images.

    Sums are exact integers, so neither the order of reading nor the number of threads changes a bit. The standard
    deviation is the population's (divided by n); it is 1 for a constant channel, which then normalises to 0.

    Args:
      split: every image is read once.
      workers: number of threads; 0 for one per core.

    Returns:
      Both in units where 255 is 1.
    """
    channels, pixels = split.image_shape[-1], len(split) * math.prod(split.image_shape[:-1])
    totals, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for images in read_in_order(split.read, len(split), split.image_shape, workers):
        rows = images.reshape(len(images), -1)  # at most 1024 rows, so that sums fit into 32 bits
        totals += _over_pixels(rows.sum(axis=0, dtype=np.uint32), channels)
        squares += _over_pixels(np.square(rows, dtype=np.uint16).sum(axis=0, dtype=np.uint32), channels)
    mean, std = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for channel, (total, square) in enumerate(zip(totals.tolist(), squares.tolist(), strict=True)):
        variance = Fraction(square, pixels) - Fraction(total, pixels) ** 2
        mean[channel] = total / (pixels * 255)
        std[channel] = math.sqrt(variance) / 255 if variance else 1.0
    return mean, std


def _over_pixels(sums: UInt32[np.ndarray, " h*w*c"], channels: int) -> Int64[np.ndarray, " c"]:
    """Sums added up over all pixels."""
    return sums.reshape(-1, channels).sum(axis=0, dtype=np.int64)
