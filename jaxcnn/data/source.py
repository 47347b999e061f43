"""The single entry point to examples: opens a source by name and cuts it into train, val and test."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np

import jaxcnn.config as config
from jaxcnn.config import UserError, convert
from jaxcnn.config.rules_of_data import HELD_OUT
from jaxcnn.data import automatic, class_names, content, groups, holdout, label_maps, memory, place, slices
from jaxcnn.data.arrays import open_digits, open_synthetic
from jaxcnn.data.batch import Split
from jaxcnn.data.coco import open_coco
from jaxcnn.data.examples import Examples, Hashes, Source
from jaxcnn.data.folder import open_folder
from jaxcnn.data.manifest import open_manifest
from jaxcnn.data.masks import open_masks
from jaxcnn.data.npz import open_npz
from jaxcnn.data.own import open_own
from jaxcnn.data.selection import Selection
from jaxcnn.data.shapes import open_shapes
from jaxcnn.data.tfds_source import open_tfds
from jaxcnn.data.voc import open_voc
from jaxcnn.data.yolo import open_yolo
from jaxcnn.tasks import by_name
from jaxcnn.tasks.task import Targets
from jaxcnn.text import counted

SOURCES: dict[str, Callable[[str, config.Data], Source]] = {
    "tfds": open_tfds,
    "digits": open_digits,
    "synthetic": open_synthetic,
    "npz": open_npz,
    "folder": open_folder,
    "csv": open_manifest,
    "coco": open_coco,
    "yolo": open_yolo,
    "voc": open_voc,
    "shapes": open_shapes,
    "masks": open_masks,
    memory.KIND: memory.open_arrays,
}
OF_TASK: dict[str, Callable[[str, config.Data, config.Task], Source]] = {
    "csv": lambda argument, data, task: open_manifest(argument, data, task.name),
    "coco": open_coco,
    "yolo": open_yolo,
    "shapes": open_shapes,
    "tfds": open_tfds,
    memory.KIND: memory.open_arrays,
}
OF_OUTLINES = ("segmentation", "instances")  # tasks that need outlines
WITH_OUTLINES = ("coco", "yolo", "shapes")  # sources that have outlines as well as boxes
WITH_BOXES = ("coco", "yolo", "voc", "shapes")
_VALIDATION = ("validation", "val", "valid")  # names that sets give to their validation split
_LONGEST_PATH = 4096  # the limit of Linux


class NoTestSplit(UserError):
    """The config asks for the test split of a set that has none."""


@dataclasses.dataclass(frozen=True)
class Splits:
    """A set, cut into splits for a run.

    Attributes:
      train: the training split.
      val: the split on which decisions are based; None with `protocol="full"`.
      test: the split that is measured once, at the end; None with `test_split=""`.
      class_names: one per class.
      kind: the kind of the targets.
      notes: remarks for the user, one line each, such as images left out.
      bases: by name, the base splits from which the others are cut.
      has_own_val: whether val is the set's own validation split, used by default.
      group: `config.data.group`, which names the group of each image; empty: no groups.
    """

    train: Split
    val: Split | None
    test: Split | None
    class_names: tuple[str, ...]
    kind: Targets
    notes: tuple[str, ...] = ()
    bases: Mapping[str, Examples] = dataclasses.field(default_factory=dict)
    has_own_val: bool = False
    group: str = ""

    def fingerprints(self, split: Split | None = None) -> dict[str, str]:
        """Fingerprints (`jaxcnn.data.content`) of all base splits, or of those from which `split` is cut."""
        return {name: examples.content().fingerprint for name, examples in self._bases_of(split).items()}

    def _bases_of(self, split: Split | None) -> Mapping[str, Examples]:
        if not isinstance(split, Selection):
            return self.bases
        return {name: each for name, each in self.bases.items() if any(each is part for part in split.parts)}

    def leaks(self) -> list[str]:
        """A remark for each pair of splits that have equal images, or images of one group, or are not compared."""
        splits = [split for split in (self.train, self.val, self.test) if isinstance(split, Selection)]
        found: list[str] = []
        for one, other in itertools.combinations(splits, 2):
            found += filter(None, [content.shared(one, other)])
            if self.group and one.groups is not None and other.groups is not None:
                found += filter(None, [groups.shared(one.groups, other.groups, (one.name, other.name), self.group)])
        return found


def open_splits(data: config.Data, task: config.Task = config.Task()) -> Splits:  # noqa: B008  # is frozen
    """Open `data.source` and cut it into train, val and test, with the targets of a task.

    The validation split is `data.val_split`. If that is empty, it is the set's own validation split, unless train or
    test are cut from that one; otherwise it is held out of the training split, chosen by `data.split_seed`. In every
    split, examples keep the order of their index.

    Raises:
      UserError: unknown source or split, overlapping splits, more examples held out than exist, a class without a
        training example, a weight of a class that does not exist, labels out of range, images that differ in shape, and
        errors of the source itself.
    """
    source = automatic.divided(open_source(data, task), data)
    source, notes = class_names.given(source, task)
    kind = by_name.targets(task, len(source.class_names))
    cutter = _Cutter(source, kind, data)
    if data.test_split == "test" and "test" not in source.splits:
        raise NoTestSplit(_no_test_split(source))
    train, train_parts = cutter.cut("train", data.train_split)
    test, test_parts = cutter.cut("test", data.test_split) if data.test_split else (None, [])
    _check_disjoint(data, "train_split", train_parts, "test_split", test_parts)
    own = next((name for name in _VALIDATION if name in source.splits), "")
    if own in (base for base, _ in [*train_parts, *test_parts]):
        own = ""
    wanted = "" if data.val_split == HELD_OUT or data.folds else data.val_split or own
    val = None
    if data.protocol == "full":
        train = dataclasses.replace(train, description=f"{train.description} (protocol=full)")
        if wanted:
            notes.append(f"protocol=full leaves the validation split {wanted!r} unused")
    elif wanted:
        val, val_parts = cutter.cut("val", wanted)
        _check_disjoint(data, "train_split", train_parts, "val_split", val_parts)
        _check_disjoint(data, "test_split", test_parts, "val_split", val_parts)
        if not data.val_split and not source.undivided:
            notes.append(
                f"validation is the set's own split {own!r}; config.data.val_split={HELD_OUT!r} would instead hold out "
                "config.data.val_examples of train"
            )
    else:
        whole, (train, val) = len(train), _hold_out(train, data, kind)
        if data.group and not data.folds and len(val) != (asked := _asked(data, whole)):
            notes.append(
                f"validation has {counted(len(val), 'image')} in place of {asked}: whole groups of {data.group!r} "
                "allow no closer number"
            )
        if own:
            notes.append(f"the set's own validation split {own!r} is not used (config.data.val_split={HELD_OUT!r})")
    plain = [examples.labels for examples in cutter.opened.values() if examples.labels.dtype.names is None]
    lowest = min((float(labels.min(initial=1)) for labels in plain), default=0.0)
    kind.check(train.targets, source.class_names, source.title, train.description, lowest)
    notes = [*source.notes, *(note for each in cutter.opened.values() for note in each.notes), *notes]
    notes += [note for split in (val, test) if split for note in _lacks(split, kind, data)]
    if data.sampling == "balanced":
        chosen = holdout.balanced(kind.groups(train.targets), data.split_seed)
        notes += holdout.remark(kind.groups(train.targets)[chosen])
        train = train.take(chosen, "train", f"{train.description} (balanced: {len(chosen)} of {len(train)} examples)")
    own_val = val is not None and wanted == own != data.val_split
    return Splits(train, val, test, source.class_names, kind, tuple(notes), cutter.opened, own_val, data.group)


def open_source(data: config.Data, task: config.Task) -> Source:
    """The set that `data.source` names, before it is cut. Raises UserError."""
    kind, _, argument = data.source.partition(":")
    if kind not in SOURCES:
        if (source := open_own(data, task)) is not None:
            return source
        meant = place.meant(data.source)
        hint = f" (did you mean {meant!r}?)" if meant else convert.nearest(kind, SOURCES)
        raise UserError(
            f"config.data.source={data.source!r}: unknown source {kind!r}{hint}; choose one of {', '.join(SOURCES)}, "
            "an entry point or package.module:function"
        )
    outlined = kind in WITH_OUTLINES
    if kind in WITH_BOXES and task.name not in ("detection", *(OF_OUTLINES if outlined else ())):
        others = "".join(f" or {name!r}" for name in OF_OUTLINES) if outlined else ""
        raise UserError(f"config.data.source={data.source!r} has boxes; set config.task.name='detection'{others}")
    if len(argument) > _LONGEST_PATH:
        raise UserError(
            f"config.data.source='{kind}:{argument[:60]}…' is longer than any path can be; check it for a mistake"
        )
    try:
        if kind in OF_TASK:
            return OF_TASK[kind](argument, data, task)
        return SOURCES[kind](argument, data)
    except OSError as error:
        raise UserError(f"config.data.source={data.source!r} cannot be read: {error.strerror or error}") from None


def _no_test_split(source: Source) -> str:
    by_path = " by path" if source.title.startswith(("folder:", "csv:")) else ""
    stable = "; with 'by path', no image changes its split when others are added" if by_path else ""
    beside = "".join(f" ({note})" for note in source.notes)
    own = next((f", with its own split {name!r} for validation," for name in _VALIDATION if name in source.splits), "")
    return (
        f"{source.title} has no test split{beside}; cut one from another split, for example "
        f"config.data.train_split='train[:80%{by_path}]' with config.data.test_split='train[80%:{by_path}]'{stable}, "
        f"or train{own} without a test split by config.data.test_split=''"
    )


class _Cutter:
    """Opens the base splits that the slices use, each once, and cuts them."""

    def __init__(self, source: Source, kind: Targets, data: config.Data):
        self.source, self.kind, self.data = source, kind, data
        self.opened: dict[str, Examples] = {}

    def cut(self, name: str, expression: str) -> tuple[Selection, list[slices.Part]]:
        """The split `name`, and its base splits with the indices in them. Raises UserError."""
        key, known = f"config.data.{name}_split", self.source.splits
        resolved = slices.resolve(expression, key, known, self._size, self._hashes, self._groups)
        bases = list(dict.fromkeys(base for base, _ in resolved))
        for base in bases:
            self._check_shape(base, name)
        which = np.concatenate([np.full(len(indices), bases.index(base)) for base, indices in resolved])
        place = np.concatenate([indices for _, indices in resolved])
        parts = tuple(self._examples(base) for base in bases)
        for base, part in zip(bases, parts, strict=True):
            label_maps.check_sides(part.labels, part.image_shape, f"{self.source.title} {base}")
        targets = tuple(
            self.kind.read(part.labels, self.source.title, base) for part, base in zip(parts, bases, strict=True)
        )
        description = f"{self.source.title} {expression}"
        of_parts = parts, targets, which, place, tuple(bases)
        return Selection(name, description, self.source.class_names, self.kind, *of_parts), resolved

    def _examples(self, base: str) -> Examples:
        if base not in self.opened:
            self.opened[base] = groups.needed(self.source.open(base), self.data, self.source.title)
        return self.opened[base]

    def _size(self, base: str) -> int:
        return len(self._examples(base).labels)

    def _hashes(self, base: str) -> Hashes | None:
        hashes = self._examples(base).hashes
        return None if hashes is None else hashes()

    def _groups(self, base: str) -> Hashes | None:
        names = self._examples(base).groups
        return None if names is None else groups.hashes(names)

    def _check_shape(self, base: str, name: str) -> None:
        """Compare the shape of images with that of the base split opened first, which belongs to train."""
        first = next(iter(self.opened))
        (*size, channels), shape = self._examples(base).image_shape, self.opened[first].image_shape
        where = f"images of {self.source.title}"
        if channels != shape[-1]:
            raise UserError(
                f"{where} {_of_channels(shape[-1])} in {first} and {_of_channels(channels)} in {base}; save all in one "
                "format"
            )
        if tuple(size) != shape[:-1]:
            raise UserError(
                f"{where} are {shape} in {first} and {(*size, channels)} in {base}; "
                "set config.data.image_size to resize all images to one size"
            )


def _of_channels(channels: int) -> str:
    return "are grey" if channels == 1 else f"have {channels} channels"


def _check_disjoint(
    data: config.Data,
    one: str,
    parts: list[slices.Part],
    other: str,
    other_parts: list[slices.Part],
) -> None:
    if count := slices.common(parts, other_parts):
        raise UserError(
            f"config.data.{one}={getattr(data, one)!r} and config.data.{other}={getattr(data, other)!r} share "
            f"{count} examples; make them disjoint"
        )


def _hold_out(train: Selection, data: config.Data, kind: Targets) -> tuple[Selection, Selection]:
    """`train` without `val_examples` examples chosen by `split_seed`, or without a fold, and those examples."""
    if data.folds:
        return _fold(train, data, kind)
    held = _asked(data, len(train))
    if not 0 < held < len(train):
        raise UserError(
            f"config.data.val_examples={data.val_examples} leaves none of the {len(train)} examples of "
            f"{train.description} for training; hold out fewer, or set config.data.protocol='full'"
        )
    if (names := train.groups) is not None:
        if len(np.unique(names)) < 2:
            raise UserError(
                f"{train.description} has one group of {data.group!r}, so none can be held out; set "
                "config.data.protocol='full', or config.data.group='' to split it"
            )
        chosen, rest = groups.held_out(names, kind.groups(train.targets), held, data)
        how = f"{groups.chosen(names[chosen], names, data)}, by split_seed={data.split_seed}"
        val = train.take(chosen, "val", f"{train.description} ({len(chosen)} held out, {how})")
        return train.take(rest, "train", f"{train.description} (minus {len(chosen)} held out, {how})"), val
    chosen, rest = holdout.choose(kind.groups(train.targets), held, data.split_seed, data.stratify)
    how = f"held out by split_seed={data.split_seed}" + (", stratified" if data.stratify else "")
    val = train.take(chosen, "val", f"{train.description} ({held} {how})")
    return train.take(rest, "train", f"{train.description} (minus {held} {how})"), val


def _asked(data: config.Data, examples: int) -> int:
    """The number of images to hold out of `examples` images, by the config."""
    if data.val_examples >= examples and data.val_examples == config.Data.val_examples:  # meant for a larger set
        return examples // 10
    return data.val_examples


def _fold(train: Selection, data: config.Data, kind: Targets) -> tuple[Selection, Selection]:
    if data.folds > len(train):
        raise UserError(f"config.data.folds={data.folds} is more than the {len(train)} examples of {train.description}")
    if (names := train.groups) is not None:
        if data.folds > (count := len(np.unique(names))):
            raise UserError(
                f"config.data.folds={data.folds} is more than the {count} groups of {data.group!r} in "
                f"{train.description}"
            )
        chosen, rest = groups.fold(names, kind.groups(train.targets), data)
    else:
        chosen, rest = holdout.fold(kind.groups(train.targets), data.folds, data.fold, data.split_seed, data.stratify)
    how = f"fold {data.fold} of {data.folds} by split_seed={data.split_seed}"
    if names is None:
        how += ", stratified" * data.stratify
    else:
        how += f", {groups.chosen(names[chosen], names, data)}"
    val = train.take(chosen, "val", f"{train.description} ({how})")
    return train.take(rest, "train", f"{train.description} (without {how})"), val


def _lacks(split: Selection, kind: Targets, data: config.Data) -> list[str]:
    """A remark if a split lacks something, such as examples of a class."""
    remark = kind.remark(split.targets, split.class_names)
    held_out = split.name == "val" and "held out by" in split.description and not data.stratify
    advice = "; config.data.stratify=True holds out examples of every class" if held_out else ""
    return [f"{split.name} {remark}{advice}"] if remark else []
