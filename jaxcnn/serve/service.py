"""A trained network that answers bytes of images."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.config import Data, UserError
from jaxcnn.data import as_stored
from jaxcnn.deploy import runtimes
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.train import exported, predict
from jaxcnn.train.trained import Trained


class Decoded(NamedTuple):
    """An image for the network, with its sides as it is stored if answers have places in it."""

    pixels: np.ndarray
    sides: tuple[int, int] | None = None


class Service:
    """The network, compiled for batches of powers of two.

    Args:
      trained: the network.
      most: largest number of images in a batch.
      max_megapixels: largest image; a larger one is refused by its header, before it is decoded.
      file: exported file that answers in place of the run, if any.

    Raises:
      UserError: the file belongs to another step, or for other classes or images.
    """

    def __init__(
        self, trained: Trained, most: int, max_megapixels: float = 50.0, file: runtimes.Runtime | None = None
    ) -> None:
        self._trained, self.most = trained, most
        if file is not None:
            _check(file, trained)
        self._runtime = file or runtimes.of_run(trained)
        limit = min(max_megapixels, trained.config.data.max_megapixels)
        self._data: Data = dataclasses.replace(trained.config.data, max_megapixels=limit)

    def warm_up(self) -> None:
        """Compile the network for every batch size, so that no request waits for it.

        Raises:
          UserError: a file has another number of outputs than its facts tell.
        """
        size = 1
        while True:
            image = Decoded(np.zeros(self._runtime.image_shape, self._runtime.image_dtype))
            self.answers([image] * min(size, self.most))
            if size >= self.most:
                return
            size *= 2

    def decode(self, content: bytes) -> Decoded:
        """The image in some bytes.

        Raises:
          Unreadable: they are no image, or it is damaged or too large.
        """
        pixels = predict.decoded(content, self._trained.spec.image_shape, self._data)
        return Decoded(pixels, predict.stored_sides(self._trained, lambda: content))

    def stack_size(self, content: bytes) -> int | None:
        """The number of images in an array [N, H, W, C]; None if the bytes are one image.

        Raises:
          Unreadable: the bytes are damaged.
        """
        return as_stored.stack_size(content)

    def decode_stack(self, content: bytes) -> list[Decoded]:
        """The images of such an array.

        Raises:
          Unreadable: it does not fit the network.
        """
        stack = predict.decoded_stack(content, self._trained.spec.image_shape, self._data)
        finds = self._trained.spec.task.finds is not None
        sides = as_stored.stack(content, self._data.max_megapixels).shape[1:3] if finds else None
        return [Decoded(pixels, sides) for pixels in stack]

    def answers(self, images: Sequence[Decoded]) -> list[dict[str, Any]]:
        """The answer of the task for each image, as in `--mode=predict`."""
        size = min(self.most, 1 << (len(images) - 1).bit_length())
        batch = np.zeros((size, *self._runtime.image_shape), self._runtime.image_dtype)
        batch[: len(images)] = np.stack([image.pixels for image in images])
        outputs = self._runtime.call(batch)[: len(images)]
        trained = self._trained
        _check_outputs(outputs, trained)
        answers = trained.spec.task.evaluation.answers(outputs, trained.class_names, trained.constants, trained.fitted)
        return [predict.in_stored(trained, answer, image.sides) for answer, image in zip(answers, images, strict=True)]

    def facts(self) -> dict[str, Any]:
        """The facts about the network for the page and for clients."""
        trained = self._trained
        return {
            "model": trained.config.model.name,
            "step": trained.step,
            "task": trained.config.task.name,
            "class_names": list(trained.class_names),
            "image_shape": list(trained.spec.image_shape),
            "temperature": temperature_of(trained.fitted),
        }


def _check(file: runtimes.Runtime, trained: Trained) -> None:
    """Refuse a file that does not belong to the network, whose classes, images and step the answers name."""
    for name in ("class_names", "image_shape", "step"):
        told, here = file.facts.get(name), json.loads(exported.facts(trained)[name])
        if told != here:
            raise UserError(
                f"--file was not made of this run: its {name} is {told}, here it is {here}; export it again"
            )


def _check_outputs(outputs: np.ndarray, trained: Trained) -> None:
    """Refuse outputs of a file whose facts tell another number of them, so that names and outputs do not fit."""
    task = trained.spec.task
    if task.finds is None and outputs.ndim == 2 and outputs.shape[1] != task.targets.outputs:
        raise UserError(
            f"the file gives outputs {list(outputs.shape)}, but its facts tell {task.targets.outputs} for each image; "
            "export the run again"
        )
