"""The network of a run, as a function of images."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxcnn.api import images as forms
from jaxcnn.api.errors import python_words
from jaxcnn.api.shown import Predictions
from jaxcnn.config import Config, UserError
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.train import predict, trained


class Network:
    """A network with the weights of one checkpoint. Images in, NumPy arrays out.

    Images are arrays uint8 [N, H, W, C] (also [N, H, W] for grey ones, or one image [H, W, C]), paths of files and
    folders, Pillow images, and iterables of these, which are read batch by batch. Images of another size are resized as
    in training.

    Attributes:
      class_names: the name of each class.
      image_shape: (H, W, C) of the images that the network sees.
      step: step of the checkpoint.
      weights: "last", the parameters of that step, or "ema", their moving average.
      remarks: one line for each checkpoint that had to be skipped.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        checkpoint: str = "tested",
        weights: str = "",
        devices: int = 0,
        config: Config | None = None,
    ) -> None:
        self.trained, self.remarks = trained.load(workdir, checkpoint, weights, devices, config)
        self.class_names = self.trained.class_names
        self.image_shape = self.trained.spec.image_shape
        self.step, self.weights = self.trained.step, self.trained.weights

    def __repr__(self) -> str:
        model = self.trained.config.model.name
        return f"<{model} of {len(self.class_names)} classes, step {self.step}, {self.weights} weights>"

    def __call__(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """The outputs of the network, for classification the logits. Raises UserError for what is not an image."""
        return self._outputs(images, None)

    def probabilities(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """The probability of each class, for each image, with the temperature that was fitted to validation.

        Raises:
          UserError: the task has no probabilities (regression); and as `__call__`.
        """
        scaled = self(images) / np.float32(temperature_of(self.trained.fitted))
        probabilities = self.trained.spec.task.evaluation.probabilities(scaled)
        if probabilities is None:
            raise UserError(f"config.task.name={self.trained.config.task.name!r} has no probabilities")
        return probabilities

    def features(self, images: Any, layer: str = "") -> np.ndarray:
        """The input of the classifier, [N, features]: embeddings for search, clustering or another classifier.

        Args:
          images: see the class.
          layer: the path of a layer (`layers`), whose output is returned instead, [N, ...].

        Raises:
          UserError: there is no such layer; and as `__call__`.
        """
        if layer and layer not in self.layers:
            raise UserError(f"the network has no layer {layer!r}; it has {', '.join(self.layers)}")
        return self._outputs(images, layer)

    @functools.cached_property
    def layers(self) -> tuple[str, ...]:
        """The paths of the layers that have parameters, such as "conv1"."""
        import jax

        paths = jax.tree_util.tree_flatten_with_path(self.trained.variables["params"])[0]
        return tuple(dict.fromkeys("/".join(str(part.key) for part in path[:-1]) for path, _ in paths))

    @property
    def variables(self) -> dict[str, Any]:
        """The Flax variables as NumPy arrays: "params" and, with BatchNorm, "batch_stats"."""
        import jax

        return jax.device_get(self.trained.variables)

    def predict(self, images: Any, *, on_error: str = "raise") -> Predictions:
        """The answer for each image, and its "file" if it comes from one.

        For classification, these are the most probable classes: `{"label", "probability", "top": [...]}`.

        Args:
          images: see the class.
          on_error: what to do with a file that cannot be read: "raise", or "skip", which gives "file" and "error" only.

        Raises:
          UserError: as `__call__`.
        """
        return self._answered(images, functools.partial(predict.answers, self.trained), on_error)

    def _answered(
        self, images: Any, answer: Callable[[np.ndarray], list[dict[str, Any]]], on_error: str
    ) -> Predictions:
        """The answers of a function of pixels [n, H, W, C], for images as for `predict`."""
        if on_error not in ("raise", "skip"):
            raise UserError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        found = Predictions(self.trained.spec.task.evaluation.columns)
        with python_words():
            for batch in self._batches(images, skip_unreadable=on_error == "skip"):
                readable = any(each.pixels is not None for each in batch)
                answers = iter(answer(forms.stacked(batch)) if readable else [])
                for each in batch:
                    one = {"error": each.error} if each.pixels is None else next(answers)
                    if "error" not in one:
                        one = predict.in_stored(self.trained, one, self._stored_sides(each))
                    named = {"file": each.file} if each.file is not None else {}
                    found.see(named | one, each.pixels)
        return found

    def _outputs(self, images: Any, layer: str | None) -> np.ndarray:
        with python_words():
            parts = [predict.outputs_of(self.trained, forms.stacked(batch), layer) for batch in self._batches(images)]
        if not parts:
            raise UserError("images has no image")
        return np.concatenate(parts)

    def _stored_sides(self, image: forms.Found) -> tuple[int, int] | None:
        if image.file is None:
            return image.sides
        return predict.stored_sides(self.trained, pathlib.Path(image.file).read_bytes)

    def _batches(self, images: Any, *, skip_unreadable: bool = False) -> Any:
        return forms.batches(images, self.image_shape, self.trained.config.data, skip_unreadable=skip_unreadable)
