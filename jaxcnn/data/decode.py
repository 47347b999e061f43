"""Decoding of image files to uint8 pixels. There is only this decoder, so every loader gets the same bits."""

import contextlib
import io
import logging
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxcnn.config import Data

EXTENSIONS = {  # extensions of files that count as images in a folder, keyed by Pillow's format name
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
FORMATS = tuple(EXTENSIONS)
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
Image.init()  # registers all formats now: lazy registration is not thread-safe
# `decode` has a limit of its own: Pillow's holds for the whole process, ignores JPEG's reduced scales, and its message
# speaks of attacks. Pillow's warnings and log concern metadata that is not read here, and name no file.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class Unreadable(Exception):
    """The bytes are not a complete image; `str` gives the reason. Callers add the file name."""


def decode(
    encoded: bytes,
    size: int = 0,
    channels: int = 3,
    *,
    grey16_max: int = Data.grey16_max,
    max_megapixels: float = Data.max_megapixels,
) -> UInt8[np.ndarray, "h w c"]:
    """Decode one image to pixels of `channels` channels.

    Only the first frame or page of a file is used. EXIF orientation is applied. Transparent pixels are blended over
    white. 16-bit grey is scaled to 8 bits (v * 255 / grey16_max, rounded); Pillow converts CMYK and palettes.

    Args:
      encoded: bytes in one of `FORMATS`.
      size: side in pixels of the square result (see `resize`); 0 keeps the image's own size.
      channels: 3 for RGB, 1 for grey.
      grey16_max: the value of 16-bit grey that becomes 255.
      max_megapixels: largest image to decode. A resized JPEG counts with the reduced scale at which it is decoded.

    Raises:
      Unreadable: damaged, truncated, too large, with values that cannot be scaled to 8 bits, or not an image.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            if size:
                # JPEG can be decoded at 1/2, 1/4 or 1/8 scale: fast for photographs, and still at least twice `size`.
                file.draft(None, (2 * size, 2 * size))
            _check_size(file.size, max_megapixels)
            _check_values(file)
            file.load()
            image: Image.Image = file
    except Unreadable:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of any kind
        raise Unreadable(_reason(error, encoded)) from None
    with contextlib.suppress(Exception):  # a damaged EXIF block: leave the pixels as stored
        ImageOps.exif_transpose(image, in_place=True)
    return pixels_of(image, size, channels, grey16_max)


def pixels_of(
    image: Image.Image, size: int, channels: int, grey16_max: int = Data.grey16_max
) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a Pillow image as `decode` gives them, with the same arguments. Raises Unreadable."""
    image = _convert(image, channels, grey16_max)
    if size:
        image = _square(image, size)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def stored_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of the image that `decode` would return, from the header alone. Raises Unreadable."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            orientation = 1
            if image.format != "TIFF":  # for TIFF, Pillow reports the size after applying the orientation
                with contextlib.suppress(Exception):
                    orientation = image.getexif().get(0x0112, 1)
    except Exception as error:
        raise Unreadable(_reason(error, encoded)) from None
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def grey16_peak(encoded: bytes, max_megapixels: float = Data.max_megapixels) -> int | None:
    """The highest value of a 16-bit grey image; None for other images. Raises Unreadable."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if not image.mode.startswith("I"):
                return None
            _check_size(image.size, max_megapixels)
            return int(np.asarray(image).max())
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(_reason(error, encoded)) from None


def resize(pixels: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size c"]:
    """The centre square of an image of 1 or 3 channels, resized.

    Bilinear with antialiasing; equal to resizing the shorter side to `size` and cropping the centre, but the cropped
    parts are never computed.
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(_square(image, size)).reshape(size, size, channels)


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _check_size(size: tuple[int, int], max_megapixels: float) -> None:
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise Unreadable(
            f"its header states {width} x {height} pixels, more than config.data.max_megapixels={max_megapixels:g}"
        )


def _check_values(file: Image.Image) -> None:
    """Refuse values that Pillow would silently clip or show as a negative. Only TIFF can hold them."""
    if file.mode == "F":
        raise Unreadable("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if file.format == "TIFF" and file.mode == "I":
        raise Unreadable("its pixels have 32 bits or are signed; save it with 8 or 16 unsigned bits")
    if file.mode.startswith("I") and getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise Unreadable("it is 16-bit grey with white as 0; save it with black as 0")


def _convert(image: Image.Image, channels: int, grey16_max: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.clip(np.asarray(image), 0, 2**16 - 1).astype(np.uint32)
        if (peak := int(values.max())) > grey16_max:
            raise Unreadable(f"it contains the value {peak}, above config.data.grey16_max={grey16_max}")
        grey = ((2 * 255 * values + grey16_max) // (2 * grey16_max)).astype(np.uint8)
        if isinstance(transparent := image.info.get("transparency"), int):
            grey[values == transparent] = 255
        image = Image.fromarray(grey)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    try:
        return image.convert("RGB" if channels == 3 else "L")
    except ValueError as error:
        raise Unreadable(f"its colours ({image.mode}) cannot be read: {error}") from None


def _reason(error: Exception, encoded: bytes) -> str:
    text = str(error).partition("\n")[0]
    if "cannot identify image file" in text:
        tiff = encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        return "a TIFF of an unsupported kind" if tiff else "not an image file"
    return text or type(error).__name__
