"""The images to explain: files, or examples of a split, with their classes where these are known."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int64, Num

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.data.decode import Unreadable
from jaxcnn.data.selection import name_of
from jaxcnn.explain.subject import Subject
from jaxcnn.text import shown
from jaxcnn.train import predict


@dataclasses.dataclass(frozen=True)
class Given:
    """Images with their names. Their pixels are read when they are needed, some at a time.

    Attributes:
      names: files, or numbers in the split.
      read: the pixels of a range of them, as stored, [n, h, w, c].
      labels: the class of each image; None where it is not known, or where the task has no single class.
      words: the true answer of each in words; empty where it is not known.
      masks: where the object of each is, bool; None where it is not known.
      targets: the true boxes (`jaxcnn.tasks.box_records`) or label maps; None for other tasks, and for files.
      sets: the classes that each image has, for a task with several labels; None for other tasks, and for files.
    """

    names: list[str]
    read: Callable[[slice], Num[np.ndarray, "n h w c"]]
    labels: list[int | None]
    words: list[str]
    masks: Bool[np.ndarray, "n h w"] | None = None
    targets: Any = None
    sets: Bool[np.ndarray, "n k"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pixels(self) -> Num[np.ndarray, "n h w c"]:
        """The pixels of all images."""
        return self.read(slice(0, len(self)))

    def parts(self, size: int) -> Iterator[slice]:
        """Ranges of at most `size` images, in order."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


class _Files:
    """Reads image files, and keeps the last range: a few images are decoded once."""

    def __init__(self, subject: Subject, paths: Sequence[pathlib.Path]) -> None:
        self._subject, self._paths = subject, paths
        self._kept: tuple[slice, np.ndarray] | None = None

    def __call__(self, rows: slice) -> Num[np.ndarray, "n h w c"]:
        """The pixels of a range of the files. Raises UserError if one cannot be read as an image of the network."""
        if self._kept is None or self._kept[0] != rows:
            self._kept = rows, np.stack([self._one(path) for path in self._paths[rows]])
        return self._kept[1]

    def _one(self, path: pathlib.Path) -> Num[np.ndarray, "h w c"]:
        try:
            return predict.read(path, self._subject.image_shape, self._subject.trained.config.data)
        except (Unreadable, OSError) as error:
            raise UserError(f"cannot read image {shown(str(path))}: {error}") from None


def of_files(subject: Subject, places: Sequence[str]) -> tuple[Given, list[str]]:
    """Image files and folders, and remarks. A file in a folder with the name of a class has that class.

    Raises:
      UserError: a file cannot be read as an image of the network.
    """
    paths, remarks = predict.find_images(list(places))
    classes = {name: number for number, name in enumerate(subject.class_names)}
    single = subject.trained.config.task.name == "classification"
    labels = [classes.get(path.resolve().parent.name) if single else None for path in paths]
    words = ["" if label is None else subject.class_names[label] for label in labels]
    made = Given([str(path) for path in paths], _Files(subject, paths), labels, words)
    for rows in made.parts(subject.batch):
        made.read(rows)  # unreadable files are reported before the work starts
    return made, remarks


def at_random(subject: Subject, split: Split, most: int, seed: int) -> Int64[np.ndarray, " n"]:
    """At most `most` random examples of a split, in its order. Raises UserError if they do not suit the network."""
    if split.class_names != subject.class_names or split.image_shape != subject.image_shape:
        raise UserError(f"{split.description} does not have the classes and image size of the run")
    return np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(len(split))[:most])


def of_split(subject: Subject, name: str, count: int, seed: int) -> Given:
    """Random examples of a split of the run's data, in its order; all if there are fewer.

    Raises:
      UserError: the run has no such split, or its data is not there.
    """
    split = getattr(subject.splits, name)
    if split is None:
        raise UserError(f"--split={name}: this run has none")
    chosen = at_random(subject, split, count, seed)
    targets, task = subject.trained.spec.task.targets, subject.trained.config.task.name
    own = targets.whole(jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], split.targets))
    words = targets.captions(own, subject.class_names, 60)
    labels: list[int | None] = [None] * len(chosen)
    if task == "classification":
        labels = [int(label) for label in np.asarray(split.targets)[chosen]]
        words = [subject.class_names[label] for label in labels if label is not None]
    return Given(
        [full_name(split, int(k)) for k in chosen],
        lambda rows: split.read(chosen[rows]),
        labels,
        words,
        targets=own if subject.has_boxes or subject.has_maps else None,
        sets=np.asarray(split.targets)[chosen] > 0 if task == "multilabel" else None,
    )


def full_name(split: Split, place: int) -> str:
    """The name of an example and of its split."""
    return f"{split.name} {name_of(split, place)}"
