"""Removal of pixels that leaves no trace of where they were: ROAD, Rong et al. 2022, arXiv:2202.00449.

A removed pixel becomes the weighted mean of its eight neighbours, plus a little noise. Neighbours may be removed, too,
so this is a linear system for all removed pixels of an image. Deletion with one colour draws the shape of what is
deleted, which a network may recognise; this does so far less.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxcnn.explain.network import Images, Network, Targets
from jaxcnn.explain.scores import Maps, Numbers, Probability, ordered, ranks

NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))  # and their opposites: section 4.2
SHARES = tuple(k / 10 for k in range(1, 10))  # of the pixels, as in the paper's figures
NOISE = 0.01  # standard deviation, in units of that of the training images


def road(
    network: Network,
    images: Images,
    target: Targets,
    maps: Maps,
    *,
    probability: Probability,
    shares: tuple[float, ...] = SHARES,
    seed: int = 0,
) -> tuple[Numbers, Float[np.ndarray, "2 shares n"]]:
    """How much more probable the output stays without the least important pixels than without the most important ones.

    The mean over the removed shares of the pixels, and the probabilities of both orders; 0 for maps without meaning, at
    most 1. NaN for a map with the same value everywhere.

    Args:
      network, images, target, maps, probability: as for `jaxcnn.explain.scores.deletion`.
      shares: shares of the pixels that are removed, each in (0, 1).
      seed: seed of the noise.
    """
    pixels, rank = np.asarray(images), np.asarray(ranks(maps))
    size = rank[0].size
    counts = [min(max(round(share * size), 1), size - 1) for share in shares]
    noise = NOISE * np.random.Generator(np.random.PCG64(seed)).standard_normal(pixels.shape).astype(pixels.dtype)

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        made = []
        for number in np.asarray(numbers):
            least, place = divmod(int(number), len(counts))
            removed = rank >= size - counts[place] if least else rank < counts[place]
            made.append(np.stack([imputed(*each) for each in zip(pixels, removed, noise, strict=True)]))
        return jnp.asarray(np.stack(made))

    found = np.array(network.scores_of(variant, 2 * len(counts), target, probability), np.float64)
    found[:, ~ordered(maps)] = np.nan
    both = found.reshape(2, len(counts), -1)
    return (both[1] - both[0]).mean(0), both


def imputed(
    image: Float[np.ndarray, "h w c"], removed: Bool[np.ndarray, "h w"], noise: Any = 0.0
) -> Float[np.ndarray, "h w c"]:
    """The image with its removed pixels replaced by the mean of their neighbours, plus noise [h, w, c].

    Neighbours at the sides weigh 1/6, those at the corners 1/12; at the border, the weights of those that are there are
    scaled to the sum 1. At least one pixel must be left.
    """
    from scipy import sparse
    from scipy.sparse.linalg import splu

    height, width = removed.shape
    number = np.full(removed.shape, -1)
    unknown = int(removed.sum())
    number[removed] = np.arange(unknown)
    diagonal, known = np.zeros(unknown), np.zeros((unknown, image.shape[-1]))
    rows, columns, values = [], [], []
    for down, right, weight in [(s * d, s * r, w) for d, r, w in NEIGHBOURS for s in (1, -1)]:
        here = tuple(slice(max(0, -k), side - max(0, k)) for k, side in ((down, height), (right, width)))
        there = tuple(slice(max(0, k), side - max(0, -k)) for k, side in ((down, height), (right, width)))
        own, other = number[here].ravel(), number[there].ravel()
        beside = image[there].reshape(-1, image.shape[-1])
        diagonal += np.bincount(own[own >= 0], minlength=unknown) * weight
        inner, outer = (own >= 0) & (other >= 0), (own >= 0) & (other < 0)
        rows.append(own[inner])
        columns.append(other[inner])
        values.append(np.full(inner.sum(), -weight))
        known[own[outer]] += weight * beside[outer]
    rows.append(np.arange(unknown))
    columns.append(np.arange(unknown))
    values.append(diagonal)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    matrix = sparse.csc_matrix(entries, shape=(unknown, unknown))
    filled = np.array(image)
    # The matrix is symmetric and weakly diagonally dominant: no pivots are needed, and this order fills in least.
    filled[removed] = splu(matrix, "MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(known)
    return np.where(removed[..., None], filled + noise, image)
