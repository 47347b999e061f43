"""RoIAlign: the features within a box in a fixed size; He et al. 2017, arXiv:1703.06870, section 3.

As in torchvision's detectors, the centre of the first pixel is at 0 (`aligned=False`), and each cell is the mean of
2 x 2 samples.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxcnn.tasks.anchors import stride_of

SAMPLES = 2  # samples of each cell, in both directions
USUAL_SIDE, USUAL_LEVEL = 224.0, 4  # such a box reads the map of this level: Lin et al. 2017, arXiv:1612.03144, eq. 1
FINEST = 2  # level of the first map

Maps = Sequence[Float[Array, "h w c"]]


def level_of(boxes: Float[Array, "... 4"], levels: int) -> Int[Array, "..."]:
    """The number of the map that each box reads, from 0: larger boxes read coarser maps."""
    side = jnp.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
    level = jnp.floor(USUAL_LEVEL + jnp.log2(side / USUAL_SIDE) + 1e-6)
    return jnp.clip(level, FINEST, FINEST + levels - 1).astype(jnp.int32) - FINEST


def roi_align(maps: Maps, boxes: Float[Array, "r 4"], cells: int) -> Float[Array, "r n n c"]:
    """The features of one image within boxes.

    Args:
      maps: the maps of the levels, from fine to coarse, with the strides of `anchors.stride_of`.
      boxes: left, top, right, bottom in pixels of the image; each reads the map of `level_of`.
      cells: n, side of the result.
    """
    return _read_levels(maps, boxes, level_of(boxes, len(maps)), _scales(len(maps), boxes.dtype), cells)


def within_boxes(
    maps: Sequence[Float[Array, "b h w c"]], boxes: Float[Array, "b r 4"], cells: int
) -> Float[Array, "br n n c"]:
    """`roi_align` of each image of a batch, the boxes one below the other."""
    scales = _scales(len(maps), boxes.dtype)
    return read_regions(tuple(maps), boxes, level_of(boxes, len(maps)), scales, cells)


@functools.partial(jax.jit, static_argnames="cells")
def read_regions(
    maps: tuple[Float[Array, "b h w c"], ...],
    boxes: Float[Array, "b r 4"],
    level: Int[Array, "b r"],
    scales: Float[Array, " levels"],
    cells: int,
) -> Float[Array, "br n n c"]:
    """The features within boxes, each in the map of its level.

    A traced program calls this by its name, in whose place exported files have an operator of their own
    (`jaxcnn.graphs.of_objects`).
    """
    each = jax.vmap(lambda maps, boxes, level: _read_levels(maps, boxes, level, scales, cells))
    features = each(maps, boxes, level)
    return features.reshape(-1, *features.shape[2:])


def _scales(levels: int, dtype: Any) -> Float[Array, " levels"]:
    return jnp.array([1 / stride_of(level) for level in range(levels)], dtype)


def _read_levels(
    maps: Maps, boxes: Float[Array, "r 4"], level: Int[Array, " r"], scales: Float[Array, " levels"], cells: int
) -> Float[Array, "r n n c"]:
    heights, widths = (jnp.array([each.shape[axis] for each in maps])[level] for axis in (0, 1))
    scale = scales[level]
    starts, total = [], 0
    for each in maps:
        starts.append(total)
        total += each.shape[0] * each.shape[1]
    flat = jnp.concatenate([each.reshape(-1, each.shape[-1]) for each in maps])
    corners = boxes * scale[:, None]
    x, y = (_samples(corners[:, axis], corners[:, axis + 2], cells) for axis in (0, 1))
    (left, right, of_left, of_right), (top, bottom, of_top, of_bottom) = _neighbours(x, widths), _neighbours(y, heights)
    start = jnp.array(starts)[level][:, None, None]

    def read(
        row: Int[Array, "r s"], column: Int[Array, "r s"], y: Float[Array, "r s"], x: Float[Array, "r s"]
    ) -> Array:
        place = start + row[:, :, None] * widths[:, None, None] + column[:, None, :]
        return flat[place] * (y[:, :, None] * x[:, None, :])[..., None].astype(flat.dtype)

    samples = (
        read(top, left, of_top, of_left)
        + read(top, right, of_top, of_right)
        + read(bottom, left, of_bottom, of_left)
        + read(bottom, right, of_bottom, of_right)
    )
    return samples.reshape(len(boxes), cells, SAMPLES, cells, SAMPLES, -1).mean(axis=(2, 4))


def _samples(low: Float[Array, " r"], high: Float[Array, " r"], cells: int) -> Float[Array, "r s"]:
    """The places of samples in one direction; a box has at least the length of a pixel of its map."""
    cell = jnp.maximum(high - low, 1.0) / cells
    number = jnp.arange(cells * SAMPLES)
    inside = (number % SAMPLES + 0.5) / SAMPLES
    return low[:, None] + (number // SAMPLES) * cell[:, None] + inside * cell[:, None]


def _neighbours(place: Float[Array, "r s"], length: Int[Array, " r"]) -> tuple[Array, Array, Array, Array]:
    """The pixels before and after places, and their weights; places beyond the border by a pixel or more weigh 0."""
    last = length[:, None] - 1
    inside = (place >= -1.0) & (place <= last + 1)
    clear = jnp.clip(place, 0.0, last)
    before = jnp.floor(clear).astype(jnp.int32)
    share = clear - before
    return before, jnp.minimum(before + 1, last), jnp.where(inside, 1 - share, 0), jnp.where(inside, share, 0)
