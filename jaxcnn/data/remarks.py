"""Remarks on information that image files lose when converted to 8-bit examples of one size."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int

import jaxcnn.config as config
from jaxcnn.data import decode
from jaxcnn.data.decode import Unreadable, grey16_peak
from jaxcnn.data.examples import Indices
from jaxcnn.data.pixels import size_for

_HEADERS, _IMAGES = 64, 16  # first headers and images of a split that are checked at every start if sizes are not known
_TOLD_FROM = 0.01  # an image counts if it loses at least this share of its pixels

_Load = Callable[[int], bytes]
_Sizes = Int[np.ndarray, "n 2"]  # height and width of each image


def on_losses(
    title: str, load: _Load, kept: Indices, data: config.Data, channels: int, sizes: _Sizes | None
) -> list[str]:
    """Notes on pixels that are cut away, and on values that 8 bits cannot distinguish.

    Args:
      title: name of the split in messages.
      load: returns the bytes of an image by its index; raises OSError.
      kept: indices of the images.
      channels: number of channels of the decoded images.
      sizes: heights and widths of all images, also of those that are not kept, if known; else some headers are read.
    """

    def readable(indices: Indices) -> Iterator[bytes]:
        """The bytes of the images whose header can be read; the other images are reported when all images are read."""
        for index in indices:
            with contextlib.suppress(Unreadable, OSError):
                content = load(int(index))
                size_for(data, content, channels)
                yield content

    if sizes is None and data.image_size and data.resize == "crop":
        known = [size_for(data, content, channels) for content in readable(kept[:_HEADERS])]
        notes = centre_square(title, data, np.array(known).reshape(-1, 2), len(kept))
    else:
        notes = [] if sizes is None else centre_square(title, data, sizes[kept], len(kept))
    if data.dtype == "uint8":
        first = list(readable(kept[:_IMAGES]))
        notes += [*_deep_colour(title, first), *_dark_grey(title, first, data)]
    return notes


def centre_square(title: str, data: config.Data, sizes: _Sizes, count: int) -> list[str]:
    """A note on pixels outside the centre squares; `sizes` are those of some or all of `count` images."""
    if not data.image_size or data.resize != "crop":
        return []
    sides = np.sort(np.asarray(sizes, np.float64), axis=1)
    lost = 1 - sides[:, 0] / sides[:, 1]
    cut = lost[lost >= _TOLD_FROM]
    if not len(cut):
        return []
    which = f"the {count}" if len(lost) == count else f"the first {len(lost)} of {count}"
    share = f"{cut.mean():.0%} of their pixels" + (" on average" if np.ptp(cut) > _TOLD_FROM else "")
    return [
        f"config.data.image_size={data.image_size} keeps only the centre square of each image: of {which} images of "
        f"{title}, {len(cut)} lose {share}; config.data.resize='pad' or 'stretch' keeps them"
    ]


def _deep_colour(title: str, images: list[bytes]) -> list[str]:
    deep = sum(decode.is_deep_colour(content) for content in images)
    if not deep:
        return []
    return [
        f"{title} has colour images of 16 bits ({deep} of the first {len(images)}), of which 8 are kept; "
        "config.data.dtype='uint16' keeps all"
    ]


def _dark_grey(title: str, images: list[bytes], data: config.Data) -> list[str]:
    peaks = []
    for content in images:
        with contextlib.suppress(Unreadable):
            peaks.append(grey16_peak(content, data.max_megapixels))
    peak = max((peak for peak in peaks if peak is not None), default=0)
    if not peak or 4 * peak >= data.grey16_max:
        return []
    left = (2 * 255 * peak + data.grey16_max) // (2 * data.grey16_max) + 1  # scaled as in `decode`
    return [
        f"{title} has 16-bit grey images with values up to only {peak} of {data.grey16_max} (the first {len(peaks)} "
        f"were checked), so they keep {left} of the 256 grey values of 8 bits; "
        f"config.data.grey16_max={2 ** peak.bit_length() - 1} keeps more"
    ]
