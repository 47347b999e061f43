"""All readers by name: of sets of data, and of what jaxcnn wrote itself."""

import pathlib

from tests.bad_input import alone, lists, outputs, sets
from tests.bad_input.reader import Reader

MAKERS = {**sets.MAKERS, **lists.MAKERS, **outputs.MAKERS, **alone.MAKERS}


def made(folder: pathlib.Path, images: pathlib.Path | None, only: str = "") -> dict[str, Reader]:
    """Readers by name, with examples made in a folder; `images`: more images to damage; `only`: names with this."""
    readers: dict[str, Reader] = {}
    for names, make in MAKERS.items():
        if any(only in name for name in names):
            readers |= zip(names, make(folder, images), strict=True)
    return {name: reader for name, reader in readers.items() if only in name}
