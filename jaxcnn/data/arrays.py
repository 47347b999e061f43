"""Sources held in memory or generated: handwritten digits, and any number of synthetic images."""

import dataclasses
import functools
import math
import pathlib
import re

import numpy as np
from jaxtyping import Num, Shaped, UInt8, UInt64

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.config.ranges import INT32
from jaxcnn.data import content, label_maps
from jaxcnn.data.examples import Examples, Indices, Pixels, Source, filling_from
from jaxcnn.data.pixels import resized
from jaxcnn.data.remarks import centre_square
from jaxcnn.machine import malloc
from jaxcnn.text import counted

DIGITS = pathlib.Path(__file__).parent / "digits.npz"  # images uint8 [1797, 8, 8] of 0..16, labels uint8 [1797]


def open_digits(argument: str, data: config.Data) -> Source:
    """The 1,797 handwritten digits that ship with jaxcnn: 8x8 grey, the same as scikit-learn's `load_digits`.

    They are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin & C. Kaynak 1998, UCI Machine
    Learning Repository, doi:10.24432/C50P49, CC BY 4.0). Values 0..16 are scaled to 0..255. Every fifth example,
    counted class by class, is test: 1437 train, 360 test.
    """
    if argument:
        raise UserError(f"config.data.source='digits:{argument}': digits takes no argument")
    with np.load(DIGITS) as file:
        images = np.rint(file["images"] * (255 / 16)).astype(np.uint8)[..., None]
        labels = file["labels"].astype(np.int32)
    _check(data, images.shape[-1], "digits")
    rank = np.empty(len(labels), np.int64)
    rank[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    chosen = {"train": np.flatnonzero(rank % 5), "test": np.flatnonzero(rank % 5 == 0)}

    def open_split(name: str) -> Examples:
        return array_examples(images[chosen[name]], labels[chosen[name]], data)

    return Source("digits", tuple("0123456789"), ("train", "test"), open_split)


def array_examples(
    images: Num[np.ndarray, "n h w c"], labels: Shaped[np.ndarray, "n ..."], data: config.Data
) -> Examples:
    """Images of `data.dtype` and labels in memory, resized to `data.image_size` as they are read."""
    of_pixels = functools.cache(lambda: content.of_array(images))
    examples = Examples(
        labels,
        images.shape[1:],
        lambda indices: images[indices],
        of_pixels,
        dtype=images.dtype,
        fill=filling_from(images),
    )
    return _resized(examples, data)


def _check(data: config.Data, channels: int, what: str) -> None:
    """Refuse a config that asks for pixels other than these 8-bit ones.

    Raises:
      UserError: it does.
    """
    if data.dtype != "uint8":
        raise UserError(f"config.data.dtype={data.dtype!r}: {what} has images of type uint8")
    if data.channels not in (0, channels):
        raise UserError(f"config.data.channels={data.channels}: {what} has images of {counted(channels, 'channel')}")


def _resized(examples: Examples, data: config.Data) -> Examples:
    """Examples resized to `data.image_size` when read; unchanged if that is 0 or already their size."""
    height, width, channels = examples.image_shape
    size = data.image_size
    if not size or (height, width) == (size, size):
        return examples

    def read(indices: Indices) -> Pixels:
        images = np.empty((len(indices), size, size, channels), examples.dtype)
        for place, image in enumerate(examples.read(indices)):
            images[place] = resized(image, size, data.resize)
        return images

    labels = examples.labels
    if labels.ndim == 3 and labels.shape[1:] == (height, width):
        labels = label_maps.refitted(labels, size, data.resize)
    notes = centre_square("the set", data, np.tile((height, width), (len(examples.labels), 1)), len(examples.labels))
    notes = [*examples.notes, *notes]
    return dataclasses.replace(
        examples, labels=labels, image_shape=(size, size, channels), read=read, fill=None, notes=tuple(notes)
    )


_SYNTHETIC = re.compile(
    r"(?P<h>\d{1,12})x(?P<w>\d{1,12})x(?P<c>\d{1,12})(?::(?P<classes>\d{1,12})(?::(?P<length>\d{1,12}))?)?"
)


def open_synthetic(argument: str, data: config.Data) -> Source:
    """Made-up images that can be learnt: `HxWxC:classes:length`, by default 32x32x3:10:1024.

    Each class has a pattern of coarse blocks; an image is the pattern of its class plus noise on every pixel. Pixels
    depend only on (split, index) and are computed when read, so the set may be larger than any memory. The test split
    has a quarter of the length. Example i has class i modulo the number of classes.
    """
    match = _SYNTHETIC.fullmatch(argument or "32x32x3")
    if not match:
        raise UserError(f"config.data.source='synthetic:{argument}': write synthetic:HxWxC:classes:length")
    shape = (int(match["h"]), int(match["w"]), int(match["c"]))
    classes, length = int(match["classes"] or 10), int(match["length"] or 1024)
    if min(shape) < 1 or classes < 2 or not 4 <= length <= INT32:
        raise UserError(
            f"config.data.source='synthetic:{argument}': sides and channels must be at least 1, classes at least 2, "
            "and length at least 4 and below 2^31"
        )
    _check(data, shape[-1], "synthetic")

    def open_split(name: str) -> Examples:
        salt, count = (1, length) if name == "train" else (2, length // 4)
        labels = (np.arange(count) % classes).astype(np.int32)

        def read(indices: Indices) -> Pixels:
            return _synthesize(np.asarray(indices), salt, shape, classes)

        made_of = functools.partial(content.of_arguments, f"synthetic {shape} {classes} {count} {salt}")
        return _resized(Examples(labels, shape, read, made_of), data)

    labels = 16 * length  # bytes: every example takes some memory, though its pixels do not
    if classes > length or max(labels, math.prod(shape)) > (malloc.obtainable() or math.inf):
        raise UserError(
            f"config.data.source='synthetic:{argument}': an image of each class, one image of {shape[0]}x{shape[1]}x"
            f"{shape[2]} bytes, and the labels of all must fit into memory; choose smaller numbers"
        )
    names = tuple(str(number) for number in range(classes))
    return Source(f"synthetic:{argument}" if argument else "synthetic", names, ("train", "test"), open_split)


def _synthesize(indices: Indices, salt: int, shape: tuple[int, int, int], classes: int) -> Pixels:
    height, width, channels = shape
    grid = 4  # blocks per side of a pattern
    pixels = height * width * channels
    labels = (indices % classes).astype(np.uint64)
    rows, columns = np.arange(height) * grid // height, np.arange(width) * grid // width
    blocks = _noise(
        labels[:, None] * np.uint64(grid * grid * channels) + np.arange(grid * grid * channels, dtype=np.uint64), 0
    )
    blocks = blocks.reshape(-1, grid, grid, channels)
    pattern = blocks[:, rows[:, None], columns].astype(np.int16) // 2 + 64  # 64..191
    counters = indices.astype(np.uint64)[:, None] * np.uint64(pixels) + np.arange(pixels, dtype=np.uint64)
    noise = _noise(counters, salt).reshape(pattern.shape).astype(np.int16) // 2 - 64  # -64..63
    return (pattern + noise).astype(np.uint8)


def _noise(counter: UInt64[np.ndarray, "..."], salt: int) -> UInt8[np.ndarray, "..."]:
    """A random byte for each counter: the finaliser of SplitMix64 (Steele et al. 2014), top 8 bits."""
    x = counter + np.uint64((salt * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(56)).astype(np.uint8)
