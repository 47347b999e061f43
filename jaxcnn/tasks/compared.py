"""Annotated and found objects side by side, in colours that say what is right, confused, missed and false."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxcnn.tasks.matching import IGNORED, NONE, SCORE, Judged, Objects
from jaxcnn.text import counted

Picture = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]

# Colours of the palette of Okabe and Ito (2008), safe for any colour vision; grey for objects that do not count.
RIGHT, CONFUSED, WRONG, UNCOUNTED = "#56b4e9", "#cc79a7", "#e69f00", "#999999"
LEGEND = (
    f"Left what is annotated, right what was found from a score of {SCORE}. Blue: right. Pink: taken for another class."
    " Orange: missed (left) or false (right). Grey: crowds."
)
SIDE = 320  # approximate length of the longer side of a picture, in pixels
OPACITY = 0.35  # opacity of a mask


def colours(objects: Objects, judged: Judged) -> tuple[list[str], list[str]]:
    """The colours of the annotated and of the found objects."""
    own, other = objects.true.tolist(), objects.found.tolist()

    def of(partner: int, label: int, labels: Sequence[int]) -> str:
        if partner in (NONE, IGNORED):
            return WRONG if partner == NONE else UNCOUNTED
        return RIGHT if labels[partner] == label else CONFUSED

    return (
        [of(partner, label, other) for partner, label in zip(judged.of_true.tolist(), own, strict=True)],
        [of(partner, label, own) for partner, label in zip(judged.of_found.tolist(), other, strict=True)],
    )


def drawn(
    image: Picture, boxes: Float[np.ndarray, "n 4"], chosen: Sequence[str], masks: Sequence[Mask] | None = None
) -> Picture:
    """An image, scaled to about `SIDE` pixels, with boxes (left, top, right, bottom) and masks drawn in."""
    from PIL import Image, ImageColor, ImageDraw

    height, width = image.shape[:2]
    pixels = image.astype(np.float32)
    for mask, colour in zip(masks or (), chosen, strict=False):
        pixels[mask] = (1 - OPACITY) * pixels[mask] + OPACITY * np.array(ImageColor.getrgb(colour), np.float32)
    whole = Image.fromarray(pixels.round().astype(np.uint8))
    zoom = SIDE / max(height, width)
    zoom = max(1, round(zoom)) if zoom > 1 else zoom
    sides = max(1, round(width * zoom)), max(1, round(height * zoom))
    picture = whole.resize(sides, Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.BOX)
    pen = ImageDraw.Draw(picture)
    for box, colour in sorted(zip(boxes.tolist(), chosen, strict=True), key=lambda pair: pair[1] != RIGHT):
        left, top, right, bottom = (round(zoom * of) for of in box)
        pen.rectangle([left, top, max(right - 1, left), max(bottom - 1, top)], outline=colour, width=2)
    return np.asarray(picture)


def in_words(judged: Judged, objects: Objects) -> str:
    """The number of errors of each kind, such as "2 missed, 1 false"."""
    pairs = [(label, partner) for label, partner in zip(objects.true, judged.of_true, strict=True) if partner >= 0]
    confused = sum(int(objects.found[partner] != label) for label, partner in pairs)
    told = [(judged.missed, "missed"), (confused, "of another class"), (judged.false, "false")]
    return ", ".join(f"{number} {what}" for number, what in told if number) or f"all {counted(len(pairs), 'object')}"
