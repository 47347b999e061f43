"""The figures of the randomisation test, and of deletion and insertion."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcnn.explain import methods
from jaxcnn.explain.evaluation import BETTER
from jaxcnn.explain.randomisation import Stage
from jaxcnn.text import save_picture

# Okabe & Ito's colours, which people with any colour vision tell apart; markers tell the rest.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = "osD^vPX*<>hd"


def draw(
    stages: Mapping[str, Sequence[Stage]], path: pathlib.Path, alone: Mapping[str, Sequence[Stage]] | None = None
) -> None:
    """Draw the mean rank correlation of each method while layers become random from the top down, as PNG.

    `alone`: that of each layer drawn anew alone, in a second panel below.
    """
    from matplotlib.figure import Figure

    layers = [stage.layer for stage in next(iter(stages.values()))]
    panels = 2 if alone else 1
    figure = Figure(figsize=(max(6.4, 0.55 * len(layers) + 3.5), 0.2 + 4.0 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, squeeze=False)[:, 0]
    _lines(axes[0], stages, layers, "random down to this layer", first=1.0)
    axes[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    if alone:
        _lines(axes[1], alone, layers, "only this layer is random")
    save_picture(figure, path, format="png", dpi=120)


def draw_curves(curves: Mapping[str, Mapping[str, Float[np.ndarray, "points n"]]], path: pathlib.Path) -> None:
    """Draw the mean probability of all images over the share of changed pixels, a panel for each curve, as PNG."""
    from matplotlib.figure import Figure

    panels = list(next(iter(curves.values())))
    figure = Figure(figsize=(4.4 * len(panels) + 1.8, 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for each, panel in zip(axes, panels, strict=True):
        for number, (name, of_method) in enumerate(curves.items()):
            curve = of_method[panel]
            curve = curve[:, ~np.isnan(curve).any(0)]  # maps without an order have none
            if not curve.size:
                continue
            means = curve.mean(1)
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": "-" if number < len(COLOURS) else "--"}
            every = max(1, len(means) // 8)
            marker = _MARKERS[number % len(_MARKERS)]
            each.plot(
                np.linspace(0, 100, len(means)),
                means,
                marker=marker,
                markevery=every,
                label=methods.find(name).title,
                **style,
            )
        each.set_title(f"{panel}: {BETTER[panel]} is better", fontsize=10)
        each.set_xlabel("% of the pixels, most important first")
    axes[0].set_ylabel("mean probability")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    save_picture(figure, path, format="png", dpi=120)


def _lines(
    axes: Any, stages: Mapping[str, Sequence[Stage]], layers: Sequence[str], words: str, first: float = math.nan
) -> None:
    """A line for each method; its first point, of the trained network, is `first`."""
    for number, (name, found) in enumerate(stages.items()):
        means = [first, *(float(stage.similarity.mean()) for stage in found)]
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        dashes = "-" if number < len(COLOURS) else "--"
        label = methods.find(name).title
        axes.plot(range(len(means)), means, color=colour, marker=marker, linestyle=dashes, label=label)
    axes.axhline(0, color="#888888", linewidth=0.8)
    there = [] if math.isnan(first) else ["trained"]
    axes.set_xticks(range(1 - len(there), len(layers) + 1), [*there, *layers], rotation=60 if len(layers) > 8 else 25)
    axes.set_xlabel(words)
    axes.set_ylabel("rank correlation with the trained maps")
    axes.set_ylim(min(-0.15, axes.get_ylim()[0]), 1.03)
    axes.set_xlim(-0.4, len(layers) + 0.4)
