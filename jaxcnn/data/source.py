"""The single entry point to examples: opens a source by name and cuts it into train, val and test."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int64

from jaxcnn import config
from jaxcnn.config import UserError, convert
from jaxcnn.config.rules import HELD_OUT
from jaxcnn.data import content, holdout, memory, slices
from jaxcnn.data.arrays import open_digits, open_synthetic
from jaxcnn.data.batch import Split
from jaxcnn.data.examples import Examples, Hashes, Indices, Labels, Pixels, Source
from jaxcnn.data.folder import open_folder
from jaxcnn.data.npz import open_npz
from jaxcnn.data.tfds_source import open_tfds
from jaxcnn.text import distinct

SOURCES: dict[str, Callable[[str, config.Data], Source]] = {
    "tfds": open_tfds,
    "digits": open_digits,
    "synthetic": open_synthetic,
    "npz": open_npz,
    "folder": open_folder,
    memory.KIND: memory.open_arrays,
}
_VALIDATION = ("validation", "val", "valid")  # names that sets give to their validation split
_LONGEST_PATH = 4096  # the limit of Linux
_FROM_0 = "they must be counted from 0; subtract 1 from each"
_NAMED = 3  # at most this many classes are named in a message


@dataclasses.dataclass(frozen=True)
class Splits:
    """A set, cut into splits for a run.

    Attributes:
      train: the training split.
      val: the split on which decisions are based; None with `protocol="full"`.
      test: the split that is measured once, at the end; None with `test_split=""`.
      class_names: one per class.
      notes: remarks for the user, one line each, such as images left out.
      bases: by name, the base splits from which the others are cut.
      has_own_val: whether val is the set's own validation split, used by default.
    """

    train: Split
    val: Split | None
    test: Split | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    bases: Mapping[str, Examples] = dataclasses.field(default_factory=dict)
    has_own_val: bool = False

    def fingerprints(self, split: Split | None = None) -> dict[str, str]:
        """Fingerprints (`jaxcnn.data.content`) of all base splits, or of those from which `split` is cut."""
        return {name: examples.content().fingerprint for name, examples in self._bases_of(split).items()}

    def _bases_of(self, split: Split | None) -> Mapping[str, Examples]:
        if not isinstance(split, Selection):
            return self.bases
        return {name: each for name, each in self.bases.items() if any(each is part for part in split.parts)}

    def leaks(self) -> list[str]:
        """A remark for each pair of splits that have equal images."""
        splits = [split for split in (self.train, self.val, self.test) if isinstance(split, Selection)]
        found = []
        for one, other in itertools.combinations(splits, 2):
            if count := content.in_both(one.checksums(), other.checksums()):
                found.append(
                    f"{count} of the {len(other)} images of {other.name} are also in {one.name}, byte for byte"
                )
        return found


@dataclasses.dataclass(eq=False)
class Selection:
    """Chosen examples of one or more base splits, in order: a `jaxcnn.data.batch.Split`."""

    name: str
    description: str
    class_names: tuple[str, ...]
    parts: tuple[Examples, ...]
    part: Int64[np.ndarray, " n"]  # the part that each example belongs to
    place: Int64[np.ndarray, " n"]  # its index in that part
    labels: Labels = dataclasses.field(init=False)
    image_shape: tuple[int, int, int] = dataclasses.field(init=False)

    def __post_init__(self):
        labels = np.empty(len(self.part), np.int32)
        for number, examples in enumerate(self.parts):
            chosen = self.part == number
            labels[chosen] = examples.labels[self.place[chosen]]
        self.labels = labels
        self.image_shape = self.parts[0].image_shape

    def __len__(self) -> int:
        return len(self.part)

    def read(self, indices: Indices) -> Pixels:
        """The images at these indices. Safe to call from several threads."""
        if len(self.parts) == 1:
            return self.parts[0].read(self.place[indices])
        part, place = self.part[indices], self.place[indices]
        images = np.empty((len(part), *self.image_shape), np.uint8)
        for number in np.unique(part):
            chosen = part == number
            images[chosen] = self.parts[number].read(place[chosen])
        return images

    def checksums(self) -> Hashes | None:
        """Equal for equal images; None unless known for all images."""
        known = [examples.content().images for examples in self.parts]
        sums = np.empty(len(self.part), np.uint64)
        for number, images in enumerate(known):
            if images is None:
                return None
            chosen = self.part == number
            sums[chosen] = images[self.place[chosen]]
        return sums

    def take(self, chosen: Indices, name: str, description: str) -> "Selection":
        """The examples at indices `chosen` as a new split."""
        return Selection(name, description, self.class_names, self.parts, self.part[chosen], self.place[chosen])


def open_splits(data: config.Data) -> Splits:
    """Open `data.source` and cut it into train, val and test.

    The validation split is `data.val_split`. If that is empty, it is the set's own validation split, unless train or
    test are cut from that one; otherwise it is held out of the training split, chosen by `data.split_seed`. In every
    split, examples keep the order of their index.

    Raises:
      UserError: unknown source or split, overlapping splits, more examples held out than exist, a class without a
        training example, labels out of range, images that differ in shape, and errors of the source itself.
    """
    source = _open_source(data)
    names = distinct(source.class_names)
    notes = []
    if names != source.class_names:
        twice = [name for name, count in Counter(source.class_names).items() if count > 1]
        numbered = [name for name, was in zip(names, source.class_names, strict=True) if was == twice[0]]
        notes.append(
            f"several classes of {source.title} share the name {_listed(twice)}; they are numbered, as in "
            f"{_listed(numbered)}"
        )
        source = dataclasses.replace(source, class_names=names)
    cutter = _Cutter(source)
    if data.test_split == "test" and "test" not in source.splits:
        raise UserError(_no_test_split(source))
    train, train_parts = cutter.cut("train", data.train_split)
    test, test_parts = cutter.cut("test", data.test_split) if data.test_split else (None, [])
    _check_disjoint(data, "train_split", train_parts, "test_split", test_parts)
    own = next((name for name in _VALIDATION if name in source.splits), "")
    if own in (base for base, _ in [*train_parts, *test_parts]):
        own = ""
    wanted = "" if data.val_split == HELD_OUT else data.val_split or own
    val = None
    if data.protocol == "full":
        train = dataclasses.replace(train, description=f"{train.description} (protocol=full)")
        if wanted:
            notes.append(f"protocol=full leaves the validation split {wanted!r} unused")
    elif wanted:
        val, val_parts = cutter.cut("val", wanted)
        _check_disjoint(data, "train_split", train_parts, "val_split", val_parts)
        _check_disjoint(data, "test_split", test_parts, "val_split", val_parts)
        if not data.val_split:
            notes.append(
                f"validation is the set's own split {own!r}; config.data.val_split={HELD_OUT!r} would instead hold out "
                "config.data.val_examples of train"
            )
    else:
        train, val = _hold_out(train, data)
        if own:
            notes.append(f"the set's own validation split {own!r} is not used (config.data.val_split={HELD_OUT!r})")
    _check_classes(train, source, cutter.opened)
    notes = [*source.notes, *(note for each in cutter.opened.values() for note in each.notes), *notes]
    notes += [note for split in (val, test) if split for note in _without_example(split, data)]
    own_val = val is not None and wanted == own != data.val_split
    return Splits(train, val, test, source.class_names, tuple(notes), cutter.opened, own_val)


def _open_source(data: config.Data) -> Source:
    kind, _, argument = data.source.partition(":")
    if kind not in SOURCES:
        hint = convert.nearest(kind, SOURCES)
        raise UserError(
            f"config.data.source={data.source!r}: unknown source {kind!r}{hint}; choose one of {', '.join(SOURCES)}"
        )
    if len(argument) > _LONGEST_PATH:
        raise UserError(
            f"config.data.source='{kind}:{argument[:60]}…' is longer than any path can be; check it for a mistake"
        )
    try:
        return SOURCES[kind](argument, data)
    except OSError as error:
        raise UserError(f"config.data.source={data.source!r} cannot be read: {error.strerror or error}") from None


def _no_test_split(source: Source) -> str:
    by_path = " by path" if source.title.startswith("folder:") else ""
    stable = "; with 'by path', no image changes its split when others are added" if by_path else ""
    beside = "".join(f" ({note})" for note in source.notes)
    return (
        f"{source.title} has no test split{beside}; cut one from another split, for example "
        f"config.data.train_split='train[:80%{by_path}]' with config.data.test_split='train[80%:{by_path}]'{stable}, "
        "or train without a test split by config.data.test_split=''"
    )


class _Cutter:
    """Opens the base splits that the slices use, each once, and cuts them."""

    def __init__(self, source: Source):
        self.source = source
        self.opened: dict[str, Examples] = {}

    def cut(self, name: str, expression: str) -> tuple[Selection, list[slices.Part]]:
        """The split `name`, and its base splits with the indices in them. Raises UserError."""
        resolved = slices.resolve(expression, f"config.data.{name}_split", self.source.splits, self._size, self._hashes)
        bases = list(dict.fromkeys(base for base, _ in resolved))
        for base in bases:
            self._check_shape(base, name)
            _check_labels(self._examples(base).labels, self.source, base)
        which = np.concatenate([np.full(len(indices), bases.index(base)) for base, indices in resolved])
        place = np.concatenate([indices for _, indices in resolved])
        parts = tuple(self._examples(base) for base in bases)
        description = f"{self.source.title} {expression}"
        return Selection(name, description, self.source.class_names, parts, which, place), resolved

    def _examples(self, base: str) -> Examples:
        if base not in self.opened:
            self.opened[base] = self.source.open(base)
        return self.opened[base]

    def _size(self, base: str) -> int:
        return len(self._examples(base).labels)

    def _hashes(self, base: str) -> Hashes | None:
        hashes = self._examples(base).hashes
        return None if hashes is None else hashes()

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


def _check_labels(labels: Labels, source: Source, base: str) -> None:
    classes = len(source.class_names)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if not len(wrong):
        return
    if labels.min() == 1 and labels.max() == classes:
        raise UserError(f"{source.title} {base}: labels go from 1 to {classes}, but {_FROM_0}")
    raise UserError(
        f"{source.title} {base}: label {labels[wrong[0]]} at index {wrong[0]} is out of range; the {classes} classes "
        f"are 0 to {classes - 1} ({len(wrong)} such labels)"
    )


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


def _hold_out(train: Selection, data: config.Data) -> tuple[Selection, Selection]:
    """`train` without `val_examples` examples chosen by `split_seed`, and those examples."""
    held = data.val_examples
    if held >= len(train):
        raise UserError(
            f"config.data.val_examples={held} leaves none of the {len(train)} examples of {train.description} for "
            "training; hold out fewer, or set config.data.protocol='full'"
        )
    chosen, rest = holdout.choose(train.labels, held, data.split_seed, data.stratify)
    how = f"held out by split_seed={data.split_seed}" + (", stratified" if data.stratify else "")
    val = train.take(chosen, "val", f"{train.description} ({held} {how})")
    return train.take(rest, "train", f"{train.description} (minus {held} {how})"), val


def _check_classes(train: Selection, source: Source, bases: Mapping[str, Examples]) -> None:
    counts = np.bincount(train.labels, minlength=len(source.class_names))
    if len(counts) < 2:
        raise UserError(
            f"{source.title} has only one class, {source.class_names[0]!r}; classification needs at least two"
        )
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return
    names, verb = _listed([source.class_names[label] for label in empty]), "has" if len(empty) == 1 else "have"
    named = f"{'class' if len(empty) == 1 else 'classes'} {names} {verb} no examples in {train.description}"
    from_1 = all(examples.labels.min(initial=1) > 0 for examples in bases.values())
    if from_1 and source.class_names == tuple(map(str, range(len(counts)))):
        raise UserError(f"{named}: labels start at 1, but {_FROM_0}")
    raise UserError(f"{named}; every class needs training examples")


def _without_example(split: Selection, data: config.Data) -> list[str]:
    """A remark if a split has no example of some class."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    empty = [split.class_names[label] for label in np.flatnonzero(counts == 0)]
    held_out = split.name == "val" and "held out by" in split.description and not data.stratify
    advice = "; config.data.stratify=True holds out examples of every class" if held_out else ""
    return [f"{split.name} has no examples of {_listed(empty)}{advice}"] if empty else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
