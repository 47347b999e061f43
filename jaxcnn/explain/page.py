"""The page of explanations: one HTML file with its pictures, style and script, which needs no network."""

import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from jaxcnn.explain import evaluation, feature_chart, methods, pictures
from jaxcnn.explain.alike import Alike
from jaxcnn.explain.feature_map import Points
from jaxcnn.explain.randomisation import Stage
from jaxcnn.explain.sheet import MEANING
from jaxcnn.text import named, shown
from jaxcnn.train import interactive

_FOLDER = pathlib.Path(__file__).parent
SMOOTH_FROM = 96  # pixels; smaller images are shown with their pixels
MOST_LETTERS = 2**25  # of all cards, which contain their pictures; more than 32 MiB open slowly on a phone


@dataclasses.dataclass(frozen=True)
class Item:
    """An image on the page.

    Attributes:
      name: name of its file, or its number in the split.
      image: as people see it.
      answer: what the network says, in words.
      target: the name of the explained output.
      label: the true class, in words; empty if it is not known.
      right: whether the answer is the label; None if that is not known.
      confidence: the highest output or probability.
      classes: numbers of the classes under which it is found: of the answer, the label and the explained output.
      maps: by method, as places in the palette (`pictures.scaled`).
      scores: by method, in words.
      near: the nearest training images.
      among: how many training images were looked at for them, in words.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    answer: str
    target: str
    label: str
    right: bool | None
    confidence: float
    classes: tuple[int, ...]
    maps: Mapping[str, UInt8[np.ndarray, "h w"]]
    scores: Mapping[str, str] = dataclasses.field(default_factory=dict)
    near: Sequence[Alike] = ()
    among: str = ""


def page(
    title: str,
    about: Sequence[str],
    items: Sequence[Item],
    class_names: Sequence[str],
    rows: Sequence[evaluation.Row] = (),
    stages: Mapping[str, Sequence[Stage]] | None = None,
    points: Points | None = None,
    alone: Mapping[str, Sequence[Stage]] | None = None,
    count: int = 0,
) -> str:
    """The page as HTML.

    Args:
      title: which run.
      about: lines below the title.
      items: the images.
      class_names: names of all outputs, for the choice of a class.
      rows: scores of the methods.
      stages: the cascading randomisation of each method.
      points: the map of the features.
      alone: the independent randomisation of each method.
      count: how many images were explained, if there are more than `items`.
    """
    names = list(items[0].maps)
    cards, left = [], MOST_LETTERS
    for item in items:
        cards.append(_card(item))
        left -= len(cards[-1])
        if left < 0:
            break
    items, count = items[: len(cards)], max(count, len(items))
    about = [*about, *([f"The page has the first {len(cards)} of {count} images."] if len(cards) < count else [])]
    used = sorted({number for item in items for number in item.classes})
    options = "".join(f'<option value="{k}">{html.escape(class_names[k])}</option>' for k in used)
    names_of_classes = "".join(f'<option value="{html.escape(class_names[k])}">' for k in used)
    known = any(item.right is not None for item in items)
    kinds = '<option value="right">right</option><option value="wrong">wrong</option>' if known else ""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="quiet">{html.escape(line)}</p>' for line in about),
        '<nav class="quiet"><a href="#all">Images</a>'
        + (' <a href="#features">Map of the features</a>' if points else "")
        + (' <a href="#scores">Scores</a>' if rows else "")
        + (' <a href="#randomisation">Randomisation</a>' if stages else "")
        + "</nav>",
        _legend(names),
        '<h2 id="all">Images</h2><div class="controls" id="controls" hidden>'
        '<label>Opacity <input type="range" id="opacity" min="0" max="100" value="70"></label>'
        '<label>Search <input type="search" id="search" list="names" placeholder="name of a class" autocomplete="off">'
        f'</label><datalist id="names">{names_of_classes}</datalist>'
        f'<label>Class <select id="class"><option value="">all</option>{options}</select></label>'
        f'<label{"" if known else " hidden"}>Answer <select id="kind"><option value="">all</option>{kinds}'
        "</select></label>"
        '<label>Order <select id="order"><option value="">as given</option><option value="most">most confident first'
        '</option><option value="least">least confident first</option></select></label>'
        '<output id="count"></output><button type="button" id="theme">Light or dark</button></div>',
        f'<div id="images">{"".join(cards)}</div>',
        feature_chart.section(points, class_names) if points else "",
        _scores(rows),
        _randomisation(stages or {}, alone or {}, count),
    ]
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return interactive.document(title, style, "".join(parts), script)


def _legend(names: Sequence[str]) -> str:
    """The colours of the maps that are shown."""
    lines = []
    for gives in dict.fromkeys(methods.find(name).gives for name in names):
        low, high = MEANING[gives]
        colours = pictures.palette(gives)[np.linspace(0, 255, 7).round().astype(int)]
        bar = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours)
        lines.append(f'<li>{low} <i style="background: linear-gradient(to right, {bar})"></i> {high}</li>')
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _scores(rows: Sequence[evaluation.Row]) -> str:
    if not rows:
        return ""
    names = list(dict.fromkeys(row.score for row in rows))
    cells = {(row.method, row.score): row.words for row in rows}
    head = "".join(
        f'<th class="number" scope="col">{name}<br>{evaluation.BETTER[name]} is better</th>' for name in names
    )
    lines = "".join(
        f"<tr><td>{methods.find(method).title}</td>"
        + "".join(f'<td class="number">{cells.get((method, name), "–")}</td>' for name in names)
        + "</tr>"
        for method in dict.fromkeys(row.method for row in rows)
    )
    notes = "; ".join(f"{name}: {evaluation.ABOUT[name]}" for name in names)
    most, counts = max(row.images for row in rows), {row.score: row.images for row in rows}
    fewer = "".join(f", {name} over {count}" for name, count in counts.items() if count < most)
    return (
        '<h2 id="scores">Scores</h2><div class="scroll" tabindex="0"><table><thead><tr><th scope="col">method</th>'
        f'{head}</tr></thead><tbody>{lines}</tbody></table></div><p class="quiet">Mean ± standard deviation over '
        f"{most} images{fewer}. {html.escape(notes)}.</p>"
    )


def _randomisation(stages: Mapping[str, Sequence[Stage]], alone: Mapping[str, Sequence[Stage]], count: int) -> str:
    if not stages:
        return ""
    some = len(next(iter(stages.values()))[0].similarity)
    over = f"all {count}" if some == count else f"the first {some} of {count}"
    return (
        f'<h2 id="randomisation">Randomisation</h2>{_stages(stages, "random down to")}'
        '<p class="quiet">Rank correlation of the maps with '
        f"those of the trained network, while its layers are drawn anew from the top down; mean over {over} images. A "
        "method "
        "whose maps stay similar does not show what the network has learnt.</p>"
        + (f'{_stages(alone, "random alone")}<p class="quiet">The same with one layer drawn anew at a time.</p>')
        * bool(alone)
    )


def _stages(stages: Mapping[str, Sequence[Stage]], which: str) -> str:
    layers = [stage.layer for stage in next(iter(stages.values()), [])]
    head = "".join(f'<th class="number" scope="col">{html.escape(layer)}</th>' for layer in layers)
    lines = "".join(
        f"<tr><td>{methods.find(name).title}</td>"
        + "".join(f'<td class="number">{stage.similarity.mean():.2f}</td>' for stage in found)
        + "</tr>"
        for name, found in stages.items()
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">{which}</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _card(item: Item) -> str:
    state = {True: "right", False: "wrong", None: ""}[item.right]
    height, width = item.image.shape[:2]
    said = f'<span class="{state}">{html.escape(item.answer)}</span>'
    truth = f", in truth {html.escape(item.label)}" if item.label and item.right is not True else ""
    smooth = " smooth" if max(height, width) >= SMOOTH_FROM else ""
    figures = [
        f'<figure><div class="view{smooth}" role="img" aria-label="the image"></div>'
        "<figcaption><b>image</b></figcaption></figure>"
    ]
    for name, places in item.maps.items():
        method = methods.find(name)
        source = pictures.data_url(pictures.palette_png(places, method.gives))
        score = f"<br>{html.escape(item.scores[name])}" if item.scores.get(name) else ""
        figures.append(
            f'<figure><div class="view{smooth}"><img alt="{html.escape(method.title)}" src="{source}"></div>'
            f"<figcaption><b>{html.escape(method.title)}</b>{score}</figcaption></figure>"
        )
    url = pictures.data_url(pictures.image_png(item.image))
    return (
        f'<article class="card" data-state="{state}" data-confidence="{item.confidence:.6g}" '
        f'data-classes="{" ".join(map(str, item.classes))}" style="--image: url({url}); --ratio: {width} / {height}">'
        f'<header><h3>{html.escape(item.name)}</h3><span class="answer">{said}{truth}; explained: '
        f'<b>{html.escape(item.target)}</b></span></header><div class="maps">{"".join(figures)}</div>'
        f"{_near(item, smooth)}</article>"
    )


def _near(item: Item, smooth: str) -> str:
    """The nearest training images, in a row."""
    if not item.near:
        return ""
    figures = []
    for each in item.near:
        height, width = each.image.shape[:2]
        url = pictures.data_url(pictures.image_png(each.image))
        figures.append(
            f'<figure><div class="view{smooth}" style="--image: url({url}); --ratio: {width} / {height}" role="img" '
            f'aria-label="{html.escape(each.label)}"></div><figcaption><b>{html.escape(named(each.label))}</b> '
            f"{each.similarity:.2f}<br>{html.escape(shown(each.name))}</figcaption></figure>"
        )
    return (
        f'<h4>Nearest training images <span class="quiet">{html.escape(item.among)}; true class, similarity of the '
        "features, name</span></h4>"
        f'<div class="near">{"".join(figures)}</div>'
    )
