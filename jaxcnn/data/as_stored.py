"""Image files as arrays of their own channels and values: any number of channels, 8 or 16 bits, floats.

`jaxcnn.data.decode` turns an image into 8-bit RGB or grey; here nothing is converted, scaled or blended.
"""

import contextlib
import io
import math
import re
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageOps

from jaxcnn.data.decode import FORMATS, Unreadable, check_size, reason, stored_size
from jaxcnn.machine.extras import need

Pixels = Shaped[np.ndarray, "h w c"]  # of any type

NPY = b"\x93NUMPY"
_NPY_HEADER = (  # the type of numbers, the order of the axes, the shape
    r"""['"]descr['"]\s*:\s*['"]([<>|=]?[A-Za-z?]\d{0,9})['"]""",
    r"""['"]fortran_order['"]\s*:\s*(True|False)""",
    r"""['"]shape['"]\s*:\s*\(([\d\s,]*)\)""",
)
_MOST_HEADER = 10_000  # bytes, as in NumPy
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")
_UPRIGHT = {  # the change that each EXIF orientation needs, by the numbers of the standard
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}


def read(encoded: bytes, max_megapixels: float) -> Pixels:
    """The pixels of an image file: PNG of 8 or 16 bits, TIFF, `.npy`, or another of `decode.FORMATS`.

    Only the first frame is used, but the pages of a TIFF are its channels. EXIF orientation is applied. A palette
    counts as its colours. A `.npy` file has the shape [H, W] or [H, W, C].

    Raises:
      Unreadable: damaged, truncated, too large, or not an image.
      MissingExtra: a TIFF that needs tifffile, which is not installed.
    """
    with _refusing(encoded):
        if encoded.startswith(NPY):
            return _npy(encoded, max_megapixels)
        if encoded.startswith(_TIFF) and not _known_to_pillow(encoded):
            return _tiff(encoded, max_megapixels)
        return _pillow(encoded, max_megapixels)


def size(encoded: bytes) -> tuple[int, int]:
    """The height and width of the image that `read` would return, from its header alone. Raises as `read` does."""
    with _refusing(encoded):
        if encoded.startswith(NPY):
            height, width, _ = _npy_sides(encoded)
            return height, width
        if encoded.startswith(_TIFF) and not _known_to_pillow(encoded):
            with _series(encoded) as (_, (height, width, _), orientation):
                return (width, height) if orientation >= 5 else (height, width)
        return stored_size(encoded)


def stack_size(encoded: bytes) -> int | None:
    """The number of images in a `.npy` file [N, H, W, C], from its header; None for other files.

    Raises:
      Unreadable: the header is damaged.
    """
    if not encoded.startswith(NPY):
        return None
    with _refusing(encoded):
        shape = _npy_form(encoded)[0]
    return shape[0] if len(shape) == 4 else None


def stack(encoded: bytes, max_megapixels: float) -> Shaped[np.ndarray, "n h w c"]:
    """The images of a `.npy` file [N, H, W, C], without a copy.

    Raises:
      Unreadable: the file is damaged, or an image is too large.
    """
    with _refusing(encoded):
        values = _npy_values(encoded)
        check_size((values.shape[2], values.shape[1]), max_megapixels)
        return values


def as_type(pixels: Shaped[np.ndarray, "..."], dtype: str) -> Shaped[np.ndarray, "..."]:
    """Pixels as `config.data.dtype` with their stored values: any numbers become float32; integers must have the type.

    Raises:
      Unreadable: the pixels are of another type, or not finite.
    """
    if dtype == "float32" and pixels.dtype.kind in "buif":
        with np.errstate(over="ignore"):
            values = pixels.astype(np.float32)
        if not np.isfinite(values).all():
            raise Unreadable("it contains NaN, or values that are infinite in float32; replace them")
        return values
    if pixels.dtype.newbyteorder("=") != dtype:
        other = pixels.dtype.name if pixels.dtype.name in ("uint8", "uint16") else "float32"
        raise Unreadable(
            f"its pixels are {pixels.dtype.name}, but config.data.dtype={dtype!r}; save all images in one type and set "
            f"config.data.dtype={other!r}"
        )
    return pixels.astype(dtype, copy=False)


@contextlib.contextmanager
def _refusing(encoded: bytes) -> Any:
    """Turn the errors of libraries on damaged files, which may be of any type, into Unreadable."""
    from jaxcnn.machine.extras import MissingExtra

    try:
        yield
    except (Unreadable, MissingExtra):
        raise
    except Exception as error:
        raise Unreadable(reason(error, encoded)) from None


def _pillow(encoded: bytes, max_megapixels: float) -> Pixels:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
        check_size(file.size, max_megapixels)
        form = str(file.tile[0].args) if file.format == "PNG" and file.tile else ""
    # Pillow keeps only the high bytes of 16-bit colours ("16B": big-endian). Read as little-endian values, the same
    # file gives the low bytes. Grey with alpha has the size of RGBA, whose four channels then are its four bytes.
    if form in ("RGB;16B", "RGBA;16B"):
        high, low = (_loaded(encoded, form[:-1] + order).astype(np.uint16) for order in "BL")
        return high << 8 | low
    if form == "LA;16B":
        four = _loaded(encoded, "RGBA").astype(np.uint16)
        return four[..., 0::2] << 8 | four[..., 1::2]
    return _loaded(encoded)


