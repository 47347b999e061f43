"""Sizes that any coding must beat: the weights as float32, float16 or int8, plain and after zlib and zstd."""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int8

from jaxcnn.machine import extras

Arrays = Mapping[str, np.ndarray]

ZLIB_LEVEL, ZSTD_LEVEL = 9, 19


def int8_of(
    weights: Float[np.ndarray, "..."],
) -> tuple[Int8[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """A kernel as int8 with one scale per output channel, the largest magnitude being 127, and the scales.

    Output channels are the last axis of a convolution's kernel, and the first of a dense layer's.
    """
    axis = 0 if weights.ndim == 2 else weights.ndim - 1
    others = tuple(each for each in range(weights.ndim) if each != axis)
    scales = np.abs(weights).max(axis=others, keepdims=True) / np.float32(127)
    return np.rint(weights / np.where(scales > 0, scales, 1)).astype(np.int8), scales.astype(np.float32)


def as_float32(arrays: Arrays) -> tuple[bytes, dict[str, np.ndarray]]:
    """The bytes of arrays, and the arrays as they are."""
    return b"".join(_bytes(each) for each in arrays.values()), dict(arrays)


def as_float16(arrays: Arrays) -> tuple[bytes, dict[str, np.ndarray]]:
    """The bytes of arrays as float16, and these values as float32."""
    halves = {name: each.astype(np.float16) for name, each in arrays.items()}
    return b"".join(map(_bytes, halves.values())), {name: each.astype(np.float32) for name, each in halves.items()}


def as_int8(arrays: Arrays) -> tuple[bytes, dict[str, np.ndarray]]:
    """The bytes of arrays whose kernels are int8, with their scales, and these values as float32."""
    parts, decoded = [], {}
    for name, each in arrays.items():
        if each.ndim < 2:
            parts.append(_bytes(each))
            decoded[name] = each
            continue
        codes, scales = int8_of(each)
        parts += [_bytes(codes), _bytes(scales)]
        decoded[name] = codes * scales
    return b"".join(parts), decoded


FORMS: dict[str, Callable[[Arrays], tuple[bytes, dict[str, np.ndarray]]]] = {
    "float32": as_float32,
    "float16": as_float16,
    "int8 per channel": as_int8,
}


def coded(content: bytes) -> dict[str, int]:
    """The number of bytes after each general coder that is installed; Python has zlib."""
    sizes = {"zlib": len(zlib.compress(content, ZLIB_LEVEL))}
    if not lacks():
        import zstandard

        sizes["zstd"] = len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content))
    return sizes


def lacks() -> list[str]:
    """A line that says which general coder is not installed, if one is not."""
    try:
        extras.need("compress", "the column zstd")
    except extras.MissingExtra as error:
        return [f"{error}; the table is without it"]
    return []


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
