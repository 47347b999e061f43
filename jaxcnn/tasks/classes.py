"""Targets that are classes: one class for each image."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32

from jaxcnn.config import UserError
from jaxcnn.tasks.task import Facts, OfEach, module_of
from jaxcnn.text import listed, shorten

FROM_0 = "they must be counted from 0; subtract 1 from each"
TOLD = 20  # largest number of class names that a run prints before it trains
UNEVEN = 1.5  # numbers of examples are printed if the largest class has more than this times the smallest

Labels = Int32[np.ndarray, " n"]


@flax.struct.dataclass
class Mixed:
    """The classes of an image, which is a mixture of up to two.

    Attributes:
      label: number of the class.
      other: label of the image mixed in; equal to `label` without mixing.
      share: share of `label` in the target; `other` has the rest. 1 without mixing.
    """

    label: Int32[Array, " b"]
    other: Int32[Array, " b"]
    share: Float32[Array, " b"]


def numbers_as_names(labels: Sequence[np.ndarray], title: str) -> tuple[str, ...]:
    """Numbers as class names, one for each class that the labels [n] of the base splits imply.

    Raises:
      UserError: there would be more classes than examples, so the labels cannot be class numbers.
    """
    classes = max((int(each.max()) + 1 for each in labels if each.size and each.dtype.kind in "iu"), default=2)
    examples = sum(len(each) for each in labels)
    if classes > examples:
        raise UserError(
            f"{title} has label {classes - 1}, but only {examples} examples; labels are class numbers, counted from 0 "
            "without gaps, and every class needs examples"
        )
    return tuple(str(number) for number in range(classes))


def without_examples(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """The names of the classes that have no example; `counts` has the number of each."""
    return [names[int(k)] for k in np.flatnonzero(counts == 0)]


def lacks(empty: Sequence[str]) -> str:
    """Says that a split lacks these classes, as the end of a sentence; empty if there are no such classes."""
    return f"has no examples of {listed(empty)}" if empty else ""


@dataclasses.dataclass(frozen=True)
class Classes:
    """Targets that are numbers of classes, int32."""

    classes: int

    @property
    def outputs(self) -> int:
        """The number of logits: one for each class."""
        return self.classes

    def spec(self) -> jax.ShapeDtypeStruct:
        """The shape and type of a target: the number of a class."""
        return jax.ShapeDtypeStruct((), jnp.int32)

    def whole(self, target: Int32[ArrayLike, " b"]) -> Mixed:
        """The targets of unmixed images, each of which has one class."""
        arrays = module_of(target)
        label = arrays.asarray(target)
        return Mixed(label, label, arrays.ones(label.shape, np.float32))

    def mixed(self, target: Int32[Array, " b"], other: Int32[Array, " b"], share: OfEach) -> Mixed:
        """The targets of mixed images: two classes, each with the share of its image."""
        return Mixed(target, other, share)

    def read(self, labels: np.ndarray, title: str, base: str) -> Labels:
        """The labels of a base split as targets."""
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(
                f"{title} {base}: labels are {labels.dtype} of shape {labels.shape}, but labels must be class numbers: "
                "integers [N], counted from 0; config.task.name='multilabel' or 'regression' takes others"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if not len(wrong):
            return labels.astype(np.int32, copy=False)
        if labels.min() == 1 and labels.max() == self.classes:
            raise UserError(f"{title} {base}: labels go from 1 to {self.classes}, but {FROM_0}")
        raise UserError(
            f"{title} {base}: label {labels[wrong[0]]} at index {wrong[0]} is out of range; the {self.classes} classes "
            f"are 0 to {self.classes - 1} ({len(wrong)} such labels)"
        )

    def check(self, targets: Labels, names: Sequence[str], title: str, description: str, lowest: float) -> None:
        """Raise UserError if a class has no example in the training split."""
        if self.classes < 2:
            raise UserError(f"{title} has only one class, {names[0]!r}; classification needs at least two")
        empty = without_examples(self.counts(targets), names)
        if not empty:
            return
        verb = "has" if len(empty) == 1 else "have"
        named = f"{'class' if len(empty) == 1 else 'classes'} {listed(empty)} {verb} no examples in {description}"
        if lowest > 0 and list(names) == list(map(str, range(self.classes))):
            raise UserError(f"{named}: labels start at 1, but {FROM_0}")
        raise UserError(f"{named}; every class needs training examples")

    def groups(self, targets: Labels) -> Labels:
        """The class of each example: the examples of a class form a group."""
        return targets

    def remark(self, targets: Labels, names: Sequence[str]) -> str:
        """Says which classes have no example, as the end of a sentence; empty if all have some."""
        return lacks(without_examples(self.counts(targets), names))

    def describe(self, targets: Labels, names: Sequence[str]) -> str:
        """The class names (only the first if they are many), with their numbers of examples if these differ much."""
        counts = self.counts(targets)
        names = tuple(name if name.isprintable() else repr(name) for name in names)
        few, many = int(counts.argmin()), int(counts.argmax())
        uneven = counts[many] > UNEVEN * counts[few]
        if len(names) <= TOLD:
            return ", ".join(f"{name} {count}" if uneven else name for name, count in zip(names, counts, strict=True))
        text = f"{', '.join(names[:TOLD])} and {len(names) - TOLD} more"
        return text + (
            f", of {counts[few]} ({names[few]}) to {counts[many]} ({names[many]}) examples" if uneven else ""
        )

    def counts(self, targets: Labels) -> np.ndarray:
        """The number of examples of each class."""
        return np.bincount(targets, minlength=self.classes)

    def captions(self, target: Mixed, names: Sequence[str], width: int) -> list[str]:
        """Captions such as "cat", or "cat 70 % / dog 30 %" for a mixed image."""
        return [
            self._caption(names, int(label), int(other), float(share), width)
            for label, other, share in zip(target.label, target.other, target.share, strict=True)
        ]

    def _caption(self, names: Sequence[str], label: int, other: int, share: float, width: int) -> str:
        shares = {label: share}
        shares[other] = shares.get(other, 0) + 1 - share
        percents = {number: round(100 * part) for number, part in shares.items() if round(100 * part)}
        if len(percents) == 1:
            return shorten(names[next(iter(percents))], width)
        return " / ".join(f"{shorten(names[number], width - 6)} {part} %" for number, part in percents.items())

    def facts(self, targets: Labels) -> Facts:
        """No facts: the number of classes is known from their names."""
        return {}
