"""Several runs that answer together, from Python."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxcnn.api import arguments
from jaxcnn.api import images as forms
from jaxcnn.api.errors import python_words
from jaxcnn.api.run import SPLITS, Run, load
from jaxcnn.api.shown import Figures, Predictions
from jaxcnn.config import UserError
from jaxcnn.train import assess
from jaxcnn.train import ensemble as ensembles

_log = logging.getLogger(__name__)


def ensemble(runs: Sequence[Run | str | os.PathLike[str]]) -> "Ensemble":
    """Runs of one task that answer together: the mean of their probabilities, each with its own temperature.

        jaxcnn.ensemble(["runs/a", "runs/b"]).evaluate("test")

    Args:
      runs: runs, or their workdirs.

    Raises:
      UserError: there are fewer than two, or their tasks, classes or images differ, or the task has no probabilities.
    """
    given = arguments.several("runs", runs, "a list of runs or of their workdirs")
    return Ensemble([each if isinstance(each, Run) else load(each) for each in given])


class Ensemble:
    """Runs that answer together. `jaxcnn.ensemble` returns one.

    Attributes:
      runs: the runs, in order; images are read as in the first one.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        with python_words():
            self._whole = ensembles.of([run.workdir for run in runs], [run.network.trained for run in runs])

    def __repr__(self) -> str:
        return f"<ensemble of {len(self.runs)} runs: {', '.join(str(run.workdir) for run in self.runs)}>"

    def probabilities(self, images: Any) -> Float32[np.ndarray, "n k"]:
        """The mean of the networks' probabilities of each class, for each image; images as for `run.predict`.

        Returns:
          An array [N, K] for N images and K classes, from 0 to 1.

        Raises:
          UserError: there is no image, or something is not an image.
        """
        first = self.runs[0].network.trained
        shape, evaluation = first.spec.image_shape, first.spec.task.evaluation
        parts: list[np.ndarray] = []
        with python_words():
            for batch in forms.batches(images, shape, first.config.data):
                found = evaluation.probabilities(self._whole.outputs(forms.stacked(batch)))
                assert found is not None  # by `ensemble.of`
                parts.append(found)
        if not parts:
            raise UserError("images has no image")
        return np.concatenate(parts)

    def predict(self, images: Any, *, on_error: str = "raise") -> Predictions:
        """The answer for each image, as from `run.predict`.

        Args:
          images: as for `run.predict`.
          on_error: what to do about an unreadable image file: "raise", or "skip", which gives "file" and "error" only.

        Raises:
          UserError: there is no such `on_error`, or something is not an image.
        """
        return self.runs[0].network._answered(images, self._whole.answers, on_error)

    def evaluate(self, split: str = "test", *, data: Any = None, batch_size: int = 0) -> Figures:
        """The figures of the ensemble on a split; "members" has those of each run alone.

        Args:
          split: "train", "val" or "test" of the data of the first run; all runs must have the same.
          data: where the data is now, as for `run.evaluate`.
          batch_size: examples per batch; 0: as in training.

        Raises:
          UserError: a run has another split or none, or its data is not there.
        """
        first = self.runs[0]
        arguments.number("batch_size", batch_size, 0)
        if split not in SPLITS:
            raise UserError(f"split must be train, val or test, not {split!r}")
        with python_words():
            ensembles.check_split(self._whole, split)
            network, path, _kept = first._at(data)
            found, notes = assess.open_split(network, first.workdir, split, path)
            for note in notes:
                _log.warning(note)
            return Figures(self._whole.evaluate(found, batch_size))
