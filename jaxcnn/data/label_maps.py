"""Maps with a class for each pixel: resized for the network, and painted from outlines of objects."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped, UInt8

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data.boxes import Objects, frame_of
from jaxcnn.data.examples import map_in_threads
from jaxcnn.machine.extras import need
from jaxcnn.tasks import run_length
from jaxcnn.tasks.segmentation import VOID

BACKGROUND = "background"  # name of class 0 in painted maps

Map = UInt8[np.ndarray, "h w"]


def fitted(found: Map, frame: Float32[np.ndarray, "4"], side: int) -> Map:
    """The label map for the square that `decode.square` makes of an image, by nearest pixels.

    Args:
      found: label map of the stored image, with its size.
      frame: from `boxes.frame_of`.
      side: side of the square in pixels; 0 keeps the map. Beyond the image there is no class.
    """
    if not side:
        return found
    scale, shift = frame[:2].astype(np.float64), frame[2:].astype(np.float64)
    centres = np.arange(side) + 0.5
    columns = np.floor((centres - shift[0]) / scale[0]).astype(np.int64)
    rows = np.floor((centres - shift[1]) / scale[1]).astype(np.int64)
    height, width = found.shape
    inside = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
    sampled = found[rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    return np.where(inside, sampled, VOID).astype(np.uint8)


def refitted(maps: Shaped[np.ndarray, "n h w"], size: int, fit: str) -> Shaped[np.ndarray, "n ..."]:
    """Label maps of stored images of one size, for the square of side `size` that is made of each; 0 keeps them."""
    height, width = maps.shape[1:]
    if not size or (height, width) == (size, size):
        return maps
    frame = frame_of(height, width, size, fit)
    return np.stack([fitted(each, frame, size) for each in maps])


def check_sides(labels: Shaped[np.ndarray, "n ..."], image_shape: tuple[int, ...], title: str) -> None:
    """Raise UserError if labels are maps whose size is not that of the images."""
    if labels.ndim == 3 and labels.shape[1:] != image_shape[:2]:
        maps, images = ("x".join(map(str, sides)) for sides in (labels.shape[1:], image_shape[:2]))
        raise UserError(f"{title}: label maps are {maps}, but images are {images}; each pixel needs a class")


def stacked(
    sizes: Int[np.ndarray, "n 2"], data: config.Data, of: Callable[[int, int, int], Map]
) -> UInt8[np.ndarray, "n h w"]:
    """The maps of all images at the size that the network gets, made in threads.

    Args:
      sizes: height and width of each stored image; 0 for one that is left out, whose map has no class.
      data: the group `config.data`.
      of: returns the map of a stored image from its index, height and width.
    """
    side = data.image_size
    maps = np.full((len(sizes), *((side, side) if side else sizes.max(axis=0, initial=0))), VOID, np.uint8)

    def fill(number: int) -> None:
        height, width = map(int, sizes[number])
        if height:
            maps[number] = fitted(of(number, height, width), frame_of(height, width, side, data.resize), side)

    for _ in map_in_threads(fill, range(len(sizes)), data.workers):
        pass
    return maps


def painted(objects: Objects, height: int, width: int) -> tuple[Map, list[str]]:
    """The label map of an image's objects, and one line for each object that cannot be painted.

    A pixel has the object's class number plus 1, smaller objects over larger ones, and 0 where there is no object.

    Raises:
      MissingExtra: a package that fills polygons is not installed.
    """
    found, wrong = np.zeros((height, width), np.uint8), dict[int, str]()
    for place in np.argsort(-objects.area, kind="stable").tolist():
        label = int(objects.labels[place])
        try:
            found[mask_of(objects.outlines[place], height, width) != 0] = label + 1
        except ValueError as error:
            wrong[place] = f"an object of class {label} cannot be painted: {error}"
    return found, [wrong[place] for place in sorted(wrong)]


def mask_of(outline: Any, height: int, width: int) -> Map:
    """A mask with 1 in the pixels inside an object, as COCO's own code decides.

    Raises:
      ValueError: the object has no outline, or none with a pixel of the image.
    """
    if not outline:
        raise ValueError("it has no segmentation")
    mask = _decoded(outline, height, width) if isinstance(outline, dict) else _filled(outline, height, width)
    if not mask.any():
        raise ValueError("its outline has no pixel within the image")
    return mask


def _decoded(lengths: dict[str, Any], height: int, width: int) -> Map:
    sides = run_length.size(lengths)  # first, because a wrong size may be any number of pixels
    if sides != (height, width):
        raise ValueError(f"its segmentation is {sides[0]}x{sides[1]}, but the image {height}x{width}")
    return run_length.decode(lengths)


def _filled(polygons: Any, height: int, width: int) -> Map:
    left, top, right, bottom = run_length.corners(polygons)  # refuses what is no list of polygons
    if min(left / width, top / height) < -1 or max(right / width, bottom / height) > 2:
        raise ValueError("its outline reaches far outside the image")  # to fill it would take time without end
    need("detect", "filling the polygons of a set in COCO's form")
    from faster_coco_eval.core import mask as coco_mask

    rings = [[float(value) for value in ring] for ring in polygons if len(ring) >= 6]
    if not rings:
        raise ValueError("its outline has no polygon of three corners")
    return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width))), np.uint8)
