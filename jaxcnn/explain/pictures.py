"""Maps as pictures, in colours that people with any colour vision can tell apart.

Positive maps and sizes go from dark blue to yellow, evenly in brightness, as matplotlib's "cividis" does (Nuñez et al.
2018). Signed maps are orange where pixels speak for the output, purple where they speak against it, and white at 0, as
"PuOr" of ColorBrewer.
"""

import base64
import io

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcnn.explain.methods import SIGNED
from jaxcnn.tasks import found_boxes
from jaxcnn.tasks.coco_figures import as_bbox

_RISING = ((0, 34, 78), (46, 69, 110), (87, 93, 109), (127, 124, 117), (166, 157, 117), (210, 193, 99), (254, 232, 56))
_SIGNED = ((45, 0, 75), (84, 39, 136), (153, 142, 195), (247, 247, 247), (241, 163, 64), (179, 88, 6), (127, 59, 8))
ON_PAGE, NEAR = 224, 112  # most pixels of a side on the page; of a training image there
PERCENTILE = 99.5  # of a map; larger values have the same colour, so that single pixels do not darken the others


def palette(gives: str) -> UInt8[np.ndarray, "256 3"]:
    """The colours of a map from its lowest to its highest value."""
    stops = np.array(_SIGNED if gives == SIGNED else _RISING, np.float64)
    places = np.linspace(0, len(stops) - 1, 256)
    return np.round([np.interp(places, range(len(stops)), stops[:, k]) for k in range(3)]).astype(np.uint8).T


def scaled(values: Float[np.ndarray, "h w"], gives: str) -> UInt8[np.ndarray, "h w"]:
    """The place of each value in the palette; of signed maps, 0 is in the middle."""
    values = np.nan_to_num(np.asarray(values, np.float64))
    if gives == SIGNED:
        largest = np.percentile(np.abs(values), PERCENTILE) or np.abs(values).max() or 1.0
        share = (values / largest + 1) / 2
    else:
        low, high = values.min(), np.percentile(values, PERCENTILE)
        high = high if high > low else values.max()
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def palette_png(places: UInt8[np.ndarray, "h w"], gives: str) -> bytes:
    """Places in the palette, as from `scaled`, as a PNG with this palette, which is small."""
    from PIL import Image

    picture = Image.fromarray(places)
    picture.putpalette(palette(gives).tobytes())
    return _png(picture)


def over_image(
    image: UInt8[np.ndarray, "h w 3"], values: Float[np.ndarray, "h w"], gives: str, opacity: float = 0.6
) -> bytes:
    """A map over its image as PNG; small images are enlarged by a whole factor to about 224 pixels."""
    from PIL import Image

    return _png(Image.fromarray(enlarged(mixed(image, scaled(values, gives), gives, opacity))))


def mixed(
    image: UInt8[np.ndarray, "h w 3"], places: UInt8[np.ndarray, "h w"], gives: str, opacity: float = 0.6
) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of places in the palette over a grey image."""
    grey = image.mean(-1, keepdims=True).repeat(3, axis=-1)
    return np.round((1 - opacity) * grey + opacity * palette(gives)[places]).astype(np.uint8)


def enlarged(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """A small image, enlarged by a whole factor to about 224 pixels."""
    zoom = max(1, round(224 / max(image.shape[:2])))
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def at_most(values: np.ndarray, side: int) -> np.ndarray:
    """A map float [h, w] or an image uint8 [h, w, 3]; a larger one is reduced to such a side by means over areas."""
    from PIL import Image

    height, width = values.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return values
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    whole = values if values.dtype == np.uint8 else np.asarray(values, np.float32)
    return np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BOX))


def with_boxes(
    images: UInt8[np.ndarray, "n h w 3"], boxes: Float[np.ndarray, "n 4"], classes: Int[np.ndarray, " n"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Images, each with one box (left, top, right, bottom) in the colour of its class."""
    each = zip(images, boxes, classes, strict=True)
    return np.stack([found_boxes.draw_boxes(image, [as_bbox(box)], [int(label)]) for image, box, label in each])


def image_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """An image as PNG."""
    from PIL import Image

    return _png(Image.fromarray(image))


def data_url(png: bytes) -> str:
    """A PNG as an address that a page contains."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _png(picture: "Image") -> bytes:  # type: ignore[name-defined]  # noqa: F821
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()
