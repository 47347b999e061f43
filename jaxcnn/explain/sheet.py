"""A figure for a paper: some images, one below another, with the maps of each method beside them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn.explain import methods, pictures
from jaxcnn.text import save_picture

MOST = 8  # images
MEANING = {
    methods.SIGNED: ("against the output", "for it"),
    methods.POSITIVE: ("no support for the output", "strongest support"),
    methods.SIZE: ("no influence on the output", "strongest influence"),
}
_INCHES = 1.25  # side of an image
_DPI = 300


def draw(
    images: UInt8[np.ndarray, "n h w 3"],
    maps: Mapping[str, Float[np.ndarray, "n h w"]],
    words: Sequence[str],
    path: pathlib.Path,
) -> list[pathlib.Path]:
    """Draw the first `MOST` images as PNG (300 points an inch) and as PDF beside it; return both files.

    Args:
      images: as people see them.
      maps: by method, each scaled alone, as `pictures.scaled` does.
      words: what is said beside each image, such as the explained output.
      path: path of the PNG.
    """
    from matplotlib.figure import Figure

    count, kinds = min(len(images), MOST), list(dict.fromkeys(methods.find(name).gives for name in maps))
    height, width = images.shape[1:3]
    tall = _INCHES * height / width
    figure = Figure(
        figsize=(_INCHES * (len(maps) + 1) + 0.4, tall * count + 0.3 + 0.45 * len(kinds)), layout="constrained"
    )
    axes = figure.subplots(count, len(maps) + 1, squeeze=False)
    for row, of_row in enumerate(axes):
        shown = [images[row]]
        for name, of_method in maps.items():
            gives = methods.find(name).gives
            shown.append(pictures.mixed(images[row], pictures.scaled(of_method[row], gives), gives))
        for each, picture in zip(of_row, shown, strict=True):
            each.imshow(picture, interpolation="nearest")
            each.set(xticks=[], yticks=[])
            each.spines[:].set_visible(False)
        of_row[0].set_ylabel(words[row], fontsize=7)
    for each, title in zip(axes[0], ["image", *(methods.find(name).title for name in maps)], strict=True):
        each.set_title(title, fontsize=7)
    for gives in kinds:
        _bar(figure, axes, gives)
    files = [path, path.with_suffix(".pdf")]
    for file in files:
        save_picture(figure, file, format=file.suffix[1:], dpi=_DPI)
    return files


def _bar(figure: Any, axes: Any, gives: str) -> None:
    """The colours of a kind of map below all images, and what the ends mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    colours = ScalarMappable(cmap=ListedColormap(pictures.palette(gives) / 255))
    bar = figure.colorbar(
        colours, ax=axes, location="bottom", ticks=[0, 1], aspect=50, shrink=0.7, fraction=0.02, pad=0.01
    )
    bar.ax.set_xticklabels(MEANING[gives], fontsize=7)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
