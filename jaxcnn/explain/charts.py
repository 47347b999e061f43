"""The figure of the randomisation test."""

import pathlib
from collections.abc import Mapping, Sequence

from jaxcnn.explain import methods
from jaxcnn.explain.randomisation import Stage
from jaxcnn.text import save_picture

# Okabe & Ito's colours, which people with any colour vision tell apart; markers tell the rest.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = "osD^vPX*<>hd"


def draw(stages: Mapping[str, Sequence[Stage]], path: pathlib.Path) -> None:
    """Draw the mean rank correlation of each method while layers become random from the top down, as PNG."""
    from matplotlib.figure import Figure

    layers = [stage.layer for stage in next(iter(stages.values()))]
    figure = Figure(figsize=(max(6.4, 0.55 * len(layers) + 3.5), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, found) in enumerate(stages.items()):
        means = [1.0, *(float(stage.similarity.mean()) for stage in found)]
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        dashes = "-" if number < len(COLOURS) else "--"
        label = methods.find(name).title
        axes.plot(range(len(means)), means, color=colour, marker=marker, linestyle=dashes, label=label)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xticks(range(len(layers) + 1), ["trained", *layers], rotation=60 if len(layers) > 8 else 25)
    axes.set_xlabel("random down to this layer")
    axes.set_ylabel("rank correlation with the trained maps")
    axes.set_ylim(min(-0.15, axes.get_ylim()[0]), 1.03)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    save_picture(figure, path, format="png", dpi=120)
