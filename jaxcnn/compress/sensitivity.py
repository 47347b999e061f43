"""Measures the cost of pruning one kernel alone: which layers can be made sparse, and which must not be.

Han et al. 2015, "Learning both weights and connections", arXiv 1506.02626, figure 6: the weights of the smallest
magnitude of one layer become zero, all other layers are as they were, and nothing is trained further.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcnn.compress import deep
from jaxcnn.data.batch import Split
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import markdown_table, save_picture
from jaxcnn.train import seals
from jaxcnn.train.trained import Trained

SHARES = (0.3, 0.5, 0.7, 0.9)  # shares of a kernel's weights that become zero


@dataclasses.dataclass(frozen=True)
class Line:
    """A kernel: its path, its weights, and the figures of a split for each share of zeros."""

    path: str
    weights: int
    figures: dict[float, dict[str, Any]]


def measure(
    trained: Trained, split: Split, shares: Sequence[float] = SHARES, say: Callable[[str], None] = print
) -> tuple[dict[str, Any], list[Line]]:
    """The figures of the network as it is, and with each kernel pruned by each share; `say` gets each kernel."""
    arrays = seals.on_host(trained.variables)
    lines = []
    for name, kernel in arrays.items():
        if kernel.ndim > 1:
            say(f"measuring {deep.path_of(name)}")
            pruned = {share: {**arrays, name: without_smallest(kernel, share)} for share in shares}
            figures = {share: deep.with_arrays(trained, each).evaluate(split) for share, each in pruned.items()}
            lines.append(Line(deep.path_of(name), kernel.size, figures))
    return trained.evaluate(split), lines


def without_smallest(kernel: Float[np.ndarray, "..."], share: float) -> Float[np.ndarray, "..."]:
    """A kernel whose `round(share * size)` weights of the smallest magnitude are zero."""
    flat = kernel.reshape(-1).copy()
    flat[np.argsort(np.abs(flat), kind="stable")[: round(share * flat.size)]] = 0
    return flat.reshape(kernel.shape)


def table(whole: dict[str, Any], lines: Sequence[Line], headline: Headline) -> list[str]:
    """The headline figure of each kernel and share as lines of a Markdown table; the network as it is comes first."""
    shares = list(lines[0].figures)
    head = ["kernel", "weights", *(f"{100 * share:g}% zeros" for share in shares)]
    shown = [["none", "", *[headline.shown(whole[headline.name])] * len(shares)]]
    for line in lines:
        figures = [headline.shown(line.figures[share][headline.name]) for share in shares]
        shown.append([line.path, f"{line.weights:,}", *figures])
    return markdown_table(head, shown)


def draw(whole: dict[str, Any], lines: Sequence[Line], headline: Headline, path: pathlib.Path) -> None:
    """A picture (PNG) of the headline figure over the share of zeros, a curve for each kernel, from blue to yellow."""
    import matplotlib
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(lines)))
    scale = 100 if headline.percent else 1
    figure = Figure(figsize=(8, 4 + 0.08 * len(lines)), layout="constrained", dpi=150)
    axes = figure.subplots()
    for line, colour in zip(lines, colours, strict=True):
        shares = [0.0, *line.figures]
        values = [scale * each[headline.name] for each in (whole, *line.figures.values())]
        axes.plot([100 * share for share in shares], values, color=colour, marker="o", markersize=3, label=line.path)
    axes.set_xlabel("weights of one kernel that are zero (%)")
    axes.set_ylabel(f"{headline.label}{' (%)' if headline.percent else ''}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=7)
    save_picture(figure, path, format="png")
