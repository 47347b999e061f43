"""Groups of images that belong together: those of one patient, site or sensor (`config.data.group`).

Images of one group are alike in more than their class: a network that has seen some knows something about the others.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

import jaxcnn.config as config
from jaxcnn.config import UserError
from jaxcnn.data import holdout
from jaxcnn.data.examples import Examples, Groups, Hashes, Indices
from jaxcnn.data.files import hashes_of
from jaxcnn.text import counted, listed

HOW = "a column of csv:, an array of npz:, or a third part of arrays (images, labels, {name: values})"


def as_names(values: np.ndarray, what: str) -> Groups:
    """The names of groups from an array [n] of text or integers.

    Raises:
      UserError: the values are neither, or a name is empty.
    """
    if values.ndim != 1 or values.dtype.kind not in "iuUSO":
        raise UserError(f"{what} is {values.dtype} of shape {values.shape}, but groups must be text or integers [N]")
    texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each).strip() for each in values]
    if "" in texts:
        raise UserError(f"{what} has an empty name at index {texts.index('')}; every image needs a group")
    return np.array(texts, np.str_)


def needed(examples: Examples, data: config.Data, title: str) -> Examples:
    """The examples of a base split, after checking that they have groups if the config asks for them.

    Raises:
      UserError: they have no groups.
    """
    if data.group and examples.groups is None:
        raise UserError(f"config.data.group={data.group!r}: {title} does not tell groups; they are {HOW}")
    return examples


def hashes(names: Groups) -> Hashes:
    """An evenly distributed hash of each example's group, equal within a group."""
    found, which = np.unique(names, return_inverse=True)
    return hashes_of(found.tolist())[:, 0].astype(np.uint64)[which]


def shared(one: Groups, other: Groups, names: Sequence[str], group: str) -> str:
    """A remark if groups of the split `other` also occur in `one`, whose group names are `names`; else empty."""
    common = np.intersect1d(one, other)
    if not len(common):
        return ""
    images, there = int(np.isin(other, common).sum()), len(np.unique(other))
    return (
        f"{len(common)} of {counted(there, 'group')} (config.data.group={group!r}) of {names[1]} are also in "
        f"{names[0]}, with {counted(images, 'image')} of {names[1]}: {listed(common.tolist())}; figures of {names[1]} "
        "may be too good for groups never seen"
    )


def held_out(names: Groups, classes: Int[np.ndarray, " n"], count: int, data: config.Data) -> tuple[Indices, Indices]:
    """The indices of about `count` examples in whole groups, and of the rest, chosen as `config.data` says."""
    if not data.stratify:
        return holdout.choose_groups(names, count, data.split_seed)
    share = count / len(names)
    return _divided(holdout.stratified_groups(names, classes, (share, 1 - share), data.split_seed), 0)


def fold(names: Groups, classes: Int[np.ndarray, " n"], data: config.Data) -> tuple[Indices, Indices]:
    """The indices of the examples in part `data.fold` of `data.folds` parts of whole groups, and of the rest."""
    if not data.stratify:
        return holdout.fold_of_groups(names, data.folds, data.fold, data.split_seed)
    shares = (1 / data.folds,) * data.folds
    return _divided(holdout.stratified_groups(names, classes, shares, data.split_seed), data.fold)


def _divided(part: np.ndarray, number: int) -> tuple[Indices, Indices]:
    return np.flatnonzero(part == number), np.flatnonzero(part != number)


def chosen(held: Groups, every: Groups, data: config.Data) -> str:
    """A description of the groups that are held out."""
    how = ", stratified" * data.stratify
    return f"whole groups of {data.group!r}: {len(np.unique(held))} of {len(np.unique(every))}{how}"
