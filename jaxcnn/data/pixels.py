"""Pixels as a config asks for them: number of channels, type of values, size."""

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from jaxcnn.config import Data
from jaxcnn.data import as_stored, decode
from jaxcnn.data.decode import Unreadable
from jaxcnn.text import counted

Pixels = Shaped[np.ndarray, "h w c"]  # of `config.data.dtype`


def decode_for(data: Data, encoded: bytes, size: int, channels: int) -> Pixels:
    """Decode an image file to `channels` channels of `data.dtype`; `size` is the side of the square, or 0.

    8-bit grey and RGB are converted from anything (`decode.decode`). Other pixels are as the file stores them
    (`as_stored.read`), so its channels and values must fit.

    Raises:
      Unreadable: an image that these two refuse, or with another number of channels or type of values.
      MissingExtra: a package is not installed.
    """
    if not _as_stored(data, channels, encoded):
        return decode.decode(
            encoded,
            size,
            channels,
            fit=data.resize,
            grey16_max=data.grey16_max,
            max_megapixels=data.max_megapixels,
        )
    return _fitted(as_stored.read(encoded, data.max_megapixels), data, size, channels)


def decode_stack(data: Data, encoded: bytes, size: int, channels: int) -> list[Pixels]:
    """The images of a `.npy` file [N, H, W, C], each as from `decode_for`.

    Raises:
      Unreadable: as in `decode_for`.
    """
    return [_fitted(image, data, size, channels) for image in as_stored.stack(encoded, data.max_megapixels)]


def _fitted(stored: Pixels, data: Data, size: int, channels: int) -> Pixels:
    pixels = as_stored.as_type(stored, data.dtype)
    if pixels.shape[-1] != channels:
        raise Unreadable(f"it has {counted(pixels.shape[-1], 'channel')}, not {channels}; see config.data.channels")
    return resized(pixels, size, data.resize) if size else pixels


def size_for(data: Data, encoded: bytes, channels: int) -> tuple[int, int]:
    """The height and width of the image that `decode_for` returns for size 0. Raises as `decode_for` does."""
    return as_stored.size(encoded) if _as_stored(data, channels, encoded) else decode.stored_size(encoded)


def resized(pixels: Pixels, size: int, fit: str) -> Pixels:
    """`decode.resize` for any number of channels and type of pixels; integers are rounded."""
    channels = pixels.shape[-1]
    if pixels.dtype == np.uint8 and channels in (1, 3):
        return decode.resize(pixels, size, fit)
    if pixels.dtype == np.uint8:
        return np.concatenate([decode.resize(pixels[..., c : c + 1], size, fit) for c in range(channels)], axis=-1)
    values = pixels.astype(np.float32)
    layers = [np.asarray(decode.square(Image.fromarray(values[..., c]), size, fit)) for c in range(channels)]
    stacked = np.stack(layers, axis=-1)
    return np.rint(stacked).astype(pixels.dtype) if pixels.dtype.kind == "u" else stacked


def _as_stored(data: Data, channels: int, encoded: bytes) -> bool:
    return data.dtype != "uint8" or channels not in (1, 3) or encoded.startswith(as_stored.NPY)
