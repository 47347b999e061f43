"""Checks whether the images of a config are fit to train on: `python -m jaxcnn.doctor --data`."""

import contextlib
import dataclasses
import itertools
import operator
import pathlib
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from jaxcnn.config import Data, Task, UserError, places
from jaxcnn.data import content
from jaxcnn.data.examples import Examples, Hashes
from jaxcnn.data.selection import Selection, name_of
from jaxcnn.data.source import NoTestSplit, Splits, open_source, open_splits
from jaxcnn.doctor import near
from jaxcnn.doctor.checks import Check
from jaxcnn.machine.extras import need
from jaxcnn.tasks.moving import Movable
from jaxcnn.text import counted, save_picture, shown
from jaxcnn.train import mistakes

LONGEST = 60  # letters of a class name
DRAWN = 24  # images in the sheet
EXAMPLES = 3  # examples named for each finding
UNEVEN = 10  # ratio of the largest to the smallest class that is worth a warning
NOT_STORED = "not compared: the images are made as they are read"
MOST_COMPARED = 10**11  # pairs of images of two splits


@dataclasses.dataclass(frozen=True)
class Finding(Check):
    """The result of a check of the images.

    Attributes:
      examples: some of the images that it is about, such as their files.
    """

    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Findings:
    """The results for a data set.

    Attributes:
      results: the results of the checks.
      splits: name, number of examples and a description of the images of each split.
      classes: name of each class and its number of examples in each split.
      notes: remarks that a run on the set would also print.
    """

    results: list[Finding]
    splits: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)
    classes: list[tuple[str, tuple[int, ...]]] = dataclasses.field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 2 if a check failed, else 0."""
        return 2 if any(result.status == "fail" for result in self.results) else 0


def examine(data: Data, task: Task) -> Findings:
    """Read every image, and look for faults that harm training or the test; faults of the data raise nothing."""
    try:
        splits, without = _opened(data, task)
        chosen = [split for split in (splits.train, splits.val, splits.test) if isinstance(split, Selection)]
        of_splits = [splits.kind.counts(split.targets) for split in chosen]
        counts = None if of_splits[0] is None else np.array(of_splits)
        results = [
            *without,
            _unreadable(splits.bases.values(), data),
            *_bad_annotations(splits.bases.values(), data, task),
            *([] if counts is None else [_classes(chosen, counts)]),
            *_equal_within(chosen, sums := content.of_all(chosen)),
            *_equal_between(chosen, sums),
            *_alike(chosen, sums),
        ]
    except UserError as error:
        failed = Finding("data", "fail", " ".join(str(error).splitlines()))
        bases = _readable_bases(dataclasses.replace(data, on_error="skip"), task)
        told = [_unreadable(bases, data), *_bad_annotations(bases, data, task)]
        return Findings([failed, *(each for each in told if each.status != "ok")])
    return Findings(
        results,
        [(split.name, len(split), _images(split)) for split in chosen],
        []
        if counts is None
        else [(name, tuple(counts[:, label].tolist())) for label, name in enumerate(splits.class_names)],
        splits.notes,
    )


def _opened(data: Data, task: Task) -> tuple[Splits, list[Finding]]:
    """The splits without bad annotations; if the set lacks a test split, those that it has, and a finding about this.

    Raises:
      UserError: the set cannot be read.
    """
    data = dataclasses.replace(data, on_error="skip")
    try:
        return open_splits(data, task), []
    except NoTestSplit as error:
        failed = Finding("test split", "fail", str(error))
        return open_splits(dataclasses.replace(data, test_split=""), task), [failed]


def _readable_bases(data: Data, task: Task) -> list[Examples]:
    """The base splits of a set that can be opened, neither cut nor checked."""
    found: list[Examples] = []
    with contextlib.suppress(UserError):
        source = open_source(data, task)
        for name in source.splits:
            with contextlib.suppress(UserError):
                found.append(source.open(name))
    return found


def _unreadable(bases: Iterable[Examples], data: Data) -> Finding:
    found = [each for examples in bases for each in examples.unreadable]
    if not found:
        return Finding("unreadable images", "ok", "none")
    stops = data.on_error == "raise"
    advice = "repair or remove them, or set config.data.on_error='skip'" if stops else "they are left out"
    status = "fail" if stops else "warn"
    return Finding("unreadable images", status, f"{len(found)}", advice, tuple(found[:EXAMPLES]))


def _bad_annotations(bases: Iterable[Examples], data: Data, task: Task) -> Iterator[Finding]:
    """Find wrong annotations of objects, and name them all."""
    if task.name not in places.KINDS:
        return
    name, found = "bad annotations", [each for examples in bases for each in examples.problems]
    if not found:
        yield Finding(name, "ok", "none")
        return
    stops = data.on_error == "raise"
    advice = "correct them, or set config.data.on_error='skip'" if stops else "they are left out"
    yield Finding(name, "fail" if stops else "warn", f"{len(found)}", advice, tuple(found))


def draw(data: Data, task: Task, path: pathlib.Path) -> int:
    """Draw the first training images with their boxes or label maps as one PNG; return the number of images.

    Raises:
      UserError: the set cannot be read, or has no places in its images.
    """
    need("report", f"--out={path}", "matplotlib")
    if task.name not in places.KINDS:
        tasks = " or ".join(map(repr, places.KINDS))
        raise UserError(f"--out is for config.task.name={tasks}; python -m jaxcnn.preview draws other images")
    splits, _ = _opened(data, task)
    split, kind = splits.train, splits.kind
    assert isinstance(kind, Movable)
    chosen = np.arange(min(len(split), DRAWN))
    targets = jax.tree.map(lambda rows: rows[chosen], split.targets)
    captions = kind.captions(targets, splits.class_names, LONGEST)
    examples = []
    for place, image in enumerate(mistakes.as_rgb(split.read(chosen))):
        drawn = kind.drawn(image, jax.tree.map(operator.itemgetter(place), targets))
        name = name_of(split, place)
        examples.append(mistakes.Example(place, name, drawn, pathlib.Path(name).name, captions[place], float("nan")))
    title = [
        f"{shown(split.description)}: the first {counted(len(chosen), 'image')}",
        "Below each: its file, and what is in it.",
    ]
    save_picture(mistakes.sheet(examples, title, colour="#0b57d0"), path, format="png", dpi=mistakes.DPI)
    return len(chosen)


def _classes(chosen: list[Selection], counts: np.ndarray) -> Finding:
    """Check whether val and test have every class (else train does not open), and how uneven the classes are.

    Args:
      chosen: the splits, train first.
      counts: number of examples [splits, classes].
    """
    names = chosen[0].class_names
    few, many = int(counts[0].argmin()), int(counts[0].argmax())
    text = f"{len(names)}; of {counts[0, few]} ({names[few]}) to {counts[0, many]} ({names[many]}) examples in train"
    without = tuple(
        f"{split.name} has no example of {names[label]!r}"
        for split, of_class in zip(chosen, counts, strict=True)
        for label in np.flatnonzero(of_class == 0)
    )
    if without:
        advice = "what is measured there says nothing about them; add examples"
        return Finding("classes", "warn", text, advice, without[:EXAMPLES])
    if counts[0, many] > UNEVEN * counts[0, few]:
        return Finding("classes", "warn", text, "accuracy says little about the rare ones; see balanced accuracy")
    return Finding("classes", "ok", text)


def _equal_within(chosen: list[Selection], of_splits: list[Hashes | None]) -> Iterator[Finding]:
    """Find images of one split that are equal, byte for byte."""
    for split, sums in zip(chosen, of_splits, strict=True):
        name = f"equal images in {split.name}"
        if sums is None:
            yield Finding(name, "ok", NOT_STORED)
            continue
        order = np.argsort(sums, kind="stable")
        same = sums[order][1:] == sums[order][:-1]
        pairs = list(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))
        if not pairs:
            yield Finding(name, "ok", "none")
            continue
        differ = {pair: not _same_answer(split, pair[0], split, pair[1]) for pair in pairs}
        other = sum(differ.values())
        text = counted(len(pairs), "copy", "copies") + (f", {other} with another label" if other else "")
        pairs.sort(key=lambda pair: not differ[pair])  # pairs with different labels first
        yield Finding(name, "warn", text, "remove them", _named(split, split, pairs))


def _equal_between(chosen: list[Selection], of_splits: list[Hashes | None]) -> Iterator[Finding]:
    """Find images of two splits that are equal, byte for byte."""
    for (one, first), (two, second) in itertools.combinations(zip(chosen, of_splits, strict=True), 2):
        name = f"images of {two.name} in {one.name}"
        if first is None or second is None:
            continue
        if not (count := content.in_both(first, second)):
            yield Finding(name, "ok", "none")
            continue
        place = {int(each): index for index, each in enumerate(first)}
        pairs = [(place[int(each)], index) for index, each in enumerate(second) if int(each) in place]
        advice = f"remove them from one of the two: what is measured on {two.name} is too good"
        yield Finding(name, "fail", f"{count} of {len(two)}", advice, _named(one, two, pairs))


def _alike(chosen: list[Selection], of_splits: list[Hashes | None]) -> Iterator[Finding]:
    """Find images of two splits that look alike and are not equal."""
    most = max((len(one) * len(two) for one, two in itertools.combinations(chosen, 2)), default=0)
    if most > MOST_COMPARED:
        yield Finding("similar images", "warn", "not compared: too many", "look for them in a part of the set")
        return
    pictures = [near.thumbnails(split) for split in chosen]
    known = zip(chosen, pictures, of_splits, strict=True)
    for (one, first, *own), (two, second, *other) in itertools.combinations(known, 2):
        cosine, index = near.nearest(second, first)
        sums = own[0], other[0]
        if sums[0] is not None and sums[1] is not None:
            cosine[np.isin(sums[1], sums[0])] = 0  # equal images are already reported above
        found = np.flatnonzero(cosine >= near.ALIKE)
        name = f"images of {two.name} like one of {one.name}"
        if not len(found):
            yield Finding(name, "ok", "none")
            continue
        pairs = [(int(index[place]), int(place)) for place in found[np.argsort(-cosine[found], kind="stable")]]
        advice = "look at them: the same scene in both makes what is measured too good"
        yield Finding(name, "warn", f"{len(found)} of {len(two)}", advice, _named(one, two, pairs))


def _same_answer(one: Selection, first: int, two: Selection, second: int) -> bool:
    leaves = zip(jax.tree.leaves(one.targets), jax.tree.leaves(two.targets), strict=True)
    return all(np.array_equal(a[first], b[second]) for a, b in leaves)


def _answer(split: Selection, index: int) -> str:
    """The answer for an example as text."""
    target = split.kind.whole(jax.tree.map(lambda rows: rows[[index]], split.targets))
    return split.kind.captions(target, split.class_names, LONGEST)[0]


def _named(one: Selection, two: Selection, pairs: list[tuple[int, int]]) -> tuple[str, ...]:
    """The first pairs of images, with their classes if these differ."""
    told = []
    for first, second in pairs[:EXAMPLES]:
        classes = ""
        if not _same_answer(one, first, two, second):
            classes = f" (labels {_answer(two, second)!r} and {_answer(one, first)!r})"
        told.append(f"{two.name_of(second)} and {one.name_of(first)}{classes}")
    return tuple(told)


def _images(split: Selection) -> str:
    """The type of the images of a split, and the sizes in which they are stored."""
    text = "x".join(map(str, split.image_shape)) + f" {split.dtype.name}"
    known = [examples.sizes for examples in split.parts if examples.sizes is not None]
    if len(known) < len(split.parts):
        return text
    sizes = np.concatenate([known[part][split.place[split.part == part]] for part in range(len(known))])
    area = sizes.astype(np.int64).prod(axis=1)
    small, large = (f"{height}x{width}" for height, width in (sizes[area.argmin()], sizes[area.argmax()]))
    return f"{text}, stored as {small}" + (f" to {large}" if small != large else "")
