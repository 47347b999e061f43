"""A sheet of images and, beside each, what the attention layers of a network let through (`jaxcnn.preview`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn.explain import attended, pictures
from jaxcnn.explain.given import Given
from jaxcnn.explain.methods import POSITIVE
from jaxcnn.explain.subject import Subject
from jaxcnn.text import shorten, shown
from jaxcnn.train.mistakes import as_rgb

MOST = 8  # layers beside each image
_INCHES = 1.25  # side of an image


def maps_of(
    subject: Subject, images: Any, most: int = MOST
) -> dict[str, tuple[Float[np.ndarray, "n h w"], tuple[int, int]]]:
    """The weights of the pixels in each attention layer, in the size of the images, and the size of the layer's map.

    Args:
      subject: the network.
      images: as stored, [n, h, w, c].
      most: most layers; if the network has more, they are chosen at equal distances, the last one included.

    Raises:
      UserError: the network has no attention layer that weighs pixels.
    """
    attended.choose(subject.gates, "")
    chosen = np.unique(np.linspace(len(subject.gates) - 1, 0, min(most, len(subject.gates))).round().astype(int))
    seen, targets = subject.normalised(images), np.zeros(len(images), int)  # the maps are the same for every target
    gates = [subject.gates[k] for k in chosen]
    return {
        gate.name: (subject.explain("attention", seen, targets, layer=gate.name).maps, gate.shape) for gate in gates
    }


def draw(
    images: UInt8[np.ndarray, "n h w 3"],
    maps: dict[str, tuple[Float[np.ndarray, "n h w"], tuple[int, int]]],
    words: Sequence[str],
    title: str,
) -> Any:
    """A `matplotlib.figure.Figure` of the images in rows, with each layer in a column.

    The colours of each map go from its lowest to its highest weight, which are printed below it.
    """
    from matplotlib.figure import Figure

    tall = _INCHES * images.shape[1] / images.shape[2] + 0.2
    figure = Figure(figsize=(_INCHES * (len(maps) + 1) + 0.4, tall * len(images) + 0.7), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize=8, parse_math=False)
    axes = figure.subplots(len(images), len(maps) + 1, squeeze=False)
    for row, of_row in enumerate(axes):
        of_row[0].imshow(images[row], interpolation="nearest")
        of_row[0].set_xlabel(shorten(shown(words[row]), 24), fontsize=6, parse_math=False)
        for each, (name, (values, shape)) in zip(of_row[1:], maps.items(), strict=True):
            own = values[row]
            mixed = pictures.mixed(images[row], pictures.scaled(own, POSITIVE), POSITIVE)
            each.imshow(mixed, interpolation="nearest")
            each.set_xlabel(f"{own.min():.2f} to {own.max():.2f}", fontsize=6)
            if row == 0:
                each.set_title(f"{shorten(shown(name), 20)}\n{shape[0]}x{shape[1]}", fontsize=6, parse_math=False)
        for each in of_row:
            each.set(xticks=[], yticks=[])
            each.spines[:].set_visible(False)
    return figure


def of_run(subject: Subject, given: Given) -> Any:
    """The sheet of a network and some images."""
    pixels = given.pixels
    maps = maps_of(subject, pixels)
    title = (
        f"What attention lets through: {subject.trained.config.model.name}, "
        f"{subject.trained.config.model.attention}, step {subject.trained.step}"
    )
    return draw(as_rgb(pixels), maps, given.words, title)
