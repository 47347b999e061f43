"""Chosen examples of the base splits of a set."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int64

from jaxcnn.data.batch import Split
from jaxcnn.data.examples import Examples, Fill, Groups, Hashes, Indices, Pixels
from jaxcnn.tasks.box_records import ON_HOST
from jaxcnn.tasks.task import Targets, Tree

Weights = Float32[np.ndarray, " n"]


@dataclasses.dataclass(eq=False)
class Selection:
    """Chosen examples of one or more base splits, in order: a `jaxcnn.data.batch.Split`.

    Columns of targets that only the figures need (`box_records.ON_HOST`) are in `host_targets`, the others in
    `targets`.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    kind: Targets
    parts: tuple[Examples, ...]
    part_targets: tuple[Any, ...]  # of all examples of each part
    part: Int64[np.ndarray, " n"]  # the part that each example belongs to
    place: Int64[np.ndarray, " n"]  # its index in that part
    bases: tuple[str, ...]  # the name of each part in its set
    targets: Any = dataclasses.field(init=False)
    host_targets: dict[str, np.ndarray] = dataclasses.field(init=False)
    image_shape: tuple[int, int, int] = dataclasses.field(init=False)
    dtype: np.dtype = dataclasses.field(init=False)

    def __post_init__(self):
        def taken(*of_parts: np.ndarray) -> np.ndarray:
            rows = np.empty((len(self.part), *of_parts[0].shape[1:]), of_parts[0].dtype)
            for number, of_part in enumerate(of_parts):
                chosen = self.part == number
                rows[chosen] = of_part[self.place[chosen]]
            return rows

        self.targets, self.host_targets = jax.tree.map(taken, *self.part_targets), {}
        if isinstance(self.targets, dict):
            self.host_targets = {name: self.targets.pop(name) for name in ON_HOST if name in self.targets}
        self.image_shape, self.dtype = self.parts[0].image_shape, self.parts[0].dtype

    def __len__(self) -> int:
        return len(self.part)

    def read(self, indices: Indices) -> Pixels:
        """The images at these indices. Safe to call from several threads."""
        if len(self.parts) == 1:
            return self.parts[0].read(self.place[indices])
        part, place = self.part[indices], self.place[indices]
        images = np.empty((len(part), *self.image_shape), self.dtype)
        for number in np.unique(part):
            chosen = part == number
            images[chosen] = self.parts[number].read(place[chosen])
        return images

    @property
    def fill(self) -> Fill | None:
        """The same as `Examples.fill`; None unless all parts have it."""
        fills = [part.fill for part in self.parts if part.fill is not None]
        if len(fills) < len(self.parts):
            return None

        def fill(indices: Indices, out: Pixels) -> None:
            part, place = self.part[indices], self.place[indices]
            ends = [*(np.flatnonzero(part[1:] != part[:-1]) + 1).tolist(), len(part)]
            for start, end in zip([0, *ends], ends, strict=False):  # images of one part that lie side by side
                fills[part[start]](place[start:end], out[start:end])

        return fill

    @property
    def weights(self) -> Weights | None:
        """The weight of each example; None if none of them has one."""
        of_parts = [part.weights for part in self.parts]
        if all(each is None for each in of_parts):
            return None
        weights = np.ones(len(self.part), np.float32)
        for number, of_part in enumerate(of_parts):
            if of_part is not None:
                chosen = self.part == number
                weights[chosen] = of_part[self.place[chosen]]
        return weights

    @property
    def groups(self) -> Groups | None:
        """The name of each example's group; None unless the config says what names it."""
        of_parts = [part.groups for part in self.parts if part.groups is not None]
        if len(of_parts) < len(self.parts):
            return None
        names = np.empty(len(self.part), np.result_type(*of_parts))
        for number, of_part in enumerate(of_parts):
            chosen = self.part == number
            names[chosen] = of_part[self.place[chosen]]
        return names

    def checksums(self) -> Hashes | None:
        """Checksums that are equal for equal images; None unless known for all images."""
        known = [examples.content().images for examples in self.parts]
        sums = np.empty(len(self.part), np.uint64)
        for number, images in enumerate(known):
            if images is None:
                return None
            chosen = self.part == number
            sums[chosen] = images[self.place[chosen]]
        return sums

    def name_of(self, index: int) -> str:
        """The file or record of an example, or its index in its base split."""
        name, place = self.parts[self.part[index]].name, int(self.place[index])
        return f"image {place}" if name is None else name(place)

    def take(self, chosen: Indices, name: str, description: str) -> "Selection":
        """The examples at indices `chosen` as a new split."""
        part, place = self.part[chosen], self.place[chosen]
        of_parts = self.parts, self.part_targets, part, place, self.bases
        return Selection(name, description, self.class_names, self.kind, *of_parts)


def name_of(split: Split, index: int) -> str:
    """The file or record of an example of any split, or its index."""
    return split.name_of(index) if isinstance(split, Selection) else f"image {index}"


def name_in_set(split: Split, index: int) -> str:
    """The file or record of an example of any split, or its index with the name of its base split, as "train image 7".

    Other than `name_of`, it never gives two examples of a set one name.
    """
    if not isinstance(split, Selection):
        return f"{split.name} image {index}"
    part = int(split.part[index])
    return split.name_of(index) if split.parts[part].name else f"{split.bases[part]} {split.name_of(index)}"


def groups_of(split: Split) -> Groups | None:
    """The name of each example's group in a split; None unless the config says what names it."""
    return split.groups if isinstance(split, Selection) else None


def weights_of(split: Split) -> Weights | None:
    """The weight of each example of a split; None if none of them has one."""
    return split.weights if isinstance(split, Selection) else None


def whole_targets(split: Split, targets: Tree, indices: Indices) -> Tree:
    """The targets of the examples at these indices as collectors take them: with the columns that stay on the host."""
    columns: dict[str, np.ndarray] = getattr(split, "host_targets", {})
    return targets | {name: rows[indices] for name, rows in columns.items()} if columns else targets


class Part:
    """Some examples of any split, in order: a `jaxcnn.data.batch.Split`."""

    def __init__(self, whole: Split, chosen: Indices) -> None:
        self.name, self.description, self.class_names = whole.name, whole.description, whole.class_names
        self.image_shape, self.dtype = whole.image_shape, whole.dtype
        self.targets = jax.tree.map(lambda rows: rows[chosen], whole.targets)
        self._whole, self._chosen = whole, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, indices: Indices) -> Pixels:
        """The images at these indices. Safe to call from several threads."""
        return self._whole.read(self._chosen[indices])

    @property
    def fill(self) -> Fill | None:
        """The same as `Examples.fill`; None if the whole split has none."""
        fill: Fill | None = getattr(self._whole, "fill", None)
        return fill and (lambda indices, out: fill(self._chosen[indices], out))
