"""The grammar of split slices, as TensorFlow Datasets has it: "train", "train[:90%]", "train[:400]+train[-50:]"."""

import difflib
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxcnn.config import UserError

_TERM = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


def resolve(
    expression: str, key: str, known: Sequence[str], size: Callable[[str], int]
) -> list[tuple[str, np.ndarray]]:
    """The examples that a slice expression names.

    Args:
      expression: base splits, each with an optional slice in examples or percent, joined by "+". Percentages round to
        the nearest example; negative numbers count from the end.
      key: of the config field, for messages.
      known: names of the base splits.
      size: of a base split; called for those that the expression names.

    Returns:
      (base split, indices int64 [n]) for each term, in order.

    Raises:
      UserError: bad grammar, unknown base split, bounds outside the split, nothing left, or an example twice.
    """
    parts = []
    for term in expression.split("+"):
        match = _TERM.fullmatch(term.strip())
        if not match:
            raise UserError(
                f"{key}={expression!r} is not a split slice; write such as 'train', 'train[:90%]', 'train[10000:]'"
            )
        name = match["name"]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UserError(
                f"{key}={expression!r}: there is no split {name!r}{hint}; the source has: {', '.join(known)}"
            )
        count = size(name)
        start = _bound(match["start"], 0, count, key, expression)
        stop = _bound(match["stop"], count, count, key, expression)
        parts.append((name, np.arange(start, stop)))
    if not any(len(indices) for _, indices in parts):
        raise UserError(f"{key}={expression!r} holds no example; its splits have {_sizes(parts, size)}")
    for position, (name, indices) in enumerate(parts):
        if count := common(parts[:position], [(name, indices)]):
            raise UserError(f"{key}={expression!r} names {count} examples twice; its terms must not overlap")
    return parts


def common(one: list[tuple[str, np.ndarray]], other: list[tuple[str, np.ndarray]]) -> int:
    """How many examples two resolved expressions share."""
    return sum(len(np.intersect1d(a, b)) for name, a in one for also, b in other if name == also)


def _bound(text: str | None, default: int, count: int, key: str, expression: str) -> int:
    if text is None:
        return default
    if text.endswith("%"):
        percent = int(text[:-1])
        if abs(percent) > 100:
            raise UserError(f"{key}={expression!r}: {text} is beyond 100%")
        value = round(percent * count / 100)
    else:
        value = int(text)
        if abs(value) > count:
            raise UserError(f"{key}={expression!r}: {text} is beyond the {count} examples of the split")
    from_end = text.startswith("-") and text not in ("-0", "-0%")
    return value + count if from_end else value


def _sizes(parts: list[tuple[str, np.ndarray]], size: Callable[[str], int]) -> str:
    return ", ".join(f"{name}: {size(name)}" for name in dict.fromkeys(name for name, _ in parts))
