"""One of the layers that have maps: by its name, or one whose maps are not too small."""

import difflib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from jaxcnn.config import UserError
from jaxcnn.text import shown

NEAREST, MOST_OF_NAME, MOST_LETTERS = 5, 100, 400  # of the error about a layer that does not exist
SMALLEST_SIDE = 4  # positions; a map of fewer is chosen only if there is no other


class HasMaps(Protocol):
    """A layer with maps, by its name."""

    @property
    def name(self) -> str:
        """The path of the layer in the network."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of its maps, and what follows."""
        ...


L = TypeVar("L", bound=HasMaps)


def named(found: Sequence[L], name: str, what: str) -> L:
    """The layer of a name; `what` says in the error what it should be, with `{}` for the name.

    Raises:
      UserError: there is no such layer. It lists the layers with the most similar names first, then the others in
        order, as many as fit.
    """
    for layer in found:
        if layer.name == name:
            return layer
    near = difflib.get_close_matches(str(name), [layer.name for layer in found], n=NEAREST)

    def likeness(layer: L) -> float:
        return difflib.SequenceMatcher(None, layer.name, str(name)).ratio() if layer.name in near else 0.0

    order = sorted(found, key=likeness, reverse=True)  # equally similar ones stay in the order of the network
    told = f"the network has no {what.format(shown(repr(name))[:MOST_OF_NAME])}; it has "
    for number, layer in enumerate(order):
        one = f"{', ' if number else ''}{layer.name} ({layer.shape[0]}x{layer.shape[1]})"
        if number and len(told) + len(one) > MOST_LETTERS:
            raise UserError(f"{told} and {len(order) - number} more")
        told += one
    raise UserError(told)


def not_small(found: Sequence[L]) -> list[L]:
    """The layers whose maps have at least 4x4 positions; all of them if there is none."""
    return [layer for layer in found if min(layer.shape[:2]) >= SMALLEST_SIDE] or list(found)
