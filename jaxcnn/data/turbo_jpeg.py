"""JPEGs decoded by libjpeg-turbo itself, through simplejpeg (extra `[jpeg]`), in half the time of Pillow.

Pillow has the same library inside, but copies pixels three times on their way to an array. The pixels are equal, which
is tested on some JPEGs before the first use. Pillow still decodes what is not plain: other colours than YCbCr and grey,
EXIF and other orientations, sizes that change, and damaged files, so that it alone decides what is unreadable and why.
"""

import functools
import io
import logging
from importlib import util

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_PLAIN = ("YCbCr", "Gray")
_TURNED = (b"Exif", b"Orientation")  # in metadata; bytes of pixels that happen to equal these only cost time
_log = logging.getLogger("jaxcnn")


def decode(encoded: bytes, size: int, channels: int, max_megapixels: float) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels that `jaxcnn.data.decode.decode` returns for these arguments; None if it has to find them itself."""
    if channels != 3 or not encoded.startswith(b"\xff\xd8\xff") or not _trusted():
        return None
    if any(sign in encoded for sign in _TURNED):
        return None
    return _decoded(encoded, size, max_megapixels)


def _decoded(encoded: bytes, size: int, max_megapixels: float) -> UInt8[np.ndarray, "h w 3"] | None:
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours not in _PLAIN or (size and (height, width) != (size, size)) or height * width > max_megapixels * 1e6:
            return None
        return simplejpeg.decode_jpeg(encoded, "RGB", strict=True)  # also reads what Pillow reads in spite of a warning
    except Exception:
        return None


@functools.cache
def _trusted() -> bool:
    """Whether simplejpeg is installed and returns Pillow's pixels."""
    if util.find_spec("simplejpeg") is None:
        return False
    differ = [options for options in _TRIED if not _equal(options)]
    if differ:
        _log.warning("simplejpeg decodes JPEGs otherwise than Pillow (%s), so Pillow decodes all", differ[0])
    return not differ


_TRIED: tuple[dict[str, object], ...] = tuple(
    {"mode": mode, "subsampling": subsampling, "progressive": progressive}
    for mode, subsampling in (("RGB", "4:4:4"), ("RGB", "4:2:2"), ("RGB", "4:2:0"), ("L", "4:4:4"))
    for progressive in (False, True)
)


def _equal(options: dict[str, object]) -> bool:
    """Whether both libraries decode a JPEG, made with these options, to the same pixels."""
    tried = dict(options)
    coarse = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((45, 61), Image.Resampling.BICUBIC).convert(str(tried.pop("mode")))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **tried)
    with Image.open(io.BytesIO(file.getvalue()), formats=("JPEG",)) as stored:
        expected = np.asarray(stored.convert("RGB"))
    found = _decoded(file.getvalue(), 0, np.inf)
    return found is not None and np.array_equal(found, expected)
