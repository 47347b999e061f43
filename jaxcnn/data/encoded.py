"""Images stored as encoded bytes (files in folders, TFDS records), as examples of one size.

Both kinds of storage share this code, so resizing, broken images, differing sizes and the cache of decoded pixels
behave the same.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable

import numpy as np
import PIL
from jaxtyping import Float32, Int, Int64, Shaped

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import cache, decoded, remarks
from jaxcnn.data.content import of_files
from jaxcnn.data.decode import Unreadable
from jaxcnn.data.examples import (
    Content,
    Examples,
    Fill,
    Groups,
    Hashes,
    Indices,
    Pixels,
    Read,
    filling_from,
    map_in_threads,
    read_in_order,
)
from jaxcnn.data.pixels import decode_for, size_for
from jaxcnn.machine.paths import cache_folder

logger = logging.getLogger(__name__)

_Image = Shaped[np.ndarray, "h w c"]
_Sizes = Int[np.ndarray, "n 2"]  # height and width of each image
_SCAN_CHUNK = 256
SIDE = 64  # pixels; side of the squares to which images of differing sizes are resized, unless the config has another
_NAMED = 3  # at most this many left-out images are named in a note


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Encoded images of one base split.

    Attributes:
      title: name in messages, such as "tfds:cifar10:3.0.2 train".
      labels: class number of each image, or a row of numbers.
      channels: 3 or 1, channels of the decoded images.
      shape: (H, W) of all images if the storage guarantees it, else None.
      name: returns the name of image i in messages.
      load: returns the bytes of image i; raises OSError. Safe to call from several threads.
      fingerprint: returns a text that changes whenever an image changes.
      sizes: returns the bytes of each image.
      hashes: returns a hash of each image's path in the set; None if images have no path.
      weights: weight of each image; None if they have none.
      groups: the name of each image's group; None if they have none.
      notes: remarks for the user, such as files passed over.
    """

    title: str
    labels: Shaped[np.ndarray, "n ..."]
    channels: int
    shape: tuple[int, int] | None
    name: Callable[[int], str]
    load: Callable[[int], bytes]
    fingerprint: Callable[[], str]
    sizes: Callable[[], Int64[np.ndarray, " n"]]
    hashes: Callable[[], Hashes] | None = None
    weights: Float32[np.ndarray, " n"] | None = None
    notes: tuple[str, ...] = ()
    groups: Groups | None = None


