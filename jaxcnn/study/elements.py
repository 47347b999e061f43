"""Fields that are lists, such as `model.stage_blocks`, varied place by place: "model.stage_blocks[0]" is the first.

A search then has a dimension for each place; a trial has the whole list.
"""

import re
from collections.abc import Mapping
from typing import Any

from jaxcnn.config import ConfigError

_ELEMENT = re.compile(r"(.+)\[(\d+)\]")


def field_of(key: str) -> str:
    """The field of a key, which may name a place in a list."""
    found = _ELEMENT.fullmatch(key)
    return found[1] if found else key


def joined(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, with the places of each list put together.

    Raises:
      ConfigError: a place before the last is missing, or the field is also given whole.
    """
    made: dict[str, Any] = {}
    lists: dict[str, dict[int, Any]] = {}
    for key, value in overrides.items():
        if found := _ELEMENT.fullmatch(key):
            made.setdefault(found[1], None)  # in the order in which fields are first named
            lists.setdefault(found[1], {})[int(found[2])] = value
        else:
            made[key] = value
    for field, places in lists.items():
        if field in overrides:
            raise ConfigError(f"sweep: config.{field} is varied twice in one trial; for alternatives, use chain(…)")
        if missing := set(range(max(places) + 1)) - places.keys():
            raise ConfigError(f"sweep: config.{field}[{min(missing)}] is missing; all places of a list must be varied")
        made[field] = [places[place] for place in sorted(places)]
    return made
