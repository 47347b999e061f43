"""Values of fields that come from Python, as the text and numbers that a config and the records of a sweep keep."""

import json
from typing import Any

import numpy as np

from jaxcnn.config import ConfigError
from jaxcnn.machine import plugins


def names_of(value: Any) -> Any:
    """The value of a field, with each object in it as its open name; a list with objects becomes a tuple of names."""
    if isinstance(value, list | tuple):
        named = tuple(map(names_of, value))
        return value if all(one is other for one, other in zip(named, value, strict=True)) else named
    return plugins.name_of(value) if callable(value) else value


def plain(key: str, value: Any) -> Any:
    """A value of a sweep: objects by their names, numbers of NumPy as those of Python.

    Raises:
      ConfigError: it is something else that JSON does not have.
    """
    value = names_of(value.item() if isinstance(value, np.generic) else value)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigError(f"sweep: {key} cannot be {value!r:.100}, of type {type(value).__name__}") from None
    return value
