"""The one door to examples: a source by its name, cut into train, val and test."""

import dataclasses
import difflib
from collections.abc import Callable

import numpy as np

from jaxcnn import config
from jaxcnn.config import UserError
from jaxcnn.data import slices
from jaxcnn.data.arrays import open_digits, open_synthetic
from jaxcnn.data.batch import Split
from jaxcnn.data.examples import Examples, Source
from jaxcnn.data.folder import open_folder
from jaxcnn.data.npz import open_npz
from jaxcnn.data.tfds_source import open_tfds

SOURCES: dict[str, Callable[[str, config.Data], Source]] = {
    "tfds": open_tfds,
    "digits": open_digits,
    "synthetic": open_synthetic,
    "npz": open_npz,
    "folder": open_folder,
}
_LONGEST_PATH = 4096  # of Linux


@dataclasses.dataclass(frozen=True)
class Splits:
    """A set, cut up for a run.

    Attributes:
      train: what is learnt from.
      val: what decisions look at; None with `protocol="full"`.
      test: what is measured once, at the end; None with `test_split=""`.
      class_names: one per class.
      notes: remarks for the user, one line each, such as images left out.
    """

    train: Split
    val: Split | None
    test: Split | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(eq=False)
class Selection:
    """Chosen examples of one or more base splits, in order: a `jaxcnn.data.batch.Split`."""

    name: str
    description: str
    class_names: tuple[str, ...]
    parts: tuple[Examples, ...]
    part: np.ndarray  # int64 [N], which part each example is of
    place: np.ndarray  # int64 [N], its index there
    labels: np.ndarray = dataclasses.field(init=False)
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

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images uint8 [n, H, W, C] at int indices [n]. Safe to call from several threads."""
        if len(self.parts) == 1:
            return self.parts[0].read(self.place[indices])
        part, place = self.part[indices], self.place[indices]
        images = np.empty((len(part), *self.image_shape), np.uint8)
        for number in np.unique(part):
            chosen = part == number
            images[chosen] = self.parts[number].read(place[chosen])
        return images

    def take(self, chosen: np.ndarray, name: str, description: str) -> "Selection":
        """The examples at `chosen` as a split of their own."""
        return Selection(name, description, self.class_names, self.parts, self.part[chosen], self.place[chosen])


def open_splits(data: config.Data) -> Splits:
    """Open `data.source` and cut it into train, val and test.

    The validation split is held out of the training split, chosen by `data.split_seed`; examples keep the order of
    their index in every split.

    Raises:
      UserError: unknown source or split, train and test that overlap, more held out than there is, a class without
        a training example, labels out of range, images that differ in size, and what the source itself raises.
    """
    source = _open_source(data)
    opened: dict[str, Examples] = {}

    def examples(name: str) -> Examples:
        if name not in opened:
            opened[name] = source.open(name)
        return opened[name]

    def size(name: str) -> int:
        return len(examples(name).labels)

    if data.test_split == "test" and "test" not in source.splits:
        raise UserError(
            f"{source.title} has no test split; take one out of another, as config.data.train_split='train[:80%]' with "
            "config.data.test_split='train[80%:]', or go without by config.data.test_split=''"
        )
    train_parts = slices.resolve(data.train_split, "config.data.train_split", source.splits, size)
    train = _select("train", train_parts, data.train_split, source, examples)
    test = None
    if data.test_split:
        test_parts = slices.resolve(data.test_split, "config.data.test_split", source.splits, size)
        if count := slices.common(train_parts, test_parts):
            raise UserError(
                f"config.data.train_split={data.train_split!r} and config.data.test_split={data.test_split!r} share "
                f"{count} examples; make them disjoint"
            )
        test = _select("test", test_parts, data.test_split, source, examples)
        if test.image_shape != train.image_shape:
            raise UserError(
                f"images of {source.title} are {train.image_shape} in train and {test.image_shape} in test; "
                "set config.data.image_size to resize all images to one size"
            )
    train, val = _hold_out(train, data)
    _check_classes(train, source)
    notes = tuple(note for each in opened.values() for note in each.notes)
    return Splits(train, val, test, source.class_names, notes)


def _open_source(data: config.Data) -> Source:
    kind, _, argument = data.source.partition(":")
    if kind not in SOURCES:
        near = difflib.get_close_matches(kind, SOURCES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"config.data.source={data.source!r}: there is no source {kind!r}{hint}; choose of {', '.join(SOURCES)}"
        )
    if len(argument) > _LONGEST_PATH:
        raise UserError(
            f"config.data.source='{kind}:{argument[:60]}…' is longer than a path may be; look for a slip in it"
        )
    try:
        return SOURCES[kind](argument, data)
    except OSError as error:
        raise UserError(f"config.data.source={data.source!r} cannot be read: {error.strerror or error}") from None


def _select(
    name: str,
    resolved: list[tuple[str, np.ndarray]],
    expression: str,
    source: Source,
    examples: Callable[[str], Examples],
) -> Selection:
    names = list(dict.fromkeys(base for base, _ in resolved))
    parts = tuple(examples(base) for base in names)
    for base, part in zip(names, parts, strict=True):
        if part.image_shape != parts[0].image_shape:
            raise UserError(
                f"images of {source.title} are {parts[0].image_shape} in {names[0]} and {part.image_shape} in {base}; "
                "set config.data.image_size to resize all images to one size"
            )
        _check_labels(part.labels, source, base)
    which = np.concatenate([np.full(len(indices), names.index(base)) for base, indices in resolved])
    place = np.concatenate([indices for _, indices in resolved])
    return Selection(name, f"{source.title} {expression}", source.class_names, parts, which, place)


def _check_labels(labels: np.ndarray, source: Source, base: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(source.class_names)))
    if len(wrong):
        raise UserError(
            f"{source.title} {base}: label {labels[wrong[0]]} at index {wrong[0]} is out of range, the "
            f"{len(source.class_names)} classes are 0 to {len(source.class_names) - 1} ({len(wrong)} such labels)"
        )


def _hold_out(train: Selection, data: config.Data) -> tuple[Selection, Selection | None]:
    """`train` less `val_examples` examples that `split_seed` chooses, and those."""
    if data.protocol == "full":
        return dataclasses.replace(train, description=f"{train.description} (protocol=full)"), None
    held = data.val_examples
    if held >= len(train):
        raise UserError(
            f"config.data.val_examples={held} leaves nothing of the {len(train)} examples of {train.description}; "
            "hold out fewer, or set config.data.protocol='full'"
        )
    order = np.random.Generator(np.random.PCG64(data.split_seed)).permutation(len(train))
    chosen, rest = np.sort(order[:held]), np.sort(order[held:])
    how = f"held out by split_seed={data.split_seed}"
    val = train.take(chosen, "val", f"{train.description} ({held} {how})")
    return train.take(rest, "train", f"{train.description} (minus {held} {how})"), val


def _check_classes(train: Selection, source: Source) -> None:
    counts = np.bincount(train.labels, minlength=len(source.class_names))
    if len(counts) < 2:
        raise UserError(f"{source.title} has only one class, {source.class_names[0]!r}; there is nothing to tell apart")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        names = ", ".join(repr(source.class_names[label]) for label in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise UserError(
            f"class {names}{more} has no example in {train.description}; every class needs some to be learnt"
        )
