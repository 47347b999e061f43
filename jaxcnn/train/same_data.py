"""Checks that the data of a run is the data with which it began, wherever it lies now."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import groups, place
from jaxcnn.data.batch import Split
from jaxcnn.data.selection import groups_of
from jaxcnn.data.source import Splits
from jaxcnn.text import distinct

VAL_SPLIT = "data.val_split"


def as_it_was_meant(tree: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of a run, as this version means it.

    If it is older than `data.val_split`, that field is held-out validation. Without a source, the options of `init`
    have no effect; they are the defaults of this version.
    """
    if is_older_than_val_split(tree):
        tree = tree | {"data": {**tree.get("data", {}), "val_split": HELD_OUT}}
    init = tree.get("init")
    return tree | {"init": {}} if isinstance(init, dict) and not init.get("source") else tree


def is_older_than_val_split(tree: dict[str, Any]) -> bool:
    """Whether `config.json` of a run is older than the field `data.val_split`."""
    data = tree.get("data", {})
    return isinstance(data, dict) and "val_split" not in data


def settled(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """The flat config of a run, in which the keys that only the data can verify are set as in `here`.

    These are the place of the files or the name of arrays, and held-out validation if an older version did not record
    it; `differing` then says whether the data is the same. So are the options of `init` without a source, which have no
    effect.
    """
    answer = dict(there)
    kinds = [place.kind(str(config.get("data.source", ""))) for config in (there, here)]
    if kinds[0] == kinds[1] in place.BY_CONTENT:
        answer["data.source"] = here["data.source"]
    if VAL_SPLIT not in there and here[VAL_SPLIT] == HELD_OUT:
        answer[VAL_SPLIT] = HELD_OUT
    if not there.get("init.source") and not here["init.source"]:
        answer |= {key: here[key] for key in answer if key.startswith("init.") and key in here}
    return answer


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The facts of the data (`data.json`) that differ, named as in messages.

    If `there` has checksums of the images, the data may lie elsewhere; older versions wrote none.
    """
    known = "content" in there
    one, other = _comparable(there, known), _comparable(here, known)
    return ["images" if key == "content" else key for key in other if one.get(key) != other[key]]


def may_have_learnt(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a run with the facts `there` may have trained on images of the validation split of `here`.

    It has not if it has the same validation split, or none of its images.
    """

    sets = [{*facts.get("content", {}).values()} for facts in (there, here)]
    same_set = bool(sets[0] & sets[1]) or there["splits"].get("train") == here["splits"].get("train")
    return identity(there, "val") != identity(here, "val") and same_set


def identity(facts: Mapping[str, Any], split: str) -> tuple[Any, ...]:
    """What two runs have in common if a split has the same images in both, whose labels may be equal by chance.

    It is how the split was cut (`place.cut`), and the checksum of its labels; None for what the run does not have.
    """
    description = facts.get("splits", {}).get(split)
    return description and place.cut(description), facts.get("labels_crc32", {}).get(split)


def remarks(there: Mapping[str, Any], splits: Splits, split: Split) -> list[str]:
    """A line for each kind of labels or images of a split that differs from those with which the run began."""
    other = []
    labels = checksum(split.targets)
    if there.get("labels_crc32", {}).get(split.name, labels) != labels:
        other.append("labels")
    known = there.get("content", {})
    other += [f"images in {base}" for base, now in splits.fingerprints(split).items() if known.get(base, now) != now]
    return (
        [f"{split.description} has changed since the start of the run: different {' and '.join(other)}"]
        if other
        else []
    )


def checksum(targets: Any) -> int:
    """The CRC-32 of targets, a pytree of arrays, as in `data.json`."""
    crc32 = 0
    for leaf in jax.tree.leaves(targets):
        crc32 = zlib.crc32(np.ascontiguousarray(leaf, leaf.dtype.newbyteorder("<")).data, crc32)
    return crc32


def of_groups(splits: Sequence[Split]) -> dict[str, int]:
    """The CRC-32 of the groups of each split, as in `data.json`."""
    return {split.name: checksum(groups.hashes(names)) for split in splits if (names := groups_of(split)) is not None}


def _comparable(facts: Mapping[str, Any], known: bool) -> dict[str, Any]:
    answer = {key: value for key, value in facts.items() if key != "content" or known}
    if known:
        answer["splits"] = {name: place.without_place(text) for name, text in facts.get("splits", {}).items()}
    return answer | {"class_names": list(distinct(tuple(facts.get("class_names", ()))))}
