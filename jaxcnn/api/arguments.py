"""Checks of the arguments of public functions: a value of a wrong type is told in one line."""

import numbers
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine import paths
from jaxcnn.text import shown

MOST_NUMBER = 2**63


def path(given: Any, name: str) -> pathlib.Path:
    """A path, with `~` expanded; `name` is that of the argument.

    Raises:
      UserError: it is no path, or the home folder is unknown.
    """
    return paths.expand(place(given, name), f"{name}=")


def place(given: Any, name: str) -> str:
    """A path as it was given.

    Raises:
      UserError: it is no path.
    """
    if isinstance(given, str | os.PathLike) and isinstance(found := os.fspath(given), str):
        return found
    raise UserError(f"{name} must be a path, such as 'runs/digits', not {_kind(given)}")


def number(name: str, given: Any, least: float, most: int | None = None, *, whole: bool = True) -> None:
    """Refuse what is no number from `least` to `most`.

    Raises:
      UserError: it is not.
    """
    if isinstance(given, bool) or not isinstance(given, numbers.Integral if whole else numbers.Real):
        raise UserError(f"{name} must be a {'whole ' * whole}number, but is {shown(repr(given)):.100}")
    if given < least:
        raise UserError(f"{name} must be at least {least}, not {given}")
    if not given <= (MOST_NUMBER if most is None else most):  # nor NaN
        raise UserError(f"{name} must be at most {'2**63' if most is None else most}")


def several(name: str, given: Any, what: str) -> Sequence[Any]:
    """The elements of a list, or of what else has some, as a list; `what` says in words what is needed.

    Raises:
      UserError: it has none, or is a text.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UserError(f"{name} must be {what}, not {_kind(given)}")
    return list(given)


def _kind(given: Any) -> str:
    return "None" if given is None else f"of type {type(given).__name__}"
