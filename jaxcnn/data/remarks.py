"""Remarks on information that image files lose when converted to 8-bit examples of one size."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int

from jaxcnn import config
from jaxcnn.data.decode import Unreadable, grey16_peak, stored_size
from jaxcnn.data.examples import Indices

_HEADERS, _IMAGES = 64, 16  # checked at every start if sizes are not known: the first ones of a split
_TOLD_FROM = 0.01  # an image counts if it loses at least this share of its pixels

_Load = Callable[[int], bytes]
_Sizes = Int[np.ndarray, "n 2"]  # height and width of each image


def on_losses(title: str, load: _Load, kept: Indices, data: config.Data, sizes: _Sizes | None) -> list[str]:
    """Notes on pixels that are cut away and on grey values that 8 bits cannot distinguish.

    Args:
      title: name of the split in messages.
      load: returns the bytes of an image by its index; raises OSError.
      kept: indices of the images.
      sizes: heights and widths of all images, also of those that are not kept, if known; else some headers are read.
    """
    return [*_cut_away(title, load, kept, data, sizes), *_dark_grey(title, load, kept, data)]


def centre_square(title: str, data: config.Data, sizes: _Sizes, count: int) -> list[str]:
    """A note on pixels outside the centre squares; `sizes` are those of some or all of `count` images."""
    if data.resize != "crop":
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


def _cut_away(title: str, load: _Load, kept: Indices, data: config.Data, sizes: _Sizes | None) -> list[str]:
    if not data.image_size or data.resize != "crop":
        return []
    if sizes is not None:
        sizes = sizes[kept]
    else:
        sizes = np.array([stored_size(content) for content in _readable(load, kept[:_HEADERS])]).reshape(-1, 2)
    return centre_square(title, data, sizes, len(kept))


def _dark_grey(title: str, load: _Load, kept: Indices, data: config.Data) -> list[str]:
    peaks = []
    for content in _readable(load, kept[:_IMAGES]):
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


def _readable(load: _Load, indices: Indices) -> Iterator[bytes]:
    """The bytes of the images whose header can be read; the others are reported when all images are read."""
    for index in indices:
        with contextlib.suppress(Unreadable, OSError):
            content = load(int(index))
            stored_size(content)
            yield content
