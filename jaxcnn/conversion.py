"""Nested mappings as frozen dataclasses, with a line for each thing wrong with them."""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is closest to an unknown one; empty if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def convert(cls: type, tree: Any, path: str, mistakes: list[str]) -> Any:
    """Build dataclass `cls` from a mapping, appending a line to `mistakes` for each thing wrong with it."""
    if not isinstance(tree, Mapping):
        mistakes.append(f"{path} must be a group of fields, not {_shown(tree)}")
        return cls()
    hints = get_type_hints(cls)
    for key in tree:
        if key not in hints:
            mistakes.append(f"unknown key {path}.{key}{nearest(str(key), hints)}")
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        if name not in tree:
            continue
        if dataclasses.is_dataclass(hint):
            values[name] = convert(hint, tree[name], f"{path}.{name}", mistakes)  # type: ignore[arg-type]
        else:
            try:
                values[name] = _typed(hint, tree[name])
            except ValueError as error:
                mistakes.append(f"{path}.{name} {error}")
    return cls(**values)


def _shown(value: Any) -> str:
    """A wrong value as a person is to see it: its first letters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        return f"such {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _typed(hint: Any, value: Any) -> Any:
    """`value` as the annotated type; an int may stand for a float, a list for a tuple. Raises ValueError."""
    origin = get_origin(hint)
    if origin is Literal:
        choices = get_args(hint)
        if value not in choices:
            near = nearest(value, choices) if isinstance(value, str) else ""
            raise ValueError(f"must be one of {', '.join(choices)}, not {_shown(value)}{near}")
        return value
    if origin in (Union, types.UnionType):
        raise TypeError(f"Config fields have one type each, not {hint}")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list, not {_shown(value)}")
        return tuple(_typed(get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("must be a finite number, not an integer of hundreds of digits") from None
    if type(value) is not hint:
        raise ValueError(f"must be of type {hint.__name__}, not {_shown(value)}")
    if hint is int and abs(value) >= 2**64:
        raise ValueError("must be an integer below 2^64 in size")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value
