"""A run in a workdir, whether it has ended or not, for scripts and notebooks."""

import dataclasses
import functools
import html
import os
import pathlib
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

import jaxcnn.config as configs
from jaxcnn.api import arguments, objects, shown
from jaxcnn.api import images as forms
from jaxcnn.api.deployed import Deployed
from jaxcnn.api.errors import python_words
from jaxcnn.api.network import Network
from jaxcnn.api.shown import Figures, Picture, Predictions, Records
from jaxcnn.config import UserError
from jaxcnn.data import memory
from jaxcnn.data.labels import is_column_of_names
from jaxcnn.machine import extras
from jaxcnn.tasks import by_name
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import assess, curves, seals, summary
from jaxcnn.train import workdir as files
from jaxcnn.train.trained import Trained
from jaxcnn.train.trained import load as load_trained

if TYPE_CHECKING:
    from jaxcnn.api.explanations import Explanations

SPLITS = ("train", "val", "test")


def load(
    workdir: str | os.PathLike[str],
    *,
    checkpoint: str | int = "tested",
    weights: str = "",
    devices: int = 0,
    model: Any = None,
    **own: Any,
) -> "Run":
    """The run in a workdir.

        run = jaxcnn.load("runs/photos", model=Net, task={"loss": my_loss})

    Args:
      workdir: the folder of a run that has started training.
      checkpoint: "tested" (that of the run's test: the last, or the best with `run.test_with="best"`), "last", "best"
        (on the validation split) or a step.
      weights: "last" for the parameters of that step, "ema" for their moving average; empty: the average if it is kept.
      devices: how many local devices to use; 0: all.
      model: the network of the run, if it is in no module file, such as one defined in a notebook.
      own: other such objects, named as for `jaxcnn.config`: `loss=my_loss` or `task={"evaluation": my_figures}`.
        Predictions and evaluations need no augmentation, optimiser or schedule.

    Raises:
      UserError: the folder has no run, or the run needs no such object.
    """
    if checkpoint not in ("tested", "last", "best") and not str(checkpoint).isdecimal():
        raise UserError(f"checkpoint must be 'tested', 'last', 'best' or a step, not {checkpoint!r}")
    if weights not in ("", "last", "ema"):
        raise UserError(f"weights must be 'last', 'ema' or '', not {weights!r}")
    with python_words():
        folder = arguments.path(workdir, "workdir")
        arguments.number("devices", devices, 0)
        return Run(folder, str(checkpoint), weights, devices, own={"model": model} | own)