def open_encoded(encoded: Encoded, data: config.Data) -> Examples:
    """Encoded images as examples, all of `data.image_size`, or else of their common size, or else of `SIDE`.

    With `data.on_error="skip"` every image is decoded first, in threads, and unreadable ones are left out. With
    `data.cache`, decoded images are kept in a file as they are read (`jaxcnn.data.decoded`). Without it, a split of up
    to `data.resident_gib` is decoded once and kept in the cache folder, unless `data.loader="stream"`.

    Raises:
      UserError: no readable image, or images that cannot be kept where `data.cache` says.
    """
    encoded = dataclasses.replace(encoded, channels=data.channels or encoded.channels)
    notes = list(encoded.notes)
    kept = np.arange(len(encoded.labels))
    sizes, unreadable = None, dict[int, str]()
    if data.on_error == "skip" and len(kept):
        sizes, unreadable = _scan(encoded, data, pixels=True)
        kept = np.setdiff1d(kept, list(unreadable))
        if unreadable:
            notes.append(_left_out(encoded, unreadable))
    if not len(kept):
        what = "readable images" if len(encoded.labels) else "images"
        raise UserError("; ".join([f"{encoded.title} has no {what}", *notes]))
    if encoded.shape:
        sizes = np.tile(encoded.shape, (len(encoded.labels), 1)) if sizes is None else sizes
    elif not data.image_size:
        sizes = _stored_sizes(encoded, data) if sizes is None else sizes
        if note := _differing(encoded, kept, sizes):
            notes.append(note)
            data = dataclasses.replace(data, image_size=SIDE)
    if data.image_size:
        height = width = data.image_size
    else:
        height, width = encoded.shape or map(int, sizes[kept[0]])  # type: ignore[index]  # known without image_size
    shape = (height, width, encoded.channels)
    notes += remarks.on_losses(encoded.title, encoded.load, kept, data, encoded.channels, sizes)

    def decode_one(index: int) -> _Image:
        return _decoded(encoded, int(kept[index]), data, shape)

    def decode_all(indices: Indices) -> Pixels:
        images = np.empty((len(indices), *shape), data.dtype)
        for place, index in enumerate(indices):
            images[place] = decode_one(index)
        return images

    read: Read = decode_all
    fill: Fill | None = None
    labels = encoded.labels[kept]
    if data.cache:
        key = _key_of_pixels("decoded", encoded, data, kept)
        images, note = decoded.open_kept(data, encoded.title, key, (len(kept), *shape), decode_one)
        notes.append(note)
        if images is not None:
            read, fill = images.read, images.read_into
    elif (
        data.loader != "stream"
        and len(kept) * int(np.prod(shape)) * np.dtype(data.dtype).itemsize <= data.resident_gib * 2**30
    ):
        read, fill, note = _through_cache(encoded, data, kept, shape, decode_all)
        if note:
            notes.append(note)

    def content() -> Content:
        return of_files(encoded.title, encoded.sizes(), encoded.load, encoded.fingerprint(), kept, data.workers)

    hashes = encoded.hashes
    return Examples(
        labels,
        shape,
        read,
        functools.cache(content),
        tuple(notes),
        hashes=None if hashes is None else lambda: hashes()[kept],
        weights=None if encoded.weights is None else encoded.weights[kept],
        groups=None if encoded.groups is None else encoded.groups[kept],
        dtype=np.dtype(data.dtype),
        fill=fill,
        name=lambda index: encoded.name(int(kept[index])),
        sizes=None if sizes is None else sizes[kept],
        unreadable=tuple(f"{encoded.name(index)} ({unreadable[index]})" for index in sorted(unreadable)),
    )


def _through_cache(
    encoded: Encoded, data: config.Data, kept: Indices, shape: tuple[int, int, int], read: Read
) -> tuple[Read, Fill | None, str]:
    """`Examples.read` and `fill` from the cache of decoded pixels (built if needed) and ""; or `read` and why not."""
    key = _key_of_pixels("pixels", encoded, data, kept)

    def decode_all():
        logger.info("decoding the %d images of %s once, into %s", len(kept), encoded.title, cache_folder())
        return read_in_order(read, len(kept), shape, data.workers)

    images, trouble = cache.cached_images(
        cache_folder() / f"pixels-{key}.npy", (len(kept), *shape), decode_all, data.dtype
    )
    if images is None:
        return read, None, trouble
    pixels = np.asarray(images)  # a plain view: indexing a memory map would give memory maps
    return lambda indices: pixels[indices], filling_from(pixels), ""


def _key_of_pixels(what: str, encoded: Encoded, data: config.Data, kept: Indices) -> str:
    """A name that covers everything on which the decoded images depend, in files of the kind `what`."""
    # Pillow's version is in the key, since another JPEG decoder may round differently.
    made_by = (what, PIL.__version__, encoded.fingerprint(), data.image_size, encoded.channels)
    scale: tuple[object, ...] = () if data.grey16_max == config.Data.grey16_max else (data.grey16_max,)
    scale += _form(data)
    return cache.fingerprint((*made_by, len(kept), kept.tobytes(), *scale))


def _decode(content: bytes, encoded: Encoded, data: config.Data) -> _Image:
    return decode_for(data, content, data.image_size, encoded.channels)


def _form(data: config.Data) -> tuple[str, ...]:
    """The part of a cache's key for how images become square and for their type, if these are not the usual ones."""
    fit = (data.resize,) if data.image_size and data.resize != "crop" else ()
    return fit if data.dtype == "uint8" else (*fit, data.dtype)


def _decoded(encoded: Encoded, index: int, data: config.Data, shape: tuple[int, int, int]) -> _Image:
    try:
        pixels = _decode(encoded.load(index), encoded, data)
    except (Unreadable, OSError) as error:
        raise _cannot_read(encoded, index, str(getattr(error, "strerror", None) or error)) from None
    if pixels.shape != shape:
        raise UserError(
            f"image {encoded.name(index)} is {_size(pixels.shape)}, not {_size(shape)} as {encoded.title} states; set "
            "config.data.image_size to resize all images to one size"
        )
    return pixels


