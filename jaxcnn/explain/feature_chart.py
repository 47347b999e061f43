"""The map of the features as a picture: PNG for a paper, and SVG inside the page, whose points tell what they are."""

import html
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxcnn.explain.charts import COLOURS
from jaxcnn.explain.feature_map import Points
from jaxcnn.text import save_picture, shown

# A class has a colour, and with more classes than colours a shape too. Black is left out: it is not seen on black.
_COLOURS = COLOURS[:6]
_SHAPES = ("o", "s", "^", "D", "v")
_PATHS = ("", "M-4-4h8v8h-8z", "M0-5L5 4H-5z", "M0-5.5L5.5 0 0 5.5-5.5 0z", "M0 5L5-4H-5z")  # the same in SVG
_WIDTH, _HEIGHT, _MARGIN = 960, 620, 14
_RING = '<circle r="7" class="ring"/>'
MOST_NAMED = 30  # classes; a legend of more hides the points


def title(points: Points) -> str:
    """What the map shows, in words."""
    method = "principal components" if points.kind == "pca" else "t-SNE"
    kept = "" if points.kept is None else f", {100 * points.kept:.0f} % of the variance"
    return f"{len(points.names)} images of the {points.split}, {method}{kept}; {int(points.wrong.sum())} mistakes"


def _style(label: int) -> tuple[str, int]:
    """The colour and the number of the shape of a class."""
    return _COLOURS[label % len(_COLOURS)], label // len(_COLOURS) % len(_SHAPES)


def draw(points: Points, class_names: Sequence[str], path: pathlib.Path) -> None:
    """Draw the map as PNG; mistakes have a black ring."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.6), layout="constrained")
    axes = figure.add_subplot()
    classes = [int(label) for label in np.unique(points.labels)]
    for label in classes:
        colour, shape = _style(label)
        across, up = points.places[points.labels == label].T
        name = shown(class_names[label])
        axes.scatter(across, up, s=14, color=colour, marker=_SHAPES[shape], linewidths=0, alpha=0.75, label=name)
    across, up = points.places[points.wrong].T
    axes.scatter(across, up, s=44, facecolors="none", edgecolors="#000000", linewidths=0.9, label="mistakes")
    axes.set_title(title(points), fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])
    if len(classes) <= MOST_NAMED:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    save_picture(figure, path, format="png", dpi=150)


def section(points: Points, class_names: Sequence[str]) -> str:
    """The map for the page, as HTML; points tell their image, class and answer."""
    low, high = points.places.min(0), points.places.max(0)
    share = (points.places - low) / np.where(high > low, high - low, 1)
    across = _MARGIN + share[:, 0] * (_WIDTH - 2 * _MARGIN)
    down = _HEIGHT - _MARGIN - share[:, 1] * (_HEIGHT - 2 * _MARGIN)
    names = [html.escape(shown(name)) for name in class_names]
    drawn = []
    for number in np.argsort(points.wrong, kind="stable"):  # mistakes last, above the others
        label, answer = int(points.labels[number]), int(points.answers[number])
        said = names[label] + (f", answered {names[answer]}" if label != answer else "")
        mark = _mark(label) + (_RING if label != answer else "")
        drawn.append(
            f'<g transform="translate({across[number]:.1f} {down[number]:.1f})" data-class="{label}" '
            f'data-wrong="{int(label != answer)}"><title>{html.escape(shown(points.names[number]))}: {said}</title>'
            f"{mark}</g>"
        )
    classes = [int(label) for label in np.unique(points.labels)]
    named = classes if len(classes) <= MOST_NAMED else []
    keys = "".join(
        f'<li><svg viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">{mark}</svg> {name}</li>'
        for mark, name in [*((_mark(label), names[label]) for label in named), (_RING, "mistake")]
    )
    options = "".join(f'<option value="{label}">{names[label]}</option>' for label in classes)
    meaning = (
        "Far apart is different; near each other may be different too, in the directions that are not shown."
        if points.kind == "pca"
        else "Neighbours are alike; distances between groups, and their sizes, mean nothing."
    )
    return (
        '<h2 id="features">Map of the features</h2>'
        f'<p class="quiet">{html.escape(title(points))}. A point is an image in the colour of its true class. {meaning}'
        "</p>"
        '<div class="controls still" id="map-controls" hidden><label>Class <select id="map-class"><option value="">all'
        f'</option>{options}</select></label><label><input type="checkbox" id="map-wrong"> mistakes only</label></div>'
        f'<ul class="legend">{keys}</ul><div class="scroll map"><svg id="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{html.escape(title(points))}">{"".join(drawn)}</svg></div>'
    )


def _mark(label: int) -> str:
    colour, shape = _style(label)
    path = _PATHS[shape]
    return f'<path d="{path}" fill="{colour}"/>' if path else f'<circle r="4" fill="{colour}"/>'
