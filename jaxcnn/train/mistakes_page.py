"""The page of a run's hardest images: one HTML file, without other files, for light and dark, wide and narrow."""

import base64
import html
import io
import math

from jaxcnn.text import shown
from jaxcnn.train.mistakes import Example, Hardest, Section, Worst

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #59636e; --wrong: #b00020; --page: #fff; --line: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --quiet: #9198a1; --wrong: #ff8f9c; --page: #0d1117; --line: #3d444d }
}
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page) }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem } p { color: var(--quiet) }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)) }
figure { margin: 0; border-top: 1px solid var(--line); padding-top: .5rem; overflow-wrap: anywhere }
img { width: 100%; image-rendering: pixelated; display: block }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .35rem }
.pairs img { image-rendering: auto }
.answer { color: var(--wrong) } .quiet { color: var(--quiet) }
"""


def page(found: Hardest | Worst, title: str, about: str) -> str:
    """The page as HTML.

    Args:
      found: the images.
      title: which run and split.
      about: a sentence below the title.
    """
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>"]
    parts += map(_section, found.sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _section(section: Section) -> str:
    figures = "".join(map(_figure, section.examples))
    kind = "sheet pairs" if any(example.pair for example in section.examples) else "sheet"
    note = html.escape(section.note)
    return f'<h2>{section.title}</h2><p>{note}</p><div class="{kind}">{figures}</div>'


def _figure(example: Example) -> str:
    from PIL import Image

    file, kind = io.BytesIO(), "jpeg" if example.pair else "png"
    Image.fromarray(example.image).save(file, kind, **({"quality": 88, "subsampling": 0} if example.pair else {}))
    source = base64.b64encode(file.getvalue()).decode("ascii")
    loss = "" if math.isnan(example.loss) else f"loss {example.loss:.3g}<br>"
    return (
        f'<figure><img alt="example {example.index}" src="data:image/{kind};base64,{source}"><figcaption>'
        f'{html.escape(example.label)}<br><span class="answer">{html.escape(example.answer)}</span><br>'
        f'<span class="quiet">{loss}{html.escape(shown(example.name))}</span>'
        "</figcaption></figure>"
    )
