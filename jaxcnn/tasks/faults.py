"""Which answers are wrong; of tasks that find something in images, what is wrong in each, and how it is shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from jaxcnn.tasks.task import Collector, Evaluation, Tree

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
    """An image with its annotations, the same image with what was found, and a text for each."""

    annotated: Picture
    found: Picture
    label: str
    answer: str


@runtime_checkable
class Comparing(Protocol):
    """An evaluation that says how much is wrong in an image, and shows it."""

    @property
    def faults(self) -> Mapping[str, str]:
        """The kinds of faults: for each name, the title of a group of images with many faults of this kind."""
        ...

    @property
    def legend(self) -> str:
        """A sentence that explains the pictures of `compared`."""
        ...

    def faults_of(self, outputs: np.ndarray, target: Tree, collector: Collector | None = None) -> dict[str, np.ndarray]:
        """The number or size of the faults of each kind in each image, [n].

        Args:
          outputs, target: as in `Collector.add`.
          collector: one of the task to which these images have just been added, so that its work serves twice.
        """
        ...

    def compared(self, image: Picture, outputs: np.ndarray, target: Tree, names: Sequence[str]) -> Compared:
        """The comparison for one image, as the network reads it, with the outputs and the target of this image."""
        ...


@dataclasses.dataclass(frozen=True)
class Faulty:
    """An image with faults: its index in the split, its number of faults, its outputs and its target."""

    index: int
    faults: float
    outputs: np.ndarray
    target: Tree