def _loaded(encoded: bytes, raw_mode: str = "") -> Pixels:
    """The pixels that Pillow loads, upright; `raw_mode` names another layout of the stored bytes."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
        if raw_mode:
            file.tile = [tile._replace(args=raw_mode) for tile in file.tile]
        file.load()
        image: Image.Image = file
    with contextlib.suppress(Exception):  # a damaged EXIF block: leave the pixels as stored
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("=")).reshape(*pixels.shape[:2], -1)


def _npy(encoded: bytes, max_megapixels: float) -> Pixels:
    shape = _npy_sides(encoded)
    check_size((shape[1], shape[0]), max_megapixels)
    return _npy_values(encoded).reshape(shape).copy()


def _npy_sides(encoded: bytes) -> tuple[int, int, int]:
    """The shape [H, W, C] of one image."""
    shape, _, dtype, _ = _npy_form(encoded)
    if len(shape) not in (2, 3):
        raise Unreadable(f"it is an array of {dtype} of shape {shape}, not an image [H, W] or [H, W, C]")
    height, width, channels = (*shape, 1)[:3]
    return height, width, channels


def _npy_values(encoded: bytes) -> Shaped[np.ndarray, "..."]:
    """The array in a `.npy` file, without a copy."""
    shape, in_columns, dtype, offset = _npy_form(encoded)
    values = np.frombuffer(encoded, dtype, math.prod(shape), offset)
    return values.reshape(shape, order="F" if in_columns else "C")


def _npy_form(encoded: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """The shape, whether the first index is the fastest, the type, and the offset of the values.

    Refuses headers that promise more values than there are, or none. Nothing in the header is evaluated, as NumPy does
    (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): it may come from anywhere.
    """
    version, start = encoded[len(NPY)], 10 if encoded[len(NPY)] == 1 else 12
    offset = start + int.from_bytes(encoded[8:start], "little")
    header = encoded[start:offset].decode("latin-1")
    found = [re.search(pattern, header) for pattern in _NPY_HEADER]
    if version not in (1, 2, 3) or offset > min(len(encoded), _MOST_HEADER) or None in found:
        raise Unreadable("its header is damaged, or not that of an array of numbers")
    kind, in_columns, sides = (each[1] for each in found if each)
    dtype, shape = np.dtype(kind), tuple(int(side) for side in sides.split(",") if side.strip())
    if not shape or min(shape) < 1 or dtype.hasobject or not dtype.itemsize:
        raise Unreadable(f"it is an array of {dtype} of shape {shape}, not an image [H, W] or [H, W, C]")
    if math.prod(shape) * dtype.itemsize > len(encoded) - offset:
        raise Unreadable("it is truncated")
    return shape, in_columns == "True", dtype, offset


def _known_to_pillow(encoded: bytes) -> bool:
    """Whether Pillow reads the channels and values of this TIFF as they are."""
    try:
        with Image.open(io.BytesIO(encoded), formats=("TIFF",)) as file:
            if getattr(file, "n_frames", 1) > 1:
                return False
            tags = file.tag_v2  # type: ignore[attr-defined]
            bits, white_is_zero = set(tags.get(_BITS, (1,))), tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
            return (
                (file.mode in _EIGHT_BITS and bits <= {1, 8})
                or (file.mode.startswith("I;16") and not white_is_zero)
                or (file.mode == "F" and bits == {32})
            )
    except Exception:  # of any type
        return False


@contextlib.contextmanager
def _series(encoded: bytes) -> Any:
    """A TIFF's first image as a series of tifffile, its shape [H, W, C] as stored, and how to turn it upright."""
    need("tiff", "a TIFF of many channels, many pages or unusual values", "tifffile")
    import tifffile

    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        series, page = file.series[0], file.pages[0]
        if getattr(page, "photometric", None) == _WHITE_IS_ZERO:
            raise Unreadable("white is 0 in it; save it with black as 0")
        orientation = page.tags["Orientation"].value if "Orientation" in page.tags else 1  # type: ignore[union-attr]
        axes, shape = series.axes, series.shape
        if axes == "YX":
            sides = (*shape, 1)
        elif len(axes) == 3 and axes.startswith("YX"):
            sides = shape
        elif len(axes) == 3 and axes.endswith("YX"):
            sides = (shape[1], shape[2], shape[0])
        else:
            raise Unreadable(f"its pages and channels are {shape} ({axes}), not one image; save each image in a file")
        yield series, sides, int(orientation)


def _tiff(encoded: bytes, max_megapixels: float) -> Pixels:
    with _series(encoded) as (series, (height, width, channels), orientation):
        check_size((width, height), max_megapixels)
        pixels = series.asarray()
    pixels = (
        np.moveaxis(pixels, 0, -1) if pixels.shape[:2] != (height, width) else pixels.reshape(height, width, channels)
    )
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)
