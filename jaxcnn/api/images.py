"""Images in all forms that a program may have them, as batches of pixels for a network."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Num
from PIL import Image, ImageOps

from jaxcnn.config import Data, UserError
from jaxcnn.data import as_stored, decode, pixels
from jaxcnn.data.memory import as_array, hint_for
from jaxcnn.train import predict

Pixels = Num[np.ndarray, "h w c"]


@dataclasses.dataclass(frozen=True)
class Found:
    """An image: its pixels, or why it cannot be read; and its file, if it comes from one.

    `sides` are its height and width before it was resized for the network, if it does not come from a file.
    """

    pixels: Pixels | None
    file: str | None = None
    error: str | None = None
    sides: tuple[int, int] | None = None


def batches(
    images: Any, shape: tuple[int, int, int], data: Data, *, skip_unreadable: bool = False
) -> Iterator[list[Found]]:
    """Batches of at most `predict.BATCH` images, read as they are needed.

    Args:
      images: an array [N, H, W, C], or [N, H, W] if the network takes grey images, or one image [H, W, C]; the path of
        a file or a folder; a Pillow image; or an iterable of any of these.
      shape: (H, W, C) of the images of the network.
      data: how images of the run are read.
      skip_unreadable: whether an image file that cannot be read is marked, in place of an error.

    Raises:
      UserError: something is not an image, or does not fit the network.
    """
    found = _each(images, shape, data, skip_unreadable, "images")
    while batch := list(itertools.islice(found, predict.BATCH)):
        yield batch


def stacked(batch: list[Found]) -> Num[np.ndarray, "n h w c"]:
    """The pixels of a batch without unreadable images."""
    return np.stack([each.pixels for each in batch if each.pixels is not None])


def _each(images: Any, shape: tuple[int, int, int], data: Data, skip: bool, what: str) -> Iterator[Found]:
    if isinstance(images, str | os.PathLike):
        yield from _files(os.fspath(images), shape, data, skip)
    elif isinstance(images, Image.Image):
        image = _upright(images)
        sides = image.height, image.width
        yield Found(_fitting(_of_pillow(image, shape, data, what), shape, data, what), sides=sides)
    elif hasattr(images, "__array__"):
        for number, image in enumerate(_stack(as_array(images, what), shape, data, what)):
            sides = image.shape[0], image.shape[1]
            yield Found(_fitting(image, shape, data, f"{what}[{number}]"), sides=sides)
    elif isinstance(images, Iterable) and not isinstance(images, bytes | dict):
        for number, each in enumerate(images):
            yield from _each(each, shape, data, skip, f"{what}[{number}]")
    else:
        raise UserError(
            f"{what} is of type {type(images).__name__}; images are arrays [N, H, W, C], paths, Pillow images, or "
            "iterables of these"
        )


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # a damaged EXIF block: leave the pixels as stored
        return ImageOps.exif_transpose(image)
    return image


def _of_pillow(image: Image.Image, shape: tuple[int, int, int], data: Data, what: str) -> Pixels:
    """The pixels of a Pillow image, as those of a file with this image."""
    if data.dtype != "uint8" or shape[-1] not in (1, 3):
        return _stack(as_array(image, what), shape, data, what)[0]
    side = shape[0] if shape[0] == shape[1] else 0
    try:
        return decode.pixels_of(image, side, shape[-1], fit=data.resize, grey16_max=data.grey16_max)
    except (decode.Unreadable, OSError, ValueError) as error:  # of a file that is read only now
        raise UserError(f"{what}: {error}") from None


def _files(place: str, shape: tuple[int, int, int], data: Data, skip: bool) -> Iterator[Found]:
    for path in predict.find_images([place])[0]:
        try:
            yield Found(predict.read(path, shape, data), str(path))
        except (decode.Unreadable, OSError) as error:
            if not skip:
                raise predict.unreadable(path, error) from None
            yield Found(None, str(path), str(error))


def _stack(array: np.ndarray, shape: tuple[int, int, int], data: Data, what: str) -> Num[np.ndarray, "n h w c"]:
    """An array of images [N, H, W, C] of `data.dtype`."""
    channels = shape[-1]
    if array.ndim == 2 and channels == 1:
        array = array[None, :, :, None]
    elif array.ndim == 3 and array.shape[-1] == channels:
        array = array[None]
    elif array.ndim == 3 and channels == 1:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] != channels:
        raise UserError(f"{what} has shape {array.shape}, but the network takes images [N, H, W, {channels}]")
    if array.dtype != data.dtype and data.dtype != "float32":
        raise UserError(f"{what} is {array.dtype}, but the network takes {data.dtype}{hint_for(array)}")
    try:
        return as_stored.as_type(array, data.dtype)
    except decode.Unreadable as error:
        raise UserError(f"{what}: {error}") from None


def _fitting(image: Pixels, shape: tuple[int, int, int], data: Data, what: str) -> Pixels:
    """The image in the network's size: resized, as in training, if that is square; else it must have this size."""
    if image.shape == shape:
        return image
    height, width, _ = shape
    if height != width:
        raise UserError(f"{what} is {image.shape[0]}x{image.shape[1]}, but the network takes only {height}x{width}")
    return pixels.resized(image, height, data.resize)
