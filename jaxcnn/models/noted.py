"""Notes that layers make while their network is traced, without a place for them in the variables."""

import contextvars
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax

T = TypeVar("T")


class Noted(Generic[T]):
    """One kind of note, such as the channels of a layer; layers make notes only while `of` traces their network."""

    def __init__(self, kind: str) -> None:
        self._there: contextvars.ContextVar[dict[str, T] | None] = contextvars.ContextVar(kind, default=None)

    def note(self, layer: str, value: T) -> None:
        """Note a value under the path of a layer or of one of its parameters."""
        if (found := self._there.get()) is not None:
            found[layer] = value

    def of(self, initialize: Callable[[], Any]) -> dict[str, T]:
        """The notes that a network makes. `initialize` makes its variables; it is traced only."""
        found: dict[str, T] = {}
        token = self._there.set(found)
        try:
            jax.eval_shape(initialize)
        finally:
            self._there.reset(token)
        return found
