"""The page of a run's hardest images: one HTML file, without other files, for light and dark, wide and narrow."""

import base64
import html
import io
from collections.abc import Sequence

from jaxcnn.text import shown
from jaxcnn.train.mistakes import Example, Hardest

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #59636e; --wrong: #b00020; --page: #fff; --line: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9198a1; --wrong: #ff8f9c; --page: #0d1117; --line: #3d444d }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page) }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } p { color: var(--quiet) }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem }
figure { margin: 0; border-top: 1px solid var(--line); padding-top: .5rem; overflow-wrap: anywhere }
img { width: 100%; image-rendering: pixelated; display: block }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .35rem }
.answer { color: var(--wrong) } .quiet { color: var(--quiet) }
"""


def page(found: Hardest, title: str, about: str) -> str:
    """The page as HTML.

    Args:
      found: the images.
      title: which run and split.
      about: a sentence below the title.
    """
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>"]
    if found.mistakes is not None:
        note = f"{len(found.mistakes)} of {found.wrong} wrong answers, the most probable first." if found.wrong else ""
        parts.append(_section("Most confident mistakes", note or "There is no mistake.", found.mistakes))
    parts.append(_section("Highest loss", "The highest first.", found.losses))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _section(title: str, note: str, examples: Sequence[Example]) -> str:
    figures = "".join(map(_figure, examples))
    return f'<h2>{title}</h2><p>{html.escape(note)}</p><div class="sheet">{figures}</div>'


def _figure(example: Example) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(example.image).save(file, "png")
    source = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="example {example.index}" src="data:image/png;base64,{source}"><figcaption>'
        f'{html.escape(example.label)}<br><span class="answer">{html.escape(example.answer)}</span><br>'
        f'<span class="quiet">loss {example.loss:.3g}<br>{html.escape(shown(example.name))}</span>'
        "</figcaption></figure>"
    )
