"""The parts of pages that are made from the code, so that they can be read without a build: `python -m docs.made`."""

import pathlib
from collections.abc import Callable

from docs import api_table, field_reference

END = "<!-- end -->"
PARTS: dict[str, tuple[str, Callable[[], str]]] = {  # the pages; the mark before the part, and what makes it
    "config_fields.md": (field_reference.PLACE, field_reference.markdown),
    "api.md": (api_table.PLACE, api_table.markdown),
}
_HERE = pathlib.Path(__file__).parent


def remade(name: str) -> str:
    """The text of a page of docs/ with its part made anew.

    Raises:
      ValueError: the page has no marks around the part.
    """
    place, make = PARTS[name]
    before, mark, rest = (_HERE / name).read_text().partition(place)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"docs/{name} must have the lines {place} and {END} around the part that is made")
    return f"{before}{place}\n\n{make()}\n\n{END}{after}"


if __name__ == "__main__":
    for page in PARTS:
        (_HERE / page).write_text(remade(page))
