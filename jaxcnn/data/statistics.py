"""Mean and standard deviation of a split's pixels, from exact sums."""

import math
from fractions import Fraction

import numpy as np

from jaxcnn.data.batch import Split
from jaxcnn.data.examples import read_in_order


def image_statistics(split: Split, workers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels of all images.

    Sums are of integers and exact, so neither the order of reading nor the number of threads changes a bit. The
    standard deviation is the population's (divided by n); it is 1 for a channel that is constant, which normalises
    to 0.

    Args:
      split: its images are all read once.
      workers: threads; 0 for one per core.

    Returns:
      float32 [C] each, in units where 255 is 1.
    """
    levels = np.arange(256, dtype=np.int64)
    channels = split.image_shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for images in read_in_order(split.read, len(split), split.image_shape, workers):
        for channel in range(channels):
            histogram[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    mean, std = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for channel, counts in enumerate(histogram):
        count, total, squares = (int(value) for value in (counts.sum(), counts @ levels, counts @ levels**2))
        variance = Fraction(squares, count) - Fraction(total, count) ** 2
        mean[channel] = total / (count * 255)
        std[channel] = math.sqrt(variance) / 255 if variance else 1.0
    return mean, std
