"""Decoding of image files to uint8 pixels. There is only this decoder, so every loader gets the same bits."""

import contextlib
import io
import logging
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxcnn.config import Data
from jaxcnn.data import turbo_jpeg

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
# `decode` has its own limit: Pillow's holds for the whole process, ignores JPEG's reduced scales, and its message
# speaks of attacks. Pillow's warnings and log concern metadata that is not read here, and name no file.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class Unreadable(Exception):
    """Raised for bytes that are not a complete image; `str` gives the reason. Callers add the file name."""


def decode(
    encoded: bytes,
    size: int = 0,
    channels: int = 3,
    *,
    fit: str = Data.resize,
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
      fit: how an image that is not square becomes square (see `resize`).
      grey16_max: the value of 16-bit grey that becomes 255.
      max_megapixels: largest image to decode. A resized JPEG counts with the reduced scale at which it is decoded.

    Raises:
      Unreadable: damaged, truncated, too large, with values that cannot be scaled to 8 bits, or not an image.
    """
    if (pixels := turbo_jpeg.decode(encoded, size, channels, max_megapixels)) is not None:
        return pixels
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            if size:
                # JPEG can be decoded at 1/2, 1/4 or 1/8 scale: fast for photographs, and still twice as large.
                width, height = fitted(file.size, size, fit)
                file.draft(None, (2 * width, 2 * height))
            check_size(file.size, max_megapixels)
            _check_values(file)
            file.load()
            image: Image.Image = file
    except Unreadable:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of any kind
        raise Unreadable(reason(error, encoded)) from None
    with contextlib.suppress(Exception):  # a damaged EXIF block: leave the pixels as stored
        ImageOps.exif_transpose(image, in_place=True)
    return pixels_of(image, size, channels, fit=fit, grey16_max=grey16_max)


def pixels_of(
    image: Image.Image, size: int, channels: int, *, fit: str = Data.resize, grey16_max: int = Data.grey16_max
) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a Pillow image as `decode` gives them, with the same arguments. Raises Unreadable."""
    image = _convert(image, channels, grey16_max)
    if size:
        image = square(image, size, fit)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def stored_size(encoded: bytes) -> tuple[int, int]:
    """The height and width of the image that `decode` would return, from its header alone.

    Raises:
      Unreadable: the header is damaged.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            orientation = 1
            if image.format != "TIFF":  # for TIFF, Pillow reports the size after applying the orientation
                with contextlib.suppress(Exception):
                    orientation = image.getexif().get(0x0112, 1)
    except Exception as error:
        raise Unreadable(reason(error, encoded)) from None
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def grey16_peak(encoded: bytes, max_megapixels: float = Data.max_megapixels) -> int | None:
    """The highest value of a 16-bit grey image; None for other images. Raises Unreadable."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if not image.mode.startswith("I"):
                return None
            check_size(image.size, max_megapixels)
            return int(np.asarray(image).max())
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(reason(error, encoded)) from None


def is_deep_colour(encoded: bytes) -> bool:
    """Whether this is a 16-bit colour image, of which `decode` keeps 8 bits; False if it cannot be read."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in image.tile)
    return False


def resize(pixels: UInt8[np.ndarray, "h w c"], size: int, fit: str = Data.resize) -> UInt8[np.ndarray, "size size c"]:
    """An image of 1 or 3 channels as a square: bilinear with antialiasing.

    Args:
      pixels: the image.
      size: side of the square in pixels.
      fit: "crop" keeps the centre square; the rest is never computed. "pad" (letterbox) keeps the whole image and its
        proportions, between two bars of pixel value 0. "stretch" keeps the whole image without its proportions.
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(square(image, size, fit)).reshape(size, size, channels)


def square(image: Image.Image, size: int, fit: str) -> Image.Image:
    """The square image of `resize`, from a Pillow image in a mode with one value for each channel."""
    width, height = image.size
    side = min(width, height)
    left, top = ((width - side) / 2, (height - side) / 2) if fit == "crop" else (0, 0)
    box = (left, top, width - left, height - top)
    resized = image.resize(fitted(image.size, size, fit), Image.Resampling.BILINEAR, box=box)
    if resized.size == (size, size):
        return resized
    square = Image.new(resized.mode, (size, size))  # 0 everywhere
    square.paste(resized, ((size - resized.width) // 2, (size - resized.height) // 2))
    return square


def fitted(sides: tuple[int, int], size: int, fit: str) -> tuple[int, int]:
    """The width and height of a resized image within its square, from its own width and height, `sides`."""
    longest = max(sides)
    if fit != "pad":
        return size, size
    width, height = (max(1, (2 * size * side + longest) // (2 * longest)) for side in sides)  # rounded
    return width, height


def check_size(size: tuple[int, int], max_megapixels: float) -> None:
    """Refuse an image of this (width, height) that is too large.

    Raises:
      Unreadable: it is.
    """
    width, height = size
    if width * height > max_megapixels * 1e6:
        raise Unreadable(
            f"its header states {width} x {height} pixels, more than config.data.max_megapixels={max_megapixels:g}"
        )


def _check_values(file: Image.Image) -> None:
    """Refuse values that Pillow would silently clip or turn negative. Only TIFF can hold them."""
    if file.mode == "F":
        raise Unreadable(
            "its pixels are floating-point numbers; save it with 8 or 16 bits, or set config.data.dtype='float32'"
        )
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


def reason(error: Exception, encoded: bytes) -> str:
    """The reason why these bytes cannot be decoded, from the error of a library."""
    text = str(error).partition("\n")[0]
    if "cannot identify image file" in text:
        tiff = encoded[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        return "a TIFF of an unsupported kind" if tiff else "not an image file"
    return text or type(error).__name__
