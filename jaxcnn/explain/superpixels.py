"""Segments of images: a grid, or superpixels that follow edges."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.config import UserError
from jaxcnn.machine import extras

Segments = Int[Any, "h w"]
GRID, SLIC = "grid", "slic"


def segments_of(images: Float[Any, "n h w c"], wanted: Any, cells: int) -> Any:
    """The segments that a method was given: None for a grid, else integers [h, w] or [n, h, w].

    Args:
      images: images for the network.
      wanted: "grid" or None; "slic" for superpixels, about as many as the grid would have; or the integers.
      cells: cells of the grid, each way.

    Raises:
      UserError: another word; MissingExtra: scikit-image is not installed.
    """
    if not isinstance(wanted, str):
        return wanted
    if wanted not in (GRID, SLIC):
        raise UserError(f"segments={wanted!r} must be {GRID!r}, {SLIC!r} or integers [h, w] or [n, h, w]")
    return None if wanted == GRID else slic(images, cells**2)


def grid(size: tuple[int, ...], cells: int) -> Segments:
    """Segments of the image in a grid of `cells` cells each way, numbered row by row."""
    rows, columns = (np.arange(side) * min(cells, side) // side for side in size)
    return (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)


def slic(images: Float[Any, "n h w c"], count: int) -> Int[np.ndarray, "n h w"]:
    """Superpixels of each image, about `count`: Achanta et al. 2012, "SLIC superpixels", by scikit-image.

    Pixels of one superpixel are close to each other in place and colour. Images of other than three channels are
    compared by their channels as they are, those of three as colours that people see (CIELAB). The values of an image,
    which may be normalised, are first brought to 0 to 1.

    Raises:
      MissingExtra: scikit-image is not installed.
    """
    extras.need("explain", "segments='slic'", "skimage")
    from skimage import segmentation

    made = []
    for image in np.asarray(images, np.float64):
        low, high = image.min(), image.max()
        colours = (image - low) / (high - low if high > low else 1.0)
        made.append(segmentation.slic(colours, count, convert2lab=image.shape[-1] == 3, channel_axis=-1, start_label=0))
    return np.stack(made).astype(np.int32)
