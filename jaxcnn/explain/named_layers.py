"""One of the layers that have maps: by its name, or one whose maps are not too small."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from jaxcnn.config import UserError

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
    """The layer of a name. Raises UserError, which lists the layers, if there is no such; `what` names it there."""
    for layer in found:
        if layer.name == name:
            return layer
    known = ", ".join(f"{layer.name} ({layer.shape[0]}x{layer.shape[1]})" for layer in found)
    raise UserError(f"the network has no {what}; it has {known}")


def not_small(found: Sequence[L]) -> list[L]:
    """The layers whose maps have at least 4x4 positions; all of them if there is none."""
    return [layer for layer in found if min(layer.shape[:2]) >= SMALLEST_SIDE] or list(found)
