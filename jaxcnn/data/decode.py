"""From the bytes of an image file to uint8 pixels: the one decoder, so that every loader sees the same bits."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
Image.init()  # registers all formats now: doing so lazily is not safe in threads


class Unreadable(Exception):
    """The bytes are no image, or not all of one; `str` says why. Callers add which file it was."""


def decode(encoded: bytes, size: int = 0, channels: int = 3) -> np.ndarray:
    """Decode one image to uint8 pixels [H, W, channels].

    Animations give their first frame. EXIF orientation is applied. Transparent pixels are laid over white. 16-bit grey
    is scaled to 8 bits (v / 257, rounded), CMYK and palettes go through Pillow's conversion.

    Args:
      encoded: JPEG, PNG, WebP, GIF or BMP.
      size: side in pixels of the square result (see `resize`); 0 keeps the image's own size.
      channels: 3 for RGB, 1 for grey.

    Raises:
      Unreadable: damaged, truncated, or not an image.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            if size:
                # JPEG can be decoded at 1/2, 1/4 or 1/8: quick for photographs, and still twice the asked size.
                file.draft(None, (2 * size, 2 * size))
            file.load()
            image: Image.Image = file
    except Exception as error:  # damaged files make Pillow raise errors of any kind
        raise Unreadable(_reason(error)) from None
    with contextlib.suppress(Exception):  # a damaged EXIF block: leave the pixels as stored
        ImageOps.exif_transpose(image, in_place=True)
    image = _convert(image, channels)
    if size:
        image = _square(image, size)
    pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def stored_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) as `decode` would give it, from the header alone. Raises Unreadable."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            orientation = 1
            with contextlib.suppress(Exception):
                orientation = image.getexif().get(0x0112, 1)
    except Exception as error:
        raise Unreadable(_reason(error)) from None
    return (width, height) if orientation in _TRANSPOSED else (height, width)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """The centre square of uint8 pixels [H, W, C] (C = 1 or 3), resized to [size, size, C].

    Bilinear with antialiasing; the same as resizing the shorter side to `size` and cropping the centre, except that the
    parts to be cropped away are never made.
    """
    channels = pixels.shape[-1]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(_square(image, size)).reshape(size, size, channels)


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB" if channels == 3 else "L")


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return "not an image file" if "cannot identify image file" in text else text or type(error).__name__
