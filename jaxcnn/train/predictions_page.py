"""The page of predictions: one HTML file with images and what the network answers, which needs no network.

Boxes and masks lie over the images as SVG, so that a score, a class or an order can be chosen in the browser.
"""

import base64
import dataclasses
import html
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxcnn.tasks import run_length
from jaxcnn.tasks.marks import Mark, outline
from jaxcnn.text import counted, shown
from jaxcnn.train import interactive

_FOLDER = pathlib.Path(__file__).parent / "page"
# Of Okabe and Ito (2008), which people with any colour vision tell apart, and grey; further classes have dashed lines.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#bbbbbb")
DASHES = ("", "7 4", "2 3")
LARGEST = 720  # pixels of the longer side of an image; larger ones are shrunk
EXACT = 160  # pixels up to which an image is kept exactly, and its pixels are shown
NARROW, WIDE = 9, 20  # width of an image at first, in letters of the page; narrow: small ones without marks
LEAST = 0.05  # score of the marks that the page has, unless the threshold of their class is lower
MOST_MARKS = 100  # of an image, the surest

Sides = tuple[int, int]  # height and width


@dataclasses.dataclass(frozen=True)
class Item:
    """An image on the page.

    Attributes:
      name: name of its file.
      image: RGB; None if it could not be read.
      answer: in words; of an image that could not be read, why.
      marks: what was found in it.
      likely: the most probable classes with their probabilities, for tasks that answer for the whole image.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"] | None
    answer: str
    marks: Sequence[Mark] = ()
    likely: Sequence[tuple[str, float]] = ()


def page(
    title: str,
    about: Sequence[str],
    items: Sequence[Item],
    classes: Sequence[str],
    least: float,
    thresholds: Sequence[float] = (),
) -> str:
    """The page as HTML.

    Args:
      title: which run.
      about: lines below the title.
      items: the images.
      classes: names of all classes of the network, for their order.
      least: the score from which things are shown at first.
      thresholds: the score of each class that validation chose, which may be asked for; empty without them.
    """
    own = dict(zip(classes, thresholds, strict=True)) if thresholds else {}
    items = [dataclasses.replace(item, marks=_kept(item.marks, own)) for item in items]
    used = {mark.name for item in items for mark in item.marks}
    used |= {item.likely[0][0] for item in items if item.likely}
    places = {name: place for place, name in enumerate(name for name in dict.fromkeys(classes) if name in used)}
    quiet = {mark.name for item in items for mark in item.marks if mark.quiet}
    finds = any(item.marks for item in items)
    scored = any(mark.score is not None for item in items for mark in item.marks)
    least = least if scored else 0.0
    ordered = scored or any(item.likely for item in items)  # whether there is something to be sure of
    legend = "".join(_chosen(name, place, name in quiet, finds, own.get(name)) for name, place in places.items())
    masks = any(mark.mask for item in items for mark in item.marks)
    cell = NARROW if not finds and all(_is_small(item.image) for item in items if item.image is not None) else WIDE
    orders = [("", "as given"), ("most", "most confident first"), ("least", "least confident first")]
    orders += [("many", "most objects first"), ("few", "fewest objects first")] if scored else []
    slider = (
        f'<label>{"Score" if finds else "Probability"} from <input type="range" id="least" min="0" max="100" '
        f'value="{100 * least:.0f}"><output id="at">{100 * least:.0f} %</output></label>'
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *(f'<p class="quiet">{html.escape(line)}</p>' for line in about),
        '<div class="controls" id="controls" hidden>',
        slider if ordered else "",
        '<label><input type="checkbox" id="own"> Thresholds of validation</label>' if own else "",
        f'<label>Order <select id="order">{"".join(map(_option, orders))}</select></label>' if ordered else "",
        f'<label>Size <input type="range" id="size" min="6" max="60" value="{cell}"></label>',
        '<label><input type="checkbox" id="names"> Names</label>' if scored else "",
        '<label>Masks <input type="range" id="opacity" min="0" max="100" value="35"></label>' if masks else "",
        '<output id="count"></output><button type="button" id="theme">Light or dark</button></div>',
        f'<div class="legend" id="classes" role="group" aria-label="Classes">{legend}</div>' if places else "",
        f'<div id="images">{"".join(_card(item, places, least) for item in items)}</div>',
    ]
    style, script = ((_FOLDER / f"predictions.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    style = f"{style}:root {{ --cell: {cell}rem }}\n{_colours(len(places))}"
    return interactive.document(title, style, "".join(parts), script)


def _kept(marks: Sequence[Mark], own: Mapping[str, float]) -> list[Mark]:
    """The surest marks that the page has, of all scores that can be chosen."""
    kept = [mark for mark in marks if mark.score is None or mark.score >= min(LEAST, own.get(mark.name, LEAST))]
    return kept[:MOST_MARKS]


def _is_small(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    return max(image.shape[:2]) <= EXACT


def _option(pair: tuple[str, str]) -> str:
    return f'<option value="{pair[0]}">{pair[1]}</option>'


def _colours(classes: int) -> str:
    """The rules of the style for the colours of classes."""
    rules = []
    for place in range(classes):
        dashes = DASHES[place // len(COLOURS) % len(DASHES)]
        dashed = f"; stroke-dasharray: {dashes}" if dashes else ""
        rules.append(f".c{place} {{ --class: {COLOURS[place % len(COLOURS)]}{dashed} }}")
    return "\n".join(rules)


def _chosen(name: str, place: int, quiet: bool, drawn: bool, own: float | None) -> str:
    """A button of the legend, which chooses a class, with a sample of its colour if it is drawn, and its threshold."""
    sample = '<svg width="22" height="12" aria-hidden="true"><rect x="1" y="1" width="20" height="10"/></svg>' * drawn
    note = ' <i class="quiet">not shown at first</i>' if quiet else ""
    least = "" if own is None else f' data-least="{own:.4f}" title="threshold of validation: {100 * own:.0f} %"'
    return (
        f'<button type="button" class="c{place}" data-class="{place}"{least} aria-pressed="false">{sample} '
        f"<span>{html.escape(shown(name))}</span>{note} <b></b></button>"
    )


def _card(item: Item, places: Mapping[str, int], least: float) -> str:
    name, answer = html.escape(shown(item.name)), html.escape(item.answer)
    if item.image is None:
        return f'<article class="card" data-sure="-1"><h3>{name}</h3><p class="unread">{answer}</p></article>'
    height, width = item.image.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    kept = item.marks
    # The larger ones first, so that the smaller ones lie above them and can be touched.
    area = {id(mark): float(np.prod(mark.box[2:])) if mark.box is not None else np.inf for mark in kept}
    drawn = [_mark(mark, places[mark.name], sides, scale, least) for mark in sorted(kept, key=lambda of: -area[id(of)])]
    sure = max([0.0, *(mark.score for mark in kept if mark.score is not None), *(of for _, of in item.likely[:1])])
    own = f' data-class="{places[item.likely[0][0]]}"' if item.likely else ""
    exact = " exact" if max(sides) <= EXACT else ""
    overlay = (
        f'<svg viewBox="0 0 {sides[1]} {sides[0]}" style="--unit: {max(sides) / 100:.4g}px">{"".join(drawn)}</svg>'
    )
    bars = "".join(map(_bar, item.likely))
    likely = f'<ol class="bars">{bars}</ol>' if bars else f'<p class="answer">{answer}</p>'
    return (
        f'<article class="card" data-sure="{sure:.4f}"{own}><div class="view{exact}" '
        f'style="--ratio: {sides[1]} / {sides[0]}"><img alt="{name}: {answer}" src="{_source(item.image, sides)}">'
        f'{overlay if drawn else ""}</div><h3>{name}</h3>{likely}<p class="said" aria-live="polite"></p></article>'
    )


def _bar(likely: tuple[str, float]) -> str:
    label, percent = html.escape(shown(likely[0])), f"{100 * likely[1]:.1f}"
    return f'<li><span>{label}</span><i style="width: {percent}%"></i><b>{percent} %</b></li>'


def _mark(mark: Mark, place: int, sides: Sides, scale: float, least: float) -> str:
    """A mark as a group of SVG; hidden if its score is below `least`."""
    words = html.escape(f"{shown(mark.name)} {mark.told}".strip())
    score = "" if mark.score is None else f' data-score="{mark.score:.4f}"'
    off = " off" if mark.quiet or (mark.score is not None and mark.score < least) else ""
    shapes = []
    if mark.mask is not None and (path := outline(_shrunk(run_length.decode(mark.mask) != 0, sides))):
        shapes.append(f'<path d="{path}"/>')
    if mark.box is not None:
        x, y, width, height = (round(scale * of, 1) for of in mark.box)
        box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        shapes.append(f'<rect class="dark" {box}/><rect {box}/>')
        low = y < sides[0] * 0.05
        shapes.append(f'<text x="{x:g}" y="{y:g}" dy="{"1.1em" if low else "-0.3em"}">{words}</text>')
    quiet = " data-quiet" if mark.quiet else ""
    return f'<g class="c{place}{off}" data-class="{place}"{score}{quiet}><title>{words}</title>{"".join(shapes)}</g>'


def _shrunk(mask: np.ndarray, sides: Sides) -> np.ndarray:
    """A mask of an image that is shown smaller: of each pixel shown, the one in its middle."""
    if mask.shape == sides:
        return mask
    rows, columns = (
        ((np.arange(small) + 0.5) * (large / small)).astype(np.int64)
        for small, large in zip(sides, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def _source(image: UInt8[np.ndarray, "h w 3"], sides: Sides) -> str:
    """An image as an address that the page contains: a small one exactly as PNG, a larger one as JPEG."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    if sides != image.shape[:2]:
        picture = picture.resize(sides[::-1], Image.Resampling.BOX)
    file, kind = io.BytesIO(), "png" if max(sides) <= EXACT else "jpeg"
    picture.save(file, kind, **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")


def likely(answer: Mapping[str, Any], most: int = 3) -> list[tuple[str, float]]:
    """The most probable classes of an answer for a whole image; none if it has no probabilities."""
    if "top" in answer:
        return [(one["label"], float(one["probability"])) for one in answer["top"][:most]]
    of_each = answer.get("probabilities", {})
    return sorted(((name, float(of)) for name, of in of_each.items()), key=lambda pair: -pair[1])[:most]


def remarks(images: int, most: int, unread: int) -> list[str]:
    """What the page leaves out, in sentences."""
    told = [f"It has the first {most} of {counted(images, 'image')}."] if images > most else []
    return told + ([f"{counted(unread, 'image')} could not be read."] if unread else [])
