"""The picture of the figures of a detector: precision over recall, the AP of classes, and the confusion matrix."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.tasks import confusion
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.text import save_picture, shorten, shown

MOST_BARS = 40  # classes with a bar, the best first
FEW = 8  # largest number of classes whose curves have their own colours and names
MOST_CELLS = 60  # largest number of classes for which the confusion matrix is drawn


def draw(figures: Mapping[str, Any], names: Sequence[str], path: pathlib.Path) -> None:
    """Draw precision over recall at overlaps of 0.5 and 0.75, the AP of up to 40 classes, and the confusion matrix.

    For instances, all of these are the figures of masks.
    """
    from matplotlib.figure import Figure

    kind = "mask_" if "mask_curves" in figures else ""
    by_name = figures[f"{kind}ap_by_class"]
    known = {name: value for name, value in by_name.items() if value is not None}
    best = sorted(known, key=lambda name: -known[name])[:MOST_BARS]
    matrix = Confusion.from_json(figures["confusion_matrix"])
    side = confusion.side_of(matrix.classes) if matrix.classes <= MOST_CELLS + 1 else 0
    height = max(4.2, 0.2 * len(best), 0.8 * side)
    figure = Figure(figsize=(9.6 + side, height), layout="constrained", dpi=130)
    widths = [4.8, 4.8, side] if side else [1, 1]
    left, middle, *right = figure.subplots(1, len(widths), width_ratios=widths)
    _curves(left, figures[f"{kind}curves"])
    left.set_title(path.stem)
    middle.barh([shorten(shown(name), 40) for name in best], [known[name] for name in best])
    middle.invert_yaxis()
    middle.set(xlim=(0, 1), xlabel=f"{'mask ' if kind else ''}AP")
    for axes in right:
        confusion.draw_on(figure, axes, matrix, figures["confusion_classes"])
        matched = figures["matched"]
        axes.set_title(f"from a score of {matched['score']}, at an overlap of {matched['overlap']}", fontsize=10)
    save_picture(figure, path)


def _curves(axes: Any, curves: Mapping[str, Any] | None) -> None:
    if curves is not None:
        known = {name: of for name, of in curves["by_class"].items() if of is not None}
        if len(known) > 1:
            for number, (name, of) in enumerate(known.items()):
                few = len(known) <= FEW
                style = {"color": f"C{number + 1}", "label": shorten(shown(name), 30)} if few else {"color": "0.8"}
                axes.plot(np.linspace(0, 1, len(of)), of, linewidth=1, **style)
        for (overlap, of), line in zip(curves["mean"].items(), ("-", "--"), strict=False):
            label = f"{'mean, ' if len(known) > 1 else ''}overlap {overlap}"
            axes.plot(np.linspace(0, 1, len(of)), of, line, color="C0", linewidth=2, label=label)
        axes.legend(loc="lower left", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
