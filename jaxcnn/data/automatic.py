"""Divides a set into splits by the path of each image, if nothing else divides it."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int8, Shaped

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import cache, groups
from jaxcnn.data.examples import Content, Examples, Hashes, Indices, Source
from jaxcnn.text import counted

Parts = Int8[np.ndarray, " n"]

SHARES = {"train": 80, "val": 10, "test": 10}  # percent, on average
WITHOUT_VAL = {"train": 90, "test": 10}
_CUT = "config.data.train_split='train[:70%]', val_split='train[70%:85%]', test_split='train[85%:]'"


def divided(source: Source, data: config.Data) -> Source:
    """The source with base splits by `SHARES`, if nothing divides it and the config names no slices.

    If the config asks for another validation split, or none, only a test split is divided off (`WITHOUT_VAL`).
    `val_examples` is ignored if it is half of the set or more: it then comes from a recipe for a larger set.
    """
    as_default = (data.train_split, data.test_split) == (config.Data.train_split, config.Data.test_split)
    if not source.undivided or not as_default or data.val_split not in ("", HELD_OUT):
        return source
    everything = functools.cache(lambda: source.open("train"))
    own = data.protocol == "holdout" and not data.val_split and _is_for_more(data.val_examples, everything)
    shares = SHARES if own else WITHOUT_VAL
    parts = functools.cache(lambda: _parts_of(groups.needed(everything(), data, source.title), tuple(shares.values())))

    def open_split(name: str) -> Examples:
        divided, filled = parts()
        number = list(shares).index(name)
        chosen = np.flatnonzero(divided == number)
        if not len(chosen):
            raise UserError(
                f"{source.title} has {len(divided)} images, of whose {'groups' if data.group else 'paths'} none falls "
                f"in {name}; add images, or cut "
                f"them by number ({_CUT})"
            )
        found = _some(everything(), chosen, with_notes=name == "train")
        if number not in filled:
            return found
        note = (
            f"none of the {len(divided)} images falls in {name} by its {'group' if data.group else 'path'}, so the "
            f"nearest {'group, of ' if data.group else 'one, '}{counted(len(chosen), 'image')}, is put there"
        )
        return dataclasses.replace(found, notes=(*found.notes, note))

    told = ", ".join(f"{share} % {name}" for name, share in shares.items())
    by = f"group of each image ({data.group!r})" if data.group else "path of each image"
    note = f"{source.title} is divided by the {by}: about {told} (config.data.train_split cuts otherwise)"
    if own and data.val_examples != config.Data.val_examples:
        note += f"; config.data.val_examples={data.val_examples} would leave half of it or less for training: not used"
    return dataclasses.replace(source, splits=tuple(shares), open=open_split, notes=(*source.notes, note))


def _is_for_more(val_examples: int, everything: Callable[[], Examples]) -> bool:
    """Whether a number of held-out images is the default, or meant for a larger set: it would take half of this."""
    return val_examples == config.Data.val_examples or 2 * val_examples >= len(everything().labels)


def divide(hashes: Hashes, labels: Shaped[np.ndarray, "n ..."], shares: tuple[int, ...], whole: bool = False) -> Parts:
    """The part of each example: 0 for the first of `shares`, 1 for the second, and so on.

    The part depends only on the hash of the image's path, so an image stays where it is when others are added or
    removed. In each class the shares hold on average. A class of which no image falls in the first part, for training,
    is put there completely.

    Args:
      hashes: evenly distributed hash of each path.
      labels: class number of each example; or a row of 0 and 1 for the classes that it has, or of other numbers.
      shares: percentages whose sum is 100.
      whole: examples with equal hashes are a group, and stay together.
    """
    bounds = _bounds(shares)[1:-1]
    parts = np.searchsorted(np.array(bounds, np.uint64), hashes, side="right").astype(np.int8)
    moved = _without_class(parts, labels)
    parts[np.isin(hashes, hashes[moved]) if whole else moved] = 0
    return parts


def fill(
    parts: Parts, hashes: Hashes, labels: Shaped[np.ndarray, "n ..."], shares: tuple[int, ...]
) -> tuple[Parts, list[int]]:
    """Fill the empty parts of a small set where possible; return the parts, and the numbers of those that were empty.

    An empty part gets the example whose hash is nearest to its range, with all of the same hash. The last example of a
    part, or of a class in the first part, is not moved.

    Args:
      parts: from `divide`, as are the other arguments.
    """
    filled = []
    bounds = _bounds(shares)
    for number in range(len(shares)):
        if (parts == number).any():
            continue
        low, high = bounds[number], bounds[number + 1] - 1

        def distance(hashed: int, low: int = low, high: int = high) -> int:
            return max(low - hashed, hashed - high, 0)

        for hashed in sorted(map(int, np.unique(hashes)), key=distance):
            moved = np.where(hashes == np.uint64(hashed), np.int8(number), parts)
            if {*parts.tolist()} < {*moved.tolist()} and not _without_class(moved, labels).any():
                parts = moved
                filled.append(number)
                break
    return parts, filled


def _bounds(shares: tuple[int, ...]) -> list[int]:
    """The first hash of each part, and the end of all."""
    return [0, *(-(-int(percent) * 2**64 // 100) for percent in np.cumsum(shares))]


def _without_class(parts: Parts, labels: Shaped[np.ndarray, "n ..."]) -> Bool[np.ndarray, " n"]:
    """Whether an example has a class of which no example is in the first part; boxes may have a class in any image."""
    if labels.dtype.names is None and labels.ndim == 1:
        return ~np.isin(labels, labels[parts == 0])
    if labels.dtype.names is None and labels.dtype == np.uint8:
        return np.asarray(labels[:, ~labels[parts == 0].any(axis=0)].any(axis=1))
    return np.zeros(len(labels), bool)


def _parts_of(examples: Examples, shares: tuple[int, ...]) -> tuple[Parts, list[int]]:
    """The part of each example, and the numbers of the parts that would be empty without `fill`."""
    if examples.groups is not None:
        hashes = groups.hashes(examples.groups)
    else:
        assert examples.hashes is not None  # an undivided source has paths
        hashes = examples.hashes()
    divided = divide(hashes, examples.labels, shares, whole=examples.groups is not None)
    return fill(divided, hashes, examples.labels, shares)


def _some(examples: Examples, chosen: Indices, with_notes: bool) -> Examples:
    """The chosen examples, in order."""
    hashes, name = examples.hashes, examples.name

    def content() -> Content:
        whole = examples.content()
        named = cache.fingerprint((whole.fingerprint, chosen.tobytes()))
        return Content(named, None if whole.images is None else whole.images[chosen])

    return dataclasses.replace(
        examples,
        labels=examples.labels[chosen],
        read=lambda indices: examples.read(chosen[indices]),
        content=functools.cache(content),
        notes=examples.notes if with_notes else (),
        hashes=None if hashes is None else lambda: hashes()[chosen],
        weights=None if examples.weights is None else examples.weights[chosen],
        name=None if name is None else lambda index: name(int(chosen[index])),
        sizes=None if examples.sizes is None else examples.sizes[chosen],
        groups=None if examples.groups is None else examples.groups[chosen],
        unreadable=examples.unreadable if with_notes else (),
        problems=examples.problems if with_notes else (),
    )
