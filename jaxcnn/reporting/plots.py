"""How the pictures of a report look, and how they become PNG, SVG, and SVG that follows the theme of the page."""

import dataclasses
import html
import io
import pathlib
import re
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family
from jaxcnn.reporting.statistics import Spread
from jaxcnn.text import save_picture

WIDTH = 4.7  # inches: on a phone the page shows a point as about a pixel
FONT = 9.0  # points

# Colours of the light theme; in the page each becomes the variable of its name, which the dark theme has its own of.
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
DARK = 0.68  # a cell of more than this opacity has the surface's colour for its text
STAR: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none", "markeredgecolor": SURFACE, "zorder": 6}


def hollow(colour: str) -> dict[str, Any]:
    """What makes a `STAR` one that is not filled."""
    return {"markerfacecolor": SURFACE, "markeredgecolor": colour, "markersize": 11}


@dataclasses.dataclass
class Plot:
    """A picture and what belongs to it.

    Attributes:
      section: of the page, where it stands.
      alt: what it shows, for those who cannot see it.
      caption: how to read it.
      tips: what a mouse over the group of each id tells.
    """

    name: str
    section: str
    alt: str
    caption: str
    figure: Any
    tips: dict[str, str] = dataclasses.field(default_factory=dict)

    def tip(self, words: str) -> str:
        """The id for the artist that these words belong to."""
        name = f"tip-{len(self.tips) + 1}"
        self.tips[name] = words
        return name


def new(name: str, section: str, height: float, alt: str, caption: str) -> Plot:
    """An empty picture; to be made and filled within `style()`."""
    from matplotlib.figure import Figure

    return Plot(name, section, alt, caption, Figure(figsize=(WIDTH, height), layout="constrained"))


def style() -> Any:
    """A context in which pictures are made and saved."""
    import matplotlib

    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def save(plot: Plot, folder: pathlib.Path) -> str:
    """Write the picture as PNG and SVG, both in light colours; return the SVG."""
    drawn = io.StringIO()
    save_picture(plot.figure, drawn, format="svg", metadata={"Date": None, "Creator": None})
    save_picture(plot.figure, folder / f"{plot.name}.png", dpi=200)  # last, as it may have to escape letters
    svg = drawn.getvalue()
    (folder / f"{plot.name}.svg").write_text(svg, encoding="utf-8")
    return svg


def for_page(plot: Plot, svg: str) -> str:
    """An SVG for the page: colours by variables, ids of its own, words for mouse and screen reader, no fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<[^>]*>", lambda tag: _tag_for_page(plot.name, tag.group()), svg)  # and no word that is shown
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
    """A square around (x, y) in the first colour, see-through, so that it follows the theme of the page."""
    side = 0.5 - gap
    axes.fill_between([x - side, x + side], y - side, y + side, color=SERIES[0], alpha=alpha, linewidth=0)


def hover(plot: Plot, axes: Any, x: float, y: float, words: str) -> None:
    """Words for the mouse around a point."""
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
    """ "ResNet50 on CIFAR-10"."""
    return words(f"{family.architecture} on {family.dataset}")


def words(told: str, most: int = 80) -> str:
    """Any text as a picture can show it: in one line, not too long, and never taken for a name that is not shown."""
    told = " ".join(labels.printable(told).split())
    told = told if len(told) <= most else f"{told[: most - 1]}…"
    return f" {told}" if told.startswith("_") else told  # matplotlib leaves such names out of its legends


def spread_tip(title: str, of: Spread) -> str:
    """A figure with its spread and n, for the mouse."""
    return f"{title}: {labels.percent_spread(of)} % (n = {of.n})"