class Run(Deployed):
    """A run in a workdir: its figures, its curves, and its network. `jaxcnn.train` and `jaxcnn.load` return one.

    Attributes:
      workdir: the folder of the run.
      config: its config.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        checkpoint: str = "tested",
        weights: str = "",
        devices: int = 0,
        arrays: memory.Arrays | None = None,
        own: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.workdir = workdir
        self.config = ml_collections.ConfigDict(configs.to_dict(files.read_config(workdir)))
        self._config = objects.config_of(workdir, own)
        self._checkpoint, self._weights, self._devices, self._arrays = checkpoint, weights, devices, arrays

    def __repr__(self) -> str:
        return f"<run of {self.config.model.name} in {self.workdir}: {self._state()}>"

    def _repr_html_(self) -> str:
        rows = [("run", str(self.workdir)), ("network", self.config.model.name), ("data", self.config.data.source)]
        try:
            picture = shown.image(self.curves())
        except UserError as error:
            picture = f"<p>{html.escape(str(error))}</p>"
        return shown.table(("", ""), [*rows, ("state", self._state())]) + picture

    @property
    def finished(self) -> bool:
        """Whether the run has ended, so that it has a summary."""
        return self.summary is not None

    @property
    def step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        newest = seals.newest_record(self.workdir / "checkpoints")
        return newest[0] if newest else 0

    @property
    def summary(self) -> Figures | None:
        """The figures of a finished run (`summary.json`); None before that. Raises UserError if they are damaged."""
        with python_words():
            figures = summary.read(self.workdir)
        return None if figures is None else Figures(figures)

    @property
    def test(self) -> Figures | None:
        """The test of a finished run, with its confusion matrix (`test.json`); None if there was no test."""
        file = self.workdir / assess.TEST
        with python_words():
            return Figures(files.read_sealed(file)) if file.exists() else None

    def records(self, kind: str = "") -> Records:
        """The records of `metrics.jsonl` in order: of one `kind` ("train", "val", "test"), or all."""
        records = curves.read_records(self.workdir) if (self.workdir / "metrics.jsonl").exists() else []
        return Records(record for record in records if kind in ("", record["kind"]))

    def curves(self) -> Picture:
        """A picture of loss, accuracy and learning rate over epochs, also in `curves.png` of the workdir.

        Raises:
          UserError: the run has no records yet, or matplotlib is not installed.
        """
        if not self.records():
            raise UserError(f"{self.workdir} has no records yet")
        extras.need("report", "curves", "matplotlib")
        try:
            return Picture(curves.draw(self.workdir, self._headline))
        except OSError as error:
            raise UserError(f"{self.workdir}/curves.png cannot be written: {error.strerror}") from None

    @functools.cached_property
    def network(self) -> Network:
        """The network with the weights chosen in `load`: a function of images.

        Raises:
          UserError: there is no such checkpoint, or it is damaged.
        """
        with python_words():
            return Network(self.workdir, self._checkpoint, self._weights, self._devices, self._config)

    def predict(self, images: Any, *, on_error: str = "raise") -> Predictions:
        """The answers for images, such as the most probable classes: `Network.predict`."""
        return self.network.predict(images, on_error=on_error)

    def explain(
        self, images: Any, method: str = "gradcam", *, target: Any = "predicted", layer: str = "", **options: Any
    ) -> "Explanations":
        """Maps of the pixels that an output rests on, by one of the methods of `docs/explain.md`.

        Args:
          images: as for `predict`.
          method: such as "gradcam", "integrated_gradients", "smoothgrad" or "occlusion".
          target: the output to explain: "predicted", the highest one; the name or number of a class; or one of these
            last for each image.
          layer: the layer of a class activation map; empty: the last whose maps have at least 4x4 positions.
          options: those of the method, such as `steps`, `samples` or `baseline` ("mean", "black" or pixels [H, W, C]).

        Raises:
          UserError: there is no such method, output, layer or option; and as `predict`.
        """
        from jaxcnn.api import explanations

        return explanations.explain(self.network, self._subject, images, method, target, layer, options)

    @functools.cached_property
    def _subject(self) -> Any:
        from jaxcnn.explain.subject import Subject

        return Subject(_reading(self.network.trained, self._arrays))  # some methods need images of the training split

    def _trained(self) -> Trained:
        network = self.network.trained
        if network.mesh.size > 1:
            with python_words():
                network, _ = load_trained(self.workdir, self._checkpoint, self._weights, 1, self._config)
        return _reading(network, self._arrays)

    def evaluate(self, split: Any = "test", *, data: Any = None, batch_size: int = 0) -> Figures:
        """Accuracy, loss, calibration, figures of each class and the confusion matrix, on a split or on other images.

        The figures of a split are also written into the workdir, as by `--mode=eval`.

        Args:
          split: "train", "val" or "test" of the data of the run; or a pair (images, labels), where images are as for
            `predict` and labels are class numbers or names.
          data: where the data of the run is now, if it has moved: a path; or, for a run made from arrays, these arrays.
          batch_size: examples per batch; 0: as in training.

        Raises:
          UserError: the run has no such split, or its data is not there.
        """
        arguments.number("batch_size", batch_size, 0)
        if not isinstance(split, str):
            return self._evaluate_given(split, batch_size)
        if split not in SPLITS:
            raise UserError(f"split must be train, val, test or a pair (images, labels), not {split!r}")
        with python_words():
            network, path, _kept = self._at(data)
            figures = Figures(assess.assess(network, self.workdir, split, path, batch_size))
        drawn = assess.file_of(self.workdir, figures).with_suffix(".png")
        if drawn.exists():
            figures.picture = Picture(drawn)
        return figures

    def _at(self, data: Any) -> tuple[Trained, str, memory.Arrays | None]:
        """The network of the run with its data where it is now, as for `evaluate`, and a path for `assess.assess`.

        Also the arrays, if the data is in some: they are known as long as the caller keeps them.
        """
        if isinstance(data, str | os.PathLike):
            return self.network.trained, os.fspath(data), None
        arrays = self._arrays if data is None else memory.give(data)
        return _reading(self.network.trained, arrays), "", arrays

    def _evaluate_given(self, pair: Any, batch_size: int) -> Figures:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError("split must be train, val, test or a pair (images, labels)")
        network = self.network
        with python_words():
            found = [
                each
                for batch in forms.batches(pair[0], network.image_shape, network.trained.config.data)
                for each in batch
            ]
            if not found:
                raise UserError("images has no image")
            pixels = forms.stacked(found)
            labels = memory.labels_of(pair[1], network.class_names, len(pixels))
            column = len(network.class_names) if is_column_of_names(pair[1]) else 0
            labels = memory.of_task(labels, self._config.task.name, column)
            targets = network.trained.spec.task.targets.read(labels, "given", "labels")
            given = Given(targets, network.class_names, pixels, network.image_shape, pixels.dtype)
            figures = network.trained.evaluate(given, batch_size)
        return Figures({"step": network.step, "weights": network.weights, "split": given.name} | figures)

    @property
    def _headline(self) -> Headline:
        return by_name.headline(self._config.task)

    def _state(self) -> str:
        figures = self.summary
        if figures is not None:
            return f"finished, {summary.last_line(figures)}"
        return f"not finished, its newest checkpoint is of step {self.step}" if self.step else "no checkpoint yet"


@dataclasses.dataclass(eq=False)
class Given:
    """Images and labels given for one evaluation: a `jaxcnn.data.batch.Split`."""

    targets: Any
    class_names: tuple[str, ...]
    images: np.ndarray
    image_shape: tuple[int, int, int]
    dtype: np.dtype
    name: str = "given"
    description: str = "given images"

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images at these indices."""
        return self.images[indices]


def _reading(network: Trained, arrays: memory.Arrays | None) -> Trained:
    """The network with its data in these arrays; the network itself without any."""
    if arrays is None:
        return network
    memory.know(arrays)
    data = dataclasses.replace(network.config.data, source=arrays.source)
    return dataclasses.replace(network, config=dataclasses.replace(network.config, data=data))
