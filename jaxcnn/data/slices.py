"""The grammar of split slices, as in TensorFlow Datasets: "train", "train[:90%]", "train[:400]+train[-50:]".

"train[:90% by path]" chooses by a hash of each example's path, so that no example moves when others are added or
removed. Its share is 90 % on average. "train[:90% by group]" does so with the name of its group (`config.data.group`),
and keeps groups whole.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from jaxcnn.config import UserError, convert
from jaxcnn.data.examples import Hashes, Indices

Part = tuple[str, Indices]  # a base split, and the indices of the chosen examples

_TERM = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?(?:\s*by (?P<by>path|group))?\])?")


def resolve(
    expression: str,
    key: str,
    known: Sequence[str],
    size: Callable[[str], int],
    hashes: Callable[[str], Hashes | None] = lambda name: None,
    groups: Callable[[str], Hashes | None] = lambda name: None,
) -> list[Part]:
    """The examples that a slice expression names.

    Args:
      expression: base splits, each with an optional slice in examples or percent, joined by "+". Percentages round to
        the nearest example; negative numbers count from the end.
      key: name of the config field in messages.
      known: names of the base splits.
      size: returns the size of a base split; called for those in the expression.
      hashes: returns the hashes of the paths of a base split's examples, or None; called for "by path" only.
      groups: returns the hashes of the names of their groups, or None; called for "by group" only.

    Returns:
      The base split and the indices of each term, in order.

    Raises:
      UserError: bad grammar, unknown base split, bounds outside the split, no paths, nothing left, or an example twice.
    """
    parts = []
    for term in expression.split("+"):
        match = _TERM.fullmatch(term.strip())
        if not match:
            raise UserError(
                f"{key}={expression!r} is not a split slice; write for example 'train', 'train[:90%]' or "
                "'train[10000:]'"
            )
        name = match["name"]
        if name not in known:
            hint = convert.nearest(name, known)
            raise UserError(f"{key}={expression!r}: the source has no split {name!r}{hint}; it has: {', '.join(known)}")
        count = size(name)
        if by := match["by"]:
            parts.append((name, _by_hash(match, (hashes if by == "path" else groups)(name), key, expression)))
            continue
        start = _bound(match["start"], 0, count, key, expression)
        stop = _bound(match["stop"], count, count, key, expression)
        parts.append((name, np.arange(start, stop)))
    if not any(len(indices) for _, indices in parts):
        raise UserError(f"{key}={expression!r} selects no examples; the sizes of its splits are {_sizes(parts, size)}")
    for position, (name, indices) in enumerate(parts):
        if count := common(parts[:position], [(name, indices)]):
            raise UserError(f"{key}={expression!r} selects {count} examples twice; its parts must not overlap")
    return parts


def common(one: list[Part], other: list[Part]) -> int:
    """The number of examples that two resolved expressions share."""
    return sum(len(np.intersect1d(a, b)) for name, a in one for also, b in other if name == also)


def _bound(text: str | None, default: int, count: int, key: str, expression: str) -> int:
    if text is None:
        return default
    if text.endswith("%"):
        percent = int(text[:-1])
        if abs(percent) > 100:
            raise UserError(f"{key}={expression!r}: {text} is more than 100%")
        value = round(percent * count / 100)
    else:
        value = int(text)
        if abs(value) > count:
            raise UserError(f"{key}={expression!r}: {text} is more than the {count} examples of the split")
    from_end = text.startswith("-") and text not in ("-0", "-0%")
    return value + count if from_end else value


def _by_hash(match: re.Match, hashes: Hashes | None, key: str, expression: str) -> Indices:
    """The examples whose hash is in the slice, where 100 % is 2^64."""
    if hashes is None:
        why = "only image files have paths" if match["by"] == "path" else "config.data.group names no groups"
        raise UserError(f"{key}={expression!r}: {why}; leave out ' by {match['by']}'")
    for bound in (match["start"], match["stop"]):
        if bound and not bound.endswith("%"):
            raise UserError(f"{key}={expression!r}: with 'by {match['by']}', {bound} must be a percentage, such as 80%")
    start = _bound(match["start"], 0, 100, key, expression)
    stop = _bound(match["stop"], 100, 100, key, expression)
    return np.flatnonzero(_below(hashes, stop) & ~_below(hashes, start))


def _below(hashes: Hashes, percent: int) -> Bool[np.ndarray, " n"]:
    return np.full(len(hashes), True) if percent >= 100 else hashes < np.uint64(-(-percent * 2**64 // 100))


def _sizes(parts: list[Part], size: Callable[[str], int]) -> str:
    return ", ".join(f"{name}: {size(name)}" for name in dict.fromkeys(name for name, _ in parts))
