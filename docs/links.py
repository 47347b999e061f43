"""Check the links of the built site and of README.md, without a network: `python -m docs.links build/docs`.

A link within the site, or from page to page in the clone, must lead to a file, and to a part of it that exists. One
into this project's repository must name a file of the clone. Of other links only the form is checked: https, and a
host.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
REPOSITORY = re.compile(r"https://(?:github\.com/jaxcnn/jaxcnn|colab\.research\.google\.com/github/jaxcnn/jaxcnn)(.*)")
_MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_NAMED = re.compile(r"<a id=\"([^\"]+)\">")
_GENERATED = ("genindex.html", "search.html", "py-modindex.html")


class Page(html.parser.HTMLParser):
    """The links of a page, and the names of its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.parts: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep what the tag links to and what it is called."""
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "link":
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.parts.add(value)


def broken(site: pathlib.Path) -> Iterator[str]:
    """One line for each broken link of the site in this folder."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(set(page.links)):
            if reason := _reason(link, path, pages):
                yield f"{path.relative_to(site.resolve())}: {link}: {reason}"


def broken_in_markdown(path: pathlib.Path) -> Iterator[str]:
    """One line for each broken link of a Markdown file in the clone, as GitHub shows it."""
    for link in _MARKDOWN_LINK.findall(path.read_text()):
        file, _, part = link.partition("#")
        target = path.parent / file if file else path
        if urllib.parse.urlsplit(link).scheme:
            reason = _outside(link)
        elif not target.exists():
            reason = "there is no such file"
        else:
            known = not part or target.suffix != ".md" or part in parts_of_markdown(target.read_text())
            reason = "" if known else "the page has no such part"
        if reason:
            yield f"{path.name}: {link}: {reason}"


def parts_of_markdown(text: str) -> set[str]:
    """What a link to a part of a page can name: its headings, as GitHub and Sphinx write them, and its anchors."""
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in _HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs} | set(_NAMED.findall(text))


def _reason(link: str, path: pathlib.Path, pages: dict[pathlib.Path, Page]) -> str:
    """Why a link of a page leads nowhere; empty if it does not."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return _outside(link)
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return "there is no such file"
    fragment = urllib.parse.unquote(parts.fragment)
    if fragment and target.name not in _GENERATED and target in pages and fragment not in pages[target].parts:
        return "the page has no such part"
    return ""


def _outside(link: str) -> str:
    parts = urllib.parse.urlsplit(link)
    if parts.scheme == "mailto":
        return ""
    if parts.scheme != "https" or "." not in parts.netloc or re.search(r"\s", link):
        return "not of the form https://host/path"
    if own := REPOSITORY.match(link):
        file = re.match(r"/(?:blob|tree|edit|raw)/main/([^#?]*)", own[1])
        if file and not (ROOT / urllib.parse.unquote(file[1])).exists():
            return "the repository has no such file"
    return ""


def main() -> int:
    """Print the broken links; 1 if there are any."""
    found = [*broken(pathlib.Path(sys.argv[1])), *broken_in_markdown(ROOT / "README.md")]
    print("\n".join(found) or "no broken links")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
