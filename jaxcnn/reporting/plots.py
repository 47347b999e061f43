"""The style of a report's pictures, and saving them as PNG, SVG, and SVG that follows the theme of the page."""

import dataclasses
import html
import io
import pathlib
import re
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family
from jaxcnn.reporting.statistics import Spread
from jaxcnn.text import save_picture, shorten

WIDTH = 4.7  # inches: on a phone, the page shows a point as about one pixel
FONT = 9.0  # points

# Colours of the light theme; in the page, each becomes a variable of its name, for which the dark theme has its own.
COLOURS = {
    "ink": "#1f2329",
    "muted": "#5b636d",
    "grid": "#dfe3e8",
    "surface": "#fefefe",
    "series-1": "#2262b0",
    "series-2": "#c1550b",
    "series-3": "#1a7f5b",
    "series-4": "#7d4fb4",
    "series-5": "#b3266c",
    "series-6": "#8a6c00",
    "series-7": "#0e7491",
    "series-8": "#6c7281",
}
INK, MUTED, GRID, SURFACE = (COLOURS[name] for name in ("ink", "muted", "grid", "surface"))
SERIES = [of for name, of in COLOURS.items() if name.startswith("series")]
MARKERS = "osD^vPX*"
STYLE = {
    "font.size": FONT,
    "font.family": "DejaVu Sans",
    "axes.titlesize": FONT + 0.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": FONT,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": SURFACE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": FONT - 0.5,
    "ytick.labelsize": FONT - 0.5,
    "legend.fontsize": FONT - 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcnn",
}
DARK = 0.68  # above this opacity, the text of a cell has the background colour
STAR: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none", "markeredgecolor": SURFACE, "zorder": 6}


def hollow(colour: str) -> dict[str, Any]:
    """Marker arguments for an unfilled `STAR`."""
    return {"markerfacecolor": SURFACE, "markeredgecolor": colour, "markersize": 11}


@dataclasses.dataclass
class Plot:
    """A picture with its texts.

    Attributes:
      section: section of the page in which it is shown.
      alt: description for readers who cannot see it.
      caption: how to read it.
      tips: id of each group -> text shown when the mouse is over it.
    """

    name: str
    section: str
    alt: str
    caption: str
    figure: Any
    tips: dict[str, str] = dataclasses.field(default_factory=dict)

    def tip(self, words: str) -> str:
        """The id for the artist to which these words belong."""
        name = f"tip-{len(self.tips) + 1}"
        self.tips[name] = words
        return name


def new(name: str, section: str, height: float, alt: str, caption: str) -> Plot:
    """An empty picture; create and fill it within `style()`."""
    from matplotlib.figure import Figure

    return Plot(name, section, alt, caption, Figure(figsize=(WIDTH, height), layout="constrained"))


def style() -> Any:
    """The context in which pictures are created and saved."""
    import matplotlib

    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def save(plot: Plot, folder: pathlib.Path) -> str:
    """Write the picture as PNG and SVG, both in light colours; return the SVG."""
    drawn = io.StringIO()
    save_picture(plot.figure, drawn, format="svg", metadata={"Date": None, "Creator": None})
    save_picture(plot.figure, folder / f"{plot.name}.png", dpi=200)  # last, as it may have to escape characters
    svg = drawn.getvalue()
    (folder / f"{plot.name}.svg").write_text(svg, encoding="utf-8")
    return svg


def for_page(plot: Plot, svg: str) -> str:
    """An SVG for the page: colours as variables, unique ids, words for mouse and screen reader, no fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(plot.name, tag.group()), svg)  # only tags, no visible text
    for name, words in plot.tips.items():
        group = f'<g id="{plot.name}-{name}">'
        svg = svg.replace(group, f"{group}<title>{html.escape(words)}</title>")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) version="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(plot.alt, quote=True)}"', 1)


def _tag_for_page(name: str, tag: str) -> str:
    for variable, colour in COLOURS.items():
        tag = tag.replace(colour, f"var(--{variable})")
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    return tag.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')


def cell(axes: Any, x: float, y: float, alpha: float, gap: float = 0.0) -> None:
    """A square around (x, y) in the first colour, transparent, so that it follows the theme of the page."""
    side = 0.5 - gap
    axes.fill_between([x - side, x + side], y - side, y + side, color=SERIES[0], alpha=alpha, linewidth=0)


def hover(plot: Plot, axes: Any, x: float, y: float, words: str) -> None:
    """Text shown when the mouse is near a point."""
    axes.plot([x], [y], "o", markersize=11, alpha=0.01, color=SERIES[0], linestyle="none", gid=plot.tip(words))


def logarithmic(axis: Any, base: int = 10) -> None:
    """Ticks of a logarithmic axis as plain numbers, at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(base, subs=(1, 2, 5) if base == 10 else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_name(kind: str, *words: str) -> str:
    """A file name and anchor."""
    return labels.slug(" ".join([kind, *words]))


def place(family: Family) -> str:
    """A title such as "ResNet50 on CIFAR-10"."""
    return words(f"{family.architecture} on {family.dataset}")


def words(told: str, most: int = 80) -> str:
    """A text fit for a picture: one line, not too long, and never mistaken for a hidden name."""
    told = shorten(" ".join(labels.printable(told).split()), most)
    return f" {told}" if told.startswith("_") else told  # matplotlib omits such names from legends


def spread_tip(title: str, of: Spread) -> str:
    """A figure with its spread and n, as mouse-over text."""
    return f"{title}: {labels.percent_spread(of)}{labels.unit(of.headline)} (n = {of.n})"
