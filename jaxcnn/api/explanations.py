"""Explanations of a run's answers, as arrays and as pictures in a notebook."""

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float, Num, UInt8

from jaxcnn.api import images as forms
from jaxcnn.api.errors import python_words
from jaxcnn.api.network import Network
from jaxcnn.api.shown import Html, table, value_text
from jaxcnn.config import UserError
from jaxcnn.explain import methods, pictures
from jaxcnn.explain.explanation import Explanation
from jaxcnn.explain.subject import Subject
from jaxcnn.text import shown
from jaxcnn.train import mistakes

_SHOWN = 12  # largest number of images shown in a notebook


class Explanations:
    """Maps of one method for some images; an array [N, H, W] for NumPy, and pictures in a notebook.

    Attributes:
      method: name of the method.
      maps: [N, H, W]. For signed methods, values above 0 support the output, values below 0 oppose it; for
        others, larger is more important.
      values: the values from the method: equal to the maps, or one number for each channel, [N, H, W, C].
      target: the explained output of each image, [N]; for a detector, its class.
      boxes: the explained box of each image of a detector: left, top, right, bottom in pixels, [N, 4]; else None.
      layer: the layer of a class activation map; else empty.
      gap: the sum of the values minus the change of the output, [N], for methods whose values add up to it (integrated
        and expected gradients, lrp); else None.
    """

    def __init__(
        self,
        found: Explanation,
        pixels: Num[np.ndarray, "n h w c"],
        class_names: tuple[str, ...],
        boxes: Float[np.ndarray, "n 4"] | None = None,
    ) -> None:
        self.method, self.maps, self.values = found.method, found.maps, found.values
        self.target, self.boxes = found.target % len(class_names), boxes
        self.layer, self.gap = found.layer, found.gap
        self._pixels, self._names = pixels, class_names

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, place: Any) -> np.ndarray:
        return self.maps[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float[np.ndarray, "n h w"]:
        return np.array(self.maps, dtype) if copy or dtype is not None else self.maps

    def __repr__(self) -> str:
        return f"<{self.method} of {len(self)} images, {self.maps.shape[1]}x{self.maps.shape[2]}>"

    def png(self, number: int, opacity: float = 0.6) -> bytes:
        """The map of an image laid over it, as the content of a PNG file; 0 is the image alone, 1 the map alone."""
        image = self._rgb(slice(number, number + 1))[0]
        return pictures.over_image(image, self.maps[number], methods.find(self.method).gives, opacity)

    def _rgb(self, part: slice) -> UInt8[np.ndarray, "n h w 3"]:
        """The images of a part as RGB, with their boxes drawn in."""
        images = mistakes.as_rgb(self._pixels[part])
        return images if self.boxes is None else pictures.with_boxes(images, self.boxes[part], self.target[part])

    def save(self, folder: str | os.PathLike[str]) -> list[pathlib.Path]:
        """Write the maps as `<method>.npy` and one PNG for each image into a folder; return the files.

        Raises UserError if there can be no such folder.
        """
        place = pathlib.Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{place} cannot be created: {error.strerror}") from None
        np.save(place / f"{self.method}.npy", self.maps)
        written = [place / f"{self.method}.npy"]
        for number in range(len(self)):
            written.append(place / f"{number}-{self.method}.png")
            written[-1].write_bytes(self.png(number))
        return written

    def _repr_html_(self) -> str:
        images = self._rgb(slice(_SHOWN))
        gives = methods.find(self.method).gives
        rows = []
        for number, image in enumerate(images):
            pair = (pictures.image_png(image), pictures.over_image(image, self.maps[number], gives))
            cells: list[Any] = [
                Html(f'<img style="height: 9rem; image-rendering: pixelated" src="{pictures.data_url(png)}">')
                for png in pair
            ]
            cells.append(shown(self._names[self.target[number]]))
            rows.append([*cells, *([value_text(float(self.gap[number]))] if self.gap is not None else [])])
        note = f"<p>the first {_SHOWN} of {len(self)} images</p>" if len(self) > _SHOWN else ""
        head = ("image", methods.find(self.method).title, "output", *(("gap",) if self.gap is not None else ()))
        return note + table(head, rows)


def explain(
    network: Network, subject: Subject, images: Any, method: str, target: Any, layer: str, options: dict[str, Any]
) -> Explanations:
    """Make the explanations that `jaxcnn.Run.explain` returns; its arguments are described there."""
    with python_words():
        methods.find(method)
        subject.prepared(method, layer=layer, **options)
        found = [
            forms.stacked(batch) for batch in forms.batches(images, network.image_shape, subject.trained.config.data)
        ]
        if not found:
            raise UserError("images has no image")
        pixels = np.concatenate(found)
        seen = subject.normalised(pixels)
        by_outputs = isinstance(target, str) or subject.has_boxes
        targets = subject.targets(target, subject.outputs(seen) if by_outputs else seen[:, 0, 0])
        explained = subject.explain(method, seen, targets, layer=layer, **options)
        boxes = subject.boxes(seen, targets) if subject.has_boxes else None
    return Explanations(explained, pixels, network.class_names, boxes)
