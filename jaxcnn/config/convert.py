"""Converts nested mappings to frozen dataclasses, with one line for each mistake in them."""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxcnn.config import open_names

# Names of fields in other programs.
_COMMON_NAMES = {
    "lr": "learning_rate", "wd": "weight_decay", "bs": "global_batch_size", "batch_size": "global_batch_size",
    "batch": "global_batch_size", "ema": "ema_decay", "clip": "clip_norm", "grad_clip": "clip_norm",
    "smoothing": "label_smoothing", "num_workers": "workers", "num_epochs": "epochs", "max_epochs": "epochs",
    "max_steps": "steps", "num_steps": "steps", "img_size": "image_size", "size": "image_size", "arch": "model.name",
    "network": "model.name", "optimizer": "optim.name", "optimiser": "optim.name", "scheduler": "schedule.name",
    "dataset": "data.source", "data_dir": "data.dir", "gpus": "parallel.devices", "precision": "model.dtype",
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known name closest to an unknown one; empty if none is close."""
    close = nearest_key(name, known)
    return f" (did you mean {close!r}?)" if close else ""


def nearest_key(key: str, known: Iterable[str]) -> str:
    """The known key (group names, then field name) that `key` most probably means; "" if none.

    Checked in order: names used elsewhere, such as "lr"; a field of that name in any group; similar spelling.
    """
    keys = list(known)
    name = key.rpartition(".")[2]
    for wanted in (_COMMON_NAMES.get(name, name), name):
        if same := [each for each in keys if f".{each}".endswith(f".{wanted}")]:
            return difflib.get_close_matches(key, same, n=1, cutoff=0.0)[0]
    return next(iter(difflib.get_close_matches(key, keys, n=1)), "")


def usual_name(name: str, known: Iterable[str]) -> str:
    """The known key that other programs call `name`, such as "optim.learning_rate" for "lr"; "" if none."""
    wanted = _COMMON_NAMES.get(name)
    return next((key for key in known if wanted and f".{key}".endswith(f".{wanted}")), "")


def convert(cls: type, tree: Any, path: str, mistakes: list[str]) -> Any:
    """Build dataclass `cls` from a mapping, appending a line to `mistakes` for each mistake in it."""
    if not isinstance(tree, Mapping):
        mistakes.append(f"{path} must be a group of fields, not {_shown(tree)}")
        return cls()
    hints = get_type_hints(cls, include_extras=True)
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
    """The beginning of a wrong value, for messages."""
    try:
        text = repr(value)
    except ValueError:  # Python does not convert integers of thousands of digits to text
        return f"such {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def _typed(hint: Any, value: Any) -> Any:
    """`value` as the annotated type; an int is accepted for a float, a list for a tuple. Raises ValueError."""
    origin = get_origin(hint)
    if origin is Annotated:
        if (kind := open_names.of_hint(hint)) and (mistake := kind.mistake(value)):
            hint = (open_names.with_colon(value) or nearest(value, kind.ours)) if isinstance(value, str) else ""
            raise ValueError(mistake + hint)
        return _typed(get_args(hint)[0], value)
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
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_typed(kinds[0], item) for item in value)
        if len(kinds) != len(value):
            raise ValueError(f"must have {len(kinds)} parts, not {_shown(value)}")
        return tuple(_typed(kind, item) for kind, item in zip(kinds, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("must be a finite number, not an integer with hundreds of digits") from None
    if type(value) is not hint:
        raise ValueError(f"must be of type {hint.__name__}, not {_shown(value)}")
    if hint is int and abs(value) >= 2**64:
        raise ValueError("must be an integer with an absolute value below 2^64")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {value}")
    return value
