"""Which answers are wrong; of tasks that find something in images, what is wrong in each, and how it is shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jaxcnn.tasks.task import Evaluation, Tree

Picture = UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Deciding(Protocol):
    """An evaluation of answers that are one class, which is right or wrong."""

    @property
    def right(self) -> str | None:
        """The name of the metric that is 0 where an answer is wrong; None if answers are no classes after all."""
        ...


def right(evaluation: Evaluation) -> str | None:
    """The metric that is 0 where the answer for an image is the wrong class; None if answers are no classes."""
    return evaluation.right if isinstance(evaluation, Deciding) else None


@dataclasses.dataclass(frozen=True)
class Compared:
    """An image with its annotations, beside the same with what was found, and both in words."""

    annotated: Picture
    found: Picture
    label: str
    answer: str


@runtime_checkable
class Comparing(Protocol):
    """An evaluation that says how much is wrong in an image, and shows it."""

    @property
    def faults(self) -> Mapping[str, str]:
        """The kinds of faults: by name, what images with many of them are called in a title."""
        ...

    @property
    def legend(self) -> str:
        """What the pictures of `compared` show, in a sentence."""
        ...

    def faults_of(self, outputs: np.ndarray, target: Tree) -> dict[str, np.ndarray]:
        """How many faults of each kind each image has, or how large they are; arguments as of a collector."""
        ...

    def compared(self, image: Picture, outputs: np.ndarray, target: Tree, names: Sequence[str]) -> Compared:
        """One image, as the network reads it, with the outputs and the target of this image."""
        ...


@dataclasses.dataclass(frozen=True)
class Faulty:
    """An image with faults: its place in the split, how many, its outputs and its target."""

    index: int
    faults: float
    outputs: np.ndarray
    target: Tree
