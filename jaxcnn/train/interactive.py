"""A page of one file whose script needs nothing from outside, in light and dark."""

import html
import pathlib

_THEME = pathlib.Path(__file__).with_name("page") / "theme.js"


def document(title: str, style: str, body: str, script: str) -> str:
    """The whole page, which may load nothing: no network, no files.

    Args:
      title: title of the window, not yet escaped.
      style: CSS rules.
      body: HTML with a button `theme`, and with `controls` that are hidden where there are no scripts.
      script: runs once the theme is chosen.
    """
    theme = _THEME.read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">"
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main>{body}</main>"
        f"<script>{theme}{script}</script></body></html>\n"
    )
