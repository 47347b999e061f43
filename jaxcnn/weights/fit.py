"""Fits the arrays of a file to a network: each is loaded, adapted or left out, or it is an error."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.config import Model, UserError, networks
from jaxcnn.config.layers import check_patterns
from jaxcnn.text import counted, shown
from jaxcnn.weights import layout, names
from jaxcnn.weights.layout import Leaf

LOADED, ADAPTED, LEFT_OUT, NOT_FOUND = "loaded", "adapted", "left out", "not found"
AUTO = "auto"
BACKBONE = ("stem_", "block", "stage")  # beginnings of the names of the modules of a detector's backbone
WITH_HEADS = ("roi_heads.", "module.roi_heads.", "model.roi_heads.")  # in files of torchvision's detectors
IN_DETECTOR = "backbone.backbone."  # prefix of the names of the backbone in YOLOX
CLASSIFIER = "classifier"
# Arrays before the classifier of MobileNetV2 that are not part of the backbone.
LAST = (
    *("params/last_conv/kernel", "params/last_bn/scale", "params/last_bn/bias"),
    *("batch_stats/last_bn/mean", "batch_stats/last_bn/var"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """Tells what became of one array.

    Attributes:
      ours: key in the network; empty if it is only in the file.
      theirs: name in the file; empty if it is only in the network.
      status: LOADED, ADAPTED, LEFT_OUT (the network's initial values stay) or NOT_FOUND (the same).
      why: the reason in words; empty for LOADED.
    """

    ours: str
    theirs: str
    status: str
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The arrays that fit, and a report on every array.

    Attributes:
      arrays: new values by key, in our layout, of the arrays that are loaded or adapted.
      rows: what became of every array.
      naming: the naming of the file.
    """

    arrays: dict[str, np.ndarray]
    rows: tuple[Row, ...]
    naming: str


def fit(
    given: Mapping[str, np.ndarray],
    model: Model,
    initial: Mapping[str, np.ndarray],
    *,
    source: str,
    naming: str = AUTO,
    head: str = "classifier",
    new_head: bool = False,
    classes: Sequence[str] = (),
    given_classes: Sequence[str] = (),
    skip: Sequence[str] = (),
    partial: bool = False,
) -> Fitted:
    """Fit arrays to a network.

    Args:
      given: the arrays of a file, by name.
      model: the network.
      initial: its arrays with initial values, keyed as "params/conv1/kernel".
      source: where the arrays come from, for messages.
      naming: one of `names.NAMINGS`, "jaxcnn", or "auto" for the one that fits best.
      head: the name of the module that makes the outputs.
      new_head: whether the head always keeps its initial values.
      classes: the names of the network's classes.
      given_classes: names of the classes of the file; empty if it has none.
      skip: patterns of parameters (as in config.optim.layers) that keep their initial values.
      partial: whether an array of another shape gives the part that fits; then arrays of the network that the file
        lacks keep their initial values, and those that only the file has are left out.

    Raises:
      UserError: an array of the file or of the network is not explained, or has another shape.
    """
    backbone = networks.backbone_of(model)
    if backbone is not None and not any(name.startswith((f"params/{head}/", *WITH_HEADS)) for name in given):
        return _fit_backbone(given, backbone, initial, source=source, naming=naming, skip=skip)
    shapes = {key: value.shape for key, value in initial.items()}
    paths = [key.split("/", 1)[1] for key in shapes]
    what = f"parameter; a pattern must match a whole path, such as {paths[0]!r}"
    check_patterns("config.init.skip", skip, paths, what, UserError)
    naming, leaves, found = _named(given, model, shapes, source, naming, head)
    rows: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    heads = _head_rows(classes, given_classes)
    for leaf in leaves:
        name = next((each for each in leaf.theirs if each in found), "")
        path = leaf.key.split("/", 1)[1]
        if any(re.fullmatch(pattern, path) for pattern in skip):
            rows.append(Row(leaf.key, name, LEFT_OUT, "by config.init.skip"))
        elif leaf.is_head and new_head:
            rows.append(Row(leaf.key, name, LEFT_OUT, "a new head"))
        elif not name:
            rows.append(Row(leaf.key, "", NOT_FOUND))
        else:
            value = layout.to_ours(naming, leaf, given[found[name]])
            if partial and value.shape != initial[leaf.key].shape and value.ndim == initial[leaf.key].ndim:
                value, row = _part(leaf, found[name], value, initial[leaf.key])
            else:
                value, row = _adapted(leaf, found[name], value, initial[leaf.key], heads, source)
            rows.append(row)
            if row.status in (LOADED, ADAPTED):
                arrays[leaf.key] = value
    used = {name for leaf in leaves for name in leaf.theirs}
    extra = [full for name, full in found.items() if name not in used]
    rows += [Row("", name, LEFT_OUT, "no weight of a network") for name in given if layout.is_ignored(name)]
    if partial:
        rows += [Row("", name, LEFT_OUT, "not in this network") for name in extra]
    else:
        _explain(source, naming, rows, extra)
    return Fitted(arrays, tuple(rows), naming)


def _fit_backbone(
    given: Mapping[str, np.ndarray],
    backbone: Model,
    initial: Mapping[str, np.ndarray],
    *,
    source: str,
    naming: str,
    skip: Sequence[str],
) -> Fitted:
    """Fit the arrays of a classifier to a detector, whose neck and head keep their initial values."""
    own = {key for key in initial if not key.split("/")[1].startswith(BACKBONE)}
    classifier = {f"params/{CLASSIFIER}/{leaf}": np.zeros(0, np.float32) for leaf in ("kernel", "bias")}
    last = {key: np.zeros(0, np.float32) for key in LAST} if backbone.name in networks.INVERTED else {}
    there = {key: value for key, value in initial.items() if key not in own} | classifier | last
    skipped = (*skip, "last_.*") if last else skip
    of_backbone = {name: value for name, value in given.items() if IN_DETECTOR in name} or given
    options: Any = {"source": source, "naming": naming, "head": CLASSIFIER, "new_head": True, "skip": skipped}
    found = fit(of_backbone, backbone, there, **options)
    others = [row.theirs for row in found.rows if row.ours in classifier | last and row.theirs]
    others += [name for name in given if name not in of_backbone]
    rows = [row for row in found.rows if row.ours not in classifier | last]
    rows += [Row("", name, LEFT_OUT, "a detector has its own head") for name in others]
    rows += [Row(key, "", LEFT_OUT, "not of the backbone") for key in sorted(own)]
    return Fitted(found.arrays, tuple(rows), found.naming)


def _named(
    given: Mapping[str, np.ndarray],
    model: Model,
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
    naming: str,
    head: str,
) -> tuple[str, list[Leaf], dict[str, str]]:
    """The naming, our arrays with their names in it, and the full name of each array of the file by its plain name."""
    possible = (layout.OURS, *names.NAMINGS) if naming == AUTO else (naming,)
    tried = []
    for each in possible:
        leaves = layout.leaves(each, model, shapes, head)
        if leaves is None:
            continue
        plain = {layout.plain(each, name): name for name in given if not layout.is_ignored(name)}
        hits = sum(any(name in plain for name in leaf.theirs) for leaf in leaves)
        tried.append((hits, each, leaves, plain))
    if not tried:
        raise UserError(
            f"config.init.names={naming!r} has no network {model.name!r} of this form; use 'jaxcnn' or 'auto'"
        )
    hits, each, leaves, plain = max(tried, key=lambda one: one[0])
    if not hits:
        examples = ", ".join(map(shown, sorted(given)[:3]))
        raise UserError(
            f"{source} has no array of {model.name} in the naming of {' or '.join(one[1] for one in tried)}; it has "
            f"{examples}; is it of another network?"
        )
    return each, leaves, plain


def _head_rows(classes: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """The place of each class among the classes of the file, or -1; None if the file has no class names.

    Numbers as names do not count: class 3 of one set is not class 3 of another.
    """
    if all(name.isdecimal() for name in given):
        return None
    places = {name: place for place, name in enumerate(given)}
    return [places.get(name, -1) for name in classes]


def _adapted(
    leaf: Leaf, name: str, value: np.ndarray, initial: np.ndarray, heads: list[int] | None, source: str
) -> tuple[np.ndarray, Row]:
    """An array of the file in the shape of ours, and a report on what was done."""
    axis = 0 if initial.ndim == 2 else -1  # of the outputs
    if leaf.is_head and _without(value.shape, axis) == _without(initial.shape, axis):
        same = value.shape == initial.shape
        if same and heads in (None, list(range(len(heads or ())))):
            return value, Row(leaf.key, name, LOADED)
        if heads is None:
            there, here = (shape[axis] // leaf.of_class - leaf.background for shape in (value.shape, initial.shape))
            why = f"{there} classes without names, not {here}: a new head"
            return initial, Row(leaf.key, name, LEFT_OUT, why)
        known = [place for place, there in enumerate(heads) if there >= 0]
        if not known:
            return initial, Row(leaf.key, name, LEFT_OUT, "none of its classes is ours: a new head")
        result = np.moveaxis(np.array(initial), axis, 0)
        here, there = (_outputs(leaf, places) for places in (known, [heads[place] for place in known]))
        result[here] = np.moveaxis(value, axis, 0)[there]
        why = f"{len(known)} of {counted(len(heads), 'class', 'classes')} by name, the others new"
        return np.ascontiguousarray(np.moveaxis(result, 0, axis)), Row(leaf.key, name, ADAPTED, why)
    if value.shape == initial.shape:
        return value, Row(leaf.key, name, LOADED)
    if leaf.is_first and _without(value.shape, 2) == _without(initial.shape, 2):
        there, here = value.shape[2], initial.shape[2]
        return _other_channels(value, here), Row(leaf.key, name, ADAPTED, f"{there} to {here} channels")
    raise UserError(
        f"{source}: {shown(name)} has shape {value.shape} in our layout, but {leaf.key.split('/', 1)[1]} has "
        f"{initial.shape}; it is of another network, form, width or image size (or leave it out with config.init.skip)"
    )


def _outputs(leaf: Leaf, classes: Sequence[int]) -> list[int]:
    """The indices of the outputs of some classes, and before them those of the background if there is one."""
    places = [0, *(number + 1 for number in classes)] if leaf.background else list(classes)
    return [leaf.of_class * place + number for place in places for number in range(leaf.of_class)]


def _part(leaf: Leaf, name: str, value: np.ndarray, initial: np.ndarray) -> tuple[np.ndarray, Row]:
    """The initial array with the part of another that fits it: the first channels, and the middle of a kernel."""
    result = np.array(initial)
    here: list[slice] = []
    there: list[slice] = []
    for axis, (ours, theirs) in enumerate(zip(initial.shape, value.shape, strict=True)):
        both = min(ours, theirs)
        middle = initial.ndim == 4 and axis < 2  # the sides of a kernel
        for places, size in ((here, ours), (there, theirs)):
            first = (size - both) // 2 if middle else 0
            places.append(slice(first, first + both))
    result[tuple(here)] = value[tuple(there)]
    return result, Row(leaf.key, name, ADAPTED, f"the part of {value.shape} that fits {initial.shape}")


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    rest = list(shape)
    if -len(rest) <= axis < len(rest):
        del rest[axis]
    return tuple(rest)


def _other_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel for images with other channels: repeats the channels in turn, scaled so that sums keep their size.

    For one channel it is the sum of the channels: grey images give the same as if they had three equal channels.
    """
    there = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True, dtype=np.float64).astype(np.float32)
    turns = kernel[:, :, np.arange(channels) % there]
    return (turns * np.float64(there / channels)).astype(np.float32)


def _explain(source: str, naming: str, rows: Sequence[Row], extra: Sequence[str]) -> None:
    """Raise UserError if arrays are left that no row explains."""
    missing = [row.ours.split("/", 1)[1] for row in rows if row.status == NOT_FOUND]
    told = []
    if missing:
        told.append(f"lacks {_some(missing)} of the network")
    if extra:
        told.append(f"has {_some([shown(name) for name in extra])}, which the network has not")
    if told:
        raise UserError(
            f"{source} (names of {naming}) {' and '.join(told)}; choose the network and form it is of, or name what is "
            "to keep its initial values in config.init.skip"
            if missing
            else f"{source} (names of {naming}) {' and '.join(told)}; choose the network and form that it is of"
        )


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more