def _cannot_read(encoded: Encoded, index: int, reason: str) -> UserError:
    return UserError(
        f"cannot read image {encoded.name(index)}: {reason}; repair or remove it, or set config.data.on_error='skip' "
        "to skip such images"
    )


def sizes_of(encoded: Encoded, data: config.Data) -> _Sizes:
    """Height and width of every image, from the headers; 0 where `data.on_error="skip"` leaves an image out.

    Raises:
      UserError: an image cannot be read, with `data.on_error="raise"`.
    """
    return _scan(encoded, data, pixels=True)[0] if data.on_error == "skip" else _stored_sizes(encoded, data)


def _stored_sizes(encoded: Encoded, data: config.Data) -> _Sizes:
    """The height and width of every image, from the headers."""
    sizes, unreadable = _scan(encoded, data, pixels=False)
    if unreadable:
        index = min(unreadable)
        raise _cannot_read(encoded, index, unreadable[index])
    return sizes


def _differing(encoded: Encoded, kept: Indices, sizes: _Sizes) -> str:
    """A note if the images differ in size and therefore become squares of `SIDE`; else empty."""
    first = kept[0]
    other = kept[(sizes[kept] != sizes[first]).any(axis=1)]
    if not len(other):
        return ""
    return (
        f"images of {encoded.title} differ in size ({encoded.name(int(first))} is {_size(sizes[first])}, "
        f"{encoded.name(int(other[0]))} is {_size(sizes[other[0]])}), so they are resized to {SIDE}x{SIDE}; "
        "config.data.image_size chooses another side"
    )


def _scan(encoded: Encoded, data: config.Data, pixels: bool) -> tuple[_Sizes, dict[int, str]]:
    """The sizes of all images, and why some are unreadable, from headers or, with `pixels`, from all of each image."""
    passing_trouble = []  # storage failures may be temporary: such results are not cached

    def look(indices: Indices) -> list[tuple[int, int, str]]:
        found = []
        for index in indices:
            try:
                content = encoded.load(int(index))
                if pixels:
                    _decode(content, encoded, data)
                found.append((*size_for(data, content, encoded.channels), ""))
            except (Unreadable, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                    passing_trouble.append(error)
                found.append((0, 0, str(getattr(error, "strerror", None) or error)))
        return found

    def look_at_all() -> dict[str, np.ndarray]:
        count = len(encoded.labels)
        logger.info("checking the %d images of %s", count, encoded.title)
        chunks = [np.arange(start, min(start + _SCAN_CHUNK, count)) for start in range(0, count, _SCAN_CHUNK)]
        found = [row for rows in map_in_threads(look, chunks, data.workers) for row in rows]
        return {
            "sizes": np.array([row[:2] for row in found], np.int32).reshape(-1, 2),
            "unreadable": np.array([index for index, row in enumerate(found) if row[2]], np.int64),
            "reasons": np.array([row[2] for row in found if row[2]], np.str_),
        }

    # These settings decide which images are readable.
    limits: tuple[object, ...] = (data.image_size, data.grey16_max, data.max_megapixels) if pixels else ()
    limits += _form(data)
    key = cache.fingerprint(("scan", 2, pixels, limits, PIL.__version__, encoded.channels, encoded.fingerprint()))
    path = cache_folder() / f"scan-{key}.npz"
    arrays = cache.cached_arrays(path, look_at_all, keep=lambda: not passing_trouble)
    reasons = [str(reason) for reason in arrays["reasons"]]
    return arrays["sizes"], dict(zip(arrays["unreadable"].tolist(), reasons, strict=True))


def _left_out(encoded: Encoded, unreadable: dict[int, str]) -> str:
    names = [f"{encoded.name(index)} ({unreadable[index]})" for index in sorted(unreadable)[:_NAMED]]
    more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    plural = "s" if len(unreadable) > 1 else ""
    return f"skipped {len(unreadable)} unreadable image{plural} of {encoded.title}: {', '.join(names)}{more}"


def _size(shape) -> str:
    return "x".join(str(int(side)) for side in shape)
