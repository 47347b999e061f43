"""Conversion between nested mappings (config files, `config.json`) and the checked dataclasses of `fields`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import ml_collections

from jaxcnn.config import convert, open_names, rules
from jaxcnn.config.errors import ConfigError
from jaxcnn.config.fields import Config


def default() -> ml_collections.ConfigDict:
    """A ConfigDict with every field of `Config` at its default, for the files in `configs/` to change."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def choices(key: str) -> tuple[str, ...]:
    """The values that a field with a list of them may have, by its flat key; of an open name, ours; else empty."""
    hint = _hint(key)
    if (kind := open_names.of_hint(hint)) is not None:
        return kind.ours
    return get_args(hint) if get_origin(hint) is Literal else ()


def open_keys() -> tuple[str, ...]:
    """The flat keys of all fields that are open names."""
    return tuple(key for key in flatten(to_dict(Config())) if open_names.of_hint(_hint(key)) is not None)


def _hint(key: str) -> Any:
    hint: Any = Config
    for name in key.split("."):
        hint = get_type_hints(hint, include_extras=True)[name]
    return hint


def unknown_variant(variant: str, known: tuple[str, ...]) -> ConfigError:
    """The error for `--config=configs/x.py:<variant>` if the file does not have the variant."""
    return ConfigError(
        f"this config file has no variant ':{variant}'{convert.nearest(variant, known)}; it has: {', '.join(known)}"
    )


def from_config_dict(tree: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Convert a ConfigDict (or nested mapping) to a checked `Config`.

    Raises:
      ConfigError: unknown keys (with the nearest right one), wrong types, values out of range or impossible
        combinations, one line each.
    """
    if isinstance(tree, ml_collections.ConfigDict):
        tree = tree.to_dict()
    mistakes: list[str] = []
    config = convert.convert(Config, tree, "config", mistakes)
    if not mistakes:
        mistakes = rules.check(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The nested plain dictionary of a config, as stored in `config.json` (where tuples become lists)."""
    return dataclasses.asdict(config)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"name": "sgd"}}` -> `{"optim.name": "sgd"}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}" if prefix else key] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        group = tree
        for each in groups:
            group = group.setdefault(each, {})
        group[name] = value
    return tree
