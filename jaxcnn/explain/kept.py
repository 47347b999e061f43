"""The maps of each method, written as soon as they are made: an interruption loses the method at work, and no other."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn.explain import methods, out, pictures


class Keeper(Protocol):
    """Takes the maps of a method, some images after the others."""

    def begin(self, facts: Mapping[str, np.ndarray]) -> None:
        """Take what is known of all images, before the first map."""

    def part(
        self, name: str, rows: slice, images: UInt8[np.ndarray, "n h w 3"], maps: Float[np.ndarray, "n h w"]
    ) -> None:
        """Take the maps of the images `rows`, which follow those before."""

    def done(self, name: str, facts: Mapping[str, np.ndarray]) -> None:
        """Store the other results of a method, after its last map."""


class Held:
    """Holds maps in memory.

    Attributes:
      facts: arrays by name.
      maps: maps of each method, in parts.
    """

    def __init__(self) -> None:
        self.facts: dict[str, np.ndarray] = {}
        self.maps: dict[str, list[np.ndarray]] = {}

    def begin(self, facts: Mapping[str, np.ndarray]) -> None:
        """Hold what is known of all images."""
        self.facts |= facts

    def part(
        self, name: str, rows: slice, images: UInt8[np.ndarray, "n h w 3"], maps: Float[np.ndarray, "n h w"]
    ) -> None:
        """Hold some maps of a method."""
        del rows, images
        self.maps.setdefault(name, []).append(maps)

    def done(self, name: str, facts: Mapping[str, np.ndarray]) -> None:
        """Hold what else a method found."""
        self.facts |= facts


class Written:
    """Writes maps into `maps.npz`, which is whole after each method, and as pictures.

    Args:
      place: the folder.
      count: images.
      size: (h, w) of the maps.
      drawn: the methods whose maps become pictures.
    """

    def __init__(self, place: out.Out, count: int, size: tuple[int, ...], drawn: tuple[str, ...]) -> None:
        self.place, self._count, self._size, self._drawn = place, count, size, drawn
        self._open: tuple[zipfile.ZipFile, Any] | None = None

    def begin(self, facts: Mapping[str, np.ndarray]) -> None:
        """Begin `maps.npz` with what is known of all images."""
        arrays: dict[str, Any] = dict(facts)
        with self.place.path(out.MAPS).open("wb") as file:
            np.savez_compressed(file, **arrays)

    def part(
        self, name: str, rows: slice, images: UInt8[np.ndarray, "n h w 3"], maps: Float[np.ndarray, "n h w"]
    ) -> None:
        """Draw some maps, and write them behind those before."""
        if name in self._drawn:
            gives = methods.find(name).gives
            for number, image, values in zip(range(rows.start, rows.stop), images, maps, strict=True):
                path = self.place.path(out.picture(number, self._count, name))
                path.write_bytes(pictures.over_image(image, values, gives))
        _, entry = self._open or self._opened(name)
        entry.write(np.ascontiguousarray(maps, np.float32).tobytes())

    def _opened(self, name: str) -> tuple[zipfile.ZipFile, Any]:
        """A copy of the file so far, and a new array in it, whose rows follow."""
        copy = self.place.path(out.MAPS + ".part")
        shutil.copyfile(self.place.folder / out.MAPS, copy)
        file = zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED)
        entry = file.open(f"{name}.npy", "w", force_zip64=True)
        shape = (self._count, *self._size)
        head = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(entry, head)
        self._open = file, entry
        return self._open

    def done(self, name: str, facts: Mapping[str, np.ndarray]) -> None:
        """Put the maps of a method, which are whole now, in place."""
        del name
        assert self._open is not None
        file, entry = self._open
        entry.close()
        for key, values in facts.items():
            with file.open(f"{key}.npy", "w") as other:
                np.lib.format.write_array(other, np.asarray(values), allow_pickle=False)
        file.close()
        self._open = None
        os.replace(self.place.folder / (out.MAPS + ".part"), self.place.folder / out.MAPS)
